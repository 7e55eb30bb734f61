"""Scaling of points into [0, 1): each axis loses its minimum, all axes are divided by one factor (contract §1).

One factor for all axes keeps shapes: a line stays a line however thin the box around it. Shifting a stream or
stretching it as a whole changes nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]

STRETCH = 1 + 1e-9
"""The factor is the greatest extent times this, so that the greatest coordinate stays below 1."""

_BELOW_ONE = float(np.nextafter(1.0, 0.0))
# Extents of up to twice the greatest double, stretched, are finite again after this.
_SHRINK = 0.25


class Extent:
    """Least and greatest coordinate of each axis, over rows that come block by block."""

    def __init__(self) -> None:
        """Begin without rows."""
        self._least: Points | None = None
        self._greatest: Points | None = None

    def add(self, block: Points) -> None:
        """Take the next rows, shape (≥ 1, d), finite."""
        least, greatest = block.min(axis=0), block.max(axis=0)
        if self._least is None or self._greatest is None:
            self._least, self._greatest = least, greatest
        else:
            np.minimum(self._least, least, out=self._least)
            np.maximum(self._greatest, greatest, out=self._greatest)

    def scaling(self) -> Scaling:
        """Return the scaling of the rows so far, of which there is one or more.

        Extents too large for a double are handled by shrinking the points first.
        """
        assert self._least is not None
        assert self._greatest is not None
        shrink = 1.0
        with np.errstate(over="ignore"):
            factor = float((self._greatest - self._least).max()) * STRETCH
        if not np.isfinite(factor):
            shrink = _SHRINK
            factor = float((self._greatest * shrink - self._least * shrink).max()) * STRETCH
        return Scaling(self._least * shrink, factor, shrink)


class Scaling(NamedTuple):
    """How rows become points in [0, 1).

    Attributes:
        least: Least coordinate of each axis, after shrinking.
        factor: What all axes are divided by; 0 where all rows are identical.
        shrink: What rows are multiplied by first.
    """

    least: Points
    factor: float
    shrink: float

    def apply(self, block: Points) -> Points:
        """Return new points with every coordinate in [0, 1).

        Rows that are all identical become zeros. Extents too small to be stretched are handled by a cut just below 1.
        """
        scaled: Points = (block if self.shrink == 1 else block * self.shrink) - self.least
        if self.factor == 0:
            return scaled
        scaled /= self.factor
        return np.minimum(scaled, _BELOW_ONE, out=scaled)


def scale_points(points: Points) -> Points:
    """Return the points with every coordinate in [0, 1).

    Args:
        points: Shape (n, d), n ≥ 1, finite.
    """
    extent = Extent()
    extent.add(points)
    return extent.scaling().apply(points)
