"""A disk that refuses: nothing is acknowledged that is not on disk, and nothing good is spoiled."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from pcs_core.errors import WalError, WalFailedError
from pcs_core.wal import NewFrame, PosixFiles
from pcs_logs import FailingFiles, frame_of, opened, raw_frame, segments, write

FRAME_BYTES = len(raw_frame(frame_of(0), 1))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("prefix_bytes", [0, 1, FRAME_BYTES - 1, FRAME_BYTES, 2 * FRAME_BYTES - 1])
def test_after_a_failed_write_that_could_be_cut_off_the_log_goes_on(
    tmp_path: Path, prefix_bytes: int, code: int
) -> None:
    """L15, L19."""
    files = FailingFiles()
    with opened(tmp_path, files) as log:
        log.wal.commit([frame_of(0)])
        files.fail, files.prefix_bytes = {"append": code}, prefix_bytes
        with pytest.raises(WalFailedError, match=f"^write failed: {os.strerror(code)}$"):
            log.wal.commit([frame_of(1), frame_of(2)])
        assert log.wal.failure is None
        assert log.wal.synced_sequence == 1
        files.fail = {}
        assert log.wal.commit([frame_of(3)])[0].sequence == 4, "the numbers of what failed are not used again"
        assert log.wal.synced_sequence == 4
    with opened(tmp_path) as log:
        assert log.frames == [frame_of(0), frame_of(3)]
        assert (log.wal.damages, log.wal.torn_bytes) == ([], 0)


def test_a_disk_that_stays_full_for_a_while_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    files = FailingFiles()
    acknowledged = []
    with opened(tmp_path, files, segment_bytes=3 * FRAME_BYTES) as log:
        for index in range(40):
            files.fail = {"append": errno.ENOSPC} if index % 3 == 1 else {}
            files.prefix_bytes = index
            try:
                log.wal.commit([frame_of(index)])
            except WalFailedError:
                continue
            acknowledged.append(frame_of(index))
        assert log.wal.failure is None
    assert len(acknowledged) == 27
    with opened(tmp_path) as log:
        assert log.frames == acknowledged
        assert log.wal.damages == []


@pytest.mark.parametrize("prefix_bytes", [0, 10, FRAME_BYTES - 1, FRAME_BYTES])
def test_after_a_failed_write_that_could_not_be_cut_off_nothing_is_taken_any_more(
    tmp_path: Path, prefix_bytes: int
) -> None:
    """L19: appending after a tear would lose the new record."""
    files = FailingFiles()
    with opened(tmp_path, files) as log:
        log.wal.commit([frame_of(0)])
        files.fail, files.prefix_bytes = {"append": errno.ENOSPC, "truncate": errno.EIO}, prefix_bytes
        with pytest.raises(WalFailedError, match=r"^write failed: No space left on device$"):
            log.wal.commit([frame_of(1), frame_of(2)])
        files.fail = {}
        calls = len(files.calls)
        for _ in range(3):
            with pytest.raises(WalFailedError, match=r"^write failed: No space left on device$"):
                log.wal.commit([frame_of(3)])
        assert log.wal.failure == "write failed: No space left on device"
        assert len(files.calls) == calls, "the disk is not touched any more"
    with opened(tmp_path) as log:
        # A whole frame of a batch that was not acknowledged may still be there, and counts as received.
        assert log.frames == [frame_of(0), frame_of(1)][: 2 if prefix_bytes == FRAME_BYTES else 1]
        assert log.wal.damages == []
        log.wal.commit([frame_of(4)])
    with opened(tmp_path) as log:
        assert log.frames[-1] == frame_of(4)
        assert log.sequences == sorted(set(log.sequences))


def test_after_a_failed_sync_nothing_is_acknowledged_again(tmp_path: Path) -> None:
    """What the kernel did with the bytes is unknown: the next sync may succeed without having written them."""
    files = FailingFiles()
    with opened(tmp_path, files) as log:
        log.wal.commit([frame_of(0)])
        files.fail = {"sync_data": errno.EIO}
        with pytest.raises(WalFailedError, match=r"^sync failed: Input/output error$"):
            log.wal.commit([frame_of(1)])
        files.fail = {}
        calls = len(files.calls)
        for _ in range(3):
            with pytest.raises(WalFailedError, match=r"^sync failed: Input/output error$"):
                log.wal.commit([frame_of(2)])
        with pytest.raises(WalFailedError):
            log.wal.commit([])
        assert (log.wal.failure, log.wal.synced_sequence) == ("sync failed: Input/output error", 1)
        assert len(files.calls) == calls
    with opened(tmp_path) as log:
        assert log.frames[0] == frame_of(0)
        assert frame_of(2) not in log.frames
        assert log.wal.commit([frame_of(3)])[0].sequence > 2


@pytest.mark.parametrize("call", ["open_append", "truncate", "append"])
@pytest.mark.parametrize("ended", ["goes on", "closed"])
def test_a_disk_that_is_full_when_the_next_segment_is_made_stops_nothing_for_good(
    tmp_path: Path, call: str, ended: str
) -> None:
    """The old segment is sealed by then, and nothing in the new one counts before its sync."""

    class FullFiles(FailingFiles):
        def append(self, handle: int, buffers: Sequence[bytes]) -> None:
            if self.fail.get("append") and segments(tmp_path)[-1].stat().st_size:
                PosixFiles.append(self, handle, buffers)  # only the new segment's header finds no room
            else:
                super().append(handle, buffers)

    files = FullFiles()
    with opened(tmp_path, files, segment_bytes=1) as log:
        log.wal.commit([frame_of(0)])
        files.fail, files.prefix_bytes = {call: errno.ENOSPC}, 9
        for _ in range(3):
            with pytest.raises(WalFailedError, match=r"^rotation failed: No space left on device$"):
                log.wal.commit([frame_of(1)])
        with pytest.raises(WalFailedError, match=r"^rotation failed: No space left on device$"):
            log.wal.seal()
        assert (log.wal.failure, log.wal.sealed_segments) == (None, [])
        assert log.wal.size_bytes == segments(tmp_path)[0].stat().st_size
        files.fail = {}
        if ended == "goes on":
            assert log.wal.commit([frame_of(2)])[0][:2] == (3, 3)
            assert log.wal.sealed_segments == [1]
    with opened(tmp_path) as log:
        assert log.frames == [frame_of(0), frame_of(2)][: 2 if ended == "goes on" else 1]
        assert log.wal.damages == []
        log.wal.commit([frame_of(3)])
    with opened(tmp_path) as log:
        assert log.frames[-1] == frame_of(3)
        assert (log.wal.damages, log.wal.torn_bytes) == ([], 0)


@pytest.mark.parametrize("call", ["sync_data", "sync_folder"])
def test_a_failed_sync_while_the_next_segment_is_made_stops_the_log_and_keeps_what_was_acknowledged(
    tmp_path: Path, call: str
) -> None:
    """L20."""
    files = FailingFiles()
    with opened(tmp_path, files, segment_bytes=1) as log:
        log.wal.commit([frame_of(0)])
        files.fail = {call: errno.EIO}
        with pytest.raises(WalFailedError, match=r"^rotation failed: Input/output error$"):
            log.wal.commit([frame_of(1)])
        files.fail = {}
        with pytest.raises(WalFailedError, match=r"^rotation failed: Input/output error$"):
            log.wal.commit([frame_of(2)])
    with opened(tmp_path) as log:
        assert log.frames == [frame_of(0)]
        assert log.wal.damages == []
        log.wal.commit([frame_of(3)])
    with opened(tmp_path) as log:
        assert log.frames == [frame_of(0), frame_of(3)]
        assert log.wal.damages == []


@pytest.mark.parametrize("prefix_bytes", [0, 5, 43])
def test_a_seal_that_could_not_be_written_is_written_later(tmp_path: Path, prefix_bytes: int) -> None:
    files = FailingFiles()
    with opened(tmp_path, files, segment_bytes=1) as log:
        log.wal.commit([frame_of(0)])
        files.fail, files.prefix_bytes = {"append": errno.ENOSPC}, prefix_bytes
        for _ in range(2):
            with pytest.raises(WalFailedError):
                log.wal.commit([frame_of(1)])
        files.fail = {}
        log.wal.commit([frame_of(2)])
        assert len(log.wal.sealed_segments) == 1
    with opened(tmp_path) as log:
        assert log.frames == [frame_of(0), frame_of(2)]
        assert log.wal.damages == []


@pytest.mark.parametrize(
    "call", ["sync_data", "open_append", "sync_folder", "append", "truncate", "replace", "rewrite"]
)
@pytest.mark.parametrize("state", ["new", "whole", "torn", "sealed"])
def test_a_disk_that_refuses_at_opening_spoils_nothing(tmp_path: Path, call: str, state: str) -> None:
    expected = []
    if state != "new":
        expected = [frame_of(0), frame_of(1)]
        write(tmp_path, expected, segment_bytes=1 if state == "sealed" else 1 << 20)
    if state == "torn":
        with segments(tmp_path)[0].open("ab") as file:
            file.write(b"tear")
    if state == "sealed":
        segments(tmp_path)[1].unlink()
        expected.pop()
    files = FailingFiles()
    files.fail = {call: errno.EIO}
    touched = {
        "new": {"replace", "rewrite"},
        "whole": {"append", "truncate", "replace", "sync_data"},
        "torn": {"truncate", "sync_data"},
        "sealed": {"replace"},
    }
    if call in touched[state]:
        with opened(tmp_path, files) as log:
            assert log.frames == expected, "this opening does not need that call"
    else:
        with pytest.raises(OSError, match="Input/output error"), opened(tmp_path, files):
            pytest.fail("opened on a disk that refuses")
    with opened(tmp_path) as log:
        assert log.frames == expected
        assert log.wal.damages == []
        log.wal.commit([frame_of(5)])
    with opened(tmp_path) as log:
        assert log.frames == [*expected, frame_of(5)]


def test_a_segment_whose_removal_failed_can_be_removed_again(tmp_path: Path) -> None:
    write(tmp_path, [frame_of(0), frame_of(1)], segment_bytes=1)
    files = FailingFiles()
    with opened(tmp_path, files) as log:
        files.fail = {"remove": errno.EIO}
        with pytest.raises(WalError, match="Input/output error"):
            log.wal.remove_oldest(1)
        files.fail = {}
        log.wal.remove_oldest(1)
        assert log.wal.sealed_segments == []


def test_a_frame_the_disk_does_not_give_is_an_error_of_the_log(tmp_path: Path) -> None:
    class UnreadableFiles(PosixFiles):
        def read_range(self, path: str, offset: int, size_bytes: int) -> bytes:
            raise OSError(errno.EIO, "boom", path)

    with opened(tmp_path, UnreadableFiles()) as log:
        (position,) = log.wal.commit([frame_of(0)])
        with pytest.raises(WalError, match="offset 28: cannot be read: Input/output error"):
            log.wal.read(position)


def test_an_owner_cannot_write_the_kind_of_the_log_itself(tmp_path: Path) -> None:
    with opened(tmp_path) as log, pytest.raises(ValueError, match="kind: found 0; allowed: 1 to 255"):
        log.wal.commit([NewFrame(0, b"", b"")])


def test_the_reason_names_no_path(tmp_path: Path) -> None:
    class NamingFiles(PosixFiles):
        def sync_data(self, _handle: int) -> None:
            if armed:
                raise OSError(errno.EIO, "boom", "/home/anna.smith/data")

    armed = False
    with opened(tmp_path, NamingFiles()) as log:
        armed = True
        with pytest.raises(WalFailedError) as caught:
            log.wal.commit([frame_of(0)])
    assert str(caught.value) == "sync failed: Input/output error"


def test_a_commit_is_written_synced_and_then_acknowledged(tmp_path: Path) -> None:
    files = FailingFiles()
    with opened(tmp_path, files) as log:
        files.calls.clear()
        log.wal.commit([frame_of(0), frame_of(1)])
        assert [call.name for call in files.calls] == ["append", "sync_data"], (
            "one of each for the whole batch"
        )


def test_the_seal_is_on_disk_before_the_next_segment_exists_and_that_before_its_first_frame(
    tmp_path: Path,
) -> None:
    """L20."""
    files = FailingFiles()
    with opened(tmp_path, files, segment_bytes=1) as log:
        log.wal.commit([frame_of(0)])
        files.calls.clear()
        log.wal.commit([frame_of(1)])
    first, second = (path.name for path in segments(tmp_path))
    assert files.calls == [
        ("append", first),
        ("sync_data", first),
        ("open_append", second),
        ("truncate", second),
        ("append", second),
        ("sync_data", second),
        ("sync_folder", tmp_path.name),
        ("append", second),
        ("sync_data", second),
    ]
