"""How many records a request may hold, after whatever happened."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcs_agent.deliver.batch_size import BATCH_RECHECK_S, BatchSize


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def sizes(size: BatchSize, *happened: str) -> list[int]:
    """Let full requests be answered, fail or be too large; return what each of them held."""
    held = []
    for what in happened:
        held.append(size.records())
        getattr(size, f"note_{what}")(*([size.records()] if what != "refused" else []))
    return [*held, size.records()]


def test_failures_halve_and_answers_double_up_to_the_largest() -> None:
    assert sizes(BatchSize(100, Clock()), *["failed"] * 3, *["answered"] * 5) == [
        *(100, 50, 25),
        *(12, 24, 48, 96, 100, 100),
    ]


def test_batches_that_failed_together_halve_once() -> None:
    size = BatchSize(100, Clock())
    for _ in range(8):
        size.note_failed(100)
    assert size.records() == 50


def test_a_small_batch_that_is_answered_says_nothing_of_larger_ones() -> None:
    size = BatchSize(100, Clock())
    size.note_failed(100)
    size.note_answered(49)
    assert size.records() == 50


def test_what_was_too_large_is_not_tried_again() -> None:
    assert sizes(BatchSize(100, Clock()), "too_large", *["answered"] * 3) == [100, 50, 50, 50, 50]


def test_nothing_small_enough_counts_as_refused() -> None:
    clock = Clock()
    size = BatchSize(2, clock)
    size.note_too_large(2)
    assert (size.records(), size.is_known) == (1, True)
    clock.now_s = BATCH_RECHECK_S
    assert (size.records(), size.is_known) == (2, False)


def test_a_refusal_holds_for_a_while_and_then_nothing_is_known() -> None:
    clock = Clock()
    size = BatchSize(100, clock)
    assert not size.is_known
    size.note_refused()
    for seconds in (0.0, BATCH_RECHECK_S - 0.001):
        clock.now_s = seconds
        size.note_answered(1)
        assert (size.records(), size.is_known) == (1, True)
    clock.now_s = BATCH_RECHECK_S
    assert (size.records(), size.is_known) == (100, False)
    size.note_answered(2)
    assert size.is_known


@pytest.mark.parametrize("happened", ["answered", "failed", "too_large"])
def test_single_submits_stay_single(happened: str) -> None:
    size = BatchSize(1, Clock())
    assert size.is_known
    assert sizes(size, *[happened] * 5) == [1] * 6


@given(
    st.integers(1, 1_000),
    st.lists(st.tuples(st.sampled_from(["answered", "failed", "too_large", "refused"]), st.floats(0, 900))),
)
def test_the_size_is_always_in_range_and_can_grow_again(
    records_max: int, history: list[tuple[str, float]]
) -> None:
    clock = Clock()
    size = BatchSize(records_max, clock)
    for what, later_s in history:
        assert all(1 <= each <= records_max for each in sizes(size, what))
        clock.now_s += later_s
    clock.now_s += BATCH_RECHECK_S
    before = size.records()
    size.note_failed(before)
    size.note_answered(size.records())
    assert size.records() >= max(1, before // 2)
