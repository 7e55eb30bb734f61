"""Counting of occupied cells: exact for any number of axes, block by block, without a Python loop over points.

A cell is one integer per axis, floor(x·scale). The integers of a point are packed into as few 64-bit words as hold them,
each in a field of its own, so nothing is hashed and nothing collides. Where the fields of all axes fit into
`TABLE_BITS_MAX` bits, a cell is a place in a table; otherwise the distinct cells so far are kept sorted.

Scales that differ by a power of two share one pass, at the finest of them: x·(2s) is twice x·s also when both are
rounded, so the coarse integer is the fine one without its lowest bits, bit for bit. For another ratio that does not hold
in floating point, and such a scale is counted by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pcs_agent.signals.blocks import Blocks, as_blocks
from pcs_agent.signals.scaling import Points

Keys = npt.NDArray[np.int64]

TABLE_BITS_MAX = 24
"""Up to 2 to this many possible cells are marked in a table of one byte each (16 MiB)."""

MERGE_ROWS = 2**20
"""So many rows, or as many as there are distinct cells, wait before they are sorted in among the distinct."""

_WORD_BITS = 62


class CellSet:
    """The cells of one scale that are occupied, and so those of every scale that is this one over a power of two."""

    def __init__(self, scale: int, dimensions: int) -> None:
        """Begin without points.

        Args:
            scale: Cells per axis, 1 … 2^63−1.
            dimensions: Axes, ≥ 1.
        """
        self.scale = scale
        self._dimensions = dimensions
        # A point just below 1 may be in cell `scale` itself where that is no exact double, hence its own bits.
        self._bits = scale.bit_length() if scale > 2**53 else max(1, (scale - 1).bit_length())
        self._fields = max(1, _WORD_BITS // self._bits)
        words = -(-dimensions // self._fields)
        self._table: npt.NDArray[np.bool_] | None = None
        if self._bits * dimensions <= TABLE_BITS_MAX:
            self._table = np.zeros(1 << (self._bits * dimensions), dtype=np.bool_)
        self._distinct: Keys = np.empty((0, words), dtype=np.int64)
        self._pending: list[Keys] = []
        self._pending_rows = 0

    def add(self, scaled: Points) -> None:
        """Take more points, shape (n, d), in [0, 1)."""
        keys = self._pack((scaled * self.scale).astype(np.int64))  # truncation is floor: nothing is negative
        if self._table is not None:
            self._table[keys[:, 0]] = True
            return
        self._pending.append(keys)
        self._pending_rows += len(keys)
        if self._pending_rows > max(MERGE_ROWS, len(self._distinct)):
            self._merge()

    def counts(self) -> list[int]:
        """Return how many cells are occupied at the scale, at half of it, and so on down to an odd number."""
        if self._table is not None:
            keys = np.flatnonzero(self._table)[:, np.newaxis]
        else:
            self._merge()
            keys = self._distinct
        counts, scale = [len(keys)], self.scale
        while scale % 2 == 0:
            scale //= 2
            keys = _distinct(keys & self._mask(len(counts)))
            counts.append(len(keys))
        return counts

    def _pack(self, digits: Keys) -> Keys:
        """Return the words of each row, the first axis in the highest field of the first word."""
        words = np.zeros((len(digits), self._distinct.shape[1]), dtype=np.int64)
        for axis in range(self._dimensions):
            word = words[:, axis // self._fields]
            word <<= self._bits
            word |= digits[:, axis]
        return words

    def _merge(self) -> None:
        if self._pending:
            self._distinct = _distinct(np.concatenate([self._distinct, *self._pending]))
            self._pending, self._pending_rows = [], 0

    def _mask(self, halvings: int) -> Keys:
        """Return words in which every field lacks so many of its lowest bits."""
        field = np.full((1, self._dimensions), (1 << self._bits) - (1 << halvings), dtype=np.int64)
        return self._pack(field)


def count_cells(scaled: Points | Blocks, scales: Sequence[int]) -> dict[int, int]:
    """Return how many cells are occupied at each scale.

    Args:
        scaled: Shape (n, d), n ≥ 1, d ≥ 1, in [0, 1).
        scales: Cells per axis, integers ≥ 1.
    """
    rows = as_blocks(scaled)
    finest: dict[int, int] = {}
    for scale in scales:
        odd = scale // _power_of_two_in(scale)
        finest[odd] = max(scale, finest.get(odd, 0))
    sets = {odd: CellSet(scale, rows.dimensions) for odd, scale in finest.items()}
    for block in rows:
        for cells in sets.values():
            cells.add(block)
    counts: dict[int, int] = {}
    for cells in sets.values():
        counts |= {cells.scale >> halvings: count for halvings, count in enumerate(cells.counts())}
    return {scale: counts[scale] for scale in scales}


def _power_of_two_in(number: int) -> int:
    """Return the greatest power of two that divides the number."""
    return number & -number


def _distinct(keys: Keys) -> Keys:
    """Return the distinct rows, sorted."""
    ordered = np.sort(keys, axis=0) if keys.shape[1] == 1 else keys[np.lexsort(keys.T)]
    new = np.ones(len(ordered), dtype=np.bool_)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    distinct: Keys = ordered[new]
    return distinct
