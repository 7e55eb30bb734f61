"""Reading a log beside its owner: newest segment first, nothing locked, nothing changed, damage stepped over."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from pcs_core.errors import WalError
from pcs_core.wal import PosixFiles, read_newest_first
from pcs_logs import frame_of, opened, segments, write

PER_SEGMENT_BYTES = 300


class RefusingFiles(PosixFiles):
    """A disk that gives no segment."""

    def read(self, path: str) -> bytes:
        if path.endswith(".wal"):
            raise OSError(errno.EIO, "…")
        return super().read(path)


def sequences(path: Path, files: PosixFiles | None = None) -> list[list[int]]:
    return [
        [frame.sequence for frame in frames] for frames in read_newest_first(str(path), files or PosixFiles())
    ]


def contents(path: Path) -> dict[str, bytes]:
    return {str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.is_file()}


def test_an_open_log_is_read_without_its_lock_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "log"
    frames = [frame_of(index) for index in range(10)]
    with opened(path, segment_bytes=PER_SEGMENT_BYTES) as log:
        for frame in frames:
            log.wal.commit([frame])
        before = contents(path)
        found = sequences(path)
        assert contents(path) == before
        log.wal.commit([frame_of(10)])
        assert sequences(path)[0][-1] == found[0][-1] + 1
    assert len(found) == len(segments(path)) == 3
    newest_last = [sequence for segment in reversed(found) for sequence in segment]
    assert newest_last == sorted(newest_last)
    assert len(newest_last) == len(frames), "seals are the log's own"


def test_what_is_being_written_is_left_out_and_damage_is_stepped_over(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, [frame_of(index) for index in range(8)])
    (segment,) = segments(path)
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 0xFF
    segment.write_bytes(bytes(data[:-5]))
    (found,) = sequences(path)
    assert found == [1, 2, 3, 5, 6, 7]


def test_segments_that_go_meanwhile_end_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, [frame_of(index) for index in range(9)], segment_bytes=PER_SEGMENT_BYTES)
    oldest, *_, newest = segments(path)
    reading = read_newest_first(str(path), PosixFiles())
    first = [frame.sequence for frame in next(reading)]
    assert first[-1] > 9
    for segment in segments(path)[:-1]:
        segment.unlink()
    assert list(reading) == []
    assert oldest != newest


def test_a_folder_without_a_log_has_nothing(tmp_path: Path) -> None:
    assert sequences(tmp_path / "missing") == []


def test_a_disk_that_refuses_is_no_empty_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, [frame_of(0)])
    files = RefusingFiles()
    with pytest.raises(WalError, match="cannot be read"):
        sequences(path, files)
