"""Scaling of points into [0, 1): each axis loses its minimum, all axes are divided by one factor (contract §1).

One factor for all axes keeps shapes: a line stays a line however thin the box around it. Shifting a stream or
stretching it as a whole changes nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]

STRETCH = 1 + 1e-9
"""The factor is the greatest extent times this, so that the greatest coordinate stays below 1."""

_BELOW_ONE = float(np.nextafter(1.0, 0.0))
# Extents of up to twice the greatest double, stretched, are finite again after this.
_SHRINK = 0.25


def scale_points(points: Points) -> Points:
    """Return the points with every coordinate in [0, 1).

    Points that are all identical become zeros. Extents too large for a double are handled by shrinking the points
    first, extents too small to be stretched by a cut just below 1.

    Args:
        points: Shape (n, d), n ≥ 1, finite.
    """
    with np.errstate(over="ignore"):
        least = points.min(axis=0)
        factor = float((points.max(axis=0) - least).max()) * STRETCH
    if not np.isfinite(factor):
        points = points * _SHRINK
        least = points.min(axis=0)
        factor = float((points.max(axis=0) - least).max()) * STRETCH
    scaled: Points = points - least
    if factor == 0:
        return scaled
    scaled /= factor
    return np.minimum(scaled, _BELOW_ONE, out=scaled)
