"""Weighted thresholds: those without weights where all are equal, and right where labelled records are another mixture."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcs_backend.conformal.thresholds import bad_threshold, benign_threshold
from pcs_backend.conformal.weighted import weighted_bad_thresholds, weighted_benign_thresholds

scores = st.lists(st.integers(-50, 50).map(float), max_size=120).map(sorted)
levels = st.integers(1, 99).map(lambda hundredths: hundredths / 100)


@settings(deadline=None)
@given(scores, levels, st.sampled_from([0.1, 1.0, 7.0]))
def test_equal_weights_give_the_thresholds_without_weights(
    found: list[float], level: float, weight: float
) -> None:
    weights = [weight] * len(found)
    assert weighted_benign_thresholds(found, weights, [weight], level) == [benign_threshold(found, level)]
    assert weighted_bad_thresholds(found, weights, [weight], level) == [bad_threshold(found, level)]


def test_a_whole_weight_is_as_many_equal_scores() -> None:
    found, weights = [0.1, 0.2, 0.4, 0.8], [3.0, 0.0, 5.0, 2.0]
    repeated = [0.1] * 3 + [0.4] * 5 + [0.8] * 2
    for level in (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 0.9):
        assert weighted_benign_thresholds(found, weights, [1.0], level) == [benign_threshold(repeated, level)]
        assert weighted_bad_thresholds(found, weights, [1.0], level) == [bad_threshold(repeated, level)]


def test_each_weight_of_a_record_has_a_threshold_of_its_own() -> None:
    found, weights = [0.1, 0.2, 0.3, 0.4], [1.0, 1.0, 1.0, 1.0]
    for take in (weighted_benign_thresholds, weighted_bad_thresholds):
        own = [0.0, 1.0, 4.0, 1.0]
        assert take(found, weights, own, 0.25) == [take(found, weights, [each], 0.25)[0] for each in own]
    assert weighted_benign_thresholds(found, weights, [0.0, 1.0, 4.0], 0.25) == [0.3, 0.4, math.inf]
    assert weighted_bad_thresholds(found, weights, [0.0, 1.0, 4.0], 0.25) == [0.2, 0.1, -math.inf]


def test_a_record_that_outweighs_the_scores_has_no_threshold() -> None:
    assert weighted_benign_thresholds([0.1, 0.2], [1.0, 1.0], [1.0], 0.05) == [math.inf]
    assert weighted_bad_thresholds([0.1, 0.2], [1.0, 1.0], [1.0], 0.05) == [-math.inf]
    assert weighted_benign_thresholds([0.1, 0.2], [0.0, 0.0], [0.0], 0.05) == [math.inf]
    assert weighted_bad_thresholds([0.1, 0.2], [0.0, 0.0], [0.0], 0.05) == [-math.inf]


@pytest.mark.parametrize(
    ("weights", "weight", "said"),
    [
        ([1.0], 1.0, "each score needs one weight"),
        ([1.0, -1.0], 1.0, "a weight must be finite and 0 or more"),
        ([1.0, math.nan], 1.0, "a weight must be finite and 0 or more"),
        ([1.0, 1.0], math.inf, "a weight must be finite and 0 or more"),
    ],
)
def test_weights_that_are_none_are_refused(weights: list[float], weight: float, said: str) -> None:
    for threshold in (weighted_benign_thresholds, weighted_bad_thresholds):
        with pytest.raises(ValueError, match=said):
            threshold([0.1, 0.2], weights, [weight], 0.05)


def test_a_known_shift_is_made_good() -> None:
    """Odd records are a tenth of those labelled and half of those to come: 5 % only with their ratios as weights."""
    rng, level, refused, refused_without = np.random.default_rng(32), 0.05, 0, 0
    for _ in range(400):
        odd = rng.random(200) < 0.1
        found = rng.normal(np.where(odd, 2.0, 0.0))
        order = np.argsort(found)
        weights = np.where(odd, 5.0, 0.5 / 0.9)[order].tolist()
        ascending = found[order].tolist()
        for now_odd, score in ((True, rng.normal(2.0)), (False, rng.normal(0.0))):
            own = 5.0 if now_odd else 0.5 / 0.9
            refused += score > weighted_benign_thresholds(ascending, weights, [own], level)[0]
            refused_without += score > benign_threshold(ascending, level)
    # 800 records; 5 % are 40, and 3.1 standard deviations of the binomial 59.
    assert refused <= 59
    assert refused_without > 80
