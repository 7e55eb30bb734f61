"""Codebooks of product quantisation: which code each part of a row gets. Exact, so that nobody's machine decides.

The columns are cut into subspaces, and each subspace has up to 256 centroids. Rows are first put on a grid of integers:
an origin per column is subtracted, and the result divided by the subspace's step and rounded. Centroids are integers of
the same grid. Then every product and sum of a distance is an integer below 2^53, and so exact in doubles whatever the
order in which a matrix product adds them up: the codes depend neither on threads, nor on the size of blocks, nor on which
library multiplies.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pcs_agent.signals.scaling import Points

Codes = npt.NDArray[np.uint8]
Centroids = npt.NDArray[np.int32]

CODES_MAX = 256
"""Codes fit a byte."""

SUBSPACES_MAX = 64
"""Bytes of a coded row."""

COORDINATE_MAX = 2**20
"""Grid coordinates are cut at ±this: with 4096 columns in a subspace, a distance still stays below 2^53."""

SAMPLE_COORDINATE_MAX = 2**17
"""Those of the training sample stay within ±this, so that rows up to eight times as far out are still told apart."""

# Multiplications of one matrix product. OpenBLAS takes one thread up to so many, and above wakes others for so little work
# that they cost several times what they save.
_PRODUCT_MAX = 2**18
_ROWS_AT_ONCE_MIN = 8


@dataclass(frozen=True, slots=True, eq=False)
class Codebook:
    """Centroids by subspace, and the grid they lie on.

    Attributes:
        codes: Size of the alphabet, 2 … 256; a subspace with fewer distinct places has fewer centroids.
        seed: What it was trained with, 0 … 2^63−1.
        training_rows: How many rows it was trained on, ≥ 1.
        origins: Shape (d,), what is subtracted from each column.
        steps: Shape (m,), grid step of each subspace, > 0.
        centroids: One array a subspace, shape (k ≤ codes, columns of the subspace), within ±`COORDINATE_MAX`; pairwise
            different, in lexical order.
        digest: SHA-256 of all of that, 64 lower-case hex digits.
    """

    codes: int
    seed: int
    training_rows: int
    origins: Points
    steps: Points
    centroids: tuple[Centroids, ...]
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        """Compute the digest."""
        object.__setattr__(self, "digest", _digest(self))

    @property
    def dimensions(self) -> int:
        """Columns of the rows that can be coded."""
        return len(self.origins)

    @property
    def subspaces(self) -> int:
        """Codes of a row."""
        return len(self.steps)

    def encode(self, rows: Points) -> Codes:
        """Return the code of each row in each subspace: the nearest centroid, the first of several.

        Args:
            rows: Shape (n, d), finite, d as in `dimensions`.

        Returns:
            Shape (n, m).

        Raises:
            ValueError: The rows have another number of columns.
        """
        if rows.ndim != 2 or rows.shape[1] != self.dimensions:
            raise ValueError(
                f"found rows of shape {rows.shape}; allowed: {self.dimensions} columns, as the codebook has"
            )
        coded = np.empty((len(rows), self.subspaces), dtype=np.uint8)
        for subspace, columns in enumerate(cut_columns(self.dimensions, self.subspaces)):
            grid = place_on_grid(rows[:, columns], self.origins[columns], float(self.steps[subspace]))
            coded[:, subspace] = nearest_centroids(grid, self.centroids[subspace])
        return coded


def cut_columns(dimensions: int, subspaces: int) -> Iterator[slice]:
    """Yield the columns of each subspace; where they do not go in, the first ones have one more.

    >>> list(cut_columns(5, 2))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    size, more = divmod(dimensions, subspaces)
    first = 0
    for subspace in range(subspaces):
        last = first + size + (subspace < more)
        yield slice(first, last)
        first = last


def place_on_grid(rows: Points, origins: Points, step: float) -> Points:
    """Return rows as integers of the grid, in doubles, cut at ±`COORDINATE_MAX`.

    Args:
        rows: Shape (n, d), finite.
        origins: Shape (d,).
        step: > 0.
    """
    with np.errstate(over="ignore"):  # what overflows is far out, and cut
        grid: Points = rows - origins
        grid /= step
    np.clip(grid, -COORDINATE_MAX, COORDINATE_MAX, out=grid)
    return np.rint(grid, out=grid)


def nearest_centroids(grid: Points, centroids: Centroids) -> npt.NDArray[np.intp]:
    """Return which centroid is nearest to each row, the first of several. Exact.

    Args:
        grid: Shape (n, d), integers within ±`COORDINATE_MAX`.
        centroids: Shape (k, d), in lexical order.
    """
    places = centroids.astype(np.float64)
    nearest = np.empty(len(grid), dtype=np.intp)
    if places.shape[1] == 1:  # on a line: between which midpoints, in doubled coordinates to stay whole
        line = places[:, 0]
        return np.searchsorted(line[:-1] + line[1:], 2 * grid[:, 0], side="left")
    # |x − c|² less |x|², which is the same for every centroid: |c|² − 2·x·c
    weights = np.ascontiguousarray(-2.0 * places.T)
    squares = (places * places).sum(axis=1)
    at_once = max(_ROWS_AT_ONCE_MIN, _PRODUCT_MAX // places.size)
    distances = np.empty((min(len(grid), at_once), len(places)))
    for first in range(0, len(grid), at_once):
        block = grid[first : first + at_once]
        found = np.matmul(block, weights, out=distances[: len(block)])
        found += squares
        nearest[first : first + len(block)] = found.argmin(axis=1)
    return nearest


def _digest(book: Codebook) -> str:
    parts = [
        struct.pack("<5Q", book.dimensions, book.subspaces, book.codes, book.seed, book.training_rows),
        struct.pack(f"<{book.subspaces}Q", *map(len, book.centroids)),
        book.origins.astype("<f8").tobytes(),
        book.steps.astype("<f8").tobytes(),
        *(centroids.astype("<i4").tobytes() for centroids in book.centroids),
    ]
    return hashlib.sha256(b"pcs-codebook 1\n" + b"".join(parts)).hexdigest()
