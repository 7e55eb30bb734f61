"""The memory store over a real inbox and a real disk: what it answers after a restart is what it answered before."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inboxes import NOW_S, WAIT_S, Clock, HeldFiles, turn
from memory_stores import opened
from outcomes import changed
from pcs_backend.dedup.memory_store import MemoryStore
from pcs_backend.dedup.store import Conflict, Placed
from pcs_backend.errors import DataError, InboxUnavailableError, StoreFullError, StoreUnavailableError
from pcs_backend.outcome import Key, Outcome, WholeOutcome
from pcs_logs import segments

LIFE_S = 1_000
TENANT = "default"


def outcome(number: int, *, status: int = 200, body: bytes = b"{}", stored_at_s: float = NOW_S) -> Outcome:
    stored_at_ms = int(stored_at_s * 1_000)
    return WholeOutcome(
        tenant=TENANT,
        pcs_id=hashlib.sha256(b"%d" % number).hexdigest(),
        status=status,
        body=body,
        fingerprint=hashlib.sha256(body).hexdigest(),
        params_version="0.1",
        key_id="",
        stored_at_ms=stored_at_ms,
        expires_at_ms=stored_at_ms + LIFE_S * 1_000,
    ).outcome


def conflict(number: int, fingerprint: str = "f") -> Conflict:
    return Conflict(
        tenant=TENANT, pcs_id=outcome(number).pcs_id, fingerprint=fingerprint, seen_at_ms=int(NOW_S * 1_000)
    )


def keys(*numbers: int) -> list[Key]:
    return [outcome(number).key for number in numbers]


async def queue(store: MemoryStore) -> list[str]:
    return [each.pcs_id for each in await store.list_escalations(TENANT, 1_000)]


@pytest.fixture
def clock() -> Clock:
    return Clock()


class TestRestart:
    @pytest.mark.parametrize("save", ["no snapshot", "before", "between", "after"])
    async def test_everything_comes_back(self, tmp_path: Path, clock: Clock, save: str) -> None:
        """L4: the snapshot shortens the log, and the log has what came after it."""
        async with opened(tmp_path, clock) as first:
            if save == "before":
                await first.save()
            await first.put(outcome(1), outcome(2, status=202, body=b"two"), outcome(3, status=202))
            if save == "between":
                await first.save()
            await first.store.ack_escalations(keys(2))
            await first.store.note_conflicts([conflict(1), conflict(2, "g")])
            await first.put(outcome(4, status=202))
            if save == "after":
                await first.save()
        async with opened(tmp_path, clock) as second:
            assert await second.store.get(keys(1, 2, 3, 4, 5)) == [
                outcome(1),
                outcome(2, status=202, body=b"two"),
                outcome(3, status=202),
                outcome(4, status=202),
                None,
            ]
            assert await queue(second.store) == [outcome(3).pcs_id, outcome(4).pcs_id]
            assert await second.store.list_conflicts(TENANT, 10) == [conflict(2, "g"), conflict(1)]
            assert await second.put(outcome(4, body=b"other")) == [
                Placed(outcome(4, status=202), first=False)
            ]

    async def test_replay_skips_what_the_snapshot_covers(self, tmp_path: Path, clock: Clock) -> None:
        """An acknowledgement in the log must not take off the queue what came back to it after a lifetime."""
        async with opened(tmp_path, clock) as first:
            await first.put(outcome(1, status=202))
            await first.store.ack_escalations(keys(1))
            clock.move(LIFE_S)
            later = outcome(1, status=202, body=b"later", stored_at_s=clock())
            await first.put(later)
            await first.save()
        async with opened(tmp_path, clock) as second:
            assert second.store.covered_sequence == second.inbox.synced_sequence
            assert await second.store.get(keys(1)) == [later]
            assert await queue(second.store) == [later.pcs_id]

    async def test_outcome_that_replaced_an_expired_one_comes_back(
        self, tmp_path: Path, clock: Clock
    ) -> None:
        """The log has both; the later one is what was answered last."""
        async with opened(tmp_path, clock) as first:
            await first.put(outcome(1, status=202), outcome(2))
            clock.move(LIFE_S)
            later = [
                outcome(1, body=b"later", stored_at_s=clock()),
                outcome(2, stored_at_s=clock(), status=202),
            ]
            await first.put(*later)
        async with opened(tmp_path, clock) as second:
            assert await second.store.get(keys(1, 2)) == later
            assert await queue(second.store) == [outcome(2).pcs_id]

    async def test_log_behind_the_snapshot_may_be_removed(self, tmp_path: Path, clock: Clock) -> None:
        """L20: everything is still known when only the snapshot has it."""
        async with opened(tmp_path, clock, segment_bytes=400) as first:
            for number in range(6):
                await first.put(outcome(number, status=202))
            await first.save()
            assert await first.inbox.retire(NOW_S + 1, first.store.covered_sequence) >= 4
        async with opened(tmp_path, clock, segment_bytes=400) as second:
            assert await second.store.get(keys(*range(6))) == [
                outcome(number, status=202) for number in range(6)
            ]

    async def test_snapshot_newer_than_the_log_is_refused(self, tmp_path: Path, clock: Clock) -> None:
        """L5: a log put back from an older backup would give numbers out twice, and replay would skip them."""
        async with opened(tmp_path, clock) as first:
            await first.put(outcome(1))
            await first.put(outcome(2))
            await first.save()
        for segment in segments(tmp_path / "log"):
            segment.unlink()
        with pytest.raises(DataError, match="newer than the log"):
            async with opened(tmp_path, clock):
                pass

    async def test_snapshot_older_than_the_log_is_refused(self, tmp_path: Path, clock: Clock) -> None:
        """L5: a snapshot put back from an older backup lacks what was removed from the log since."""
        snapshot = tmp_path / "outcomes.snap"
        async with opened(tmp_path, clock, segment_bytes=400) as first:
            await first.put(outcome(0))
            await first.save()
            older = snapshot.read_bytes()
            for number in range(1, 6):
                await first.put(outcome(number))
            await first.save()
            assert await first.inbox.retire(NOW_S + 1, first.store.covered_sequence) >= 4
        newest = snapshot.read_bytes()
        snapshot.write_bytes(older)
        with pytest.raises(DataError, match="older than the log"):
            async with opened(tmp_path, clock, segment_bytes=400):
                pass
        snapshot.write_bytes(newest)
        async with opened(tmp_path, clock, segment_bytes=400) as second:
            assert None not in await second.store.get(keys(*range(6)))

    @pytest.mark.parametrize(
        "damage",
        [
            lambda data: b"",
            lambda data: data[:-1],
            lambda data: data[: len(data) // 2],
            lambda data: data[:40] + bytes((data[40] ^ 1,)) + data[41:],
            lambda data: data + b"more",
        ],
        ids=["empty", "one byte short", "half", "one bit", "more"],
    )
    async def test_damaged_snapshot_is_rebuilt_from_a_whole_log_and_refused_beside_a_shortened_one(
        self, tmp_path: Path, clock: Clock, damage
    ) -> None:
        """L5: never as if empty."""
        async with opened(tmp_path, clock, segment_bytes=400) as first:
            for number in range(6):
                await first.put(outcome(number))
            await first.save()
        snapshot = tmp_path / "outcomes.snap"
        whole = snapshot.read_bytes()
        snapshot.write_bytes(damage(whole))
        async with opened(tmp_path, clock, segment_bytes=400) as second:
            assert None not in await second.store.get(keys(*range(6)))
            await second.save()
            assert await second.inbox.retire(NOW_S + 1, second.store.covered_sequence) >= 1
        snapshot.write_bytes(damage(snapshot.read_bytes()))
        with pytest.raises(DataError, match="snapshot cannot be used"):
            async with opened(tmp_path, clock, segment_bytes=400):
                pass
        snapshot.unlink()
        with pytest.raises(DataError, match="snapshot is missing"):
            async with opened(tmp_path, clock, segment_bytes=400):
                pass


class TestSnapshotDuringWrites:
    async def test_snapshot_does_not_cover_what_is_being_written(self, tmp_path: Path, clock: Clock) -> None:
        """L4: what is on disk but not yet in memory is left to the log, so nothing falls between the two."""
        files = HeldFiles()
        async with opened(tmp_path, clock, files) as first:
            await first.put(outcome(1))
            covered = first.inbox.synced_sequence
            files.hold()
            writing = asyncio.create_task(first.put(outcome(2, status=202)))
            await files.reached()
            await first.save()
            assert first.store.covered_sequence == covered
            files.release()
            assert await writing == [Placed(outcome(2, status=202), first=True)]
        async with opened(tmp_path, clock) as second:
            assert second.store.covered_sequence == covered
            assert await second.store.get(keys(1, 2)) == [outcome(1), outcome(2, status=202)]
            assert await queue(second.store) == [outcome(2).pcs_id]

    async def test_snapshot_does_not_cover_what_is_on_disk_and_not_yet_in_memory(
        self, tmp_path: Path, clock: Clock
    ) -> None:
        """L4: the sync is over, and its writer has not heard of it when the snapshot is taken."""
        files = HeldFiles()
        async with opened(tmp_path, clock, files) as first:
            await first.put(outcome(1))
            covered = first.inbox.synced_sequence
            files.hold()
            writing = asyncio.create_task(first.put(outcome(2)))
            await files.reached()
            files.release()
            deadline_s = time.monotonic() + WAIT_S
            while first.inbox.synced_sequence == covered:  # without giving the loop a turn
                assert time.monotonic() < deadline_s
            await first.save()
            assert first.store.covered_sequence == covered
            await writing
        async with opened(tmp_path, clock) as second:
            assert await second.store.get(keys(1, 2)) == [outcome(1), outcome(2)]

    async def test_snapshot_does_not_cover_an_acknowledgement_being_written(
        self, tmp_path: Path, clock: Clock
    ) -> None:
        files = HeldFiles()
        async with opened(tmp_path, clock, files) as first:
            await first.put(outcome(1, status=202))
            files.hold()
            acking = asyncio.create_task(first.store.ack_escalations(keys(1)))
            await files.reached()
            await first.save()
            files.release()
            assert await acking == [True]
        async with opened(tmp_path, clock) as second:
            assert await queue(second.store) == []

    async def test_write_of_unknown_fate_is_never_covered(self, tmp_path: Path, clock: Clock) -> None:
        """A failed sync may have left the frame on disk: the next start, not this process, finds out."""
        files = HeldFiles()
        async with opened(tmp_path, clock, files) as first:
            await first.put(outcome(1))
            covered = first.inbox.synced_sequence
            files.fail["sync_data"] = errno.EIO
            with pytest.raises(InboxUnavailableError):
                await first.put(outcome(2))
            files.fail.clear()
            assert await first.store.get(keys(2)) == [None]
            await first.save()
            assert first.store.covered_sequence == covered
        async with opened(tmp_path, clock) as second:  # the bytes were there after all
            assert await second.store.get(keys(1, 2)) == [outcome(1), outcome(2)]

    async def test_write_that_was_cut_off_again_holds_no_snapshot_back(
        self, tmp_path: Path, clock: Clock
    ) -> None:
        files = HeldFiles()
        async with opened(tmp_path, clock, files) as first:
            files.fail["append"] = errno.ENOSPC
            with pytest.raises(InboxUnavailableError):
                await first.put(outcome(1))
            files.fail.clear()
            await first.put(outcome(2))
            await first.save()
            assert first.store.covered_sequence == first.inbox.synced_sequence
        async with opened(tmp_path, clock) as second:
            assert await second.store.get(keys(1, 2)) == [None, outcome(2)]

    async def test_failed_snapshot_leaves_the_old_one_and_covers_nothing_new(
        self, tmp_path: Path, clock: Clock
    ) -> None:
        files = HeldFiles()
        async with opened(tmp_path, clock, files) as first:
            await first.put(outcome(1))
            await first.save()
            covered = first.store.covered_sequence
            old = (tmp_path / "outcomes.snap").read_bytes()
            await first.put(outcome(2))
            files.fail["replace"] = errno.ENOSPC
            with pytest.raises(OSError, match="No space left"):
                await first.save()
            assert first.store.covered_sequence == covered
            assert (tmp_path / "outcomes.snap").read_bytes() == old


class TestDuplicatesAtOnce:
    async def test_all_wait_for_the_same_sync_and_get_the_first(self, tmp_path: Path, clock: Clock) -> None:
        """L7: nobody is told of an outcome that is not yet on disk."""
        files = HeldFiles()
        async with opened(tmp_path, clock, files) as first:
            files.hold()
            puts = [asyncio.create_task(first.put(outcome(1, body=b"%d" % copy))) for copy in range(10)]
            gets = [asyncio.create_task(first.store.get(keys(1))) for _ in range(3)]
            await files.reached()
            await turn()
            assert [task.done() for task in [*puts, *gets]] == [False] * 13
            files.release()
            placed = [(await each)[0] for each in puts]
            assert [each.first for each in placed] == [True] + [False] * 9
            assert {each.winner.body for each in placed} == {b"0"}
            assert [(await each)[0] for each in gets] == [outcome(1, body=b"0")] * 3

    async def test_failure_of_the_sync_fails_all_of_them(self, tmp_path: Path, clock: Clock) -> None:
        """L15: a duplicate must not be answered with an outcome that may be gone after a crash."""
        files = HeldFiles()
        async with opened(tmp_path, clock, files) as first:
            files.hold()
            puts = [asyncio.create_task(first.put(outcome(1))) for _ in range(3)]
            gets = [asyncio.create_task(first.store.get(keys(1))) for _ in range(2)]
            await files.reached()
            files.fail["sync_data"] = errno.EIO
            files.release()
            answers = await asyncio.gather(*puts, *gets, return_exceptions=True)
            assert [type(each) for each in answers] == [InboxUnavailableError] * 5
            files.fail.clear()
            assert (await first.store.get(keys(1)), len(first.store)) == ([None], 0)

    async def test_after_a_full_disk_the_next_copy_is_the_first(self, tmp_path: Path, clock: Clock) -> None:
        files = HeldFiles()
        async with opened(tmp_path, clock, files) as first:
            files.fail["append"] = errno.ENOSPC
            with pytest.raises(InboxUnavailableError):
                await first.put(outcome(1))
            files.fail.clear()
            assert await first.put(outcome(1, body=b"again")) == [
                Placed(outcome(1, body=b"again"), first=True)
            ]


class TestRoom:
    async def test_full_store_takes_what_fits_and_forgets_nothing(self, tmp_path: Path, clock: Clock) -> None:
        async with opened(tmp_path, clock, records_max=3) as first:
            await first.put(outcome(1), outcome(2))
            with pytest.raises(StoreFullError, match=r"\Athe memory store is full\Z") as raised:
                await first.put(outcome(3), outcome(1), outcome(4))
            assert raised.value.placed == [
                Placed(outcome(3), first=True),
                Placed(outcome(1), first=False),
                None,
            ]
            assert await first.store.get(keys(1, 2, 3, 4)) == [outcome(1), outcome(2), outcome(3), None]
            assert await first.put(outcome(1), outcome(3)) == [
                Placed(outcome(1), first=False),
                Placed(outcome(3), first=False),
            ]

    async def test_what_is_being_written_takes_room(self, tmp_path: Path, clock: Clock) -> None:
        files = HeldFiles()
        async with opened(tmp_path, clock, files, records_max=1) as first:
            files.hold()
            writing = asyncio.create_task(first.put(outcome(1)))
            await files.reached()
            with pytest.raises(StoreUnavailableError, match="full"):
                await first.put(outcome(2))
            files.release()
            await writing

    async def test_outcomes_that_live_shorter_than_older_ones_make_room_when_they_expire(
        self, tmp_path: Path, clock: Clock
    ) -> None:
        """A restart with a shorter DEDUP_TTL_DAYS: the new expire before the old, which came first."""
        async with opened(tmp_path, clock, records_max=2) as first:
            long_lived = changed(outcome(1), expires_at_ms=outcome(1).expires_at_ms * 2)
            await first.put(long_lived)
            await first.put(outcome(2))
            clock.move(LIFE_S)
            assert await first.put(outcome(3, stored_at_s=NOW_S + LIFE_S)) == [
                Placed(outcome(3, stored_at_s=NOW_S + LIFE_S), first=True)
            ]
            assert len(first.store) == 2
            assert await first.store.get(keys(1, 2)) == [long_lived, None]

    async def test_expired_outcomes_make_room_when_they_are_purged(
        self, tmp_path: Path, clock: Clock
    ) -> None:
        async with opened(tmp_path, clock, records_max=2) as first:
            await first.put(outcome(1, status=202), outcome(2))
            clock.move(LIFE_S)
            assert await first.store.purge_expired() == 2
            await first.put(outcome(3, stored_at_s=clock()))
            assert len(first.store) == 1


RECORDS = 4
OPERATIONS = ["put", "put", "put", "batch", "ack", "conflict", "expire", "purge", "save", "restart", "crash"]


class Model:
    """What a memory store must answer: plain dictionaries, nothing on disk."""

    def __init__(self) -> None:
        self.outcomes: dict[Key, Outcome] = {}
        self.open: dict[Key, None] = {}
        self.conflicts: dict[tuple[str, str], Conflict] = {}

    def put(self, batch: Sequence[Outcome], now_s: float) -> list[Placed]:
        placed = []
        for each in batch:
            known = self.outcomes.get(each.key)
            first = known is None or known.expires_at_ms <= now_s * 1_000
            if first:
                self.outcomes[each.key] = each
                self.open.pop(each.key, None)
                if each.status == 202:
                    self.open[each.key] = None
            placed.append(Placed(self.outcomes[each.key], first))
        return placed

    def live(self, now_s: float) -> dict[Key, Outcome]:
        return {key: each for key, each in self.outcomes.items() if each.expires_at_ms > now_s * 1_000}


async def play(operations: Sequence[str], choices: random.Random, folder: Path) -> None:
    """Do to a store and to the model the same things, restarting between; they answer alike throughout."""
    clock, model, count = Clock(), Model(), 0
    waiting = list(operations)
    while waiting:
        async with opened(folder, clock, segment_bytes=700) as now:
            await assert_same(now.store, model, clock)
            while waiting:
                operation = waiting.pop(0)
                count += 1
                numbers = [choices.randrange(RECORDS) for _ in range(1 if operation != "batch" else 4)]
                if operation in {"put", "batch"}:
                    batch = [
                        outcome(
                            number,
                            status=choices.choice([200, 202]),
                            body=b"%d" % count,
                            stored_at_s=clock(),
                        )
                        for number in numbers
                    ]
                    assert await now.put(*batch) == model.put(batch, clock())
                elif operation == "ack":
                    live = model.live(clock())
                    expected = [key in model.open and key in live for key in keys(*numbers)]
                    assert await now.store.ack_escalations(keys(*numbers)) == expected
                    for key in keys(*numbers):
                        if key in live:
                            model.open.pop(key, None)
                elif operation == "conflict":
                    noted = conflict(numbers[0], choices.choice("ab"))
                    await now.store.note_conflicts([noted])
                    model.conflicts.setdefault((noted.pcs_id, noted.fingerprint), noted)
                elif operation == "expire":
                    clock.move(choices.choice([LIFE_S / 3, LIFE_S]))
                elif operation == "purge":
                    await now.store.purge_expired()
                elif operation == "save":
                    await now.save()
                    await now.inbox.retire(clock() - LIFE_S / 2, now.store.covered_sequence)
                elif operation == "crash":
                    tear(folder / "log")
                    break
                else:
                    break
            await assert_same(now.store, model, clock)


def tear(log: Path) -> None:
    """Leave behind the log what a crash in the middle of a write leaves: bytes of a frame that was never answered."""
    with segments(log)[-1].open("ab") as file:
        file.write(b"PCSF\x01\x02 half a frame")


async def assert_same(store: MemoryStore, model: Model, clock: Clock) -> None:
    live = model.live(clock())
    assert await store.get(keys(*range(RECORDS))) == [live.get(key) for key in keys(*range(RECORDS))]
    assert sorted(await queue(store)) == sorted(key.pcs_id for key in model.open if key in live)
    assert await store.list_conflicts(TENANT, 100) == list(reversed(model.conflicts.values()))


@settings(max_examples=60, deadline=None)
@given(
    operations=st.lists(st.sampled_from(OPERATIONS), min_size=8, max_size=40),
    choices=st.randoms(use_true_random=False),
)
def test_store_answers_as_a_dictionary_does_over_snapshots_restarts_and_torn_tails(
    operations: list[str], choices: random.Random
) -> None:
    """L4, L5, L19: whatever happened in whatever order, a reopened store answers as one that never stopped."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(operations, choices, Path(folder)))
