"""The leading principal directions of many columns, the same to the last bit for the same rows.

They are found in a sample of rows at fixed places, by orthogonal iteration on the matrix of inner products. What
is not a matrix product is summed without BLAS, whose threads may add up in another order, and the directions are rounded
far above the last bit. No seed enters that anybody could choose.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pcs_agent.signals.directions import iter_directions
from pcs_agent.signals.scaling import Points

SAMPLE_ROWS_MAX = 512
"""Rows the directions are found in: with 4096 columns 16 MiB."""

_ITERATIONS = 32
_PIECE_COLUMNS = 64
_START_SEED = 0
_ROUNDING = 2.0**32
_MUCH, _LITTLE = 1e-3, 1e-12
_LEAST_SHARE = 1e-9
"""A direction along which the rows spread less than this, to the first one's spread, is rounding and not the rows."""


class RowSample:
    """Rows at equal distances, from the first on."""

    def __init__(self, count: int, dimensions: int) -> None:
        """Begin.

        Args:
            count: How many rows will come, ≥ 1.
            dimensions: Their columns.
        """
        size = min(count, SAMPLE_ROWS_MAX)
        self._places = np.arange(size, dtype=np.int64) * count // size
        self.rows: Points = np.empty((size, dimensions))
        self._seen = 0

    def add(self, block: Points) -> None:
        """Take the next rows."""
        first, last = np.searchsorted(self._places, [self._seen, self._seen + len(block)])
        self.rows[first:last] = block[self._places[first:last] - self._seen]
        self._seen += len(block)


class Principal(NamedTuple):
    """What was found in a sample.

    Attributes:
        directions: Shape (k, d): unit vectors, the widest spread first, the greatest component positive; zeros where the
            rows do not spread in as many directions.
        rest: Standard deviation of the rows along one of the other directions, on average.
    """

    directions: Points
    rest: float


def find_principal(sample: Points, count: int) -> Principal:
    """Return the leading principal directions of a sample.

    Args:
        sample: Shape (s, d), s ≥ 1, of a size far from the ends of double precision.
        count: How many directions, 1 … d − 1.
    """
    size, dimensions = sample.shape
    centred = sample - sample.mean(axis=0)
    if dimensions <= size:
        directions = _find_leading(centred.T @ centred, count)
        spreads = np.sqrt(np.square(centred @ directions.T).sum(axis=0))
    else:  # the same directions, found among fewer numbers
        directions = _find_leading(centred @ centred.T, count) @ centred
        spreads = np.sqrt(np.square(directions).sum(axis=1))
        directions /= np.where(spreads > 0, spreads, 1.0)[:, np.newaxis]
    directions[spreads <= _LEAST_SHARE * spreads.max()] = 0.0
    greatest = np.abs(directions).argmax(axis=1)
    directions *= np.where(directions[np.arange(count), greatest] < 0, -1.0, 1.0)[:, np.newaxis]
    rest = float(np.square(centred).sum() - np.square(spreads).sum()) / (size * (dimensions - count))
    return Principal(np.rint(directions * _ROUNDING) / _ROUNDING, max(0.0, rest) ** 0.5)


def _find_leading(products: Points, count: int) -> Points:
    """Return approximate leading eigenvectors of a symmetric matrix, shape (count, its side)."""
    side = len(products)
    basis = next(iter_directions(_START_SEED, count, side, count))
    # Products so small that BLAS starts no threads, which would cost more than they do.
    pieces = [products[:, first : first + _PIECE_COLUMNS] for first in range(0, side, _PIECE_COLUMNS)]
    for _ in range(_ITERATIONS):
        basis = _orthonormal(np.concatenate([basis @ piece for piece in pieces], axis=1))
    return basis


def _orthonormal(rows: Points) -> Points:
    """Return the rows made orthogonal to those before and of length 1, by Gram and Schmidt; zeros where nothing is left."""
    for index in range(len(rows)):
        length = _length(rows[index])
        for _ in range(2):  # a little that is left over of much is orthogonal only after the second time
            for before in rows[:index]:
                rows[index] -= (rows[index] * before).sum() * before
            left = _length(rows[index])
            if left > _MUCH * length:
                break
        rows[index] *= 1 / left if left > _LITTLE * length else 0.0
    return rows


def _length(row: Points) -> float:
    return float(np.sqrt((row * row).sum()))
