"""Thresholds are the golden ones, and none stands where too few scores support it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcs_backend.conformal.calibration import ThresholdMethod
from pcs_backend.conformal.thresholds import bad_threshold, benign_threshold, rank_at

GOLDEN = json.loads((Path(__file__).parents[2] / "golden/conformal.json").read_bytes())
METHODS: tuple[ThresholdMethod, ...] = ("order_statistic", "interpolated")

scores = st.lists(st.floats(-10, 10).map(lambda score: round(score, 2)), max_size=300).map(sorted)
levels = st.integers(1, 999).map(lambda thousandths: thousandths / 1000)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", GOLDEN, ids=[f"{case['note']} {case['level']}" for case in GOLDEN])
def test_thresholds_are_the_golden_ones_to_the_bit(case: dict[str, Any], method: ThresholdMethod) -> None:
    """L24."""
    wanted = case[method]
    benign = benign_threshold(case["scores"], case["level"], method)
    bad = bad_threshold(case["scores"], case["level"], method)
    assert benign == (math.inf if wanted["benign"] is None else wanted["benign"])
    assert bad == (-math.inf if wanted["bad"] is None else wanted["bad"])


@pytest.mark.parametrize("method", METHODS)
def test_without_scores_nothing_is_refused_and_nothing_accepted(method: ThresholdMethod) -> None:
    assert (benign_threshold([], 0.05, method), bad_threshold([], 0.05, method)) == (math.inf, -math.inf)


def test_a_level_is_the_decimal_that_was_written() -> None:
    """0.29 · 100 is 28.999999999999996 in binary, and 1 − 0.9 is less than a tenth."""
    assert [rank_at(99, level) for level in (0.29, 0.57, 0.58, 0.1)] == [29, 57, 58, 10]
    assert [rank_at(count, 0.05) for count in (18, 19, 38, 39, 999)] == [0, 1, 1, 2, 50]
    assert rank_at(99, np.float64(0.29)) == 29


@settings(deadline=None)
@given(scores, levels)
def test_as_many_scores_stand_at_a_threshold_or_beyond_as_the_level_gives(
    found: list[float], level: float
) -> None:
    """And with ties no more stand beyond it than without."""
    allowed = rank_at(len(found), level)
    refused_above, accepted_below = benign_threshold(found, level), bad_threshold(found, level)
    assert sum(score > refused_above for score in found) <= max(0, allowed - 1)
    assert sum(score < accepted_below for score in found) <= max(0, allowed - 1)
    apart = [float(place) for place in range(len(found))]
    assert sum(score >= benign_threshold(apart, level) for score in apart) == allowed
    assert sum(score <= bad_threshold(apart, level) for score in apart) == allowed


@settings(deadline=None)
@given(scores, levels)
def test_bad_scores_are_benign_ones_seen_from_above(found: list[float], level: float) -> None:
    mirrored = sorted(-score for score in found)
    for method in METHODS:
        assert bad_threshold(found, level, method) == -benign_threshold(mirrored, level, method)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, math.nan, 5.0])
def test_a_level_out_of_range_is_refused(level: float) -> None:
    for threshold in (benign_threshold, bad_threshold):
        with pytest.raises(ValueError, match="a level lies above 0 and below 1"):
            threshold([0.1, 0.2], level)


@pytest.mark.parametrize(
    "unfit",
    [[0.2, 0.1], [0.1, math.nan, 0.2], [math.nan], [0.1, math.inf], [-math.inf, 0.1], [math.inf]],
    ids=str,
)
def test_scores_that_do_not_ascend_or_are_not_finite_are_refused(unfit: list[float]) -> None:
    for threshold in (benign_threshold, bad_threshold):
        with pytest.raises(ValueError, match="scores must be finite and ascend"):
            threshold(unfit, 0.5)
