"""What the outbox holds, in memory: rebuilt from the log's frames at opening, kept in step with every frame written.

Touches no file. A frame changes it the same way whether it was just written or is read back.
"""

from __future__ import annotations

import msgspec

from pcs_agent.outbox.entry import (
    ACK_KIND,
    DEAD_KIND,
    ENTRY_KIND,
    REDRIVE_KIND,
    AckEnvelope,
    DeadEnvelope,
    Entry,
    EntryEnvelope,
    RedriveEnvelope,
    State,
    Verdict,
)
from pcs_core.identity import PcsId
from pcs_core.wal import Frame, Ledger, Position

# An entry keeps its segment by being open, not by its age: what counts is when it was delivered.
_AGELESS = float("-inf")


class Index:
    """Entries by number and by pcs_id, and which segments they keep.

    Attributes:
        unreadable_frames: Valid frames that say nothing this version understands.
    """

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self._by_pcs_id: dict[PcsId, Entry] = {}
        self._ledger = Ledger()
        self._newest_ack_s: dict[int, float] = {}
        self.unreadable_frames = 0

    def __getitem__(self, seq: int) -> Entry:
        return self._entries[seq]

    def find(self, pcs_id: PcsId) -> Entry | None:
        """Return the newest entry of that record."""
        return self._by_pcs_id.get(pcs_id)

    def in_state(self, state: State) -> list[Entry]:
        """Return the entries in a state, oldest first."""
        return sorted(
            (entry for entry in self._entries.values() if entry.state is state), key=lambda entry: entry.seq
        )

    def live(self) -> list[Entry]:
        """Return what must not be lost: pending entries and dead letters."""
        return [entry for entry in self._entries.values() if entry.state is not State.ACKED]

    def apply(self, position: Position, frame: Frame) -> None:
        """Take one frame as read back."""
        try:
            match frame.kind:
                case kind if kind == ENTRY_KIND:
                    self.note_entry(msgspec.json.decode(frame.envelope, type=EntryEnvelope), position)
                case kind if kind == ACK_KIND:
                    self.note_ack(msgspec.json.decode(frame.envelope, type=AckEnvelope), position)
                case kind if kind == DEAD_KIND:
                    self.note_dead(msgspec.json.decode(frame.envelope, type=DeadEnvelope))
                case kind if kind == REDRIVE_KIND:
                    self.note_redrive(msgspec.json.decode(frame.envelope, type=RedriveEnvelope))
                case _:
                    self.unreadable_frames += 1
        except (ValueError, RecursionError):  # whatever bytes can make msgspec raise
            self.unreadable_frames += 1

    def note_entry(self, envelope: EntryEnvelope, position: Position) -> Entry:
        """Take an entry, new or written again; returns it."""
        pcs_id = PcsId(envelope.pcs_id)
        for seq in (envelope.seq, envelope.replaces):
            if seq is not None and (old := self._entries.pop(seq, None)) is not None:
                self._ledger.close(old.position.sequence)
        entry = Entry(envelope.seq, pcs_id, envelope.time_s, position, changed_s=envelope.time_s)
        if envelope.burial is not None:
            entry.state, entry.verdict = State.DEAD, Verdict.DEAD
            entry.changed_s, entry.reason = envelope.burial.time_s, envelope.burial.reason
        self._entries[entry.seq] = entry
        self._by_pcs_id[pcs_id] = entry
        self._ledger.open(position.sequence, position, _AGELESS)
        return entry

    def note_ack(self, envelope: AckEnvelope, position: Position) -> None:
        """Take an acknowledgement."""
        entry = self._entries.get(envelope.seq)
        if entry is None:
            return
        entry.state, entry.verdict, entry.reason = State.ACKED, envelope.verdict, ""
        entry.changed_s = envelope.time_s
        self._ledger.close(entry.position.sequence)
        # Entry and acknowledgement stay for the retention, wherever they stand.
        for segment in (entry.position.segment, position.segment):
            self._ledger.note_time(segment, envelope.time_s)
            self._newest_ack_s[segment] = max(envelope.time_s, self._newest_ack_s.get(segment, 0.0))

    def note_dead(self, envelope: DeadEnvelope) -> None:
        """Take a burial."""
        entry = self._entries.get(envelope.seq)
        if entry is not None and entry.state is State.PENDING:
            entry.state, entry.verdict = State.DEAD, Verdict.DEAD
            entry.changed_s, entry.reason = envelope.time_s, envelope.reason

    def note_redrive(self, envelope: RedriveEnvelope) -> None:
        """Take a redrive."""
        entry = self._entries.get(envelope.seq)
        if entry is not None and entry.state is State.DEAD:
            entry.state, entry.verdict = State.PENDING, Verdict.PENDING
            entry.changed_s, entry.reason = envelope.time_s, ""

    def move(self, entry: Entry, position: Position) -> None:
        """Note that an entry now stands elsewhere in the log."""
        self._ledger.close(entry.position.sequence)
        entry.position = position
        self._ledger.open(position.sequence, position, _AGELESS)

    def newest_ack_s(self, segment: int) -> float:
        """Return when the last record was delivered that this segment tells of; minus infinity if none was."""
        return self._newest_ack_s.get(segment, float("-inf"))

    def retirable(self, sealed_segments: list[int], cutoff_s: float) -> list[int]:
        """Return the oldest segments that hold nothing live and nothing delivered since, in order."""
        return self._ledger.retirable(sealed_segments, cutoff_s)

    def forget_segment(self, segment: int) -> None:
        """Drop what is known of a segment that was removed."""
        self._ledger.forget(segment)
        self._newest_ack_s.pop(segment, None)

    def forget_expired(self, cutoff_s: float) -> None:
        """Drop records delivered before that time; their bytes go with their segment."""
        for entry in list(self._entries.values()):
            if entry.state is State.ACKED and entry.changed_s < cutoff_s:
                del self._entries[entry.seq]
                if self._by_pcs_id.get(entry.pcs_id) is entry:
                    del self._by_pcs_id[entry.pcs_id]
