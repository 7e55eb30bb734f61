"""Damage at rest: found, named, kept aside, everything good around it recovered, the opening never blocked."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path

import pytest

from pcs_core.wal import Damage, NewFrame, folder
from pcs_core.wal.scan import SegmentScan
from pcs_logs import (
    FRAME_HEADER_BYTES,
    HEADER_BYTES,
    SALT,
    FailingFiles,
    RecordingFiles,
    frame_of,
    opened,
    raw_frame,
    raw_segment_header,
    segments,
    write,
)

FRAME_BYTES = len(raw_frame(frame_of(0, 6), 1))
THREE_A_SEGMENT = HEADER_BYTES + 3 * FRAME_BYTES
NAMES = ["00000000000000000001.wal", "00000000000000000005.wal", "00000000000000000009.wal"]


def three_segments(path: Path) -> list[NewFrame]:
    """Make two sealed segments of three frames each and an open one of one frame."""
    frames = [frame_of(index, 6) for index in range(7)]
    write(path, frames, segment_bytes=THREE_A_SEGMENT)
    assert [each.name for each in segments(path)] == NAMES
    return frames


def start_of(index: int) -> int:
    return HEADER_BYTES + index * FRAME_BYTES


def change(path: Path, offset: int, content: bytes) -> bytes:
    """Overwrite bytes of a file; returns what it holds then."""
    data = bytearray(path.read_bytes())
    data[offset : offset + len(content)] = content
    path.write_bytes(data)
    return bytes(data)


def rearrange(path: Path, pieces: Iterable[bytes]) -> None:
    path.write_bytes(path.read_bytes()[:HEADER_BYTES] + b"".join(pieces))


def pieces_of(path: Path) -> list[bytes]:
    """Return the three frames of a sealed segment, and its seal."""
    data = path.read_bytes()
    ends = [start_of(1), start_of(2), start_of(3), len(data)]
    return [data[start:end] for start, end in zip([HEADER_BYTES, *ends], ends, strict=False)]


def aside_files(path: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in sorted((path / "aside").glob("*"))}


class TestKeptAside:
    def test_damaged_bytes_are_kept_under_segment_offset_and_size(self, tmp_path: Path) -> None:
        frames = three_segments(tmp_path)
        data = change(segments(tmp_path)[0], start_of(1) + FRAME_HEADER_BYTES, b"\xff\xff")
        with opened(tmp_path) as log:
            assert log.frames == [frames[0], *frames[2:]]
            assert log.wal.damages == [Damage(NAMES[0], start_of(1), FRAME_BYTES, "frames")]
        ((name, kept),) = aside_files(tmp_path).items()
        assert kept == data[start_of(1) : start_of(2)]
        assert name.startswith(f"{NAMES[0]}.{start_of(1)}.{FRAME_BYTES}.")
        assert name.endswith(".damaged")

    def test_the_same_damage_is_kept_once_over_restarts_and_more_damage_is_added(
        self, tmp_path: Path
    ) -> None:
        three_segments(tmp_path)
        change(segments(tmp_path)[0], start_of(1), b"\x00")
        with opened(tmp_path):
            pass
        first = aside_files(tmp_path)
        files = RecordingFiles()
        with opened(tmp_path, files) as log:
            assert len(log.wal.damages) == 1
        assert aside_files(tmp_path) == first
        assert "replace" not in [call.name for call in files.calls], "nothing is written for what is kept"
        change(segments(tmp_path)[0], start_of(1) + 1, b"\x00")
        change(segments(tmp_path)[1], start_of(0), b"\x00")
        with opened(tmp_path) as log:
            assert len(log.wal.damages) == 2
        assert len(aside_files(tmp_path)) == 3
        assert first.items() <= aside_files(tmp_path).items()

    def test_a_damaged_segment_whose_bytes_are_kept_may_be_removed(self, tmp_path: Path) -> None:
        frames = three_segments(tmp_path)
        change(segments(tmp_path)[0], start_of(1), b"\x00")
        with opened(tmp_path) as log:
            assert log.wal.removable_segments == log.wal.sealed_segments == [1, 5]
            log.wal.remove_oldest(1)
        with opened(tmp_path) as log:
            assert log.frames == frames[3:]
            assert log.wal.damages == []
        assert len(aside_files(tmp_path)) == 1

    @pytest.mark.parametrize("reason", ["disk", "files", "bytes"])
    def test_a_damaged_segment_whose_bytes_could_not_be_kept_is_not_removed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
    ) -> None:
        """Retention would otherwise take the only copy. The opening goes on all the same."""
        frames = three_segments(tmp_path)
        change(segments(tmp_path)[1], start_of(1), b"\x00")
        files = FailingFiles()
        if reason == "disk":
            files.fail["replace"] = errno.ENOSPC
        elif reason == "files":
            monkeypatch.setattr(folder, "ASIDE_DAMAGED_FILES_MAX", 0)
        else:
            monkeypatch.setattr(folder, "ASIDE_DAMAGED_BYTES_MAX", FRAME_BYTES - 1)
        with opened(tmp_path, files) as log:
            assert log.frames == [*frames[:4], *frames[5:]]
            assert log.wal.sealed_segments == [1, 5]
            assert log.wal.removable_segments == [1]
            files.fail.clear()
            log.wal.commit([frame_of(9)])
            log.wal.remove_oldest(1)
            with pytest.raises(ValueError, match="found one that is in use"):
                log.wal.remove_oldest(5)
        assert aside_files(tmp_path) == {}
        monkeypatch.undo()
        with opened(tmp_path) as log:
            assert log.wal.removable_segments == [5], "kept at the next opening"
            log.wal.remove_oldest(5)

    def test_the_bounds_count_what_earlier_openings_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        three_segments(tmp_path)
        change(segments(tmp_path)[0], start_of(1), b"\x00")
        monkeypatch.setattr(folder, "ASIDE_DAMAGED_BYTES_MAX", 2 * FRAME_BYTES)
        with opened(tmp_path):
            pass
        for first in (0, 2):
            change(segments(tmp_path)[1], start_of(first), b"\x00")
        with opened(tmp_path) as log:
            assert log.wal.removable_segments == [1]
        assert sum(map(len, aside_files(tmp_path).values())) == 2 * FRAME_BYTES

    def test_no_more_than_so_many_torn_tails_are_kept_and_the_newest_stay(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A process that dies again and again must not fill the disk with what nobody was ever told of."""
        monkeypatch.setattr(folder, "ASIDE_TAILS_MAX", 3)
        for index in range(6):
            write(tmp_path, [frame_of(index)])
            with segments(tmp_path)[0].open("ab") as file:
                file.write(b"tear %d" % index)
        with opened(tmp_path) as log:
            after = log.wal.next_sequence
        assert sorted(aside_files(tmp_path).values()) == [b"tear 3", b"tear 4", b"tear 5"]
        with opened(tmp_path) as log:
            assert log.wal.next_sequence == after, "L19: the newest tail still tells of its numbers"


class TestMissingSegments:
    def test_a_segment_missing_in_the_middle_is_named(self, tmp_path: Path) -> None:
        frames = three_segments(tmp_path)
        segments(tmp_path)[1].unlink()
        for _ in range(2):
            with opened(tmp_path) as log:
                assert log.frames == [*frames[:3], *frames[6:]]
                assert log.wal.damages == [Damage(NAMES[1], 0, 0, "segment missing")]

    def test_the_oldest_segment_missing_is_named(self, tmp_path: Path) -> None:
        frames = three_segments(tmp_path)
        segments(tmp_path)[0].unlink()
        for _ in range(2):
            with opened(tmp_path) as log:
                assert log.frames == frames[3:]
                assert log.wal.damages == [Damage(NAMES[0], 0, 0, "segment missing")]

    def test_a_segment_missing_after_retention_is_named(self, tmp_path: Path) -> None:
        three_segments(tmp_path)
        with opened(tmp_path) as log:
            log.wal.remove_oldest(1)
        with opened(tmp_path) as log:
            assert log.wal.damages == []
        segments(tmp_path)[0].unlink()
        with opened(tmp_path) as log:
            assert log.wal.damages == [Damage(NAMES[1], 0, 0, "segment missing")]

    def test_a_log_that_lost_every_segment_says_so_and_repeats_no_number(self, tmp_path: Path) -> None:
        """L19; invariant: nothing starts as if it were empty."""
        three_segments(tmp_path)
        with opened(tmp_path) as log:
            log.wal.remove_oldest(1)
        for each in segments(tmp_path):
            each.unlink()
        with opened(tmp_path, salt=lambda _size: b"new salt") as log:
            assert log.frames == []
            assert log.wal.damages == [Damage(NAMES[1], 0, 0, "segment missing")]
            assert log.wal.commit([frame_of(9)])[0].sequence >= 5

    @pytest.mark.parametrize("ends_at", ["anchor", "unlink"])
    def test_a_removal_that_was_interrupted_is_no_damage(self, tmp_path: Path, ends_at: str) -> None:
        """L20: the anchor is on disk before the segment goes, so a crash between the two only leaves it too long."""
        frames = three_segments(tmp_path)
        files = FailingFiles()
        with opened(tmp_path, files) as log:
            files.calls.clear()
            files.fail = {"replace" if ends_at == "anchor" else "remove": errno.EIO}
            with pytest.raises(Exception, match="cannot be removed: Input/output error"):
                log.wal.remove_oldest(1)
        with opened(tmp_path) as log:
            assert log.frames == frames
            assert log.wal.damages == []
            log.wal.remove_oldest(1)
        with opened(tmp_path) as log:
            assert (log.frames, log.wal.damages) == (frames[3:], [])

    def test_the_anchor_is_on_disk_before_the_segment_goes(self, tmp_path: Path) -> None:
        three_segments(tmp_path)
        files = RecordingFiles()
        with opened(tmp_path, files) as log:
            files.calls.clear()
            log.wal.remove_oldest(1)
        assert [call.name for call in files.calls if call.name != "sync_folder"] == [
            "replace",
            "append",
            "remove",
        ]
        assert [call.file for call in files.calls if call.name in {"replace", "remove"}] == [
            "anchor",
            NAMES[0],
        ]

    def test_a_removal_whose_sync_failed_is_synced_by_the_next_attempt(self, tmp_path: Path) -> None:
        three_segments(tmp_path)
        files = FailingFiles()
        with opened(tmp_path, files) as log:
            segments(tmp_path)[0].unlink()  # it took effect, and is perhaps not on disk
            files.calls.clear()
            log.wal.remove_oldest(1)
            assert files.calls[-1] == ("sync_folder", tmp_path.name)
            assert log.wal.sealed_segments == [5]


class TestAnchor:
    def test_the_salt_survives_the_header_of_the_only_segment(self, tmp_path: Path) -> None:
        """A sector of zeros at the front of a log must not cost everything behind it."""
        frames = [frame_of(index, 600) for index in range(4)]
        positions = write(tmp_path, frames)
        change(segments(tmp_path)[0], 0, bytes(positions[0].size_bytes))
        with opened(tmp_path, salt=lambda _size: b"new salt") as log:
            assert log.frames == frames[1:]
            assert [damage.offset for damage in log.wal.damages] == [0, HEADER_BYTES]

    def test_a_log_of_an_earlier_version_gets_its_anchor(self, tmp_path: Path) -> None:
        frames = three_segments(tmp_path)
        segments(tmp_path)[0].unlink()
        (tmp_path / "anchor").unlink()
        with opened(tmp_path) as log:
            assert log.frames == frames[3:]
            assert log.wal.damages == [], "retention may have taken it"
        assert (tmp_path / "anchor").read_bytes() == raw_segment_header(5)

    @pytest.mark.parametrize("content", [b"", b"\x00" * 28, raw_segment_header(1) + b"x"])
    def test_a_damaged_anchor_is_named_and_written_anew(self, tmp_path: Path, content: bytes) -> None:
        frames = three_segments(tmp_path)
        (tmp_path / "anchor").write_bytes(content)
        with opened(tmp_path) as log:
            assert log.frames == frames
            assert log.wal.damages == [Damage("anchor", 0, len(content), "anchor")]
        assert (tmp_path / "anchor").read_bytes() == raw_segment_header(1)
        with opened(tmp_path) as log:
            assert log.wal.damages == []

    def test_an_anchor_of_another_log_does_not_make_the_frames_unreadable(self, tmp_path: Path) -> None:
        frames = three_segments(tmp_path)
        (tmp_path / "anchor").write_bytes(raw_segment_header(700, b"another!"))
        with opened(tmp_path) as log:
            assert log.frames == frames
            assert log.wal.next_sequence == 10
            assert log.wal.damages == [Damage("anchor", 0, HEADER_BYTES, "anchor of another log")]
        assert (tmp_path / "anchor").read_bytes() == raw_segment_header(1)

    def test_an_anchor_that_cannot_be_written_blocks_nothing(self, tmp_path: Path) -> None:
        files = FailingFiles()
        files.fail["replace"] = errno.ENOSPC
        with opened(tmp_path, files) as log:
            log.wal.commit([frame_of(0)])
        assert not (tmp_path / "anchor").exists()
        with opened(tmp_path) as log:
            assert log.frames == [frame_of(0)]
        assert (tmp_path / "anchor").read_bytes() == raw_segment_header(1)


class TestMisplacedFrames:
    @pytest.mark.parametrize(("left", "right"), [(0, 1), (0, 2), (1, 2)])
    def test_swapped_frames_are_all_recovered_in_order_and_named(
        self, tmp_path: Path, left: int, right: int
    ) -> None:
        frames = three_segments(tmp_path)
        path = segments(tmp_path)[0]
        pieces = pieces_of(path)
        pieces[left], pieces[right] = pieces[right], pieces[left]
        rearrange(path, pieces)
        with opened(tmp_path) as log:
            assert log.frames == frames
            assert log.sequences == sorted(set(log.sequences))
            assert {(damage.segment, damage.what) for damage in log.wal.damages} == {
                (NAMES[0], "frames out of order")
            }
            assert [log.wal.read(position).payload for position, _ in log.visited] == [
                frame.payload for frame in frames
            ]

    @pytest.mark.parametrize("place", [0, 1, 2, 3])
    def test_a_frame_of_a_later_segment_hides_none_of_the_frames_after_it(
        self, tmp_path: Path, place: int
    ) -> None:
        """It is whole and of this log, with a higher number: taken, it would make all that follow look like copies."""
        frames = three_segments(tmp_path)
        first, second, _ = segments(tmp_path)
        pieces = pieces_of(first)
        pieces.insert(place, pieces_of(second)[1])
        rearrange(first, pieces)
        with opened(tmp_path) as log:
            assert log.frames == frames
            assert log.wal.damages == [Damage(NAMES[0], start_of(place), FRAME_BYTES, "frames")]

    def test_a_frame_of_an_earlier_segment_is_not_taken_twice(self, tmp_path: Path) -> None:
        frames = three_segments(tmp_path)
        first, second, _ = segments(tmp_path)
        pieces = pieces_of(second)
        pieces[1] = pieces_of(first)[1]
        rearrange(second, pieces)
        with opened(tmp_path) as log:
            assert log.frames == [*frames[:4], *frames[5:]]
            assert log.wal.damages == [Damage(NAMES[1], start_of(1), FRAME_BYTES, "frames")]

    def test_a_segment_overwritten_by_a_copy_of_another_is_named_and_its_frames_come_once(
        self, tmp_path: Path
    ) -> None:
        frames = three_segments(tmp_path)
        first, second, _ = segments(tmp_path)
        first.write_bytes(second.read_bytes())
        with opened(tmp_path) as log:
            assert log.frames == frames[3:]
            assert [(damage.segment, damage.offset) for damage in log.wal.damages] == [
                (NAMES[0], 0),
                (NAMES[0], HEADER_BYTES),
            ]

    def test_the_header_of_another_log_is_named_and_costs_no_frame(self, tmp_path: Path) -> None:
        frames = three_segments(tmp_path)
        change(segments(tmp_path)[0], 0, raw_segment_header(1, b"another!"))
        (tmp_path / "anchor").unlink()
        with opened(tmp_path) as log:
            assert log.frames == frames
            assert log.wal.damages == [Damage(NAMES[0], 0, HEADER_BYTES, "segment header of another log")]

    def test_a_copy_of_the_log_inside_a_damaged_body_gives_nothing_twice(self, tmp_path: Path) -> None:
        """A backup of the log, sent as a body: its frames are whole, under the right salt."""
        body = b"".join(raw_frame(frame_of(index, 6), 1 + index) for index in range(2))
        frames = [frame_of(0, 6), frame_of(1, 6), NewFrame(1, b"e", body + b"rest"), frame_of(3, 6)]
        positions = write(tmp_path, frames)
        for offset in (positions[2].offset, positions[2].offset + positions[2].size_bytes - 1):
            damaged = tmp_path / f"damaged {offset}"
            damaged.mkdir()
            data = bytearray(segments(tmp_path)[0].read_bytes())
            data[offset] ^= 0xFF
            (damaged / NAMES[0]).write_bytes(data)
            with opened(damaged) as log:
                assert log.frames == [*frames[:2], frames[3]]
                assert [damage[:3] for damage in log.wal.damages] == [
                    (NAMES[0], positions[2].offset, positions[2].size_bytes)
                ]

    def test_a_frame_moved_into_a_damaged_header_is_recovered(self, tmp_path: Path) -> None:
        frames = three_segments(tmp_path)
        path = segments(tmp_path)[0]
        path.write_bytes(path.read_bytes()[5:])
        with opened(tmp_path) as log:
            assert log.frames == frames
            assert log.wal.damages == [Damage(NAMES[0], 0, HEADER_BYTES, "segment header")]


def test_numbers_of_a_failed_write_come_once_whatever_becomes_of_them(tmp_path: Path) -> None:
    """L19. Cut off and forgotten they may be given out again; still on disk after a crash they are not."""
    files = FailingFiles()
    with opened(tmp_path, files) as log:
        log.wal.commit([frame_of(0)])
        files.fail, files.prefix_bytes = {"append": errno.ENOSPC}, 10_000
        with pytest.raises(Exception, match="write failed"):
            log.wal.commit([frame_of(1)])
        assert log.wal.synced_sequence == 1, "nothing ever claims to cover them"
    cut = segments(tmp_path)[0].read_bytes()
    again = write(tmp_path, [frame_of(2)])
    assert [position.sequence for position in again] == [2], "given out again: nobody was told of the first"
    # The other fate: the write reached the disk, the cut did not.
    segments(tmp_path)[0].write_bytes(cut + raw_frame(frame_of(1), 2))
    assert write(tmp_path, [frame_of(3)])[0].sequence == 3
    with opened(tmp_path) as log:
        assert log.sequences == [1, 2, 3]


def test_number_beyond_the_bound_is_damage_and_the_log_goes_on(tmp_path: Path) -> None:
    """Found by fuzzing: after a frame of number 2^64-1 there was no number for the next, and no opening."""
    head = raw_segment_header(1)
    (tmp_path / "00000000000000000001.wal").write_bytes(head + raw_frame(frame_of(0), 2**64 - 1))
    with opened(tmp_path) as log:
        assert log.frames == []
        assert log.wal.commit([frame_of(1)])[0].sequence < 100
    with opened(tmp_path) as log:
        assert log.frames == [frame_of(1)]


def test_frames_of_the_next_segment_are_not_taken_even_where_numbers_follow_one_another() -> None:
    """Found by fuzzing: only frames out of order were held against the next segment's first number."""
    frames = b"".join(raw_frame(frame_of(index), index + 1) for index in range(4))
    scan = SegmentScan("a", raw_segment_header(1) + frames, SALT, 1, next_first=3)
    assert [found.frame.sequence for found in scan] == [1, 2]
    half = len(frames) // 2
    assert [(each.offset, each.size_bytes) for each in scan.damages] == [(HEADER_BYTES + half, half)]
