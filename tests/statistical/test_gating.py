"""Both promises hold of the gate's own decisions, whether its thresholds leave a gap or cross."""

from __future__ import annotations

import math

import pytest

from statistical.gating import FRESH, count_decisions, count_decisions_after_a_shift

CALIBRATIONS = 300
SCORES = 200


def test_as_many_benign_records_are_rejected_and_bad_ones_accepted_as_promised() -> None:
    """Between the thresholds lies a gap, so each class meets its own threshold alone, and rates are those of theory."""
    counted = count_decisions(CALIBRATIONS, SCORES, 0.05, 0.05)
    judged = CALIBRATIONS * FRESH
    # Of a Beta-binomial law with mean 10/201: spread of the calibration and of the records it is tried on.
    standard_error = math.sqrt(0.05 * 0.95 * (1 / (SCORES + 2) + 1 / FRESH) / CALIBRATIONS)
    assert counted["benign"]["REJECT"] / judged == pytest.approx(10 / 201, abs=4 * standard_error)
    assert counted["bad"]["ACCEPT"] / judged == pytest.approx(10 / 201, abs=4 * standard_error)
    assert counted["benign"]["ESCALATE"] > judged / 10


def test_where_thresholds_cross_records_are_escalated_and_fewer_verdicts_are_wrong() -> None:
    counted = count_decisions(CALIBRATIONS, SCORES, 0.3, 0.3)
    judged = CALIBRATIONS * FRESH
    assert 0 < counted["benign"]["REJECT"] < 0.15 * judged
    assert 0 < counted["bad"]["ACCEPT"] < 0.15 * judged
    assert counted["benign"]["ESCALATE"] > judged / 10


def test_where_a_shift_is_known_both_promises_hold_with_its_density_ratio_and_not_without() -> None:
    judged = CALIBRATIONS * FRESH
    wrong = {}
    for is_told in (True, False):
        counted = count_decisions_after_a_shift(CALIBRATIONS, SCORES, 0.1, 0.1, is_told=is_told)
        wrong[is_told] = [counted["benign"]["REJECT"] / judged, counted["bad"]["ACCEPT"] / judged]
    # Weights of 5 leave the spread of some 50 scores.
    standard_error = math.sqrt(0.1 * 0.9 * (1 / (SCORES / 4) + 1 / FRESH) / CALIBRATIONS)
    assert all(0.06 < each < 0.1 + 4 * standard_error for each in wrong[True])
    assert wrong[False][0] > 0.15
