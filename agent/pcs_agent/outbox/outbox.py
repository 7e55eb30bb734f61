"""The outbox over the write-ahead log: append, acknowledge, bury, redrive, compact.

Guarantees
    - When `append`, `ack`, `bury` or `redrive` returns, the change is on disk. A crash before leaves the state before;
      a record whose acknowledgement was lost is sent again, and the backend answers it as a duplicate.
    - A pending record or dead letter is never lost: compaction writes it again, synced, before the old segment goes.
    - One pcs_id is pending at most once.

Memory holds one `Entry` per record that is pending, dead or was delivered within the retention; the bytes stay on disk.
Calls may come from any thread, one at a time takes effect.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from pcs_agent.outbox.entry import (
    ACK_KIND,
    DEAD_KIND,
    ENTRY_KIND,
    REASON_CHARACTERS_MAX,
    REDRIVE_KIND,
    AckEnvelope,
    Burial,
    DeadEnvelope,
    Entry,
    EntryEnvelope,
    RedriveEnvelope,
    State,
    Verdict,
)
from pcs_agent.outbox.index import Index
from pcs_core.errors import MalformedError, WalError
from pcs_core.identity import PcsId
from pcs_core.ports import RandomBytes, WallClock
from pcs_core.record import Record, decode_record, encode_record
from pcs_core.wal import Damage, Files, NewFrame, Position, Wal

T = TypeVar("T")

SEGMENT_BYTES = 1 << 20
"""Small, so that delivered records leave the disk soon after their retention: some 500 records a segment."""

CARRY_BYTES_MAX = 4 << 20
"""Live entries written again in one commit."""

DAY_S = 86_400.0


class Compaction(NamedTuple):
    """What a compaction did.

    Attributes:
        segments: Segments removed.
        carried: Live entries that were written again.
        freed_bytes: Size of the log before, less that after.
    """

    segments: int
    carried: int
    freed_bytes: int


class Outbox:
    """The outbox of one folder, locked while it is open."""

    def __init__(
        self,
        folder: str,
        files: Files,
        *,
        clock: WallClock,
        random_bytes: RandomBytes,
        retention_days: float,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        """Name the outbox; `open` reads it."""
        self._wal = Wal(folder, files, random_bytes, segment_bytes=segment_bytes)
        self._clock = clock
        self._retention_s = retention_days * DAY_S
        self._index = Index()
        self._segment_bytes = segment_bytes
        self._guard = threading.Lock()

    def open(self) -> None:
        """Lock the folder and read what is in it; a torn tail is kept aside and cut off.

        Raises:
            WalLockedError: Another process owns the folder.
            OSError: The disk refused.
        """
        try:
            self._wal.open(self._index.apply)
        except BaseException:
            self._wal.close()
            raise
        self._index.forget_expired(self._clock() - self._retention_s)

    def close(self) -> None:
        """Give the folder back, when no other thread is in the middle of a change; later changes are refused."""
        with self._guard:
            self._wal.close()

    @property
    def damages(self) -> list[Damage]:
        """What the log found damaged at opening."""
        return self._wal.damages

    @property
    def unreadable_frames(self) -> int:
        """Valid frames that say nothing this version understands."""
        return self._index.unreadable_frames

    @property
    def torn_bytes(self) -> int:
        """Bytes of a torn tail that were cut off at opening."""
        return self._wal.torn_bytes

    def entries(self, state: State) -> list[Entry]:
        """Return the entries in a state, oldest first."""
        with self._guard:
            return self._index.in_state(state)

    def entry(self, seq: int) -> Entry:
        """Return the entry with that `outbox_seq`, which must be pending, dead or freshly delivered."""
        with self._guard:
            return self._index[seq]

    def find(self, pcs_id: PcsId) -> Entry | None:
        """Return the newest entry of that record, if it is pending, dead or was delivered within the retention."""
        with self._guard:
            return self._index.find(pcs_id)

    def append(self, records: Sequence[Record]) -> list[Entry]:
        """Append signed records. On return they are on disk, each with its `ft.outbox_seq`.

        A dead letter of the same pcs_id is replaced. The caller has checked that none is pending.

        Raises:
            WalFailedError: The disk refused; nothing was appended.
        """
        now_s = self._clock()
        with self._guard:
            first = self._wal.next_sequence
            frames, envelopes = [], []
            for seq, record in enumerate(records, start=first):
                known = self._index.find(record.pcs_id)
                replaces = known.seq if known is not None and known.state is State.DEAD else None
                envelope = EntryEnvelope(seq, record.pcs_id, now_s, replaces)
                numbered = msgspec.structs.replace(
                    record, ft=msgspec.structs.replace(record.ft, outbox_seq=seq)
                )
                frames.append(NewFrame(ENTRY_KIND, msgspec.json.encode(envelope), encode_record(numbered)))
                envelopes.append(envelope)
            positions = self._wal.commit(frames)
            return [
                self._index.note_entry(envelope, position)
                for envelope, position in zip(envelopes, positions, strict=True)
            ]

    def read(self, seq: int) -> bytes:
        """Return a record as appended.

        Raises:
            WalError: Its bytes are damaged, or the disk does not give them.
        """
        with self._guard:  # so that no compaction moves it meanwhile
            return self._wal.read(self._index[seq].position).payload

    def record(self, seq: int) -> Record | None:
        """Return a record as appended, `None` if its bytes are damaged."""
        try:
            return decode_record(self.read(seq))
        except (WalError, MalformedError):
            return None

    def ack(self, answers: Sequence[tuple[int, Verdict]]) -> None:
        """Note the backend's answers, with one sync.

        Args:
            answers: `outbox_seq` and verdict of each record.
        """
        now_s = self._clock()
        envelopes = [AckEnvelope(seq, now_s, verdict) for seq, verdict in answers]
        with self._guard:
            positions = self._commit(ACK_KIND, envelopes)
            for envelope, position in zip(envelopes, positions, strict=True):
                self._index.note_ack(envelope, position)

    def bury(self, burials: Sequence[tuple[int, str]]) -> None:
        """Make pending entries dead letters, with one sync.

        Args:
            burials: `outbox_seq` and reason of each record.
        """
        now_s = self._clock()
        envelopes = [DeadEnvelope(seq, now_s, reason[:REASON_CHARACTERS_MAX]) for seq, reason in burials]
        with self._guard:
            self._commit(DEAD_KIND, envelopes)
            for envelope in envelopes:
                self._index.note_dead(envelope)

    def redrive(self, seqs: Iterable[int]) -> None:
        """Make dead letters pending again. On return that is on disk."""
        with self._guard:
            for seq in seqs:
                envelope = RedriveEnvelope(seq, self._clock())
                self._commit(REDRIVE_KIND, [envelope])
                self._index.note_redrive(envelope)

    def compact(self, *, seal: bool = False) -> Compaction:
        """Remove segments whose delivered records have passed the retention, oldest first.

        What is still pending or dead in them is written again and synced before the segment goes (lesson L20); a
        crash in between leaves both copies, and the later one counts.

        Args:
            seal: Compact the newest segment too, and whatever share of the bytes is live. Without it, only as many
                sealed segments as are for the most part dead weight, so that a backlog is not copied at every run.
        """
        with self._guard:
            before_bytes, cutoff_s = self._wal.size_bytes, self._clock() - self._retention_s
            if seal:
                self._wal.seal()
            carried = 0
            removable = self._ripe_segments(cutoff_s, everything=seal)
            live = [entry for entry in self._index.live() if entry.position.segment in removable]
            for batch in _split(live, CARRY_BYTES_MAX):
                self._carry(batch)
                carried += len(batch)
            retired = [
                segment
                for segment in self._index.retirable(self._wal.removable_segments, cutoff_s)
                if segment in removable
            ]
            for segment in retired:
                self._wal.remove_oldest(segment)
                self._index.forget_segment(segment)
            self._index.forget_expired(cutoff_s)
            return Compaction(len(retired), carried, before_bytes - self._wal.size_bytes)

    def _ripe_segments(self, cutoff_s: float, *, everything: bool) -> set[int]:
        """Return the oldest sealed segments that are worth compacting now."""
        live_bytes: dict[int, int] = {}
        for entry in self._index.live():
            segment = entry.position.segment
            live_bytes[segment] = live_bytes.get(segment, 0) + entry.position.size_bytes
        ripe: list[int] = []
        chosen = live_total = 0
        for segment in self._wal.removable_segments:
            if self._index.newest_ack_s(segment) >= cutoff_s:
                break
            ripe.append(segment)
            live_total += live_bytes.get(segment, 0)
            if everything or live_total * 2 <= len(ripe) * self._segment_bytes:
                chosen = len(ripe)
        return set(ripe[:chosen])

    def _carry(self, entries: Sequence[Entry]) -> None:
        """Write live entries again, whole state in one frame each. On return they are on disk."""
        frames = []
        for entry in entries:
            burial = Burial(entry.changed_s, entry.reason) if entry.state is State.DEAD else None
            envelope = EntryEnvelope(entry.seq, entry.pcs_id, entry.time_s, burial=burial)
            payload = self._wal.read(entry.position).payload
            frames.append(NewFrame(ENTRY_KIND, msgspec.json.encode(envelope), payload))
        for entry, position in zip(entries, self._wal.commit(frames), strict=True):
            self._index.move(entry, position)

    def _commit(self, kind: int, envelopes: Sequence[msgspec.Struct]) -> list[Position]:
        return self._wal.commit([NewFrame(kind, msgspec.json.encode(envelope)) for envelope in envelopes])


def _split(entries: Sequence[Entry], bytes_max: int) -> list[list[Entry]]:
    """Return the entries in runs of bounded size."""
    runs: list[list[Entry]] = []
    size_bytes = 0
    for entry in entries:
        if not runs or size_bytes + entry.position.size_bytes > bytes_max:
            runs.append([])
            size_bytes = 0
        runs[-1].append(entry)
        size_bytes += entry.position.size_bytes
    return runs
