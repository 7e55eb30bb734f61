"""The log while nothing goes wrong: layout, order, rotation, seals, locks, removal."""

from __future__ import annotations

import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcs_core.errors import WalError, WalFailedError, WalLockedError
from pcs_core.wal import NewFrame, Position, PosixFiles, Wal
from pcs_core.wal.frame import FRAME_BYTES_MAX, SEQUENCE_MAX
from pcs_logs import SALT, frame_of, opened, raw_frame, raw_segment_header, segments, write

HOSTILE = [
    b"PCSF",
    b"PCSWAL01",
    b"\x00" * 64,
    b"\n" * 8,
    b'{\n  "pretty": "printed"\n}\n',
    raw_frame(NewFrame(1, b"e", b"p"), 1, b"othersal"),
    raw_segment_header(1, b"othersal") + raw_frame(NewFrame(1, b"", b"x" * 40), 2, b"othersal"),
]
some_bytes = st.binary(max_size=200) | st.lists(st.sampled_from(HOSTILE), max_size=3).map(b"".join)
some_frames = st.lists(
    st.builds(NewFrame, st.integers(1, 255), some_bytes, some_bytes), min_size=1, max_size=8
)


@given(batches=st.lists(some_frames, max_size=4), segment_bytes=st.integers(1, 600))
def test_whatever_was_committed_is_visited_in_order_at_the_next_opening(
    batches: list[list[NewFrame]], segment_bytes: int
) -> None:
    """L3: bodies of any bytes, line breaks, magic numbers and whole frames of another log included."""
    frames = [frame for batch in batches for frame in batch]
    with tempfile.TemporaryDirectory() as folder:
        with opened(Path(folder), segment_bytes=segment_bytes) as log:
            positions = [position for batch in batches for position in log.wal.commit(batch)]
            assert [log.wal.read(position).payload for position in positions] == [f.payload for f in frames]
        with opened(Path(folder), segment_bytes=segment_bytes) as log:
            assert log.frames == frames
            assert [position for position, _ in log.visited] == positions
            assert (log.wal.damages, log.wal.torn_bytes) == ([], 0)
            assert log.wal.size_bytes == sum(path.stat().st_size for path in segments(Path(folder)))


def test_the_bytes_on_disk_are_the_documented_ones(tmp_path: Path) -> None:
    """A second writer of the format, with a bitwise CRC-32C, agrees."""
    frames = [NewFrame(1, b"envelope", b"payload"), NewFrame(255, b"", b""), NewFrame(7, b"", b"\x00" * 9)]
    write(tmp_path, frames)
    (segment,) = segments(tmp_path)
    assert segment.name == "00000000000000000001.wal"
    expected = raw_segment_header(1) + b"".join(raw_frame(frame, 1 + i) for i, frame in enumerate(frames))
    assert segment.read_bytes() == expected


def test_a_log_written_by_hand_from_the_documentation_is_read(tmp_path: Path) -> None:
    data = raw_segment_header(40) + raw_frame(frame_of(0), 41) + raw_frame(frame_of(1), 44)
    (tmp_path / f"{40:020d}.wal").write_bytes(data)
    with opened(tmp_path) as log:
        assert (log.frames, log.sequences) == ([frame_of(0), frame_of(1)], [41, 44])
        assert log.wal.next_sequence == 45
        assert log.wal.damages == []


@pytest.mark.parametrize("size_bytes", [0, 1, 65_535, 65_536, 262_144, 3_000_000])
def test_a_payload_of_any_size_comes_back(tmp_path: Path, size_bytes: int) -> None:
    """L3: records over 64 KiB broke the reader."""
    frame = NewFrame(1, b"e", bytes(range(256)) * (size_bytes // 256) + b"x" * (size_bytes % 256))
    write(tmp_path, [frame])
    with opened(tmp_path) as log:
        assert log.frames == [frame]


def test_a_frame_beyond_the_bound_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        with pytest.raises(ValueError, match=f"allowed: up to {FRAME_BYTES_MAX}$"):
            log.wal.commit([frame_of(0), NewFrame(1, b"", bytes(FRAME_BYTES_MAX))])
        assert log.wal.failure is None
        log.wal.commit([frame_of(1)])
    with opened(tmp_path) as log:
        assert log.frames == [frame_of(1)]


def test_a_batch_of_more_buffers_than_one_system_call_takes_is_written_whole(tmp_path: Path) -> None:
    frames = [frame_of(index) for index in range(2_500)]
    with opened(tmp_path) as log:
        positions = log.wal.commit(frames)
    assert [position.sequence for position in positions] == list(range(1, 2_501))
    with opened(tmp_path) as log:
        assert log.frames == frames


def test_an_empty_batch_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        assert log.wal.commit([]) == []
        assert log.wal.commit([frame_of(0)])[0].sequence == 1


def test_numbers_rise_over_restarts(tmp_path: Path) -> None:
    """L19."""
    numbers = [write(tmp_path, [frame_of(index)])[0].sequence for index in range(5)]
    assert numbers == [1, 2, 3, 4, 5]
    with opened(tmp_path) as log:
        assert log.sequences == numbers
        assert (log.wal.next_sequence, log.wal.synced_sequence) == (6, 5)


def test_the_salt_is_drawn_once_for_a_log_and_asked_for_in_its_length(tmp_path: Path) -> None:
    asked: list[int] = []

    def salt(size: int) -> bytes:
        asked.append(size)
        return b"first!!!" if len(asked) == 1 else b"second!!"

    with opened(tmp_path, salt=salt, segment_bytes=1) as log:
        log.wal.commit([frame_of(0)])
        log.wal.commit([frame_of(1)])
    with opened(tmp_path, salt=salt) as log:
        assert log.frames == [frame_of(0), frame_of(1)]
    assert asked == [8]
    assert {path.read_bytes()[8:16] for path in segments(tmp_path)} == {b"first!!!"}


# Rotation and seals


def test_a_full_segment_is_sealed_and_the_next_one_begun(tmp_path: Path) -> None:
    frames = [frame_of(index) for index in range(6)]
    one = len(raw_frame(frames[0], 1))
    positions = write(tmp_path, frames, segment_bytes=28 + 2 * one)
    # Each seal takes a number too: 1 2 (seal 3) 4 5 (seal 6) 7 8.
    assert [(position.segment, position.sequence) for position in positions] == [
        (1, 1),
        (1, 2),
        (4, 4),
        (4, 5),
        (7, 7),
        (7, 8),
    ]
    assert [path.name for path in segments(tmp_path)] == [f"{first:020d}.wal" for first in (1, 4, 7)]
    with opened(tmp_path) as log:
        assert log.frames == frames
        assert log.wal.sealed_segments == [1, 4]
        assert log.wal.damages == []


def test_a_seal_is_never_visited(tmp_path: Path) -> None:
    write(tmp_path, [frame_of(index) for index in range(4)], segment_bytes=1)
    with opened(tmp_path) as log:
        assert {frame.kind for _, frame in log.visited} == {1, 2, 3, 4}


def test_a_batch_larger_than_a_segment_goes_into_one(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=100) as log:
        log.wal.commit([frame_of(0)])
        positions = log.wal.commit([frame_of(index) for index in range(1, 20)])
        assert {position.segment for position in positions} == {3}
        assert len(log.wal.sealed_segments) == 1


def test_the_oldest_sealed_segment_can_be_removed_and_its_bytes_are_given_back(tmp_path: Path) -> None:
    write(tmp_path, [frame_of(index) for index in range(3)], segment_bytes=1)
    with opened(tmp_path) as log:
        before = log.wal.size_bytes
        size = segments(tmp_path)[0].stat().st_size
        log.wal.remove_oldest(1)
        assert log.wal.size_bytes == before - size
        assert log.wal.sealed_segments == [3]
    with opened(tmp_path) as log:
        assert log.frames == [frame_of(1), frame_of(2)]
        assert log.wal.next_sequence == 6
        assert log.wal.damages == []


@pytest.mark.parametrize("segment", [3, 5, 99])
def test_no_other_segment_can_be_removed(tmp_path: Path, segment: int) -> None:
    write(tmp_path, [frame_of(index) for index in range(3)], segment_bytes=1)
    with opened(tmp_path) as log, pytest.raises(ValueError, match="the oldest sealed one"):
        log.wal.remove_oldest(segment)
    assert len(segments(tmp_path)) == 3


def test_the_segment_being_written_cannot_be_removed(tmp_path: Path) -> None:
    write(tmp_path, [frame_of(0)])
    with opened(tmp_path) as log, pytest.raises(ValueError, match="the oldest sealed one"):
        log.wal.remove_oldest(1)


# Reading one frame back


def test_a_frame_that_was_damaged_after_it_was_written_is_not_returned(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        position = log.wal.commit([frame_of(0)])[0]
        (segment,) = segments(tmp_path)
        data = bytearray(segment.read_bytes())
        data[-10] ^= 1
        segment.write_bytes(data)
        with pytest.raises(WalError, match=r"^segment 0{19}1\.wal, offset 28: the frame is damaged$"):
            log.wal.read(position)


def test_a_position_of_another_frame_is_not_returned(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        position = log.wal.commit([frame_of(0)])[0]
        with pytest.raises(WalError):
            log.wal.read(Position(position.sequence + 1, *position[1:]))
        with pytest.raises(WalError):
            log.wal.read(position._replace(offset=position.offset + 1))


def test_a_log_that_is_not_open_takes_nothing(tmp_path: Path) -> None:
    wal = Wal(str(tmp_path), PosixFiles(), lambda _size: SALT)
    with pytest.raises(WalFailedError, match=r"^the log is not open$"):
        wal.commit([frame_of(0)])
    with opened(tmp_path) as log:
        pass
    with pytest.raises(WalFailedError, match=r"^the log is not open$"):
        log.wal.commit([frame_of(0)])
    log.wal.close()


# Folders, modes and locks


def test_folders_and_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "wal"
    write(folder, [frame_of(0)])
    with segments(folder)[0].open("ab") as file:
        file.write(b"torn")
    write(folder, [frame_of(1)])
    modes = {
        path.relative_to(folder).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")
    }
    kept = next(name for name in modes if name.startswith("aside/"))
    files = ["lock", "anchor", "00000000000000000001.wal", kept]
    assert modes == {"aside": 0o700, **dict.fromkeys(files, 0o600)}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


def test_files_of_other_names_are_left_alone(tmp_path: Path) -> None:
    names = ["1.wal", "notes.txt", "00000000000000000001.wal.bak", "0000000000000000000a.wal", "snapshot"]
    for name in names:
        (tmp_path / name).write_bytes(b"not ours")
    write(tmp_path, [frame_of(0)])
    with opened(tmp_path) as log:
        assert log.frames == [frame_of(0)]
    assert [(tmp_path / name).read_bytes() for name in names] == [b"not ours"] * len(names)


def test_a_second_log_on_the_same_folder_is_locked_out_until_the_first_closes(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        log.wal.commit([frame_of(0)])
        with (
            pytest.raises(WalLockedError, match=r"^the folder is locked by another process$"),
            opened(tmp_path),
        ):
            pytest.fail("opened a folder that is in use")
        log.wal.commit([frame_of(1)])
    with opened(tmp_path) as log:
        assert log.frames == [frame_of(0), frame_of(1)]


def test_another_process_is_locked_out_and_the_lock_dies_with_its_owner(tmp_path: Path) -> None:
    program = (
        "import sys; from pcs_core.wal import PosixFiles, Wal\n"
        "wal = Wal(sys.argv[1], PosixFiles(), lambda size: bytes(size))\n"
        "wal.open(lambda position, frame: None); print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"open\n"
        with pytest.raises(WalLockedError), opened(tmp_path):
            pytest.fail("opened a folder that is in use")
        owner.kill()
        owner.wait()
        with opened(tmp_path) as log:
            result = subprocess.run(command, capture_output=True, check=False)
            assert result.returncode == 1
            assert b"WalLockedError: the folder is locked by another process" in result.stderr
            assert log.wal.failure is None


@pytest.mark.parametrize("left", [0, 1, 2, 3])
def test_a_log_whose_numbers_are_used_up_takes_nothing_that_it_could_not_read_again(
    tmp_path: Path, left: int
) -> None:
    last = SEQUENCE_MAX - left
    first = tmp_path / "00000000000000000001.wal"
    first.write_bytes(raw_segment_header(1, SALT) + raw_frame(frame_of(0), last, SALT))
    with opened(tmp_path) as log:
        taken = [log.wal.commit([frame_of(1)])[0].sequence for _ in range(last + 1, SEQUENCE_MAX)]
        with pytest.raises(WalFailedError, match="no numbers left"):
            log.wal.commit([frame_of(1)])
    assert taken == list(range(last + 1, SEQUENCE_MAX))
    with opened(tmp_path) as log:
        assert log.sequences == [last, *taken]
        assert (log.wal.damages, log.wal.torn_bytes) == ([], 0)
