"""Group commit: one sync for many, and nobody is answered before the sync that covers him."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from inboxes import SALT, HeldFiles, turn
from pcs_backend.errors import InboxUnavailableError
from pcs_backend.inbox import group_commit
from pcs_backend.inbox.group_commit import BATCH_FRAMES_MAX, GroupCommit
from pcs_backend.offload import ThreadOffload
from pcs_core.wal import NewFrame, Wal
from pcs_logs import frame_of, opened


@asynccontextmanager
async def running(
    folder: Path, files: HeldFiles, extra: Sequence[NewFrame] = ()
) -> AsyncIterator[GroupCommit]:
    """A group commit over a real log with its writer running; `extra` rides along once."""
    riders = [*extra]

    def take_riders() -> list[NewFrame]:
        taken, riders[:] = riders[:], []
        return taken

    offload = ThreadOffload("log")
    wal = Wal(str(folder), files, lambda _size: SALT)
    wal.open(lambda _position, _frame: None)
    commits = GroupCommit(wal, offload, take_riders)
    writer = asyncio.create_task(commits.run())
    files.syncs = 0
    try:
        yield commits
    finally:
        files.release()
        commits.close()
        await writer
        wal.close()
        offload.close()


async def commits_of(commits: GroupCommit, numbers: range) -> list[asyncio.Task]:
    """Start a caller a number, and let them all reach the queue."""
    callers = [asyncio.create_task(commits.commit([frame_of(number)])) for number in numbers]
    await turn()
    return callers


@pytest.fixture
def files() -> HeldFiles:
    return HeldFiles()


class TestSharing:
    async def test_callers_that_come_during_a_sync_share_the_next(
        self, tmp_path: Path, files: HeldFiles
    ) -> None:
        async with running(tmp_path, files) as commits:
            files.hold()
            first = await commits_of(commits, range(1))
            await files.reached()
            others = await commits_of(commits, range(1, 51))
            files.release()
            positions = [(await caller)[0] for caller in [*first, *others]]
        assert files.syncs == 2
        assert [position.sequence for position in positions] == list(range(1, 52))
        with opened(tmp_path) as log:
            assert log.frames == [frame_of(number) for number in range(51)]

    async def test_caller_returns_only_after_the_sync_that_covers_it(
        self, tmp_path: Path, files: HeldFiles
    ) -> None:
        """Bytes written but not synced are lost with the power: nobody may be told that they are kept."""
        async with running(tmp_path, files) as commits:
            files.hold()
            (first,) = await commits_of(commits, range(1))
            await files.reached()
            (second,) = await commits_of(commits, range(1, 2))
            assert (first.done(), second.done()) == (False, False)
            files.let_one_through()
            assert len(await first) == 1
            await files.reached()
            assert second.done() is False
            files.let_one_through()
            assert len(await second) == 1

    async def test_each_caller_gets_the_positions_of_its_own_frames(
        self, tmp_path: Path, files: HeldFiles
    ) -> None:
        async with running(tmp_path, files, extra=[frame_of(100)]) as commits:
            sizes = (3, 0, 1, 5)
            answers = await asyncio.gather(*(commits.commit([frame_of(size)] * size) for size in sizes))
            sequences = [[position.sequence for position in answer] for answer in answers]
        assert sequences == [[1, 2, 3], [], [4], [5, 6, 7, 8, 9]]
        with opened(tmp_path) as log:
            assert log.frames[9] == frame_of(100)

    async def test_one_sync_covers_a_bounded_number_of_frames(self, tmp_path: Path, files: HeldFiles) -> None:
        async with running(tmp_path, files) as commits:
            files.hold()
            first = await commits_of(commits, range(1))
            await files.reached()
            others = await commits_of(commits, range(1, BATCH_FRAMES_MAX + 2))
            files.release()
            await asyncio.gather(*first, *others)
        assert files.syncs == 3

    async def test_what_rides_along_is_written_at_the_end_though_nobody_commits(
        self, tmp_path: Path, files: HeldFiles
    ) -> None:
        async with running(tmp_path, files, extra=[frame_of(7)]):
            pass
        with opened(tmp_path) as log:
            assert log.frames == [frame_of(7)]

    async def test_caller_that_goes_away_harms_nobody(self, tmp_path: Path, files: HeldFiles) -> None:
        async with running(tmp_path, files) as commits:
            files.hold()
            gone, stays = await commits_of(commits, range(2))
            await files.reached()
            gone.cancel()
            files.release()
            assert [position.sequence for position in await stays] == [2]
            assert [position.sequence for position in await commits.commit([frame_of(3)])] == [3]
        assert gone.cancelled() is True


class TestBounds:
    async def test_full_queue_refuses_at_once_and_takes_again_later(
        self, tmp_path: Path, files: HeldFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        frame = frame_of(1)
        size_bytes = len(frame.envelope) + len(frame.payload)
        monkeypatch.setattr(group_commit, "QUEUE_BYTES_MAX", 3 * size_bytes)
        async with running(tmp_path, files) as commits:
            files.hold()
            callers = await commits_of(commits, range(1, 4))
            with pytest.raises(
                InboxUnavailableError, match=r"\Athe queue before the log is full\Z"
            ) as caught:
                await commits.commit([frame])
            assert caught.value.may_be_written is False
            files.release()
            await asyncio.gather(*callers)
            assert [position.sequence for position in await commits.commit([frame])] == [4]

    async def test_closing_takes_nothing_more_and_writes_what_waits(
        self, tmp_path: Path, files: HeldFiles
    ) -> None:
        async with running(tmp_path, files) as commits:
            files.hold()
            callers = await commits_of(commits, range(1))
            await files.reached()
            callers += await commits_of(commits, range(1, 6))
            commits.close()
            with pytest.raises(InboxUnavailableError, match=r"\Athe service is stopping\Z"):
                await commits.commit([frame_of(9)])
            files.release()
            positions = [(await caller)[0].sequence for caller in callers]
        assert positions == [1, 2, 3, 4, 5, 6]
        with opened(tmp_path) as log:
            assert log.frames == [frame_of(number) for number in range(6)]


class TestFaults:
    async def test_failed_sync_refuses_all_that_wait_for_it_and_all_that_come_later(
        self, tmp_path: Path, files: HeldFiles
    ) -> None:
        """What the kernel did with the bytes is unknown: a later sync that succeeds would prove nothing."""
        async with running(tmp_path, files) as commits:
            before = await commits.commit([frame_of(0)])
            files.hold()
            first = await commits_of(commits, range(1, 2))
            await files.reached()
            others = await commits_of(commits, range(2, 5))
            files.fail["sync_data"] = errno.EIO
            files.release()
            answers = await asyncio.gather(*first, *others, return_exceptions=True)
            assert [type(answer) for answer in answers] == [InboxUnavailableError] * 4
            assert {str(answer) for answer in answers} == {"the log refuses: sync failed: Input/output error"}
            assert {answer.may_be_written for answer in answers} == {True}
            files.fail.clear()
            with pytest.raises(InboxUnavailableError, match="sync failed"):
                await commits.commit([frame_of(5)])
        with opened(tmp_path) as log:
            assert (before[0].sequence, log.frames[0]) == (1, frame_of(0))

    async def test_full_disk_refuses_and_is_forgotten_when_there_is_room(
        self, tmp_path: Path, files: HeldFiles
    ) -> None:
        async with running(tmp_path, files) as commits:
            await commits.commit([frame_of(0)])
            files.fail["append"] = errno.ENOSPC
            files.prefix_bytes = 11
            answers = await asyncio.gather(
                *(commits.commit([frame_of(number)]) for number in (1, 2)), return_exceptions=True
            )
            assert {str(answer) for answer in answers} == {
                "the log refuses: write failed: No space left on device"
            }
            assert {answer.may_be_written for answer in answers} == {False}
            files.fail.clear()
            await commits.commit([frame_of(3)])
        with opened(tmp_path) as log:
            assert log.frames == [frame_of(0), frame_of(3)]
            assert (log.wal.damages, log.wal.torn_bytes) == ([], 0)
