"""Rows that follow from other rows, block by block: kept if they are few, computed again in each pass if they are many."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from pcs_agent.signals.blocks import ArrayBlocks, Blocks
from pcs_agent.signals.scaling import Extent, Points

HELD_VALUES_MAX = 2**25
"""Up to so many numbers (256 MiB) that follow from the rows are kept for the next pass; more are computed again in each."""


class MappedBlocks:
    """Rows of which each block is a function of a block of others; as many rows in each."""

    def __init__(self, rows: Blocks, dimensions: int, function: Callable[[Points], Points]) -> None:
        """Take the others, how many columns come out, and the function."""
        self._rows, self._dimensions, self._function = rows, dimensions, function

    @property
    def dimensions(self) -> int:
        """Columns of every row."""
        return self._dimensions

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._rows)

    def __iter__(self) -> Iterator[Points]:
        """Yield what the function makes of each block."""
        return map(self._function, self._rows)


def hold(rows: Blocks) -> Blocks:
    """Return the rows in memory, if they are no more than `HELD_VALUES_MAX` numbers; otherwise as they are."""
    if len(rows) * rows.dimensions > HELD_VALUES_MAX:
        return rows
    held = np.empty((len(rows), rows.dimensions))
    first = 0
    for block in rows:
        held[first : first + len(block)] = block
        first += len(block)
    return ArrayBlocks(held)


def measure_extent(rows: Blocks) -> Extent:
    """Return the extent of one or more rows."""
    extent = Extent()
    for block in rows:
        extent.add(block)
    return extent


def scale_blocks(rows: Blocks, extent: Extent) -> Blocks:
    """Return the rows scaled into [0, 1) by their extent."""
    return hold(MappedBlocks(rows, rows.dimensions, extent.scaling().apply))
