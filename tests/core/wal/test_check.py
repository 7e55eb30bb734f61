"""Checking a log changes nothing; repairing it keeps every good frame and every number, and is done after one time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pcs_core.errors import WalError
from pcs_core.wal import Damage, NewFrame, PosixFiles, Repair, check_log, folder, repair_log
from pcs_logs import HEADER_BYTES, frame_of, opened, raw_frame, raw_segment_header, segments, write

FRAME_BYTES = len(raw_frame(frame_of(0, 6), 1))
THREE_A_SEGMENT = HEADER_BYTES + 3 * FRAME_BYTES
SEALED_BYTES = THREE_A_SEGMENT + 44
NAMES = ["00000000000000000001.wal", "00000000000000000005.wal", "00000000000000000009.wal"]
FRAMES = [frame_of(index, 6) for index in range(8)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Two sealed segments of three frames each and an open one of two."""
    path = tmp_path / "log"
    write(path, FRAMES, segment_bytes=THREE_A_SEGMENT)
    assert [each.name for each in segments(path)] == NAMES
    return path


def check(path: Path) -> list[Damage]:
    return check_log(str(path), PosixFiles()).all_damages


def repair(path: Path) -> list[Repair]:
    return repair_log(str(path), PosixFiles())


def contents(path: Path) -> dict[str, bytes]:
    return {str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.is_file()}


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


def frames_of(path: Path) -> list[NewFrame]:
    with opened(path) as found:
        assert found.wal.damages == []
        return found.frames


DAMAGES: dict[str, tuple[Callable[[Path], object], list[int]]] = {
    "a frame of a sealed segment": (lambda path: flip(segments(path)[0], HEADER_BYTES + 3), [0]),
    "the last frame and the seal": (
        lambda path: segments(path)[0].write_bytes(
            segments(path)[0].read_bytes()[: HEADER_BYTES + FRAME_BYTES + 5]
        ),
        [1, 2],
    ),
    "a header": (lambda path: flip(segments(path)[1], 9), []),
    "a seal": (lambda path: flip(segments(path)[1], SEALED_BYTES - 1), []),
    "everything of a segment": (lambda path: segments(path)[1].write_bytes(b""), [3, 4, 5]),
    "a frame of the open segment": (lambda path: flip(segments(path)[2], HEADER_BYTES + 3), [6]),
    "a segment in the middle": (lambda path: segments(path)[1].unlink(), [3, 4, 5]),
    "the oldest segment": (lambda path: segments(path)[0].unlink(), [0, 1, 2]),
    "every segment": (lambda path: [each.unlink() for each in segments(path)], list(range(8))),
    "the anchor": (lambda path: (path / "anchor").write_bytes(b"?"), []),
    "another log's anchor": (
        lambda path: (path / "anchor").write_bytes(raw_segment_header(50, b"another!")),
        [],
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_check_finds_what_an_opening_finds_and_changes_nothing(log: Path, name: str) -> None:
    DAMAGES[name][0](log)
    before = contents(log)
    report = check_log(str(log), PosixFiles())
    assert report.all_damages != []
    assert contents(log) == before
    with opened(log) as found:
        assert found.wal.damages == report.all_damages
        assert found.wal.synced_sequence == report.synced_sequence


@pytest.mark.parametrize("name", DAMAGES)
def test_a_repair_keeps_every_good_frame_and_is_done_after_one_time(log: Path, name: str) -> None:
    damage, lost = DAMAGES[name]
    damage(log)
    repairs = repair(log)
    assert [each.done for each in repairs] == [True] * len(repairs) != []
    assert check(log) == []
    after = contents(log)
    assert repair(log) == []
    assert contents(log) == after
    assert frames_of(log) == [frame for index, frame in enumerate(FRAMES) if index not in lost]
    with opened(log) as found:
        new = found.wal.commit([frame_of(9)])[0]
        assert new.sequence > max(found.sequences, default=0)
    with opened(log) as found:
        assert found.wal.damages == []


def test_a_repair_after_an_opening_that_went_on_gives_no_number_twice(log: Path) -> None:
    """The opening began a new segment right after the damaged one, whose seal has no number of its own left."""
    flip(segments(log)[2], HEADER_BYTES + 3)
    with opened(log) as found:
        assert found.wal.commit([frame_of(9)])[0].segment == 11
    (done,) = repair(log)
    assert done.what == f"rewritten with its 1 good frames; {FRAME_BYTES} damaged bytes are in aside"
    assert check(log) == []
    assert frames_of(log) == [*FRAMES[:6], FRAMES[7], frame_of(9)]


def test_numbers_of_good_frames_stay_as_they_were(log: Path) -> None:
    """Others refer to them: a refusal names the request it closes."""
    flip(segments(log)[0], HEADER_BYTES + FRAME_BYTES + 3)
    repair(log)
    with opened(log) as found:
        assert found.sequences == [1, 3, 5, 6, 7, 9, 10]


def test_what_is_given_up_is_named(log: Path) -> None:
    segments(log)[1].unlink()
    assert repair(log) == [
        (
            NAMES[0],
            f"rewritten with its 3 good frames; 0 damaged bytes are in aside; given up: {NAMES[1]}",
            True,
        )
    ]


def test_a_torn_tail_is_no_damage_and_is_left_to_the_next_opening(log: Path) -> None:
    with segments(log)[2].open("ab") as file:
        file.write(b"tear")
    before = contents(log)
    report = check_log(str(log), PosixFiles())
    assert (report.all_damages, report.segments[-1].torn_bytes) == ([], 4)
    assert repair(log) == []
    assert contents(log) == before


def test_a_segment_whose_making_was_interrupted_is_no_damage(log: Path) -> None:
    (log / "00000000000000000012.wal").write_bytes(b"PCSWAL")
    with opened(log / "none"):
        pass
    report = check_log(str(log), PosixFiles())
    # The open segment before it has no seal, so it was never followed by another.
    assert [damage.what for damage in report.all_damages] == ["frames missing at the end, the seal too"]
    segments(log)[3].unlink()
    segments(log)[2].write_bytes(b"PCSWAL")
    assert check(log) == []


def test_damaged_bytes_that_cannot_be_kept_are_not_given_up(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(segments(log)[0], HEADER_BYTES + 3)
    before = contents(log)
    monkeypatch.setattr(folder, "ASIDE_DAMAGED_BYTES_MAX", 1)
    assert repair(log) == [
        (NAMES[0], "not repaired: its damaged bytes could not be kept aside", False),
    ]
    assert contents(log) == before


def test_a_renamed_segment_is_left_as_it_is(log: Path) -> None:
    """Its frames' numbers do not fit its name; under the right one it is whole."""
    for each in segments(log)[1:]:
        each.unlink()
    renamed = segments(log)[0].rename(log / "00000000000000000900.wal")
    before = renamed.read_bytes()
    assert [each.done for each in repair(log) if each.name == renamed.name] == [False]
    assert renamed.read_bytes() == before
    with opened(log) as found:
        assert found.frames == FRAMES[:3]


def test_a_segment_the_disk_does_not_give_is_named(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class UnreadableFiles(PosixFiles):
        def read(self, path: str) -> bytes:
            if path.endswith(NAMES[1]):
                raise OSError(5, "boom", path)
            return super().read(path)

    for act in (check_log, repair_log):
        with pytest.raises(WalError, match=rf"^segment {NAMES[1]}: cannot be read: Input/output error$"):
            act(str(log), UnreadableFiles())
    with (
        pytest.raises(WalError, match=rf"^segment {NAMES[1]}: cannot be read: Input/output error$"),
        opened(log, UnreadableFiles()),
    ):
        pytest.fail("opened")
