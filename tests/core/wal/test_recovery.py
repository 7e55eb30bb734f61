"""Opening what a crash or a bad disk left: nothing good is lost, nothing bad is taken, no number comes twice."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcs_core.wal import Damage, NewFrame
from pcs_logs import (
    FRAME_HEADER_BYTES,
    HEADER_BYTES,
    SALT,
    RecordingFiles,
    aside,
    frame_of,
    opened,
    raw_frame,
    raw_segment_header,
    segments,
    write,
)

FIRST_NAME = "00000000000000000001.wal"


def log_bytes(frames: list[NewFrame], first: int = 1) -> bytes:
    return raw_segment_header(first) + b"".join(raw_frame(f, first + i) for i, f in enumerate(frames))


def make(folder: Path, data: bytes, first: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{first:020d}.wal"
    path.write_bytes(data)
    return path


GOOD = [frame_of(0), frame_of(1)]
LAST = frame_of(2)
LAST_START = len(log_bytes(GOOD))
LAST_BYTES = len(raw_frame(LAST, 3))


# Torn tails


@pytest.mark.parametrize("kept", range(1, LAST_BYTES))
def test_a_tail_torn_at_any_byte_is_cut_kept_aside_and_appended_after(tmp_path: Path, kept: int) -> None:
    """L19: appending after a torn tail lost the new record; sequence numbers were reused."""
    data = log_bytes([*GOOD, LAST])[: LAST_START + kept]
    path = make(tmp_path, data)
    with opened(tmp_path) as log:
        assert log.frames == GOOD
        assert log.wal.damages == []
        assert log.wal.torn_bytes == kept
        assert aside(tmp_path) == [data[LAST_START:]]
        assert path.read_bytes() == data[:LAST_START]
        new = log.wal.commit([frame_of(3), frame_of(4)])
    assert new[0].sequence > 3, "the torn frame's number may have been seen"
    with opened(tmp_path) as log:
        assert log.frames == [*GOOD, frame_of(3), frame_of(4)]
        assert log.sequences == sorted(set(log.sequences))
        assert (log.wal.damages, log.wal.torn_bytes) == ([], 0)
    assert segments(tmp_path) == [path]


@pytest.mark.parametrize("kept", [1, FRAME_HEADER_BYTES, LAST_BYTES - 1])
def test_numbers_of_a_cut_tail_stay_used_over_a_second_restart(tmp_path: Path, kept: int) -> None:
    """L19. The bytes that showed the number are gone from the segment; what was kept aside still tells of it."""
    make(tmp_path, log_bytes([*GOOD, LAST])[: LAST_START + kept])
    with opened(tmp_path) as log:
        after_cut = log.wal.next_sequence
    assert after_cut > 3
    for _ in range(2):
        with opened(tmp_path) as log:
            assert log.wal.next_sequence == after_cut
    assert write(tmp_path, [frame_of(3)])[0].sequence == after_cut


def test_a_number_lost_with_a_second_tail_stays_used_too(tmp_path: Path) -> None:
    """L19. The second run's frame had the number after the first cut, and only its first bytes reached the disk."""
    path = make(tmp_path, log_bytes(GOOD) + b"first tear")
    with opened(tmp_path) as log:
        lost = log.wal.commit([frame_of(3)])[0]
    path.write_bytes(path.read_bytes()[: lost.offset + 5])
    assert write(tmp_path, [frame_of(4)])[0].sequence > lost.sequence


def test_a_second_tail_torn_at_the_same_place_does_not_replace_the_first(tmp_path: Path) -> None:
    """L19: repair keeps the damaged bytes, all of them."""
    path = make(tmp_path, log_bytes(GOOD) + b"first tear")
    with opened(tmp_path):
        pass
    with path.open("ab") as file:
        file.write(b"second tear")
    with opened(tmp_path) as log:
        assert log.frames == GOOD
    assert sorted(aside(tmp_path)) == [b"first tear", b"second tear"]


@pytest.mark.parametrize(
    "tail",
    [
        b"\x00" * 8,
        b"\x00",
        b"\x00" * FRAME_HEADER_BYTES,
        b"\x00" * 4096,
        b"\xff" * 100,
        b"PCSF",
        b"PCSF" * 20,
        b"PCSWAL01",
    ],
    ids=lambda tail: f"{tail[:4]!r} {len(tail)}",
)
def test_a_tail_of_zeros_or_noise_is_no_frame(tmp_path: Path, tail: bytes) -> None:
    """L3: eight zero bytes are a valid empty record where frames have no magic."""
    make(tmp_path, log_bytes(GOOD) + tail)
    with opened(tmp_path) as log:
        assert log.frames == GOOD
        assert log.wal.torn_bytes == len(tail)
        assert aside(tmp_path) == [tail]
        log.wal.commit([frame_of(3)])
    with opened(tmp_path) as log:
        assert log.frames == [*GOOD, frame_of(3)]


def test_several_frames_of_one_write_may_be_torn_and_all_their_numbers_stay_used(tmp_path: Path) -> None:
    """L19. The first block of the write is missing, later ones are there but end torn."""
    third, fourth = raw_frame(frame_of(2), 3), raw_frame(frame_of(3), 4)
    make(tmp_path, log_bytes(GOOD) + b"\x00" * len(third) + fourth[:-1])
    with opened(tmp_path) as log:
        assert log.frames == GOOD
        assert log.wal.torn_bytes == len(third) + len(fourth) - 1
        assert log.wal.commit([frame_of(5)])[0].sequence > 4


def test_a_stale_copy_of_an_earlier_frame_after_the_end_is_not_taken_again(tmp_path: Path) -> None:
    """L19: numbers rise, so a block written twice by the disk is no new record."""
    copy = raw_frame(GOOD[0], 1)
    make(tmp_path, log_bytes(GOOD) + copy)
    with opened(tmp_path) as log:
        assert log.frames == GOOD
        assert log.wal.torn_bytes == len(copy)


@pytest.mark.parametrize("tail", [b"", b"\x00" * 8], ids=["torn in the payload", "zeros after"])
@pytest.mark.parametrize("attacker_salt", [b"\x00" * 8, b"saltsalT", b"guessed!"])
def test_a_frame_inside_a_torn_payload_is_not_resurrected(
    tmp_path: Path, attacker_salt: bytes, tail: bytes
) -> None:
    """Whoever writes a body can write frames into it, sequence numbers and CRCs included, but does not know the salt."""
    forged = raw_segment_header(1, attacker_salt) + b"".join(
        raw_frame(NewFrame(2, b"forged", b"outcome"), sequence, attacker_salt) for sequence in range(3, 9)
    )
    torn = raw_frame(NewFrame(1, b"e", forged + b"rest of the body"), 3)[:-10] + tail
    make(tmp_path, log_bytes(GOOD) + torn)
    with opened(tmp_path) as log:
        assert log.frames == GOOD
        assert log.wal.torn_bytes == len(torn)
        log.wal.commit([frame_of(3)])
    with opened(tmp_path) as log:
        assert log.frames == [*GOOD, frame_of(3)]


def test_a_frame_inside_a_damaged_payload_is_not_resurrected_either(tmp_path: Path) -> None:
    forged = raw_frame(NewFrame(2, b"forged", b"outcome"), 2, b"guessed!")
    body = bytearray(raw_frame(NewFrame(1, b"e", b"before" + forged), 2))
    body[FRAME_HEADER_BYTES + 2] ^= 1
    make(tmp_path, log_bytes([frame_of(0)]) + bytes(body) + raw_frame(frame_of(2), 3))
    with opened(tmp_path) as log:
        assert log.frames == [frame_of(0), frame_of(2)]
        assert [damage.size_bytes for damage in log.wal.damages] == [len(body)]


def test_a_torn_seal_is_cut_and_the_segment_goes_on(tmp_path: Path) -> None:
    write(tmp_path, [frame_of(0), frame_of(1)], segment_bytes=1)
    first, second = segments(tmp_path)
    second.unlink()
    first.write_bytes(first.read_bytes()[:-3])
    with opened(tmp_path) as log:
        assert log.frames == [frame_of(0)]
        assert log.wal.damages == []
        log.wal.commit([frame_of(2)])
    with opened(tmp_path) as log:
        assert log.frames == [frame_of(0), frame_of(2)]


# The order of repair


def test_cut_bytes_are_on_disk_aside_before_they_are_cut_off(tmp_path: Path) -> None:
    """L19, L20."""
    make(tmp_path, log_bytes(GOOD) + b"tear")
    files = RecordingFiles()
    with opened(tmp_path, files):
        pass
    names = [f"{call.name} {call.file}" for call in files.calls]
    kept = next(name for name in names if name.startswith("replace "))
    assert names.index(kept) < names.index("sync_folder aside") < names.index(f"rewrite {FIRST_NAME}")


@pytest.mark.parametrize("state", ["whole", "sealed", "damaged"])
def test_what_was_visited_is_written_again_before_opening_returns(tmp_path: Path, state: str) -> None:
    """Who wrote the last frames may have died before its sync, or after one that failed; they are acted upon."""
    write(tmp_path, [frame_of(0), frame_of(1)], segment_bytes=1 if state == "sealed" else 1 << 20)
    if state == "sealed":
        segments(tmp_path)[1].unlink()
    if state == "damaged":
        data = bytearray(segments(tmp_path)[0].read_bytes())
        data[HEADER_BYTES + 30] ^= 1
        segments(tmp_path)[0].write_bytes(data)
    files = RecordingFiles()
    with opened(tmp_path, files) as log:
        assert len(log.frames) == (2 if state == "whole" else 1)
        assert ("rewrite", FIRST_NAME) in files.calls
        assert ("sync_folder", tmp_path.name) in files.calls


# Damage


class Layout(NamedTuple):
    """A log of a small sealed segment and one after it."""

    folder: Path
    sealed: Path
    frames: list[NewFrame]
    starts: list[int]


def two_segments(folder: Path) -> Layout:
    """Make a sealed segment of three frames and a second one of one frame."""
    sizes = 28 + 3 * len(raw_frame(frame_of(0, 4), 1))
    frames = [frame_of(index, 4) for index in range(4)]
    positions = write(folder, frames, segment_bytes=sizes)
    assert [position.segment for position in positions] == [1, 1, 1, 5]
    sealed = segments(folder)[0]
    starts = [position.offset for position in positions[:3]]
    starts.append(starts[-1] + positions[2].size_bytes)  # the seal
    return Layout(folder, sealed, frames, starts)


SEALED_BYTES = 28 + 3 * len(raw_frame(frame_of(0, 4), 1)) + FRAME_HEADER_BYTES + 12 + 4


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_one_flipped_byte_anywhere_in_a_sealed_segment_is_reported_and_costs_at_most_its_frame(
    tmp_path: Path, mask: int
) -> None:
    for offset in range(SEALED_BYTES):
        layout = two_segments(tmp_path / str(offset))
        data = bytearray(layout.sealed.read_bytes())
        assert len(data) == SEALED_BYTES
        data[offset] ^= mask
        layout.sealed.write_bytes(data)
        if offset < HEADER_BYTES:
            lost, where = None, 0
        else:
            lost = max(index for index, start in enumerate(layout.starts) if start <= offset)
            where = layout.starts[lost]
        expected = [frame for index, frame in enumerate(layout.frames) if index != lost or index == 3]
        with opened(layout.folder) as log:
            assert log.frames == expected, offset
            assert [(damage.segment, damage.offset) for damage in log.wal.damages] == [(FIRST_NAME, where)], (
                offset
            )
            new = log.wal.commit([frame_of(9)])[0]
            assert new.segment == 5
            assert new.sequence > 5
        assert layout.sealed.read_bytes() == bytes(data), "damaged bytes are left as evidence"


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_one_flipped_byte_anywhere_in_the_only_segment_costs_at_most_its_frame_and_new_frames_go_elsewhere(
    tmp_path: Path, mask: int
) -> None:
    """The segment's header holds the salt, without which no frame could be read: one bad byte there must not cost all."""
    frames = [frame_of(index, 4) for index in range(3)]
    whole = log_bytes(frames)
    starts = [len(log_bytes(frames[:index])) for index in range(3)]
    for offset in range(starts[2]):
        data = bytearray(whole)
        data[offset] ^= mask
        path = make(tmp_path / str(offset), bytes(data))
        lost = None if offset < HEADER_BYTES else int(offset >= starts[1])
        expected = [frame for index, frame in enumerate(frames) if index != lost]
        with opened(path.parent, salt=lambda _size: b"new salt") as log:
            assert log.frames == expected, offset
            where = 0 if lost is None else starts[lost]
            assert [(damage.segment, damage.offset) for damage in log.wal.damages] == [(FIRST_NAME, where)]
            new = log.wal.commit([frame_of(9)])[0]
            assert new.segment == new.sequence > 3
        with opened(path.parent) as log:
            assert log.frames == [*expected, frame_of(9)], offset
            assert len(log.wal.damages) == 1
        assert path.read_bytes() == bytes(data)


def test_a_segment_header_that_is_gone_altogether_is_reported_and_does_not_block(tmp_path: Path) -> None:
    layout = two_segments(tmp_path)
    data = layout.sealed.read_bytes()
    layout.sealed.write_bytes(b"\x00" * HEADER_BYTES + data[HEADER_BYTES:])
    with opened(tmp_path) as log:
        assert log.frames == layout.frames, "the other segment knows the salt"
        assert log.wal.damages == [Damage(FIRST_NAME, 0, HEADER_BYTES, "segment header")]


def test_the_only_segment_without_its_header_is_reported_and_its_numbers_stay_used(tmp_path: Path) -> None:
    """L19."""
    data = log_bytes([frame_of(index, 0) for index in range(50)])
    make(tmp_path, b"\x00" * HEADER_BYTES + data[HEADER_BYTES:])
    with opened(tmp_path, salt=lambda _size: b"new salt") as log:
        assert log.frames == []
        assert [(damage.offset, damage.what) for damage in log.wal.damages] == [
            (0, "segment header"),
            (HEADER_BYTES, "frames"),
        ]
        assert log.wal.commit([frame_of(99)])[0].sequence > 50
    with opened(tmp_path) as log:
        assert log.frames == [frame_of(99)]


@pytest.mark.parametrize("missing", [[0], [1], [2], [0, 1], [1, 2], [0, 1, 2]], ids=str)
def test_frames_missing_without_a_trace_are_noticed_by_the_seal(tmp_path: Path, missing: list[int]) -> None:
    layout = two_segments(tmp_path)
    data = layout.sealed.read_bytes()
    ends = layout.starts[1:]
    kept = [data[layout.starts[i] : ends[i]] for i in range(3) if i not in missing]
    layout.sealed.write_bytes(data[:HEADER_BYTES] + b"".join(kept) + data[layout.starts[3] :])
    with opened(tmp_path) as log:
        assert log.frames == [frame for index, frame in enumerate(layout.frames) if index not in missing]
        (damage,) = log.wal.damages
        assert damage == Damage(
            FIRST_NAME, HEADER_BYTES + sum(map(len, kept)), 0, "frames missing before the seal"
        )


@pytest.mark.parametrize("kept", [0, 1, 2, 3])
def test_a_segment_that_lost_its_end_just_between_two_frames_is_noticed(tmp_path: Path, kept: int) -> None:
    layout = two_segments(tmp_path)
    layout.sealed.write_bytes(layout.sealed.read_bytes()[: layout.starts[kept]])
    with opened(tmp_path) as log:
        assert log.frames == [*layout.frames[:kept], layout.frames[3]]
        what = "frames missing at the end, the seal too"
        assert log.wal.damages == [Damage(FIRST_NAME, layout.starts[kept], 0, what)]


def test_a_sealed_segment_torn_in_the_middle_is_damage_and_is_not_cut(tmp_path: Path) -> None:
    layout = two_segments(tmp_path)
    torn = layout.sealed.read_bytes()[: layout.starts[1] + 5]
    layout.sealed.write_bytes(torn)
    with opened(tmp_path) as log:
        assert log.frames == [layout.frames[0], layout.frames[3]]
        assert log.wal.damages == [Damage(FIRST_NAME, layout.starts[1], 5, "frames")]
        assert log.wal.torn_bytes == 0
    assert layout.sealed.read_bytes() == torn


def test_bytes_after_a_seal_are_damage(tmp_path: Path) -> None:
    layout = two_segments(tmp_path)
    segments(tmp_path)[1].unlink()
    whole = layout.sealed.read_bytes()
    layout.sealed.write_bytes(whole + b"extra")
    with opened(tmp_path) as log:
        assert log.frames == layout.frames[:3]
        assert log.wal.damages == [Damage(FIRST_NAME, len(whole), 5, "frames")]
        assert log.wal.commit([frame_of(9)])[0].segment > 1


def test_several_damaged_places_are_each_reported(tmp_path: Path) -> None:
    frames = [frame_of(index) for index in range(6)]
    starts = [len(log_bytes(frames[:index])) for index in range(7)]
    data = bytearray(log_bytes(frames))
    for index in (0, 2, 3):
        data[starts[index] + 1] ^= 0xFF
    make(tmp_path, bytes(data))
    with opened(tmp_path) as log:
        assert log.frames == [frames[1], frames[4], frames[5]]
        assert log.wal.damages == [
            Damage(FIRST_NAME, starts[0], starts[1] - starts[0], "frames"),
            Damage(FIRST_NAME, starts[2], starts[4] - starts[2], "frames"),
        ]


def test_damage_in_the_last_segment_with_a_tear_after_it_is_left_as_it_is(tmp_path: Path) -> None:
    data = bytearray(log_bytes([*GOOD, LAST]) + raw_frame(frame_of(3), 4)[:-1])
    data[HEADER_BYTES] ^= 1
    path = make(tmp_path, bytes(data))
    with opened(tmp_path) as log:
        assert log.frames == [GOOD[1], LAST]
        assert [damage.offset for damage in log.wal.damages] == [HEADER_BYTES, LAST_START + LAST_BYTES]
        assert log.wal.commit([frame_of(9)])[0].sequence > 4
    assert path.read_bytes() == bytes(data)


@settings(max_examples=150)
@given(data=st.data(), segment_bytes=st.sampled_from([1, 200, 10_000]), cut=st.booleans())
def test_any_damage_leaves_the_log_usable_and_invents_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, segment_bytes: int, cut: bool
) -> None:
    folder = tmp_path_factory.mktemp("log")
    frames = [frame_of(index, 6) for index in range(8)]
    for name, whole in written(segment_bytes).items():
        content = bytearray(whole)
        for _ in range(data.draw(st.integers(0, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        size_bytes = data.draw(st.integers(0, len(content))) if cut else len(content)
        (folder / name).write_bytes(content[:size_bytes])
    with opened(folder) as log:
        survivors = log.frames
        assert [frame for frame in frames if frame in survivors] == survivors
        # The last segment has no seal yet: only there may a cut between two frames go unnoticed.
        assert cut or survivors == frames or log.wal.damages or log.wal.torn_bytes
        highest = max(log.sequences, default=0)
        new = log.wal.commit([frame_of(99)])[0]
        assert new.sequence > highest
    with opened(folder) as log:
        assert log.frames == [*survivors, frame_of(99)]


@cache
def written(segment_bytes: int) -> dict[str, bytes]:
    """Return the bytes of a log of eight frames, by file name."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), [frame_of(index, 6) for index in range(8)], segment_bytes=segment_bytes)
        return {path.name: path.read_bytes() for path in segments(Path(folder))}


# Death while a segment is made


@pytest.mark.parametrize("size_bytes", range(HEADER_BYTES))
@pytest.mark.parametrize("before", [[], [frame_of(0)]], ids=["first segment", "after a sealed one"])
def test_a_segment_whose_header_was_not_finished_is_made_anew(
    tmp_path: Path, size_bytes: int, before: list[NewFrame]
) -> None:
    name = 1
    if before:
        write(tmp_path, [*before, frame_of(1)], segment_bytes=1)
        segments(tmp_path)[1].unlink()
        name = 3
    make(tmp_path, raw_segment_header(name)[:size_bytes], name)
    with opened(tmp_path) as log:
        assert log.frames == before
        assert log.wal.damages == []
        new = log.wal.commit([frame_of(5)])[0]
        assert (new.segment, new.sequence) == (name, name)
    with opened(tmp_path) as log:
        assert log.frames == [*before, frame_of(5)]
        assert log.wal.damages == []


def test_a_segment_of_zeros_after_a_power_cut_is_made_anew(tmp_path: Path) -> None:
    make(tmp_path, b"\x00" * HEADER_BYTES)
    with opened(tmp_path) as log:
        assert (log.frames, log.wal.damages) == ([], [])
        assert log.wal.commit([frame_of(5)])[0].segment == 1
    with opened(tmp_path) as log:
        assert log.frames == [frame_of(5)]


def test_a_header_alone_is_an_empty_segment(tmp_path: Path) -> None:
    make(tmp_path, raw_segment_header(7), 7)
    with opened(tmp_path, salt=lambda _size: b"new salt") as log:
        assert log.wal.commit([frame_of(0)])[0].sequence == 7
    assert segments(tmp_path)[0].read_bytes()[8:16] == SALT


def test_a_crash_between_seal_and_next_segment_loses_nothing(tmp_path: Path) -> None:
    write(tmp_path, [frame_of(0), frame_of(1)], segment_bytes=1)
    segments(tmp_path)[1].unlink()
    with opened(tmp_path) as log:
        assert (log.frames, log.wal.damages) == ([frame_of(0)], [])
        assert log.wal.commit([frame_of(2)])[0][:2] == (3, 3)
