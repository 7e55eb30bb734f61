"""What every score is."""

from __future__ import annotations

from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from pcs_backend.conformal.calibration import Signals

Floats = NDArray[np.float64]

FARTHEST = 1e6
"""Fitted scores take signals beyond it, of either sign, as if they were there: claims may be any finite number, whose
squares would not be."""


class Score(Protocol):
    """Maps signals to a number: higher is odder. It is finite, and rounded to nine decimals.

    The number is the same to the bit on every machine: only additions, multiplications, divisions and square roots of
    float64 in a fixed order make it, no BLAS and no function of the C library.
    """

    @property
    def name(self) -> str:
        """One of `scores.SCORES`."""

    @property
    def parameters(self) -> str:
        """Canonical JSON of all that the number depends on, from which `scores.score_from` makes an equal score."""

    def of(self, signals: Signals) -> float:
        """Return the score of one record."""

    def of_many(self, signals: Floats) -> Floats:
        """Return the scores of many records, each the same to the bit as `of` gives it.

        Args:
            signals: Shape (n, 3): recomputed D̂, coh★, r.

        Returns:
            Shape (n,).
        """


class StoredScore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What scores have in common: their fields are their parameters."""

    @property
    def parameters(self) -> str:
        """See `Score`."""
        return _encoder.encode(self).decode()


def clip(value: float, low: float, high: float) -> float:
    """Return the value, or the end of the range that it is beyond."""
    return low if value < low else min(value, high)


_encoder = msgspec.json.Encoder(order="sorted")
