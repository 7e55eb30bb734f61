"""Where a report's streams come from: event files, an outbox, files of records. Reads; sends, signs and changes nothing.

Events are summarised as `pcs-agent run` would, without a signature, and looked up in the outbox: the record of the same
events in the same epoch tells what the backend answered. Where it has not answered, the local checks say what they find.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

import msgspec
import orjson

from pcs_agent import app
from pcs_agent.config import Config
from pcs_agent.errors import InputError
from pcs_agent.events import STANDARD_INPUT
from pcs_agent.outbox import Verdict
from pcs_agent.outbox.beside import RECORDS_MAX, read_beside
from pcs_agent.pipeline import summarise
from pcs_agent.report.portrait import portray
from pcs_agent.report.streams import SECTIONS_MAX, Judgement, Streams, WindowView, view_record
from pcs_agent.signals.blocks import as_blocks
from pcs_agent.verification import Finding, check_record
from pcs_agent.wording import display_name
from pcs_core.errors import MalformedError, WalError
from pcs_core.identity import ShardId
from pcs_core.record import Record, decode_record
from pcs_core.redact import redact
from pcs_core.wal import Files, name_of

RECORD_FILE_BYTES_MAX = 256 << 20
"""Largest file of records."""

SHARD_CHARACTERS_MAX = 128
"""Characters that a shard's name made of a file's name may have (contract §1)."""

_NO_SHARD_CHARACTER = re.compile(r"[^A-Za-z0-9._:/@+-]")


class ReportRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be shown.

    Attributes:
        stream: Inputs of events and how to summarise them. With a shard they are one stream in order, as in a run.
        joined: Whether the inputs are one stream; otherwise each is one of its own.
        outbox_dir: Folder of an outbox, `None` for none.
        record_files: Files of records.
    """

    stream: app.StreamRequest
    joined: bool
    outbox_dir: str | None
    record_files: Sequence[str]


class _Known(msgspec.Struct, frozen=True):
    """A record of the outbox."""

    record: Record
    judgement: Judgement


def gather(
    config: Config,
    request: ReportRequest,
    stdin: Callable[[], BinaryIO],
    files: Files,
    warn: Callable[[str], None],
) -> Streams:
    """Read everything that is to be shown.

    Args:
        config: Parameters, and keys to check signatures with.
        request: What to show.
        stdin: Gives standard input.
        files: The disk, for the outbox.
        warn: Told what the user should know.

    Returns:
        The streams; of several inputs of events, one that cannot be read has its problem noted.

    Raises:
        InputError: The only input of events, the outbox or a file of records cannot be read, or there is nothing to show.
    """
    known = {} if request.outbox_dir is None else _read_outbox(config, request.outbox_dir, files, warn)
    by_events = {(each.record.merkle_root, each.record.epoch): pcs_id for pcs_id, each in known.items()}
    streams = Streams()
    requests = list(_split(request))
    for number, (name, stream_request) in enumerate(requests):
        key = f"shard:{stream_request.shard_id}" if request.joined else f"input:{number}"
        draw = number < SECTIONS_MAX
        try:
            for view, root in _read_events(config, stream_request, stdin, warn, draw=draw):
                same = view.pcs_id if view.pcs_id in known else by_events.get((root, view.epoch), "")
                found = known.pop(same, None)
                judgement = view.judgement if found is None else found.judgement
                streams.add(key, name, [msgspec.structs.replace(view, judgement=judgement)])
        except InputError as error:
            if len(requests) == 1:
                raise
            streams.note_problem(key, name, str(error))
    for each in known.values():
        _add_record(streams, each.record, each.judgement)
    for path in request.record_files:
        for record, judgement in _read_records(config, path, stdin):
            _add_record(streams, record, judgement)
    if not any(stream.windows_seen for stream in streams):
        problems = [stream.problem for stream in streams if stream.problem]
        raise InputError((problems or ["found no event and no record; allowed: one or more to show"])[0])
    for stream in streams:
        if stream.problem:
            warn(stream.problem)
    return streams


def _add_record(streams: Streams, record: Record, judgement: Judgement) -> None:
    streams.add(f"shard:{record.shard_id}", redact(record.shard_id), [view_record(record, judgement)])


def _split(request: ReportRequest) -> Iterator[tuple[str, app.StreamRequest]]:
    """Yield the name and the request of each stream of events."""
    stream = request.stream
    if request.joined:
        if stream.inputs:
            yield redact(stream.shard_id), stream
        return
    for path in stream.inputs:
        stem = "stdin" if path == STANDARD_INPUT else os.path.splitext(os.path.basename(path))[0]
        shard = _NO_SHARD_CHARACTER.sub("-", stem)[:SHARD_CHARACTERS_MAX] or "-"
        name = "standard input" if path == STANDARD_INPUT else display_name(path)
        yield name, msgspec.structs.replace(stream, inputs=[path], shard_id=ShardId(shard))


def _read_events(
    config: Config,
    request: app.StreamRequest,
    stdin: Callable[[], BinaryIO],
    warn: Callable[[str], None],
    *,
    draw: bool,
) -> Iterator[tuple[WindowView, str]]:
    """Yield each window's view and Merkle root."""
    with contextlib.ExitStack() as opened:
        windows, job = app.open_unsigned(config, request, stdin, opened, warn)
        for window in windows:
            (summary,) = summarise([window], job, lambda: 0.0)
            record = summary.record
            finding = check_record(msgspec.json.encode(record), (), config.params)
            portrait = (
                portray(as_blocks(window.events), summary.events, record.v_star, job.settings.bins)
                if draw
                else None
            )
            view = view_record(record, _judge(finding), events=summary.events, portrait=portrait)
            yield view, record.merkle_root


def _read_outbox(config: Config, folder: str, files: Files, warn: Callable[[str], None]) -> dict[str, _Known]:
    name = display_name(folder)
    problem = None if os.path.isdir(folder) else "no such folder"
    try:
        seen, more = read_beside(folder, files)
    except OSError as error:
        problem = name_of(error)
    except (WalError, ValueError) as error:
        problem = str(error) if isinstance(error, WalError) else "not a folder's name"
    if problem is not None:
        raise InputError(f"--outbox: {name}: cannot be read: {problem}")
    if more:
        warn(f"--outbox: {name}: found more than {RECORDS_MAX} records; the newest are shown")
    known = {}
    unreadable = 0
    for each in seen:
        try:
            record = decode_record(each.body)
        except MalformedError:
            unreadable += 1
            continue
        checks = _judge(check_record(each.body, config.verification_keys, config.params))
        known[str(record.pcs_id)] = _Known(record, _answer(each.verdict, each.reason, checks))
    if unreadable:
        warn(f"--outbox: {name}: {unreadable} records cannot be read and are left out")
    return known


def _answer(verdict: Verdict, reason: str, checks: Judgement) -> Judgement:
    """Return what the outbox says of a record; the backend's reasons are not kept there, the local ones are told."""
    by_backend = verdict in {Verdict.ACCEPTED, Verdict.ESCALATED}
    reasons = (display_name(reason),) if reason else ()
    return Judgement(word=str(verdict), by_backend=by_backend, reasons=(*reasons, *checks.reasons))


def _judge(finding: Finding) -> Judgement:
    failed = tuple(check.check for check in finding.checks if check.ok is False)
    return Judgement(word="checks fail" if failed else "checks hold", by_backend=False, reasons=failed)


def _read_records(
    config: Config, path: str, stdin: Callable[[], BinaryIO]
) -> Iterator[tuple[Record, Judgement]]:
    """Yield the records of a file: one JSON document, or one a line."""
    name = "standard input" if path == STANDARD_INPUT else display_name(path)
    data = _read_file(name, path, stdin)
    try:
        whole = isinstance(orjson.loads(data), dict)
    except orjson.JSONDecodeError:
        whole = False
    lines = [data] if whole else data.splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        finding = check_record(line, config.verification_keys, config.params)
        if finding.pcs_id is None:
            raise InputError(f"{name}: line {number}: {finding.checks[0].detail}")
        yield decode_record(line), _judge(finding)


def _read_file(name: str, path: str, stdin: Callable[[], BinaryIO]) -> bytes:
    problem = None
    try:
        with contextlib.ExitStack() as opened:
            file = stdin() if path == STANDARD_INPUT else opened.enter_context(open(path, "rb"))
            data = file.read(RECORD_FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or "not a file name"
    if problem is not None:
        raise InputError(f"{name}: cannot be read: {problem}")
    if len(data) > RECORD_FILE_BYTES_MAX:
        raise InputError(f"{name}: found over {RECORD_FILE_BYTES_MAX} bytes; allowed: up to that")
    return data
