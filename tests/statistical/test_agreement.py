"""The same numbers as implementations by others, where they define the same thing.

thresholds            MAPIE's intervals around 0 of a model that says 0, whose scores are the targets' sizes
verdicts, p-values    crepes' conformal p-values, smoothed and not
capital               crepes' jumper, given the same bets
distance and chance   SciPy's Kolmogorov and Smirnov
"""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import scipy.stats
from crepes.base import p_values_batch, p_values_online_regression
from crepes.martingales import CompositeMartingale, SimpleJumper
from mapie.regression import SplitConformalRegressor
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin

from pcs_backend.conformal.drift import compare_scores
from pcs_backend.conformal.martingale import _JUMP_SHARES, ExchangeabilityMartingale
from pcs_backend.conformal.thresholds import bad_threshold, benign_threshold

TOLERANCE = 1e-12
SIZES = (100, 137, 200, 500, 1000)
LEVELS = (0.01, 0.05, 0.1, 0.2)


class Zero(RegressorMixin, BaseEstimator):
    """A model that always says 0."""

    def fit(self, x: Any, y: Any) -> Zero:
        del x, y
        self.fitted_ = True
        return self

    def predict(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.zeros(len(x))


def scores_of(count: int, decimals: int = 9) -> list[float]:
    return np.sort(np.round(np.random.default_rng(count).beta(2, 5, count), decimals)).tolist()


def mapie_threshold(scores: list[float], level: float) -> float:
    x = np.zeros((len(scores), 1))
    model = SplitConformalRegressor(
        Zero().fit(x, scores), confidence_level=1 - level, conformity_score="absolute", prefit=True
    )
    _, intervals = model.conformalize(x, np.array(scores)).predict_interval(x[:1])
    return float(intervals[0, 1, 0])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("count", SIZES)
def test_thresholds_are_those_of_mapie(count: int, level: float) -> None:
    scores = scores_of(count)
    assert benign_threshold(scores, level) == pytest.approx(mapie_threshold(scores, level), abs=TOLERANCE)
    # Bad scores are benign ones seen from above.
    from_above = sorted(1 - score for score in scores)
    assert bad_threshold(scores, level) == pytest.approx(
        1 - mapie_threshold(from_above, level), abs=TOLERANCE
    )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("count", SIZES)
def test_interpolated_thresholds_are_numpys_quantiles(count: int, level: float) -> None:
    scores = scores_of(count)
    assert benign_threshold(scores, level, "interpolated") == pytest.approx(
        np.quantile(scores, 1 - level), abs=TOLERANCE
    )
    assert bad_threshold(scores, level, "interpolated") == pytest.approx(
        np.quantile(scores, level), abs=TOLERANCE
    )


@pytest.mark.parametrize("decimals", [2, 9])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("count", SIZES)
def test_refused_are_those_whose_p_value_of_crepes_is_at_most_the_level(
    count: int, level: float, decimals: int
) -> None:
    """Ties included. A hair above the level, because its p-values are ratios of floats."""
    scores = scores_of(count, decimals)
    fresh = np.round(np.random.default_rng(1).beta(2, 4, 2_000), decimals)
    p_values = p_values_batch(np.array(scores), fresh, smoothing=False)
    refused = fresh > benign_threshold(scores, level)
    assert np.array_equal(refused, p_values <= level + 1e-9)
    assert 0 < np.count_nonzero(refused) < len(fresh)
    from_above = p_values_batch(-np.array(scores), -fresh, smoothing=False)
    assert np.array_equal(fresh < bad_threshold(scores, level), from_above <= level + 1e-9)


@pytest.mark.parametrize("decimals", [1, 9])
def test_smoothed_ranks_and_capital_are_those_of_crepes(
    decimals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both generators are the same twister, so that one's state makes the other draw the same numbers."""
    rng = np.random.default_rng(5)
    scores = np.round(np.concatenate([rng.normal(size=400), rng.normal(0.7, size=200)]), decimals)
    watched, ranks, capitals = ExchangeabilityMartingale(17), [], []
    smoothed_rank = watched._smoothed_rank
    monkeypatch.setattr(
        watched, "_smoothed_rank", lambda score: ranks.append(smoothed_rank(score)) or ranks[-1]
    )
    for score in scores.tolist():
        watched.observe(score)
        capitals.append(watched.log10_capital)

    _, state, _ = random.Random(17).getstate()
    np.random.set_state(("MT19937", state[:-1], state[-1]))
    wanted = p_values_online_regression(scores, smoothing=True)
    assert np.max(np.abs(np.array(ranks) - wanted)) <= TOLERANCE

    class Legendre:
        """The bets of this product, as crepes takes them."""

        def apply(self, p_values: NDArray[np.float64]) -> NDArray[np.float64]:
            first = scipy.special.eval_legendre(1, 2 * p_values - 1)
            second = scipy.special.eval_legendre(2, 2 * p_values - 1)
            bets = [0 * first, first / 2, -first / 2, first, -first, second, -second]
            return 1 + np.stack(bets, axis=1)

    jumpers = [SimpleJumper(J=share, bf=Legendre()) for share in _JUMP_SHARES]
    capital = CompositeMartingale(jumpers).apply(wanted)
    assert np.max(np.abs(np.array(capitals) - np.log10(capital))) <= TOLERANCE
    assert max(capitals) > 2
    assert math.isclose(capitals[-1], math.log10(capital[-1]), abs_tol=TOLERANCE)


@pytest.mark.parametrize("decimals", [1, 9])
@pytest.mark.parametrize(("recent", "reference"), [(100, 1000), (37, 500), (100, 20_000)])
def test_distance_and_chance_are_those_of_scipy(recent: int, reference: int, decimals: int) -> None:
    rng = np.random.default_rng(recent + reference)
    samples = np.round(rng.normal(0.2, size=recent), decimals), np.round(rng.normal(size=reference), decimals)
    wanted = scipy.stats.ks_2samp(*samples)
    found = compare_scores(samples[0].tolist(), samples[1].tolist())
    assert found.distance == pytest.approx(wanted.statistic, abs=TOLERANCE)
    assert found.p_value == pytest.approx(wanted.pvalue, abs=TOLERANCE)
