"""The weighted score of the design: a sum over the signals, nothing fitted."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

import numpy as np
from msgspec import Meta

from pcs_backend.bulk import round9_all
from pcs_backend.conformal.calibration import Signals
from pcs_backend.conformal.scores.score import Floats, StoredScore, clip
from pcs_core.canonical import round9
from pcs_core.params import Params

_Weight = Annotated[float, Meta(ge=0, le=1)]
_Positive = Annotated[float, Meta(gt=0, le=1_001)]


class WeightedScore(StoredScore, frozen=True):
    """Weights times what is odd about each signal, each part between 0 and 1.

    A low D̂, a low coh★ and an r far from its middle are odd:
    `d_hat·(1 − D̂/d_hat_range) + coh_star·(1 − coh★/coh_star_range) + r·min(1, |r − r_middle|/r_middle)`.

    >>> score = WeightedScore.of_params(Params())
    >>> score.of(Signals(3.5, 1.05, 0.65)), score.of(Signals(0.0, 0.0, 1.3)), score.of(Signals(1.75, 0.525, 0.325))
    (0.0, 1.0, 0.5)
    """

    name: ClassVar[str] = "weighted"

    d_hat: _Weight
    coh_star: _Weight
    r: _Weight
    d_hat_range: _Positive
    coh_star_range: _Positive
    r_middle: _Positive

    @classmethod
    def of_params(cls, params: Params) -> Self:
        """Return the score with the weights and ranges of parameters."""
        return cls(
            d_hat=params.score_d_hat,
            coh_star=params.score_coh_star,
            r=params.score_r,
            d_hat_range=params.score_d_hat_range,
            coh_star_range=1 + params.tol_coh,
            r_middle=params.score_r_middle,
        )

    def of(self, signals: Signals) -> float:
        """See `Score`."""
        d_hat, coh_star, r = signals
        return round9(
            self.d_hat * clip(1 - d_hat / self.d_hat_range, 0.0, 1.0)
            + self.coh_star * clip(1 - coh_star / self.coh_star_range, 0.0, 1.0)
            + self.r * clip(abs(r - self.r_middle) / self.r_middle, 0.0, 1.0)
        )

    def of_many(self, signals: Floats) -> Floats:
        """See `Score`: the same operations in the same order, on columns."""
        d_hat, coh_star, r = signals.T
        with np.errstate(over="ignore"):
            odd = (
                self.d_hat * _clip_all(1 - d_hat / self.d_hat_range)
                + self.coh_star * _clip_all(1 - coh_star / self.coh_star_range)
                + self.r * _clip_all(np.abs(r - self.r_middle) / self.r_middle)
            )
        return round9_all(odd)


def _clip_all(values: Floats) -> Floats:
    """Return `clip` to [0, 1] of each: what `numpy.clip` does, in half its time for few."""
    clipped: Floats = np.minimum(np.maximum(values, 0.0), 1.0)
    return clipped
