"""An inbox read back for people: what came, newest first, and what became of it as far as the log says.

It reads beside the process that serves, and changes nothing. What a refused request says of itself is told as it came:
nothing of it was proved.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import orjson

from pcs_backend.batch import is_batch, split_records
from pcs_backend.errors import TooLargeError
from pcs_backend.exchange import Request
from pcs_backend.inbox.frames import (
    OUTCOME_KINDS,
    FrameKind,
    Refusal,
    decode_refusal,
    decode_request,
    decode_settled,
    requests_closed,
)
from pcs_backend.inflate import inflate
from pcs_core.errors import MalformedError
from pcs_core.identity import EPOCH_MAX, is_pcs_id, is_shard_id
from pcs_core.wal import Files, Frame, read_newest_first
from pcs_core.wal.frame import FRAME_BYTES_MAX

_INFLATED_BYTES_MAX = FRAME_BYTES_MAX
"""Above every `MAX_BATCH_BYTES`: what was taken in is shown."""


class Wanted(NamedTuple):
    """Which requests are wanted; empty means all.

    Attributes:
        pcs_id: Of the record.
        shard_id: Of the record.
        since_ms: Received then or later, milliseconds since 1970.
        until_ms: Received before.
    """

    pcs_id: str = ""
    shard_id: str = ""
    since_ms: int = 0
    until_ms: int | None = None


class Arrival(NamedTuple):
    """One record that came.

    Attributes:
        worker: Whose inbox.
        sequence: The frame of its request there.
        request: As it came; of a batch, with the body of this record alone.
        pcs_id: What the record says; like the next two, empty where it cannot be read.
        shard_id: What the record says.
        epoch: What the record says.
        refusal: Kind of problem it was refused with, if it was.
        settled: Whether the log notes that its outcome is stored.
    """

    worker: str
    sequence: int
    request: Request
    pcs_id: str
    shard_id: str
    epoch: int | None
    refusal: str
    settled: bool


class _Notes:
    """What the log says of requests that stand before."""

    def __init__(self) -> None:
        self.refusals: dict[int, Refusal] = {}
        self.settled: set[int] = set()

    def take(self, frame: Frame) -> None:
        match frame.kind:
            case FrameKind.REFUSAL:
                refusal = decode_refusal(frame.envelope)
                self.refusals[refusal.request] = refusal
                if refusal.records:  # the others of the batch have their outcome
                    self.settled.add(refusal.request)
            case FrameKind.SETTLED:
                self.settled.update(decode_settled(frame.envelope))
            case kind if kind in OUTCOME_KINDS:
                self.settled.update(requests_closed(frame))

    def forget_from(self, sequence: int) -> None:
        """Drop what is said of this request and later ones: they were seen."""
        self.refusals = {each: refusal for each, refusal in self.refusals.items() if each < sequence}
        self.settled = {each for each in self.settled if each < sequence}


def read_arrivals(folder: str, worker: str, files: Files, wanted: Wanted) -> Iterator[Arrival]:
    """Yield wanted records of one inbox, newest first.

    Args:
        folder: Of the inbox.
        worker: Its name.
        files: The disk.
        wanted: Which.

    Raises:
        WalError, OSError: The disk does not give it.
    """
    notes = _Notes()
    for frames in read_newest_first(folder, files):
        requests: list[Frame] = []
        first = None
        is_young = False
        for frame in frames:
            if first is None:
                first = frame.sequence
            if frame.kind == FrameKind.REQUEST:
                is_young = is_young or _received_at_ms(frame) >= wanted.since_ms
                if _may_be_wanted(frame, wanted):
                    requests.append(frame)
            else:
                notes.take(frame)
        for frame in reversed(requests):
            for arrival in reversed(_arrivals(worker, frame, notes)):
                if _is_wanted(arrival, wanted):
                    yield arrival
        if first is not None:
            notes.forget_from(first)
        if first is not None and not is_young:
            return


def _received_at_ms(frame: Frame) -> int:
    return decode_request(frame.envelope, b"").envelope.received_at_ms


def _may_be_wanted(frame: Frame, wanted: Wanted) -> bool:
    if decode_request(frame.envelope, b"").envelope.content_encoding:
        return True
    return _may_name(frame.payload, wanted.pcs_id) and _may_name(frame.payload, wanted.shard_id)


def _may_name(body: bytes, name: str) -> bool:
    """Whether a body may hold a name: cheaper than parsing it. With a backslash it may stand there in other spellings."""
    return name.encode() in body or b"\\" in body


def _arrivals(worker: str, frame: Frame, notes: _Notes) -> list[Arrival]:
    request = decode_request(frame.envelope, frame.payload)
    refusal = notes.refusals.get(frame.sequence)
    bodies = [request.body]
    if is_batch(request):
        with contextlib.suppress(MalformedError, TooLargeError):  # it was refused as a whole
            bodies = split_records(_inflated(request), request.envelope.content_type)
    arrivals = []
    for position, body in enumerate(bodies):
        pcs_id, shard_id, epoch = _read_names(body)
        arrival = Arrival(
            worker=worker,
            sequence=frame.sequence,
            request=request._replace(body=body),
            pcs_id=pcs_id,
            shard_id=shard_id,
            epoch=epoch,
            refusal="" if refusal is None else refusal.problem or refusal.records.get(position, ""),
            settled=frame.sequence in notes.settled,
        )
        arrivals.append(arrival)
    return arrivals


def _inflated(request: Request) -> bytes:
    encoding = request.envelope.content_encoding
    return inflate(encoding, request.body, _INFLATED_BYTES_MAX) if encoding else request.body


def _read_names(body: bytes) -> tuple[str, str, int | None]:
    """Return pcs_id, shard and epoch where the contract's form allows them."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", "", None
    if not isinstance(document, dict):
        return "", "", None
    pcs_id, shard_id, epoch = (document.get(name) for name in ("pcs_id", "shard_id", "epoch"))
    return (
        pcs_id if isinstance(pcs_id, str) and is_pcs_id(pcs_id) else "",
        shard_id if isinstance(shard_id, str) and is_shard_id(shard_id) else "",
        epoch if type(epoch) is int and 0 <= epoch <= EPOCH_MAX else None,
    )


def _is_wanted(arrival: Arrival, wanted: Wanted) -> bool:
    at_ms = arrival.request.envelope.received_at_ms
    return (
        at_ms >= wanted.since_ms
        and (wanted.until_ms is None or at_ms < wanted.until_ms)
        and wanted.pcs_id in ("", arrival.pcs_id)
        and wanted.shard_id in ("", arrival.shard_id)
    )
