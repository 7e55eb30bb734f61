"""D̂: the Theil–Sen slope against SciPy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from pcs_core.slope import theil_sen_slope


def test_the_slope_equals_scipys_on_a_thousand_random_inputs() -> None:
    random = np.random.default_rng(20261121)
    for _ in range(1_000):
        size = int(random.integers(2, 33))
        exponent = int(random.integers(6, 41))
        scales = sorted(random.choice(2**exponent, size=size, replace=False).astype(np.int64) + 1)
        counts = random.integers(1, 2 ** int(random.integers(1, 54)), size=size)
        oracle = scipy.stats.theilslopes(
            np.log2(counts.astype(float)), np.log2(np.array(scales, float))
        ).slope
        slope = theil_sen_slope([int(scale) for scale in scales], [int(count) for count in counts])
        assert slope == pytest.approx(float(oracle), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("dimension", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [2, 3, 4, 5, 32])
def test_a_shape_of_known_dimension_has_that_slope(dimension: int, size: int) -> None:
    scales = list(range(2, 2 + size))
    assert theil_sen_slope(scales, [scale**dimension for scale in scales]) == pytest.approx(
        dimension, abs=1e-12
    )


@pytest.mark.parametrize("low", [2, 2**26, 2**50, 2**62])
def test_neighbouring_scales_however_large_have_a_finite_slope(low: int) -> None:
    """Their logs are the same float from some 2^48 on; the slope of equal counts is 0 all the same."""
    assert theil_sen_slope([low, low + 1], [7, 7]) == 0.0
    assert theil_sen_slope([low, low + 1], [1, 2]) == pytest.approx(math.log(2) * low, rel=0.3)


def test_an_even_number_of_pairs_takes_the_mean_of_the_middle_two() -> None:
    # Slopes of the six pairs of (0,0) (1,1) (2,0) (3,7): -1, 0, 1, 7/3, 3, 7.
    assert theil_sen_slope([1, 2, 4, 8], [1, 2, 1, 128]) == pytest.approx((1 + 7 / 3) / 2, abs=1e-12)


def test_an_odd_number_of_pairs_takes_the_middle_one() -> None:
    # Slopes of the three pairs of (0,0) (1,1) (2,8): 1, 4, 7.
    assert theil_sen_slope([1, 2, 4], [1, 2, 256]) == 4.0


def test_one_outlier_of_five_does_not_move_the_slope_far() -> None:
    clean = theil_sen_slope([2, 4, 8, 16, 32], [4, 16, 64, 256, 1024])
    spoiled = theil_sen_slope([2, 4, 8, 16, 32], [4, 16, 64, 256, 1])
    assert (clean, spoiled) == (2.0, 2.0)


def test_falling_counts_give_a_negative_slope() -> None:
    assert theil_sen_slope([1, 2, 4], [4, 2, 1]) == -1.0


def test_the_largest_values_of_the_contract_give_a_finite_slope() -> None:
    assert theil_sen_slope([1, 2**63 - 1], [1, 2**53 - 1]) == pytest.approx(53 / 63, abs=1e-12)
