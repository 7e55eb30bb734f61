"""Counting of occupied cells: exact for any number of axes, without a Python loop over points.

A cell is one integer per axis. The integers of a point are packed into one 64-bit key; where the next axis would
overflow it, the keys so far are replaced by their ranks, of which there are no more than points. Nothing is hashed, so
nothing collides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pcs_agent.signals.scaling import Points

Keys = npt.NDArray[np.int64]

_KEY_SPACE_MAX = 2**62
_TABLE_BYTES_MAX = 2**24
"""Up to so many possible keys are counted in a table of one byte each; more are sorted."""

_EXACT_SCALE_MAX = 2**53
"""Above, a scale is no exact double and a cell may equal it: such cells are ranked instead of taken as digits."""


def count_cells(scaled: Points, scales: Sequence[int]) -> dict[int, int]:
    """Return how many cells are occupied at each scale.

    Args:
        scaled: Shape (n, d), n ≥ 1, d ≥ 1, in [0, 1).
        scales: Cells per axis, integers ≥ 1.
    """
    return {scale: _count_at(scaled, scale) for scale in scales}


def _count_at(scaled: Points, scale: int) -> int:
    keys: Keys = np.zeros(len(scaled), dtype=np.int64)
    space = 1
    for axis in range(scaled.shape[1]):
        digits: Keys = (scaled[:, axis] * scale).astype(np.int64)  # truncation is floor: nothing is negative
        base = scale
        if scale > _EXACT_SCALE_MAX:
            digits, base = _rank(digits)
        if space * base > _KEY_SPACE_MAX:
            keys, space = _rank(keys)
            if space == len(scaled):  # every point is in a cell of its own already
                return space
            if space * base > _KEY_SPACE_MAX:
                digits, base = _rank(digits)
        keys = keys * base + digits
        space *= base
    return _count_distinct(keys, space)


def _rank(keys: Keys) -> tuple[Keys, int]:
    """Return each key's rank among the distinct keys, and how many there are."""
    distinct, ranks = np.unique(keys, return_inverse=True)
    return ranks.astype(np.int64, copy=False), len(distinct)


def _count_distinct(keys: Keys, space: int) -> int:
    if space <= _TABLE_BYTES_MAX:
        table = np.zeros(space, dtype=np.bool_)
        table[keys] = True
        return int(np.count_nonzero(table))
    return len(np.unique(keys))
