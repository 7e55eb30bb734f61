"""Both promises hold over many calibrations, by as much as theory says; interpolated thresholds break them."""

from __future__ import annotations

import numpy as np
import pytest

from pcs_backend.conformal.thresholds import bad_threshold, benign_threshold
from statistical.guarantees import FRESH, LEVELS, SIDES, SIZES, Case, Side, chance_of_errors, simulate

CASES = [Case(side, scores, level) for side in SIDES for scores in SIZES for level in LEVELS]


@pytest.mark.parametrize("case", CASES, ids=[f"{case.side} {case.scores} {case.level}" for case in CASES])
def test_the_promise_holds_and_rates_follow_the_beta_binomial_law(case: Case) -> None:
    found = simulate(case)
    assert found.mean <= case.level + 3 * found.standard_error
    assert found.mean == pytest.approx(case.expected, abs=4 * found.standard_error)
    assert chance_of_errors(case, found.errors) > 0.001


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("level", LEVELS)
def test_interpolated_thresholds_break_the_promise_by_what_theory_says(side: Side, level: float) -> None:
    case = Case(side, 100, level, "interpolated", "uniform")
    found = simulate(case)
    assert found.mean > level + 3 * found.standard_error
    assert found.mean == pytest.approx(case.expected, abs=4 * found.standard_error)


def test_the_law_is_not_that_of_other_ranks() -> None:
    """The test of the law can fail: a threshold one score off is another law."""
    case = Case("benign", 200, 0.05)
    errors = simulate(case).errors
    assert chance_of_errors(case._replace(level=0.055), errors) < 1e-9


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("level", LEVELS)
def test_the_promise_holds_with_ties(side: Side, level: float) -> None:
    found = simulate(Case(side, 200, level, shape="tied"))
    assert 0 < found.mean <= level + 3 * found.standard_error


def test_what_is_promised_of_one_class_is_not_promised_of_the_other() -> None:
    """L25. Refusing 5 % of benign records says nothing of bad ones: here it accepts most of them."""
    rng = np.random.default_rng(25)
    benign, bad = np.sort(rng.normal(0, 1, 1000)).tolist(), np.sort(rng.normal(0.5, 1, 1000)).tolist()
    fresh_bad = rng.normal(0.5, 1, 20 * FRESH)
    accepted_by_benign = float(np.mean(fresh_bad <= benign_threshold(benign, 0.05)))
    accepted_by_bad = float(np.mean(fresh_bad < bad_threshold(bad, 0.05)))
    assert accepted_by_benign > 0.8
    # One calibration: its own rate follows Beta(50, 951), whose 0.9999 quantile is 7.9 %.
    assert accepted_by_bad < 0.079
