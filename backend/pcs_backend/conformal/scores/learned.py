"""A learned score: the log-odds of bad against benign, by logistic regression on signals, their squares and products.

scikit-learn fits it (extra `learn`). What it found is ten numbers, and scoring needs nothing else.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

import numpy as np
from msgspec import Meta

from pcs_backend.bulk import round9_all
from pcs_backend.conformal.calibration import Signals
from pcs_backend.conformal.scores.score import FARTHEST, Floats, StoredScore, clip
from pcs_backend.errors import ScoreError
from pcs_core.canonical import round9

SPREAD_MIN = 1e-6
"""The least spread that a signal is divided by: smaller ones are noise of its rounding."""

ITERATIONS_MAX = 1_000
"""Steps after which a fit is taken as it is."""

_Number = Annotated[float, Meta(ge=-1e12, le=1e12)]
_Positive = Annotated[float, Meta(ge=SPREAD_MIN, le=1e12)]
_Triple = tuple[_Number, _Number, _Number]
_Weights = tuple[_Number, _Number, _Number, _Number, _Number, _Number, _Number, _Number, _Number]


class LearnedScore(StoredScore, frozen=True):
    """How much more the signals look like bad records that were labelled than like benign ones.

    It says nothing of kinds of bad records that it was not shown. Signals outside the range it was fitted in are taken to
    the range's end: squares would extrapolate wildly.

    Attributes:
        low: The least of D̂, coh★ and r in the fit.
        high: The greatest.
        center: What is subtracted from each.
        spread: What each is then divided by.
        weights: Of the three, of their squares, and of the products of first and second, first and third, second and
            third.
        intercept: Added at the end.
    """

    name: ClassVar[str] = "learned"

    low: _Triple
    high: _Triple
    center: _Triple
    spread: tuple[_Positive, _Positive, _Positive]
    weights: _Weights
    intercept: _Number

    @classmethod
    def fitted(cls, benign: Floats, bad: Floats) -> Self:
        """Return the score that tells two classes of records apart, both weighed alike.

        Args:
            benign: Shape (n, 3), n ≥ 1.
            bad: Shape (m, 3), m ≥ 1.

        Raises:
            ScoreError: scikit-learn is not installed.
        """
        try:
            from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
        except ImportError:
            raise ScoreError(
                "score: the learned one is fitted by scikit-learn, which is not installed; "
                "allowed: pip install 'pcs-verification[learn]'"
            ) from None
        signals = np.clip(np.concatenate([benign, bad]), -FARTHEST, FARTHEST)
        center, spread = signals.mean(axis=0), np.maximum(signals.std(axis=0), SPREAD_MIN)
        x, y, z = ((signals - center) / spread).T
        features = np.stack([x, y, z, x * x, y * y, z * z, x * y, x * z, y * z], axis=1)
        is_bad = np.arange(len(signals)) >= len(benign)
        found = LogisticRegression(class_weight="balanced", max_iter=ITERATIONS_MAX).fit(features, is_bad)
        return cls(
            low=tuple(signals.min(axis=0).tolist()),
            high=tuple(signals.max(axis=0).tolist()),
            center=tuple(center.tolist()),
            spread=tuple(spread.tolist()),
            weights=tuple(found.coef_[0].tolist()),
            intercept=float(found.intercept_[0]),
        )

    def of(self, signals: Signals) -> float:
        """See `Score`."""
        ranges = zip(signals, self.low, self.high, self.center, self.spread, strict=True)
        x, y, z = [(clip(value, low, high) - center) / spread for value, low, high, center, spread in ranges]
        features = (x, y, z, x * x, y * y, z * z, x * y, x * z, y * z)
        total = self.intercept
        # Not `sum`: from Python 3.12 on it compensates, and the last bit would depend on the version.
        for weight, feature in zip(self.weights, features, strict=True):
            total += weight * feature
        return round9(total)

    def of_many(self, signals: Floats) -> Floats:
        """See `Score`: the same operations in the same order, on columns."""
        ranges = zip(signals.T, self.low, self.high, self.center, self.spread, strict=True)
        x, y, z = [
            (np.clip(value, low, high) - center) / spread for value, low, high, center, spread in ranges
        ]
        features = (x, y, z, x * x, y * y, z * z, x * y, x * z, y * z)
        total = np.full(len(signals), self.intercept)
        for weight, feature in zip(self.weights, features, strict=True):
            total += weight * feature
        return round9_all(total)
