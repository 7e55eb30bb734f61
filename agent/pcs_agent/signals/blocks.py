"""Rows in blocks of one fixed size: what the signals are computed from, whether the rows are in memory or in a file.

A matrix product of BLAS may differ in its last bit with the shape of what is multiplied. So the size of a block depends
on the number of columns alone, never on how a source is read, and whatever is computed by blocks is equal for rows in
memory and rows that are read again from a disk for every pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from pcs_agent.signals.scaling import Points

BLOCK_ROWS_MAX = 1024
"""Rows of a block."""

BLOCK_VALUES_MAX = 2**20
"""Numbers of a block, 8 bytes each: blocks of more than 1024 columns have fewer rows."""


class Blocks(Protocol):
    """Rows that can be gone through any number of times."""

    @property
    def dimensions(self) -> int:
        """Columns of every row, 1 … 4096."""

    def __len__(self) -> int:
        """Number of rows."""

    def __iter__(self) -> Iterator[Points]:
        """Yield the rows in order, finite, C-contiguous float64, in blocks of shape (`block_rows(d)`, d), the last shorter.

        A block is valid until the next one is asked for, and must not be written to.
        """


class ArrayBlocks:
    """Blocks of rows that are in memory."""

    def __init__(self, rows: Points) -> None:
        """Take the rows, shape (n, d), finite, in any memory layout."""
        self._rows = np.ascontiguousarray(rows, dtype=np.float64)

    @property
    def dimensions(self) -> int:
        """Columns of every row."""
        columns: int = self._rows.shape[1]
        return columns

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._rows)

    def __iter__(self) -> Iterator[Points]:
        """Yield views of the rows."""
        size = block_rows(self.dimensions)
        for first in range(0, len(self._rows), size):
            yield self._rows[first : first + size]


def block_rows(dimensions: int) -> int:
    """Return how many rows a block of so many columns has."""
    return max(1, min(BLOCK_ROWS_MAX, BLOCK_VALUES_MAX // dimensions))


def as_blocks(rows: Points | Blocks) -> Blocks:
    """Return the rows as blocks, whichever they are."""
    return ArrayBlocks(rows) if isinstance(rows, np.ndarray) else rows


def cut_blocks(parts: Iterable[Points], dimensions: int) -> Iterator[Points]:
    """Yield the rows of parts of any size, one or more rows each, in blocks of the fixed size."""
    size = block_rows(dimensions)
    held: list[Points] = []
    missing = size
    for part in parts:
        rest = part
        while len(rest) >= missing:
            block = np.concatenate([*held, rest[:missing]]) if held else rest[:missing]
            yield np.ascontiguousarray(block)
            rest = rest[missing:]
            held, missing = [], size
        if len(rest):
            held.append(rest.copy())  # the part itself may be written over when the next is read
            missing -= len(rest)
    if held:
        yield np.concatenate(held)
