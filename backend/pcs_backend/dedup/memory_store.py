"""The store for one process without a database: a dictionary, kept on disk by the inbox WAL and a snapshot.

An outcome is in the WAL, synced, before it is returned to anyone: also to those who come second while the sync runs.
The snapshot is written off the path and only shortens the log; between two snapshots the log has what is new. When the
store is full it says so (503); it never evicts an outcome that has not expired.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

import msgspec

from pcs_backend.conformal.memory_calibrations import CalibrationJournal, MemoryCalibrations
from pcs_backend.conformal.shelf import Contents
from pcs_backend.dedup.in_flight import WritesInFlight
from pcs_backend.dedup.store import CONFLICTS_MAX, Candidate, Conflict, Escalation, Placed
from pcs_backend.errors import DataError, StoreFullError, StoreUnavailableError
from pcs_backend.inbox.frames import (
    OUTCOME_KINDS,
    FrameKind,
    artifact_frame,
    conflict_frame,
    decode_ack,
    decode_conflict,
    decode_outcomes,
    labels_frame,
    outcomes_frame,
    promotion_frame,
)
from pcs_backend.outcome import Key, Outcome
from pcs_core.errors import WalError
from pcs_core.ports import Offload, RandomBytes, WallClock
from pcs_core.wal import Files, Frame, NewFrame, read_snapshot, write_snapshot

PURGE_MAX = 10_000
"""Expired outcomes from which on a purge leaves the rest to the next."""

_Id = tuple[str, str]
"""A `Key` as a plain tuple, which is made in a tenth of the time."""

SNAPSHOT_OUTCOMES_PER_FRAME = 256
SNAPSHOT_LABELS_PER_FRAME = 256

_SNAPSHOT_META_KIND = 64
_SNAPSHOT_ACKED_KIND = 65

_HOW_TO_GO_ON = (
    "starting would answer known records anew. Restore the data folder from a backup, or move it away to start without "
    "any memory of earlier records"
)


Check = Callable[[], None]
"""Called again and again in long work; raises when the work is no longer wanted."""


def _go_on() -> None:
    """Want everything."""


class Journal(CalibrationJournal, Protocol):
    """Where the store keeps what it must not lose. Each write returns when it is on disk."""

    @property
    def synced_sequence(self) -> int: ...  # noqa: D102 - highest frame on disk; what is written next comes after it

    async def write_outcomes(self, entries: Sequence[Candidate]) -> None: ...  # noqa: D102 - the class says it
    async def write_acks(self, keys: Sequence[Key]) -> None: ...  # noqa: D102
    async def write_conflicts(self, conflicts: Sequence[Conflict]) -> None: ...  # noqa: D102


class _Meta(msgspec.Struct, frozen=True):
    covered_sequence: int


class _Contents(NamedTuple):
    covered_sequence: int
    outcomes: list[Outcome]
    acked: list[_Id]
    conflicts: list[Conflict]
    calibrations: Contents


class MemoryStore:
    """Outcomes of one process.

    Attributes:
        calibrations: What verdicts are calibrated with, in the same log and snapshot.
        covered_sequence: Every outcome up to this frame of the log is in the snapshot on disk.
    """

    def __init__(self, *, now: WallClock, journal: Journal, records_max: int) -> None:
        """Start empty.

        Args:
            now: Judges expiry.
            journal: Makes writes durable.
            records_max: Outcomes held at most; beyond it `put_first` refuses.
        """
        self._now = now
        self._journal = journal
        self._records_max = records_max
        self._outcomes: dict[_Id, Outcome] = {}
        # A heap, because a restart may have changed how long outcomes live. Entries of outcomes gone before are passed over.
        # One entry for what was kept together.
        self._expiries: list[tuple[int, list[_Id]]] = []
        self._escalations: dict[_Id, None] = {}
        self._conflicts: dict[str, dict[tuple[str, str], Conflict]] = {}
        self._syncing: dict[_Id, asyncio.Future[None]] = {}
        self._acking: set[_Id] = set()
        self._in_flight = WritesInFlight(lambda: journal.synced_sequence)
        self.calibrations = MemoryCalibrations(now=now, journal=journal, writing=self._in_flight.writing)
        self.covered_sequence = 0

    def __len__(self) -> int:
        return len(self._outcomes)

    async def open(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nothing to give back."""

    async def ping(self) -> None:
        """Always answers."""

    async def get(self, keys: Sequence[Key]) -> list[Outcome | None]:
        """As `DedupStore.get`; waits for the sync of what is just being stored."""
        found = []
        for key in keys:
            if (syncing := self._syncing.get(key)) is not None:
                await asyncio.shield(syncing)
            found.append(self._unexpired(key))
        return found

    async def put_first(self, candidates: Sequence[Candidate]) -> list[Placed]:
        """As `DedupStore.put_first`. On return the winners are in the WAL, synced.

        Raises:
            StoreFullError: There was not room for all; it says what became of each, the known ones included.
            InboxUnavailableError: The WAL refused; then nothing of the batch is stored.
        """
        now_ms = self._now() * 1_000
        outcomes, syncing = self._outcomes, self._syncing
        keys = [(each.outcome.shared.tenant, each.outcome.pcs_id) for each in candidates]
        new: dict[_Id, Candidate] = {}
        others: list[_Id] = []
        for key, candidate in zip(keys, candidates, strict=True):
            known = outcomes.get(key)
            if key in new or key in syncing or (known is not None and known.shared.expires_at_ms > now_ms):
                others.append(key)
            else:
                new[key] = candidate
        if self._room() < len(new):
            self._purge()
        left_out = list(new)[self._room() :]
        for key in left_out:
            del new[key]
        if new:
            await self._store(new)
            if not others and not left_out:
                return [Placed(candidate.outcome, first=True) for candidate in candidates]
        for key in others:
            if (waiting := self._syncing.get(key)) is not None:
                await asyncio.shield(waiting)
        placed = [
            Placed(candidate.outcome, first=True) if new.get(key) is candidate else self._winner(key)
            for key, candidate in zip(keys, candidates, strict=True)
        ]
        winners = [each for each in placed if each is not None]
        if len(winners) == len(placed):
            return winners
        if left_out:
            raise StoreFullError("the memory store is full", placed)
        raise StoreUnavailableError("the first outcome expired while it was read")

    async def note_conflicts(self, conflicts: Sequence[Conflict]) -> None:
        """As `DedupStore.note_conflicts`."""
        unknown = [
            each
            for each in conflicts
            if (each.pcs_id, each.fingerprint) not in self._conflicts.get(each.tenant, {})
        ]
        if unknown:
            with self._in_flight.writing():
                await self._journal.write_conflicts(unknown)
                for conflict in unknown:
                    self._keep_conflict(conflict)

    async def list_conflicts(self, tenant: str, limit: int) -> list[Conflict]:
        """As `DedupStore.list_conflicts`."""
        return list(islice(reversed(self._conflicts.get(tenant, {}).values()), limit))

    async def list_escalations(self, tenant: str, limit: int) -> list[Escalation]:
        """As `DedupStore.list_escalations`."""
        return list(islice(self._open_escalations(tenant), limit))

    async def ack_escalations(self, keys: Sequence[Key]) -> list[bool]:
        """As `DedupStore.ack_escalations`. On return it is in the WAL, synced."""
        done = []
        for key in keys:
            is_open = (
                key in self._escalations and key not in self._acking and self._unexpired(key) is not None
            )
            done.append(is_open)
            if is_open:
                self._acking.add(key)
        acked = [key for key, is_open in zip(keys, done, strict=True) if is_open]
        try:
            if acked:
                with self._in_flight.writing():
                    await self._journal.write_acks(acked)
                    for key in acked:
                        self._escalations.pop(key, None)
        finally:
            self._acking.difference_update(acked)
        return done

    async def purge_expired(self) -> int:
        """As `DedupStore.purge_expired`."""
        return self._purge()

    async def durability_warnings(self) -> list[str]:
        """The WAL is as durable as its disk."""
        return []

    def restore_snapshot(self, files: Files, path: str, check: Check = _go_on) -> str | None:
        """Load the snapshot, before the log is replayed. Returns why it could not be loaded."""
        try:
            frames = read_snapshot(files, path, check)
        except FileNotFoundError:
            return "is missing"
        except WalError as error:
            return f"cannot be used ({error})"
        self._load(frames)
        return None

    def check_restored(self, snapshot_problem: str | None, *, log_begins_at: int) -> None:
        """Check, after the log was replayed, that nothing of the past is missing.

        Args:
            snapshot_problem: What `restore_snapshot` returned.
            log_begins_at: Lowest number the log may still hold. From 1 on it alone has rebuilt everything; from a higher
                one on, the snapshot must have what is below.

        Raises:
            DataError: Something is. Starting as if empty would count duplicates as new.
        """
        if snapshot_problem is not None and log_begins_at > 1:
            raise DataError(
                f"the memory store's snapshot {snapshot_problem}, and the log no longer reaches back to the first "
                f"record; {_HOW_TO_GO_ON}"
            )
        if self.covered_sequence > self._journal.synced_sequence:
            raise DataError(f"the memory store's snapshot is newer than the log beside it; {_HOW_TO_GO_ON}")
        if snapshot_problem is None and self.covered_sequence < log_begins_at - 1:
            raise DataError(f"the memory store's snapshot is older than the log beside it; {_HOW_TO_GO_ON}")

    def replay(self, sequence: int, frame: Frame) -> None:
        """Apply a frame of the log that is newer than the snapshot. Safe to call with any frame, in order."""
        if sequence <= self.covered_sequence:
            return
        match frame.kind:
            case kind if kind in OUTCOME_KINDS:
                known = self._outcomes
                self._keep(
                    {
                        key: outcome
                        for key, outcome in _by_id(decode_outcomes(frame)).items()
                        if (first := known.get(key)) is None or first.expires_at_ms <= outcome.stored_at_ms
                    }
                )
            case FrameKind.ACK:
                self._escalations.pop(decode_ack(frame.envelope), None)
            case FrameKind.CONFLICT:
                self._keep_conflict(decode_conflict(frame.envelope))
            case _:
                self.calibrations.replay(frame)

    async def save_snapshot(
        self, files: Files, random_bytes: RandomBytes, offload: Offload, path: str, check: Check = _go_on
    ) -> None:
        """Write the snapshot off the event loop. On return it is on disk.

        Raises:
            OSError: The disk refused; the old snapshot stands, as after what `check` raises.
        """
        contents = _Contents(
            # What is being written now has frames, but is not in memory yet: it is left to the log.
            covered_sequence=self._in_flight.covered_sequence,
            outcomes=list(self._outcomes.values()),
            acked=[
                key for key, each in self._outcomes.items() if each.escalated and key not in self._escalations
            ],
            conflicts=[conflict for own in self._conflicts.values() for conflict in own.values()],
            calibrations=self.calibrations.contents(),
        )
        await offload.run(
            lambda: write_snapshot(files, random_bytes, path, _snapshot_frames(contents, check))
        )
        self.covered_sequence = contents.covered_sequence

    def _load(self, frames: list[Frame]) -> None:
        self.covered_sequence = snapshot_coverage(frames)
        for frame in frames:
            match frame.kind:
                case kind if kind in OUTCOME_KINDS:
                    self._keep(_by_id(decode_outcomes(frame)))
                case FrameKind.CONFLICT:
                    self._keep_conflict(decode_conflict(frame.envelope))
                case _ if frame.kind == _SNAPSHOT_ACKED_KIND:
                    self._escalations.pop(
                        Key(*msgspec.json.decode(frame.envelope, type=tuple[str, str])), None
                    )
                case _:
                    self.calibrations.replay(frame)

    async def _store(self, new: dict[_Id, Candidate]) -> None:
        """Hold the keys, sync, then store. Whoever comes for one of them meanwhile waits for the same sync."""
        synced: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for key in new:
            self._syncing[key] = synced
        try:
            with self._in_flight.writing():
                await self._journal.write_outcomes(list(new.values()))
                self._keep({key: candidate.outcome for key, candidate in new.items()})
        except BaseException as error:
            failure = (
                error if isinstance(error, Exception) else StoreUnavailableError("the write was cut short")
            )
            synced.set_exception(failure)
            synced.exception()  # nobody need be waiting
            raise
        else:
            synced.set_result(None)
        finally:
            for key in new:
                del self._syncing[key]

    def _winner(self, key: _Id) -> Placed | None:
        outcome = self._unexpired(key)
        return None if outcome is None else Placed(outcome, first=False)

    def _room(self) -> int:
        """How many outcomes fit."""
        return max(0, self._records_max - len(self._outcomes) - len(self._syncing))

    def _purge(self) -> int:
        now_ms = self._now() * 1_000
        purged = 0
        while self._expiries and self._expiries[0][0] <= now_ms and purged < PURGE_MAX:
            expires_at_ms, keys = heapq.heappop(self._expiries)
            for key in keys:
                outcome = self._outcomes.get(key)
                if outcome is not None and outcome.expires_at_ms == expires_at_ms:
                    self._forget(key)
                    purged += 1
        return purged

    def _unexpired(self, key: _Id) -> Outcome | None:
        outcome = self._outcomes.get(key)
        return outcome if outcome is not None and outcome.expires_at_ms > self._now() * 1_000 else None

    def _keep(self, outcomes: Mapping[_Id, Outcome]) -> None:
        expiries: dict[int, list[_Id]] = {}
        for key, outcome in outcomes.items():
            if key in self._outcomes:
                self._forget(key)
            self._outcomes[key] = outcome
            shared = outcome.shared
            expiries.setdefault(shared.expires_at_ms, []).append(key)
            if shared.escalated:
                self._escalations[key] = None
        for expiry in expiries.items():
            heapq.heappush(self._expiries, expiry)

    def _forget(self, key: _Id) -> None:
        self._outcomes.pop(key, None)
        self._escalations.pop(key, None)

    def _keep_conflict(self, conflict: Conflict) -> None:
        own = self._conflicts.setdefault(conflict.tenant, {})
        own.setdefault((conflict.pcs_id, conflict.fingerprint), conflict)
        if len(own) > CONFLICTS_MAX:
            del own[next(iter(own))]

    def _open_escalations(self, tenant: str) -> Iterator[Escalation]:
        for key in self._escalations:
            outcome = self._unexpired(key)
            if outcome is not None and key[0] == tenant:
                yield Escalation(
                    tenant=tenant, pcs_id=key[1], body=outcome.body, stored_at_ms=outcome.stored_at_ms
                )


def _by_id(outcomes: Sequence[Outcome]) -> dict[_Id, Outcome]:
    return {(each.shared.tenant, each.pcs_id): each for each in outcomes}


def snapshot_coverage(frames: Sequence[Frame]) -> int:
    """Return the highest frame of the log that a snapshot of these frames covers."""
    envelopes = [frame.envelope for frame in frames if frame.kind == _SNAPSHOT_META_KIND]
    return max((msgspec.json.decode(each, type=_Meta).covered_sequence for each in envelopes), default=0)


def _snapshot_frames(contents: _Contents, check: Check) -> Iterator[NewFrame]:
    yield NewFrame(_SNAPSHOT_META_KIND, msgspec.json.encode(_Meta(contents.covered_sequence)))
    for first in range(0, len(contents.outcomes), SNAPSHOT_OUTCOMES_PER_FRAME):
        check()
        yield outcomes_frame(contents.outcomes[first : first + SNAPSHOT_OUTCOMES_PER_FRAME], [])
    for key in contents.acked:
        yield NewFrame(_SNAPSHOT_ACKED_KIND, msgspec.json.encode(tuple(key)))
    for conflict in contents.conflicts:
        yield conflict_frame(conflict)
    labels, artifacts, promotions = contents.calibrations
    for first in range(0, len(labels), SNAPSHOT_LABELS_PER_FRAME):
        check()
        yield labels_frame(labels[first : first + SNAPSHOT_LABELS_PER_FRAME])
    yield from map(artifact_frame, artifacts)
    yield from map(promotion_frame, promotions)
