"""The memory's calibration store over a real log: what it holds after a restart or a power cut is what it said it held."""

from __future__ import annotations

import asyncio
import copy
import errno
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from calibrations import calibration_set, labelled, promotion
from inboxes import NOW_S, WAIT_S, Clock, HeldFiles, turn
from memory_stores import Opened, opened
from outcomes import outcome
from pcs_backend.conformal.calibration import Labelled, Promotion
from pcs_backend.conformal.store import LABELS_MAX, CalibrationStore, digest_of
from pcs_backend.errors import InboxUnavailableError
from pcs_backend.inbox.frames import FrameKind, outcomes_frame
from pcs_backend.outcome import Key
from pcs_core.wal import Files, NewFrame, PosixFiles, read_snapshot, write_snapshot
from simulation.disk import Disk
from simulation.system import System, shipped_files

SETS = [calibration_set(number) for number in range(4)]
DISK = Path("/simulated")


class Held(NamedTuple):
    """All that a store holds of the sets above."""

    labels: list[Labelled]
    promotions: list[Promotion]
    artifacts: list[bytes | None]


async def held(store: CalibrationStore) -> Held:
    return Held(
        await store.list_labels(None, since_ms=0, limit=LABELS_MAX),
        await store.list_promotions("default", 100),
        await store.fetch([each.digest for each in SETS]),
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


class TestRestart:
    @pytest.mark.parametrize("save", ["no snapshot", "before", "between", "after"])
    async def test_everything_comes_back(self, tmp_path: Path, clock: Clock, save: str) -> None:
        """L4: the snapshot shortens the log, and the log has what came after it."""
        async with opened(tmp_path, clock) as first:
            store = first.store.calibrations
            if save == "before":
                await first.save()
            await store.put_labels([labelled(1), labelled(2, "bad", tenant="b")])
            await store.keep([SETS[0].encoded, SETS[1].encoded])
            assert await store.promote(promotion(SETS[0], 1))
            if save == "between":
                await first.save()
            await store.put_labels([labelled(1, "bad"), labelled(3)])
            assert await store.promote(promotion(SETS[1], 2))
            if save == "after":
                await first.save()
        async with opened(tmp_path, clock) as second:
            assert await held(second.store.calibrations) == Held(
                [labelled(3), labelled(2, "bad", tenant="b"), labelled(1, "bad")],
                [promotion(SETS[1], 2), promotion(SETS[0], 1)],
                [SETS[0].encoded, SETS[1].encoded, None, None],
            )
            assert await second.store.calibrations.promote(promotion(SETS[0], 3))

    async def test_when_an_artifact_was_needed_comes_back(self, tmp_path: Path, clock: Clock) -> None:
        async with opened(tmp_path, clock) as first:
            await first.store.calibrations.keep([b"1", b"2"])
            clock.move(2 * 86_400)
            await first.store.calibrations.keep([b"1"])
            await first.save()
        for _ in range(2):
            async with opened(tmp_path, clock) as again:
                store = again.store.calibrations
                assert await store.purge(int((NOW_S + 86_400) * 1_000)) == 1
                assert await store.fetch([digest_of(b"1"), digest_of(b"2")]) == [b"1", None]
                assert await store.purge(int((NOW_S + 86_400) * 1_000)) == 0

    async def test_log_behind_the_snapshot_may_be_removed(self, tmp_path: Path, clock: Clock) -> None:
        """L20: everything is still known when only the snapshot has it."""
        async with opened(tmp_path, clock, segment_bytes=400) as first:
            store = first.store.calibrations
            for number, each in enumerate(SETS):
                await store.keep([each.encoded])
                await store.put_labels([labelled(number)])
                assert await store.promote(promotion(each, number + 1))
            before = await held(store)
            await first.save()
            assert await first.inbox.retire(NOW_S + 1, first.store.covered_sequence) >= 4
        async with opened(tmp_path, clock, segment_bytes=400) as second:
            assert await held(second.store.calibrations) == before
        assert len(before.labels) == len(before.promotions) == 4

    async def test_a_snapshot_of_the_release_before_is_loaded(self, tmp_path: Path, clock: Clock) -> None:
        """It has outcomes, and no word of calibration."""
        async with opened(tmp_path, clock) as first:
            for _ in range(3):
                await first.store.note_conflicts([])
        known = outcome(1)
        write_snapshot(
            PosixFiles(),
            lambda size_bytes: b"8 octets"[:size_bytes],
            str(tmp_path / "outcomes.snap"),
            [NewFrame(64, b'{"covered_sequence":0}'), outcomes_frame([known], [])],
        )
        async with opened(tmp_path, clock) as second:
            assert await second.store.get([Key(known.tenant, known.pcs_id)]) == [known]
            assert await held(second.store.calibrations) == Held([], [], [None] * 4)
            await second.store.calibrations.put_labels([labelled(1)])
            await second.save()
        kinds = [each.kind for each in read_snapshot(PosixFiles(), str(tmp_path / "outcomes.snap"))]
        assert kinds == [64, FrameKind.OUTCOMES, FrameKind.LABELS]

    async def test_many_labels_go_in_several_frames_of_the_snapshot(
        self, tmp_path: Path, clock: Clock
    ) -> None:
        labels = [labelled(number) for number in range(600)]
        async with opened(tmp_path, clock) as first:
            await first.store.calibrations.put_labels(labels)
            await first.save()
        async with opened(tmp_path, clock) as second:
            assert (await held(second.store.calibrations)).labels == labels[::-1]
        kinds = [each.kind for each in read_snapshot(PosixFiles(), str(tmp_path / "outcomes.snap"))]
        assert kinds.count(FrameKind.LABELS) == 3


CALLS: dict[str, Callable[[CalibrationStore], Awaitable[object]]] = {
    "labels": lambda store: store.put_labels([labelled(1)]),
    "artifact": lambda store: store.keep([SETS[1].encoded]),
    "promotion": lambda store: store.promote(promotion(SETS[0], 1)),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
class TestWrites:
    async def test_nothing_is_told_or_answered_before_it_is_synced(
        self, tmp_path: Path, clock: Clock, call: Callable[[CalibrationStore], Awaitable[object]]
    ) -> None:
        files = HeldFiles()
        async with opened(tmp_path, clock, files) as first:
            store = first.store.calibrations
            await store.keep([SETS[0].encoded])
            before = await held(store)
            files.hold()
            writing = asyncio.ensure_future(call(store))
            await files.reached()
            await turn()
            assert not writing.done()
            assert await held(store) == before
            files.release()
            await writing
            after = await held(store)
        assert after != before
        async with opened(tmp_path, clock) as second:
            assert await held(second.store.calibrations) == after

    async def test_a_snapshot_does_not_cover_what_is_on_disk_and_not_yet_in_memory(
        self, tmp_path: Path, clock: Clock, call: Callable[[CalibrationStore], Awaitable[object]]
    ) -> None:
        """L4: it is left to the log, so nothing falls between the two."""
        files = HeldFiles()
        async with opened(tmp_path, clock, files) as first:
            await first.store.calibrations.keep([SETS[0].encoded])
            covered = first.inbox.synced_sequence
            files.hold()
            writing = asyncio.ensure_future(call(first.store.calibrations))
            await files.reached()
            files.release()
            deadline_s = time.monotonic() + WAIT_S
            while first.inbox.synced_sequence == covered:  # without giving the loop a turn
                assert time.monotonic() < deadline_s
            await first.save()
            assert first.store.covered_sequence == covered
            await writing
            after = await held(first.store.calibrations)
        async with opened(tmp_path, clock) as second:
            assert await held(second.store.calibrations) == after

    async def test_what_a_failed_sync_left_is_found_by_the_next_start_alone(
        self, tmp_path: Path, clock: Clock, call: Callable[[CalibrationStore], Awaitable[object]]
    ) -> None:
        files = HeldFiles()
        async with opened(tmp_path, clock, files) as first:
            store = first.store.calibrations
            await store.keep([SETS[0].encoded])
            before, covered = await held(store), first.inbox.synced_sequence
            files.fail["sync_data"] = errno.EIO
            with pytest.raises(InboxUnavailableError):
                await call(store)
            files.fail.clear()
            assert await held(store) == before
            await first.save()
            assert first.store.covered_sequence == covered
        async with opened(tmp_path, clock) as second:
            assert await held(second.store.calibrations) != before

    async def test_a_full_disk_keeps_nothing_and_the_next_call_works(
        self, tmp_path: Path, clock: Clock, call: Callable[[CalibrationStore], Awaitable[object]]
    ) -> None:
        files = HeldFiles()
        async with opened(tmp_path, clock, files) as first:
            store = first.store.calibrations
            await store.keep([SETS[0].encoded])
            before = await held(store)
            files.fail["append"] = errno.ENOSPC
            with pytest.raises(InboxUnavailableError):
                await call(store)
            files.fail.clear()
            assert await held(store) == before
            await call(store)
            after = await held(store)
            await first.save()
            assert first.store.covered_sequence == first.inbox.synced_sequence
        assert after != before
        async with opened(tmp_path, clock) as second:
            assert await held(second.store.calibrations) == after


async def test_of_a_version_that_was_broken_off_and_one_that_was_told_the_later_counts(
    tmp_path: Path, clock: Clock
) -> None:
    files = HeldFiles()
    async with opened(tmp_path, clock, files) as first:
        store = first.store.calibrations
        await store.keep([SETS[0].encoded, SETS[1].encoded])
        files.hold()
        broken_off = asyncio.ensure_future(store.promote(promotion(SETS[0], 1)))
        await files.reached()
        broken_off.cancel()
        files.release()
        with pytest.raises(asyncio.CancelledError):
            await broken_off
        assert await store.promote(promotion(SETS[1], 1))
        assert await store.list_promotions("default", 9) == [promotion(SETS[1], 1)]
        await first.save()
    async with opened(tmp_path, clock) as second:
        assert await second.store.calibrations.list_promotions("default", 9) == [promotion(SETS[1], 1)]


async def test_an_artifact_is_written_again_only_after_a_day(tmp_path: Path, clock: Clock) -> None:
    async with opened(tmp_path, clock) as first:
        store = first.store.calibrations
        await store.keep([b"parameters"])
        written = first.inbox.synced_sequence
        clock.move(86_000)
        await store.keep([b"parameters"])
        assert first.inbox.synced_sequence == written
        clock.move(1_000)
        await store.keep([b"parameters"])
        assert first.inbox.synced_sequence == written + 1


class Photograph(NamedTuple):
    """A disk at one system call, and what the store had said by then."""

    disk: Disk
    told: Held
    under_way: Held


class Camera:
    """Photographs the disk before some of the system calls."""

    def __init__(self, disk: Disk, dice: random.Random) -> None:
        self._disk = disk
        self._dice = dice
        self.photographs: list[Photograph] = []
        self.told = self.under_way = Held([], [], [None] * len(SETS))

    def __call__(self, call: str, path: str) -> int:
        if self._dice.random() < 0.1:
            self.photographs.append(Photograph(copy.deepcopy(self._disk), self.told, self.under_way))
        return 0


class Model:
    """What a store must hold: plain lists and dictionaries."""

    def __init__(self) -> None:
        self.labels: dict[str, Labelled] = {}
        self.history: list[Promotion] = []
        self.kept: set[int] = set()

    def held(self) -> Held:
        newest_first = sorted(self.labels.values(), key=lambda each: -each.labelled_at_ms)
        artifacts = [each.encoded if number in self.kept else None for number, each in enumerate(SETS)]
        return Held(newest_first, self.history[::-1], artifacts)


def simulated_files(disk: Disk, fault: Callable[[str, str], int]) -> Files:
    return shipped_files(System(disk, fault, random.Random(0)))


async def work(store: Opened, model: Model, camera: Camera, dice: random.Random, count: int) -> None:
    """Do something, and tell the camera before and after."""
    calibrations = store.store.calibrations
    match dice.choice(["labels", "labels", "keep", "promote", "promote", "save"]):
        case "labels":
            label = labelled(dice.randrange(5), dice.choice(["benign", "bad"]), labelled_at_ms=count)
            model.labels[label.pcs_id] = label
            camera.under_way = model.held()
            await calibrations.put_labels([label])
        case "keep":
            number = dice.randrange(len(SETS))
            model.kept.add(number)
            camera.under_way = model.held()
            await calibrations.keep([SETS[number].encoded])
        case "promote" if model.kept:
            wanted = promotion(SETS[dice.choice(sorted(model.kept))], len(model.history) + 1, at_ms=count)
            model.history.append(wanted)
            camera.under_way = model.held()
            assert await calibrations.promote(wanted)
        case _:
            await store.save()
            await store.inbox.retire(NOW_S + 1, store.store.covered_sequence)
    camera.told = camera.under_way


async def live_and_cut(seed: int) -> int:
    """Work on a simulated disk; then cut the power at each photograph and look. Returns how many there were."""
    dice, clock = random.Random(seed), Clock()
    disk, model = Disk(random.Random(seed)), Model()
    camera = Camera(disk, random.Random(seed + 1))
    simulated_files(disk, lambda call, path: 0).make_folder(str(DISK))
    disk.sync_all()
    files = simulated_files(disk, camera)
    for life in range(3):
        async with opened(DISK, clock, files, segment_bytes=700) as store:
            assert await held(store.store.calibrations) == model.held()
            for step in range(10):
                await work(store, model, camera, dice, 100 * life + step)
    for photograph in camera.photographs:
        photograph.disk.cut()
        files = simulated_files(photograph.disk, lambda call, path: 0)
        async with opened(DISK, clock, files, segment_bytes=700) as store:
            found = await held(store.store.calibrations)
            assert found in (photograph.told, photograph.under_way), f"seed {seed}"
    return len(camera.photographs)


async def test_whatever_was_told_survives_a_power_cut_at_any_system_call() -> None:
    """L4, L20: the weakest disk that POSIX allows, over frames, snapshots and removed segments."""
    assert sum([await live_and_cut(seed) for seed in range(30)]) >= 800
