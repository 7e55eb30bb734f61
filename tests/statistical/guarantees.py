"""Many calibrations by the shipped functions, and how often each is wrong on records it has not seen."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from pcs_backend.conformal.calibration import ThresholdMethod
from pcs_backend.conformal.thresholds import bad_threshold, benign_threshold

Side = Literal["benign", "bad"]
Shape = Literal["normal", "uniform", "tied"]

SIDES: tuple[Side, ...] = ("benign", "bad")
SIZES = (100, 200, 500, 1000)
LEVELS = (0.01, 0.05, 0.1)
CALIBRATIONS = 2_000
FRESH = 1_000
"""Records a calibration is tried on."""

SEED = 32


class Case(NamedTuple):
    """What is simulated."""

    side: Side
    scores: int
    level: float
    method: ThresholdMethod = "order_statistic"
    shape: Shape = "normal"

    @property
    def rank(self) -> int:
        """Scores that stand at the threshold or beyond, in whole numbers."""
        return (self.scores + 1) * round(self.level * 1000) // 1000

    @property
    def expected(self) -> float:
        """Mean share of wrong verdicts by theory, of scores without ties; interpolated ones only of a uniform shape."""
        if self.method == "order_statistic":
            return self.rank / (self.scores + 1)
        return ((self.scores - 1) * self.level + 1) / (self.scores + 1)


class Rates(NamedTuple):
    """What came of it.

    Attributes:
        errors: Wrong verdicts of each calibration, of FRESH; shape (calibrations,).
        mean: Their share.
        standard_error: Of the mean, from the spread of the calibrations.
    """

    errors: NDArray[np.int64]
    mean: float
    standard_error: float


def simulate(case: Case, calibrations: int = CALIBRATIONS) -> Rates:
    """Calibrate so many times, each time on other scores, and judge FRESH records by each threshold."""
    rng = np.random.default_rng((SEED, case.scores, round(case.level * 1000), SIDES.index(case.side)))
    known = np.sort(_draw(rng, case, (calibrations, case.scores)))
    take = benign_threshold if case.side == "benign" else bad_threshold
    thresholds = np.array([take(row.tolist(), case.level, case.method) for row in known])[:, np.newaxis]
    fresh = _draw(rng, case, (calibrations, FRESH))
    wrong = fresh > thresholds if case.side == "benign" else fresh < thresholds
    errors = wrong.sum(axis=1)
    return Rates(
        errors, float(errors.mean()) / FRESH, float(errors.std(ddof=1)) / FRESH / float(np.sqrt(calibrations))
    )


def chance_of_errors(case: Case, errors: NDArray[np.int64]) -> float:
    """Return the p-value of a chi-squared test of errors against the Beta-binomial law that order statistics have."""
    law = scipy.stats.betabinom(FRESH, case.rank, case.scores + 1 - case.rank)
    edges = np.unique(law.ppf(np.arange(1, 20) / 20))
    cumulative = np.concatenate([[0.0], law.cdf(edges), [1.0]])
    counted = np.bincount(np.searchsorted(edges, errors), minlength=len(edges) + 1)
    return float(scipy.stats.chisquare(counted, np.diff(cumulative) * len(errors)).pvalue)


def _draw(rng: np.random.Generator, case: Case, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return scores as they are stored: of nine decimals; "tied" ones of one."""
    if case.shape == "uniform":
        return np.round(rng.random(shape), 9)
    centre = 0.0 if case.side == "benign" else 2.5
    return np.round(rng.normal(centre, size=shape), 1 if case.shape == "tied" else 9)
