"""What the logs promised: frames, numbers and removals, for inboxes and outboxes alike. Part of the checker."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from pcs_backend.inbox.frames import FrameKind, decode_ack, decode_outcomes, decode_refusal
from pcs_backend.outcome import Outcome
from pcs_core.wal import Damage, Frame, NewFrame, Position
from pcs_core.wal.folder import ANCHOR
from pcs_core.wal.scan import segment_name
from simulation.machine import Machine
from simulation.model import Model, pcs_ids_of


class Kept(NamedTuple):
    """A frame that was promised, and where it stands."""

    frame: NewFrame
    position: Position


@dataclass
class Log:
    """One log."""

    folder: str
    is_inbox: bool
    frames: dict[int, Kept] = field(default_factory=dict)
    highest: int = 0
    refused: set[int] = field(default_factory=set)
    leaving: set[int] = field(default_factory=set)
    to_report: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    stored: set[int] = field(default_factory=set)


class Logs:
    """All logs of a run.

    Attributes:
        frames: How many frames were promised.
        damages_found: Damaged segments that were reported.
        stored: Told of every outcome that an inbox keeps, with whether the commit returned.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._logs: dict[tuple[str, str], Log] = {}
        self.frames = 0
        self.damages_found = 0
        self.stored: Callable[[Machine, Outcome, bool], None] = lambda machine, outcome, returned: None

    def log(self, machine: Machine, folder: str) -> Log:
        """Return the log of a folder."""
        key = (machine.name, folder)
        if key not in self._logs:
            self._logs[key] = Log(folder, is_inbox=os.path.basename(os.path.dirname(folder)) == "wal")
        return self._logs[key]

    def note_commit(
        self, machine: Machine, folder: str, frames: Sequence[NewFrame], positions: Sequence[Position]
    ) -> None:
        """A commit returned: its frames are promised."""
        log = self.log(machine, folder)
        for frame, position in zip(frames, positions, strict=True):
            if position.sequence <= log.highest:
                self._model.violate("sequence number reused:", position.sequence, "in", machine.name, folder)
            log.highest = max(log.highest, position.sequence)
            self._keep(machine, log, Kept(frame, position), returned=True)

    def note_opening(
        self, machine: Machine, folder: str, shown: Sequence[tuple[Position, Frame]], damages: Sequence[Damage],
        segments: Sequence[str],
    ) -> None:  # fmt: skip
        """A log was opened: what is promised must have been shown, and what was shown is promised."""
        log = self.log(machine, folder)
        visited = {position.sequence: Kept(_new(frame), position) for position, frame in shown}
        for sequence, kept in log.frames.items():
            again = visited.get(sequence)
            if again is not None and again.frame == kept.frame:
                continue
            if kept.position.segment not in log.leaving:
                what = "is missing" if again is None else "has other bytes"
                self._model.violate("lost: frame", sequence, what, "in", machine.name, folder)
        self.check_report(machine, log, damages, segments)
        log.to_report.clear()
        log.missing.clear()
        log.frames.clear()
        log.leaving.clear()
        for sequence, kept in visited.items():
            log.highest = max(log.highest, sequence)
            self._keep(machine, log, kept, returned=False)

    def check_report(
        self, machine: Machine, log: Log, damages: Sequence[Damage], segments: Sequence[str]
    ) -> None:
        """Damage was looked for: each segment that was damaged and is still there, or is missing, must be named."""
        reported = {damage.segment for damage in damages}
        # Which segment is the oldest, the anchor tells; which follows another, the seal of that one. After one that is
        # named as missing, nothing tells how many more are.
        missing = {
            name
            for name in log.missing
            if max((each for each in {*segments, *reported} if each < name), default=ANCHOR) not in reported
        }
        for name in sorted(log.to_report & set(segments) | missing):
            self.damages_found += 1
            if name not in reported:
                self._model.violate("damage not reported:", name, "in", machine.name, log.folder)

    def miss(self, machine: Machine, path: str) -> None:
        """A segment is gone that nobody removed."""
        log = self.log(machine, os.path.dirname(path))
        log.missing.add(os.path.basename(path))

    def frames_in(self, machine: Machine, path: str) -> list[Kept]:
        """Return the promised frames of a segment, as they stand."""
        log = self.log(machine, os.path.dirname(path))
        segment = int(os.path.basename(path).partition(".")[0])
        own = [kept for kept in log.frames.values() if kept.position.segment == segment]
        return sorted(own, key=lambda kept: kept.position.offset)

    def begin_repair(self, machine: Machine) -> None:
        """From now on damage may be mended, and need not be reported any more."""
        for (name, _), log in self._logs.items():
            if name == machine.name:
                log.to_report.clear()
                log.missing.clear()

    def note_removal(self, machine: Machine, folder: str, segment: int) -> None:
        """A segment is about to be removed. A crash leaves it or takes it, and nobody misses it any more."""
        log = self.log(machine, folder)
        log.leaving.add(segment)
        log.missing.discard(segment_name(segment))
        if not log.is_inbox:
            return  # whether the outbox keeps what it must is checked by what it holds
        for sequence, kept in log.frames.items():
            if kept.position.segment != segment or kept.frame.kind != FrameKind.REQUEST:
                continue
            records = [self._model.records[pcs_id] for pcs_id in pcs_ids_of(kept.frame.payload)]
            if not all(each.generations for each in records) and sequence not in log.refused:
                self._model.violate("lost: retention removes open request", sequence, "of", machine.name)

    def forget_removed(self, machine: Machine, folder: str, segment: int) -> None:
        """A segment is gone."""
        log = self.log(machine, folder)
        log.frames = {each: kept for each, kept in log.frames.items() if kept.position.segment != segment}

    def has_request(self, machine: Machine, body: bytes) -> bool:
        """Whether an inbox of the machine has promised to keep a request with this body."""
        return any(
            kept.frame.kind == FrameKind.REQUEST and kept.frame.payload == body
            for (name, _), log in self._logs.items()
            if name == machine.name and log.is_inbox
            for kept in reversed(log.frames.values())
        )

    def excuse(self, machine: Machine, path: str, start: int, end: int) -> list[NewFrame]:
        """Bytes of a segment were damaged: return the frames that stood there, which are promised no more."""
        log = self.log(machine, os.path.dirname(path))
        name = os.path.basename(path)
        segment = int(name.partition(".")[0])
        log.to_report.add(name)
        hit = [
            sequence
            for sequence, kept in log.frames.items()
            if kept.position.segment == segment
            and kept.position.offset < end
            and start < kept.position.offset + kept.position.size_bytes
        ]
        frames = [log.frames.pop(sequence).frame for sequence in hit]
        if log.is_inbox:
            self._model.excuse([pcs_id for frame in frames for pcs_id in _pcs_ids_of(log, frame)])
        return frames

    def _keep(self, machine: Machine, log: Log, kept: Kept, *, returned: bool) -> None:
        sequence = kept.position.sequence
        log.frames[sequence] = kept
        self.frames += 1
        if not log.is_inbox:
            return
        if kept.frame.kind == FrameKind.REFUSAL:
            log.refused.add(decode_refusal(kept.frame.envelope).request)
        elif kept.frame.kind == FrameKind.OUTCOMES and sequence not in log.stored:
            log.stored.add(sequence)
            for outcome in decode_outcomes(_framed(kept.frame, sequence)):
                self.stored(machine, outcome, returned)


def _new(frame: Frame) -> NewFrame:
    return NewFrame(frame.kind, frame.envelope, frame.payload)


def _framed(frame: NewFrame, sequence: int) -> Frame:
    return Frame(frame.kind, sequence, frame.envelope, frame.payload)


def _pcs_ids_of(log: Log, frame: NewFrame) -> list[str]:
    """Return whose records a frame of an inbox speaks of, where losing it changes what was promised."""
    match frame.kind:
        case FrameKind.OUTCOMES:
            return [outcome.pcs_id for outcome in decode_outcomes(_framed(frame, 0))]
        case FrameKind.ACK:
            return [decode_ack(frame.envelope).pcs_id]
        case FrameKind.REFUSAL:
            request = log.frames.get(decode_refusal(frame.envelope).request)
            return [] if request is None else pcs_ids_of(request.frame.payload)
        case _:
            return []  # a request: what was answered stands in the store


def outbox_seq_of(frame: NewFrame) -> int:
    """Return the `outbox_seq` that a frame of an outbox speaks of."""
    return int(msgspec.json.decode(frame.envelope)["seq"])
