"""The martingale keeps its promise on streams that do not shift and soon sees those that do. `make statistics` runs more."""

from __future__ import annotations

import statistics

import pytest
import scipy.stats

from statistical.streams import (
    SHIFTS,
    count_false_alarms,
    count_false_alarms_of_a_fixed_set,
    count_false_alarms_of_the_test,
    measure_delays,
)


def test_false_alarms_stay_within_one_in_a_hundred() -> None:
    streams = 300
    assert count_false_alarms(1_000_000, streams, 2_000) <= scipy.stats.binom.ppf(0.999, streams, 0.01)


def test_ranks_among_a_fixed_set_give_false_alarms() -> None:
    """What the product does not do; and that the test above can fail."""
    assert count_false_alarms_of_a_fixed_set(100, 2_000) >= 15


def test_looking_again_and_again_alarms_the_one_look_test() -> None:
    """Why the martingale stands beside it."""
    assert count_false_alarms_of_the_test(30, 1_000) >= 10


@pytest.mark.parametrize(
    ("shift", "martingale_max", "test_max"), list(zip(SHIFTS, (60, 200, 90), (50, 110, 110), strict=True))
)
def test_shifts_are_seen_soon(shift: str, martingale_max: int, test_max: int) -> None:
    found = measure_delays(shift, 40)
    assert 0 < statistics.median(delays.martingale for delays in found) <= martingale_max
    assert 0 < statistics.median(delays.test for delays in found) <= test_max
