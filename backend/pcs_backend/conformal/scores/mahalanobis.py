"""A robust Mahalanobis distance: how far signals are from those of benign records, in units of their spread."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Self

import numpy as np
from msgspec import Meta

from pcs_backend.bulk import round9_all
from pcs_backend.conformal.calibration import Signals
from pcs_backend.conformal.scores.robust import find_bulk
from pcs_backend.conformal.scores.score import FARTHEST, Floats, StoredScore, clip
from pcs_core.canonical import round9

SPREAD_MIN = 1e-9
"""The least spread of a signal that is told apart: signals have nine decimals."""

_Number = Annotated[float, Meta(ge=-1e12, le=1e12)]


class MahalanobisScore(StoredScore, frozen=True):
    """The distance from the centre of benign records, whichever way: no bad record is needed to fit it.

    Attributes:
        center: Of D̂, coh★ and r.
        whitening: The lower triangle, row by row, of what turns differences from the centre into uncorrelated ones of
            spread 1.

    >>> MahalanobisScore((2.0, 0.5, 0.5), (2.0, 0.0, 4.0, 0.0, 0.0, 10.0)).of(Signals(3.5, 1.5, 0.5))
    5.0
    """

    name: ClassVar[str] = "mahalanobis"

    center: tuple[_Number, _Number, _Number]
    whitening: tuple[_Number, _Number, _Number, _Number, _Number, _Number]

    @classmethod
    def fitted(cls, benign: Floats, seed: int) -> Self:
        """Return the distance from the bulk of signals.

        Args:
            benign: Shape (n, 3), n ≥ 4. Nearly half may in truth be bad.
            seed: Of the search for the bulk.
        """
        bulk = find_bulk(np.clip(benign, -FARTHEST, FARTHEST), np.random.default_rng(seed))
        covariance = bulk.covariance + SPREAD_MIN**2 * np.eye(3)
        rows = np.linalg.inv(np.linalg.cholesky(covariance))
        first, second, third = (tuple(row.tolist()) for row in rows)
        return cls(tuple(bulk.center.tolist()), (first[0], *second[:2], *third))

    def of(self, signals: Signals) -> float:
        """See `Score`."""
        d_hat, coh_star, r = signals
        a, b, c = self.center
        x = clip(d_hat, -FARTHEST, FARTHEST) - a
        y = clip(coh_star, -FARTHEST, FARTHEST) - b
        z = clip(r, -FARTHEST, FARTHEST) - c
        xx, yx, yy, zx, zy, zz = self.whitening
        first, second, third = xx * x, yx * x + yy * y, zx * x + zy * y + zz * z
        return round9(math.sqrt(first * first + second * second + third * third))

    def of_many(self, signals: Floats) -> Floats:
        """See `Score`: the same operations in the same order, on columns."""
        a, b, c = self.center
        d_hat, coh_star, r = np.clip(signals.T, -FARTHEST, FARTHEST)
        x, y, z = d_hat - a, coh_star - b, r - c
        xx, yx, yy, zx, zy, zz = self.whitening
        first, second, third = xx * x, yx * x + yy * y, zx * x + zy * y + zz * z
        return round9_all(np.sqrt(first * first + second * second + third * third))
