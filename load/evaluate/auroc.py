"""Area under the ROC curve and its bootstrap interval."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

RESAMPLES = 1_000
_COVERED = 0.95


class Interval(NamedTuple):
    """An AUROC with a percentile interval of 95 %."""

    auroc: float
    low: float
    high: float


def auroc(bad: Values, good: Values) -> float:
    """Return the chance that a bad value is above a good one, ties counted half (Mann and Whitney's U over n·m).

    Args:
        bad: Shape (n,), n ≥ 1.
        good: Shape (m,), m ≥ 1.

    >>> auroc(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    return float(_wins(bad, good).mean())


def interval(bad: Values, good: Values, seed: int, resamples: int = RESAMPLES) -> Interval:
    """Return the AUROC and its interval: both groups are drawn again with replacement, each for itself.

    Where the groups do not overlap, every resample gives 1, and the interval is a point: it then says nothing of how
    rare an overlap may be.

    Args:
        bad: Shape (n,), n ≥ 1.
        good: Shape (m,), m ≥ 1.
        seed: Of the resamples.
        resamples: How many.
    """
    rng = np.random.default_rng(seed)
    wins = _wins(bad, good)
    bad_weights = rng.multinomial(len(bad), np.full(len(bad), 1 / len(bad)), size=resamples)
    good_weights = rng.multinomial(len(good), np.full(len(good), 1 / len(good)), size=resamples)
    found = ((bad_weights @ wins) * good_weights).sum(axis=1) / (len(bad) * len(good))
    low, high = np.quantile(found, [(1 - _COVERED) / 2, (1 + _COVERED) / 2])
    return Interval(float(wins.mean()), float(low), float(high))


def _wins(bad: Values, good: Values) -> Values:
    difference = bad[:, np.newaxis] - good
    return np.heaviside(difference, 0.5)
