"""What may be removed from a log: never a request without an outcome, never something new, oldest first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pcs_core.wal import Ledger, Position

NOW_S = 1_000.0


def at(segment: int, sequence: int) -> Position:
    return Position(sequence, segment, 28, 40)


def test_a_segment_with_an_open_frame_is_never_retired_however_old() -> None:
    ledger = Ledger()
    ledger.open(1, at(1, 1), 0.0)
    ledger.open(2, at(1, 2), 0.0)
    assert ledger.retirable([1], NOW_S) == []
    assert ledger.close(1) is True
    assert ledger.retirable([1], NOW_S) == []
    assert ledger.close(2) is True
    assert ledger.retirable([1], NOW_S) == [1]


def test_a_segment_that_holds_something_new_is_not_retired() -> None:
    ledger = Ledger()
    ledger.open(1, at(1, 1), NOW_S - 1)
    ledger.close(1)
    assert ledger.retirable([1], NOW_S) == [1]
    assert ledger.retirable([1], NOW_S - 1) == [], "as new as the limit is not older"
    ledger.note_time(1, NOW_S + 5)
    ledger.note_time(1, 3.0)
    assert ledger.retirable([1], NOW_S) == [], "the newest time counts, not the last one noted"
    assert ledger.retirable([1], NOW_S + 6) == [1]


def test_segments_go_oldest_first_and_none_goes_before_an_older_one_that_stays() -> None:
    ledger = Ledger()
    for segment in (1, 10, 20, 30):
        ledger.open(segment, at(segment, segment), 0.0)
    for segment in (1, 20, 30):
        ledger.close(segment)
    assert ledger.retirable([1, 10, 20, 30], NOW_S) == [1]
    ledger.close(10)
    assert ledger.retirable([1, 10, 20, 30], NOW_S) == [1, 10, 20, 30]
    ledger.note_time(10, NOW_S)
    assert ledger.retirable([1, 10, 20, 30], NOW_S) == [1]


def test_only_sealed_segments_are_considered() -> None:
    ledger = Ledger()
    ledger.open(1, at(1, 1), 0.0)
    ledger.close(1)
    assert ledger.retirable([], NOW_S) == []


def test_a_segment_without_any_time_counts_as_old() -> None:
    assert Ledger().retirable([1, 5], NOW_S) == [1, 5]


def test_closing_tells_whether_a_frame_was_open_and_counts_once() -> None:
    ledger = Ledger()
    ledger.open(1, at(1, 1), 0.0)
    ledger.open(2, at(1, 2), 0.0)
    assert [ledger.close(1), ledger.close(1), ledger.close(99)] == [True, False, False]
    assert ledger.retirable([1], NOW_S) == []
    assert (len(ledger), list(ledger), 2 in ledger, 1 in ledger) == (1, [2], True, False)


def test_open_frames_are_told_in_the_order_they_were_opened_with_their_places() -> None:
    ledger = Ledger()
    for sequence in (5, 3, 9):
        ledger.open(sequence, at(1, sequence), 0.0)
    assert list(ledger) == [5, 3, 9]
    assert (ledger.position(3), ledger.position(4)) == (at(1, 3), None)


def test_a_forgotten_segment_leaves_the_others_as_they_are() -> None:
    ledger = Ledger()
    ledger.open(1, at(1, 1), 0.0)
    ledger.close(1)
    ledger.open(10, at(10, 10), 0.0)
    ledger.forget(1)
    ledger.forget(777)
    assert ledger.retirable([10], NOW_S) == []
    ledger.close(10)
    assert ledger.retirable([10], NOW_S) == [10]


@given(
    frames=st.lists(st.tuples(st.integers(1, 6), st.floats(0, 2_000), st.booleans()), max_size=40),
    before_s=st.floats(0, 2_000),
)
def test_whatever_is_retired_is_closed_old_and_a_run_from_the_oldest(
    frames: list[tuple[int, float, bool]], before_s: float
) -> None:
    ledger = Ledger()
    for sequence, (segment, time_s, closed) in enumerate(frames):
        ledger.open(sequence, at(segment, sequence), time_s)
        if closed:
            ledger.close(sequence)
    sealed = [1, 2, 3, 4, 5, 6]
    stays = {segment for segment, time_s, closed in frames if not closed or time_s >= before_s}
    expected = sealed[: min(stays) - 1] if stays else sealed
    assert ledger.retirable(sealed, before_s) == expected
