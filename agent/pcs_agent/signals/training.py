"""Training of codebooks: Lloyd's k-means on a bounded sample of the rows, in whole numbers.

Which rows are sampled follows from their number and the seed alone. Sums of grid coordinates are whole numbers below
2^53, and a centroid is such a sum divided once and rounded: as exact as `pcs_agent.signals.codebook` is, so that the same
rows and seed give the same codebook, bit for bit, on any machine and with any number of threads.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pcs_agent.signals.blocks import Blocks
from pcs_agent.signals.codebook import (
    CODES_MAX,
    SAMPLE_COORDINATE_MAX,
    SUBSPACES_MAX,
    Centroids,
    Codebook,
    cut_columns,
    nearest_centroids,
    place_on_grid,
)
from pcs_agent.signals.scaling import Points

SUBSPACES_DEFAULT = 8
CODES_DEFAULT = 256
SAMPLE_ROWS_MAX = 8_192
"""Rows a codebook is trained on: 32 for each of 256 centroids."""

ROUNDS_MAX = 12
"""Rounds of Lloyd's iteration; it ends before where nothing moves."""

_DROPPED_BITS = np.uint64(11)
_SMALLEST = float(np.nextafter(0.0, 1.0))


def train_codebook(
    rows: Blocks, *, subspaces: int = SUBSPACES_DEFAULT, codes: int = CODES_DEFAULT, seed: int
) -> Codebook:
    """Return a codebook for rows like these.

    Args:
        rows: n ≥ 1 rows of d columns.
        subspaces: Codes of a row, 1 … 64; with fewer columns than that, every column is a subspace.
        codes: Size of the alphabet, 2 … 256.
        seed: Chooses sample and first centroids, 0 … 2^63−1.

    Raises:
        ValueError: A number is out of range, or there is no row.
    """
    if not 1 <= subspaces <= SUBSPACES_MAX:
        raise ValueError(f"subspaces: found {subspaces}; allowed: 1 to {SUBSPACES_MAX}")
    if not 2 <= codes <= CODES_MAX:
        raise ValueError(f"codes: found {codes}; allowed: 2 to {CODES_MAX}")
    if len(rows) == 0:
        raise ValueError("rows: found none; allowed: one or more")
    sample = sample_rows(rows, seed)
    subspaces = min(subspaces, rows.dimensions)
    # Halves, because the extent of finite rows may be infinite.
    least, greatest = sample.min(axis=0) / 2, sample.max(axis=0) / 2
    origins: Points = least + greatest
    steps = np.empty(subspaces)
    centroids = []
    bits = np.random.PCG64(seed)
    for subspace, columns in enumerate(cut_columns(rows.dimensions, subspaces)):
        reach = float((greatest - least)[columns].max())
        steps[subspace] = max(reach / SAMPLE_COORDINATE_MAX, _SMALLEST) if reach else 1.0
        grid = place_on_grid(sample[:, columns], origins[columns], float(steps[subspace]))
        order = bits.random_raw(len(sample)).argsort(kind="stable")
        centroids.append(_lloyd(grid, _first_centroids(grid[order], codes)))
    return Codebook(codes, seed, len(sample), origins, steps, tuple(centroids))


def sample_rows(rows: Blocks, seed: int) -> Points:
    """Return at most `SAMPLE_ROWS_MAX` rows in order, one from each of as many equal stretches of the stream.

    Args:
        rows: n ≥ 1 rows.
        seed: Chooses the row within each stretch.
    """
    chosen = sample_indices(len(rows), seed)
    sample = np.empty((len(chosen), rows.dimensions))
    first = taken = 0
    for block in rows:
        upto = int(np.searchsorted(chosen, first + len(block)))
        sample[taken:upto] = block[chosen[taken:upto] - first]
        first, taken = first + len(block), upto
    return sample


def sample_indices(count: int, seed: int) -> npt.NDArray[np.int64]:
    """Return which of so many rows are sampled: rising, all of them if they are not more than `SAMPLE_ROWS_MAX`."""
    if count <= SAMPLE_ROWS_MAX:
        return np.arange(count, dtype=np.int64)
    uniforms = (np.random.PCG64(seed).random_raw(SAMPLE_ROWS_MAX) >> _DROPPED_BITS) * 2.0**-53
    edges = np.arange(SAMPLE_ROWS_MAX + 1, dtype=np.int64) * count // SAMPLE_ROWS_MAX
    chosen: npt.NDArray[np.int64] = edges[:-1] + (uniforms * (edges[1:] - edges[:-1])).astype(np.int64)
    return chosen


def _first_centroids(shuffled: Points, codes: int) -> Points:
    """Return the first distinct rows, in lexical order."""
    looked_at = 2 * codes
    while True:  # nearly always once: sorting all rows would take longer than a round
        _, first = np.unique(shuffled[:looked_at], axis=0, return_index=True)
        if len(first) >= codes or looked_at >= len(shuffled):
            return _in_order(shuffled[np.sort(first)[:codes]])
        looked_at *= 4


def _lloyd(grid: Points, centroids: Points) -> Centroids:
    for _ in range(ROUNDS_MAX):
        nearest = nearest_centroids(grid, centroids.astype(np.int32))
        members = np.bincount(nearest, minlength=len(centroids))
        moved = centroids.copy()  # one without rows stays where it is
        held = members > 0
        for column in range(grid.shape[1]):
            sums = np.bincount(nearest, weights=grid[:, column], minlength=len(centroids))
            moved[held, column] = np.rint(sums[held] / members[held])
        moved = _in_order(moved)
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids.astype(np.int32)


def _in_order(places: Points) -> Points:
    distinct: Points = np.unique(places, axis=0)
    return distinct
