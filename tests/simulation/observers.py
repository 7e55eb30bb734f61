"""Where the checker listens: around calls of the shipped code, which run as they are.

Each observer calls what it stands before, with the same arguments, and returns or raises the same. It only tells the model.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from unittest import mock

import msgspec

from pcs_agent.outbox import Entry, Outbox, State, Verdict
from pcs_backend.exchange import NDJSON_TYPE, Reply, Request
from pcs_backend.pipeline import Pipeline
from pcs_core.record import Record
from pcs_core.wal import Frame, NewFrame, Position, Wal
from simulation.boxes import Boxes
from simulation.logs import Logs
from simulation.machine import machine_here
from simulation.model import Model
from simulation.trace import Trace


@contextlib.contextmanager
def observing(model: Model, logs: Logs, boxes: Boxes, trace: Trace) -> Iterator[None]:
    """Listen while the context is open."""
    with contextlib.ExitStack() as stack:
        for owner, name, observer in (
            (Wal, "open", _wal_open(logs)),
            (Wal, "commit", _wal_commit(logs)),
            (Wal, "remove_oldest", _wal_remove(logs)),
            (Pipeline, "submit", _submit(model, logs, trace)),
            (Outbox, "open", _outbox_open(boxes)),
            (Outbox, "append", _outbox_append(boxes)),
            (Outbox, "ack", _outbox_ack(boxes)),
            (Outbox, "bury", _outbox_bury(boxes)),
            (Outbox, "redrive", _outbox_redrive(boxes)),
        ):
            stack.enter_context(mock.patch.object(owner, name, observer(getattr(owner, name))))
        yield


Observer = Callable[[Callable[..., Any]], Callable[..., Any]]


def _wal_open(logs: Logs) -> Observer:
    def observer(original: Callable[..., Any]) -> Callable[..., Any]:
        def open_(wal: Wal, visit: Callable[[Position, Frame], None]) -> None:
            shown: list[tuple[Position, Frame]] = []

            def both(position: Position, frame: Frame) -> None:
                shown.append((position, frame))
                visit(position, frame)

            machine = machine_here()
            present = [
                os.path.basename(path)
                for path, _ in machine.disk.files()
                if os.path.dirname(path) == wal._folder.path and path.endswith(".wal")
            ]
            original(wal, both)
            logs.note_opening(machine, wal._folder.path, shown, wal.damages, present)

        return open_

    return observer


def _wal_commit(logs: Logs) -> Observer:
    def observer(original: Callable[..., Any]) -> Callable[..., Any]:
        def commit(wal: Wal, frames: Sequence[NewFrame]) -> list[Position]:
            positions: list[Position] = original(wal, frames)
            logs.note_commit(machine_here(), wal._folder.path, frames, positions)
            return positions

        return commit

    return observer


def _wal_remove(logs: Logs) -> Observer:
    def observer(original: Callable[..., Any]) -> Callable[..., Any]:
        def remove_oldest(wal: Wal, segment: int) -> None:
            logs.note_removal(machine_here(), wal._folder.path, segment)
            original(wal, segment)
            logs.forget_removed(machine_here(), wal._folder.path, segment)

        return remove_oldest

    return observer


def _submit(model: Model, logs: Logs, trace: Trace) -> Observer:
    def observer(original: Callable[..., Any]) -> Callable[..., Any]:
        async def submit(pipeline: Pipeline, requests: Sequence[Request]) -> list[Reply]:
            machine = machine_here()
            asked_s = machine.loop.time()
            deliveries = [model.note_delivery(request) for request in requests]
            replies: list[Reply] = await original(pipeline, requests)
            for request, delivered, reply in zip(requests, deliveries, replies, strict=True):
                trace.note("reply", machine.name, reply.status, len(reply.body), len(request.body))
                for delivery, answer in zip(delivered, _answers(reply, len(delivered)), strict=True):
                    model.note_reply(delivery, answer, asked_s)
                if reply.status in {200, 202, 400, 401} and not logs.has_request(machine, request.body):
                    model.violate("lost: answered without the request on disk:", reply.status)
            return replies

        return submit

    return observer


class _Entry(msgspec.Struct):
    """One record's part of the answer to a batch."""

    status: int
    replayed: bool
    conflict: bool
    body: msgspec.Raw


def _answers(reply: Reply, records: int) -> list[Reply]:
    """Return the answer to each record of a request."""
    if reply.content_type != NDJSON_TYPE:
        return [reply] * records
    entries = [msgspec.json.decode(line, type=_Entry) for line in bytes(reply.body).splitlines()]
    return [
        Reply(
            each.status,
            bytes(each.body),
            headers={"Idempotent-Replayed": "true"} if each.replayed else {},
        )
        for each in entries
    ]


def _outbox_open(boxes: Boxes) -> Observer:
    def observer(original: Callable[..., Any]) -> Callable[..., Any]:
        def open_(outbox: Outbox) -> None:
            original(outbox)
            boxes.check(machine_here(), outbox)

        return open_

    return observer


def _outbox_append(boxes: Boxes) -> Observer:
    def observer(original: Callable[..., Any]) -> Callable[..., Any]:
        def append(outbox: Outbox, records: Sequence[Record]) -> list[Entry]:
            machine, pcs_ids = machine_here(), [record.pcs_id for record in records]
            boxes.begin(machine, pcs_ids, State.PENDING)
            entries: list[Entry] = original(outbox, records)
            boxes.finish(machine, {entry.pcs_id: entry.seq for entry in entries}, State.PENDING)
            return entries

        return append

    return observer


def _outbox_ack(boxes: Boxes) -> Observer:
    def observer(original: Callable[..., Any]) -> Callable[..., Any]:
        def ack(outbox: Outbox, answers: Sequence[tuple[int, Verdict]]) -> None:
            machine = machine_here()
            found = {outbox.entry(seq).pcs_id: seq for seq, _ in answers}
            for pcs_id, (_, verdict) in zip(found, answers, strict=True):
                boxes.check_answer(machine, pcs_id, verdict)
            boxes.begin(machine, found, State.ACKED)
            original(outbox, answers)
            boxes.finish(machine, found, State.ACKED)

        return ack

    return observer


def _outbox_bury(boxes: Boxes) -> Observer:
    def observer(original: Callable[..., Any]) -> Callable[..., Any]:
        def bury(outbox: Outbox, burials: Sequence[tuple[int, str]]) -> None:
            machine = machine_here()
            found = {outbox.entry(seq).pcs_id: seq for seq, _ in burials}
            boxes.begin(machine, found, State.DEAD)
            original(outbox, burials)
            boxes.finish(machine, found, State.DEAD)

        return bury

    return observer


def _outbox_redrive(boxes: Boxes) -> Observer:
    def observer(original: Callable[..., Any]) -> Callable[..., Any]:
        def redrive(outbox: Outbox, seqs: Iterable[int]) -> None:
            machine, seqs = machine_here(), list(seqs)
            found = {outbox.entry(seq).pcs_id: seq for seq in seqs}
            boxes.begin(machine, found, State.PENDING)
            original(outbox, seqs)
            boxes.finish(machine, found, State.PENDING)

        return redrive

    return observer
