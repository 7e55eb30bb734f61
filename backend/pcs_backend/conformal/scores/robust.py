"""Where the bulk of points lies, however the rest is spread: the minimum covariance determinant (Rousseeuw and Van Driessen).

Up to nearly half of the points may be anything. Written out for three columns, so that fitting needs no library that
scoring does not need; a test compares it with scikit-learn's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pcs_backend.conformal.scores.score import Floats

STARTS = 300
"""Random beginnings: with a third of the points bad, fewer than one fit in 10^28 has no clean one among them."""

FINISHED = 10
"""Of the beginnings, those that are followed until they no longer change."""

ROUNDS_MAX = 100
"""Rounds after which a beginning is taken as it is."""

RIDGE = 0.01
"""Added to each variance, of columns of spread 1: no direction counts as narrower than a tenth of the columns' spread.
Where more than half of the points agree in a signal (r is 1 for all that does not compress), it keeps the distance from
being about that signal alone."""

_CHI2_MEDIAN, _CHI2_MOST = 2.3659738843753377, 9.348403604496148
"""Quantiles of chi square with three degrees of freedom: at 0.5 and 0.975."""

_MAD_OF_A_NORMAL = 0.6744897501960817


class Bulk(NamedTuple):
    """Centre and spread of the bulk of points.

    Attributes:
        center: Shape (3,).
        covariance: Shape (3, 3), positive definite.
    """

    center: Floats
    covariance: Floats


def find_bulk(points: Floats, rng: np.random.Generator) -> Bulk:
    """Return where the bulk of points lies.

    Args:
        points: Shape (n, 3), n ≥ 4, finite.
        rng: Draws the beginnings.
    """
    middle = np.median(points, axis=0)
    spread = _spread(points - middle)
    scaled = (points - middle) / spread
    held = (len(points) + scaled.shape[1] + 1) // 2
    begun = [_settle(scaled, _begin(scaled, rng), held, rounds=2) for _ in range(STARTS)]
    begun.sort(key=lambda bulk: float(np.linalg.det(bulk.covariance)))
    ended = [_settle(scaled, bulk, held, ROUNDS_MAX) for bulk in begun[:FINISHED]]
    best = min(ended, key=lambda bulk: float(np.linalg.det(bulk.covariance)))
    distances = _squared_distances(scaled, best)
    # The half that was held is narrower than the whole: scaled so that the median is a normal cloud's.
    factor = max(float(np.median(distances)) / _CHI2_MEDIAN, np.finfo(np.float64).tiny)
    center, covariance = _bulk_of(scaled[distances / factor <= _CHI2_MOST])
    return Bulk(middle + center * spread, covariance * np.outer(spread, spread))


def _spread(centred: Floats) -> Floats:
    """Return the spread of each column: its MAD, or where half of it is the same its standard deviation, or 1."""
    found = np.median(np.abs(centred), axis=0) / _MAD_OF_A_NORMAL
    found = np.where(found > 0, found, np.sqrt(np.mean(centred * centred, axis=0)))
    return np.where(found > 0, found, 1.0)


def _begin(points: Floats, rng: np.random.Generator) -> Bulk:
    return _bulk_of(points[rng.choice(len(points), points.shape[1] + 1, replace=False)])


def _settle(points: Floats, bulk: Bulk, held: int, rounds: int) -> Bulk:
    """Return the bulk of the points nearest to a bulk, again and again: its determinant never grows."""
    chosen: NDArray[np.intp] | None = None
    for _ in range(rounds):
        nearest = np.sort(np.argpartition(_squared_distances(points, bulk), held - 1)[:held])
        if chosen is not None and np.array_equal(nearest, chosen):
            break
        chosen = nearest
        bulk = _bulk_of(points[nearest])
    return bulk


def _bulk_of(points: Floats) -> Bulk:
    center = points.mean(axis=0)
    centred = points - center
    return Bulk(center, centred.T @ centred / len(points) + RIDGE * np.eye(points.shape[1]))


def _squared_distances(points: Floats, bulk: Bulk) -> Floats:
    centred = points - bulk.center
    found: Floats = (centred @ np.linalg.inv(bulk.covariance) * centred).sum(axis=1)
    return found
