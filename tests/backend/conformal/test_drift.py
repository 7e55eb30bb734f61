"""The two-sample test of Kolmogorov and Smirnov says drift where there is one, and knows ties."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcs_backend.conformal.drift import Drift, compare_scores

samples = st.lists(st.integers(0, 20).map(lambda step: step / 20), min_size=1, max_size=60)


@settings(deadline=None)  # the first example loads SciPy
@given(samples, samples)
def test_the_distance_is_that_of_the_empirical_distribution_functions(
    recent: list[float], reference: list[float]
) -> None:
    """The distance by its definition; tied scores are one step of both functions."""
    places = np.unique(recent + reference)
    shares = [
        np.searchsorted(np.sort(found), places, side="right") / len(found) for found in (recent, reference)
    ]
    wanted = float(np.max(np.abs(shares[0] - shares[1])))
    assert compare_scores(recent, reference).distance == pytest.approx(wanted, abs=1e-12)


def test_equal_constants_are_no_drift() -> None:
    """L26."""
    found = compare_scores([0.25] * 100, [0.25] * 1000)
    assert found == Drift(0.0, 1.0)
    assert not found.is_drift()


def test_a_smallest_sample_has_the_p_value_that_counting_gives() -> None:
    """Three scores above four: 2 of the 35 orders of three and four are so far apart."""
    found = compare_scores([5.0, 6.0, 7.0], [1.0, 2.0, 3.0, 4.0])
    assert found.distance == 1.0
    assert found.p_value == pytest.approx(2 / 35, abs=1e-12)
    assert not found.is_drift()


def test_samples_that_hardly_differ_have_a_chance_of_one_and_no_warning() -> None:
    found = compare_scores([0.0, 0.5, 0.5, 0.5, 0.5], [0.0, 0.0, 0.5, 0.5, 0.5])
    assert found.distance == pytest.approx(0.2, abs=1e-12)
    assert found.p_value == pytest.approx(1.0, abs=1e-4)


def test_drift_takes_both_a_distance_and_its_chance() -> None:
    assert Drift(0.11, 0.049).is_drift()
    assert not Drift(0.10, 0.049).is_drift()
    assert not Drift(0.11, 0.05).is_drift()
    assert Drift(0.2, 0.01).is_drift(distance_min=0.15, p_value_max=0.02)
    assert not Drift(0.2, 0.01).is_drift(distance_min=0.25)


def test_a_shift_of_recent_scores_is_drift() -> None:
    rng = np.random.default_rng(8)
    reference = rng.normal(size=1000).tolist()
    assert compare_scores(rng.normal(1.0, size=100).tolist(), reference).is_drift()


@pytest.mark.parametrize(("recent", "reference"), [([], [0.1]), ([0.1], [])])
def test_an_empty_sample_is_refused(recent: list[float], reference: list[float]) -> None:
    with pytest.raises(ValueError, match="both samples need a score"):
        compare_scores(recent, reference)


def test_scipy_is_loaded_with_the_first_test_and_not_before() -> None:
    """It takes longer to load than the rest of the service, which may never need it."""
    code = (
        "import sys, pcs_backend.app, pcs_backend.conformal.drift as drift, pcs_backend.conformal.coverage\n"
        "before = 'scipy' in sys.modules\n"
        "drift.compare_scores([1.0], [2.0])\n"
        "print(before, 'scipy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"
