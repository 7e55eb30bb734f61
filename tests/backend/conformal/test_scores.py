"""Scores: their formulas, their bounds, and that what was stored makes the same score again."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcs_backend.conformal.calibration import Signals
from pcs_backend.conformal.scores import SCORES, Score, fit, score_from
from pcs_backend.errors import ScoreError
from pcs_core.params import Params

FINITE = st.floats(allow_nan=False, allow_infinity=False)
ANY_SIGNALS = st.builds(Signals, FINITE, FINITE, FINITE)
USUAL_SIGNALS = st.builds(Signals, st.floats(0, 4), st.floats(0, 1.05), st.floats(0, 1))


def signals(count: int, seed: int, shift: float = 0.0) -> list[Signals]:
    """Return signals as of healthy streams, moved by `shift` standard deviations in r."""
    rng = np.random.default_rng(seed)
    columns = rng.normal([1.9, 0.3, 0.6 + 0.05 * shift], [0.2, 0.05, 0.05], (count, 3)).round(9)
    return [Signals(*row) for row in columns.tolist()]


def scores() -> list[Score]:
    benign, bad = signals(300, 1), signals(200, 2, shift=-4)
    return [fit(name, benign, bad, 3, Params()) for name in SCORES]


EVERY_SCORE = pytest.mark.parametrize("score", scores(), ids=lambda score: score.name)


def test_the_weighted_score_is_the_designs_with_each_part_clipped() -> None:
    score = score_from("weighted", "{}", Params())
    assert score.of(Signals(0, 0, 0)) == 1.0
    assert score.of(Signals(3.5, 1.05, 0.65)) == 0.0
    assert score.of(Signals(7.0, 3.0, 0.65)) == 0.0  # nothing below 0
    assert score.of(Signals(-5.0, -9.0, 99.0)) == 1.0  # nothing above the weights' sum
    assert score.of(Signals(1.75, 1.05, 0.65)) == 0.175
    assert score.of(Signals(3.5, 0.21, 0.65)) == 0.32
    assert score.of(Signals(3.5, 1.05, 1.0)) == 0.134615385


@given(USUAL_SIGNALS)
def test_the_weighted_score_is_the_formula_in_exact_arithmetic(found: Signals) -> None:
    d_hat, coh_star, r = map(Fraction, found)
    exact = (
        Fraction("0.35") * max(0, 1 - d_hat / Fraction("3.5"))
        + Fraction("0.4") * max(0, 1 - coh_star / Fraction("1.05"))
        + Fraction("0.25") * min(1, abs(r - Fraction("0.65")) / Fraction("0.65"))
    )
    assert score_from("weighted", "{}", Params()).of(found) == pytest.approx(float(exact), abs=1.1e-9)


def test_weights_and_ranges_are_those_of_the_parameters() -> None:
    params = Params(
        tol_coh=1.0,
        score_d_hat=0.5,
        score_coh_star=0.25,
        score_r=1.0,
        score_d_hat_range=2.0,
        score_r_middle=0.5,
    )
    score = score_from("weighted", "{}", params)
    assert score.of(Signals(1.0, 1.0, 0.5)) == 0.25 + 0.125
    assert score.of(Signals(2.0, 2.0, 0.25)) == 0.5
    assert json.loads(score.parameters) == {
        "d_hat": 0.5,
        "coh_star": 0.25,
        "r": 1.0,
        "d_hat_range": 2.0,
        "coh_star_range": 2.0,
        "r_middle": 0.5,
    }


def test_a_stored_score_does_not_change_with_the_parameters() -> None:
    stored = score_from("weighted", "{}", Params()).parameters
    later = Params(version="later", tol_coh=0.5, score_d_hat=0.0, score_r_middle=0.1)
    assert score_from("weighted", stored, later) == score_from("weighted", "{}", Params())
    assert score_from("weighted", stored, later) != score_from("weighted", "{}", later)


@EVERY_SCORE
def test_what_was_stored_makes_the_same_score_again(score: Score) -> None:
    again = score_from(score.name, score.parameters, Params(version="other", score_r=0.0))
    assert again == score
    assert again.parameters == score.parameters
    assert list(json.loads(score.parameters)) == sorted(json.loads(score.parameters))
    for found in signals(50, 4):
        assert again.of(found).hex() == score.of(found).hex()


@EVERY_SCORE
def test_many_are_scored_as_one_is_to_the_bit(score: Score) -> None:
    found = signals(200, 5, shift=-1)
    together = score.of_many(np.array(found))
    assert together.shape == (200,)
    assert together.dtype == np.float64
    assert [each.hex() for each in together.tolist()] == [score.of(each).hex() for each in found]
    assert score.of_many(np.empty((0, 3))).shape == (0,)


@EVERY_SCORE
@given(st.lists(ANY_SIGNALS, min_size=1, max_size=20))
def test_any_finite_signals_are_scored_together_as_alone(score: Score, found: list[Signals]) -> None:
    together = score.of_many(np.array(found))
    assert [each.hex() for each in together.tolist()] == [score.of(each).hex() for each in found]


@EVERY_SCORE
@given(ANY_SIGNALS)
def test_any_finite_signals_have_a_finite_rounded_score(score: Score, found: Signals) -> None:
    value = score.of(found)
    assert type(value) is float
    assert np.isfinite(value)
    assert value == round(value, 9)


def test_an_unknown_name_is_refused_without_being_repeated() -> None:
    for call in (
        lambda: score_from("secret", "{}", Params()),
        lambda: fit("secret", [], [], 1, Params()),
    ):
        with pytest.raises(
            ScoreError, match=r"^score: found an unknown name of length 6; allowed: one of "
        ) as caught:
            call()
        assert "secret" not in str(caught.value)


@EVERY_SCORE
@pytest.mark.parametrize("parameters", ["", "[]", '{"a":77777}', '{"d_hat":"77777"}', "\x00"])
def test_parameters_of_another_kind_are_refused_without_being_repeated(score: Score, parameters: str) -> None:
    with pytest.raises(ScoreError, match=r"^score parameters: found .*; allowed: an object with ") as caught:
        score_from(score.name, parameters, Params())
    assert "77777" not in str(caught.value)
