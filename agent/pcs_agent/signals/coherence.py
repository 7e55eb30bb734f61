"""Directional coherence coh★: the largest share of events that falls into one bin along one direction (contract §1)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pcs_agent.signals.blocks import Blocks, as_blocks
from pcs_agent.signals.directions import iter_directions
from pcs_agent.signals.scaling import Points

PROJECTION_VALUES_MAX = 2**25
"""Up to so many projections (256 MiB) are kept between the search for the ends and the count; more are computed twice."""

KEPT_DIMENSIONS_MIN = 64
"""Of fewer columns a projection is sooner computed twice than kept."""

DIRECTIONS_AT_ONCE_MAX = 512
"""Directions of one matrix product: with the rows of a block 4 MiB of projections."""

_BIN_VALUES = 2**15
"""Projections that are put into bins at once, so that they stay in a core's cache."""


def directional_coherence(
    scaled: Points | Blocks, seed: int, directions: int, bins: int
) -> tuple[float, Points]:
    """Return coh★ in (0, 1] and the direction it was found along, neither rounded.

    Each direction's projections are put into equal bins between the least and the greatest, the last bin closed. If
    least and greatest are equal, all events share one place and the share is 1. The first maximum wins.

    Args:
        scaled: Shape (n, d), n ≥ 1, d ≥ 1.
        seed: Seed of the directions, 0 … 2^63−1.
        directions: How many, ≥ 1.
        bins: Equal bins per direction, ≥ 1.
    """
    rows = as_blocks(scaled)
    best_count, best_direction = 0, np.zeros(rows.dimensions)
    for vectors in iter_directions(seed, directions, rows.dimensions, DIRECTIONS_AT_ONCE_MAX):
        fullest = fullest_bins(rows, vectors, bins)
        winner = int(fullest.argmax())
        if fullest[winner] > best_count:
            best_count, best_direction = int(fullest[winner]), vectors[winner]
    return best_count / len(rows), best_direction


def fullest_bins(rows: Blocks, vectors: Points, bins: int) -> npt.NDArray[np.int64]:
    """Return the events in the fullest bin along each direction.

    Args:
        rows: Shape (n, d), n ≥ 1; gone through once or twice.
        vectors: Shape (m, d), m up to some hundreds: m projections of a block's rows are held at once.
        bins: Equal bins per direction, ≥ 1.
    """
    keeps = rows.dimensions >= KEPT_DIMENSIONS_MIN and len(rows) * len(vectors) <= PROJECTION_VALUES_MAX
    kept: list[Points] = []
    least = np.full((len(vectors), 1), np.inf)
    greatest = -least
    for projections in _project(rows, vectors, in_place=not keeps):
        np.minimum(least, projections.min(axis=1, keepdims=True), out=least)
        np.maximum(greatest, projections.max(axis=1, keepdims=True), out=greatest)
        if keeps:
            kept.append(projections)
    width = greatest - least
    counts = np.zeros((len(vectors), bins + 1), dtype=np.int64)
    for projections in kept if keeps else _project(rows, vectors, in_place=True):
        _count_bins(projections, least, width, counts)
    counts[:, bins - 1] += counts[:, bins]  # the last bin is closed: the greatest projection belongs to it
    fullest: npt.NDArray[np.int64] = counts[:, :bins].max(axis=1)
    fullest[width[:, 0] == 0] = len(rows)  # without width there is one place, and all events are in it
    return fullest


def _project(rows: Blocks, vectors: Points, *, in_place: bool) -> Iterator[Points]:
    """Yield one matrix product a block, shape (m, rows of the block), each in the place of the one before if asked to."""
    place: Points | None = None
    for block in rows:
        if not in_place or place is None or place.shape[1] != len(block):
            place = np.empty((len(vectors), len(block)))
        yield np.matmul(vectors, block.T, out=place)


def _count_bins(projections: Points, least: Points, width: Points, counts: npt.NDArray[np.int64]) -> None:
    """Add to each direction's bins, of which there is one more for what equals the greatest; overwrites the projections."""
    places = counts.shape[1]
    divisor = np.where(width == 0, 1.0, width)
    step = max(1, _BIN_VALUES // projections.shape[1])
    for first in range(0, len(projections), step):
        few = slice(first, first + step)
        part = projections[few]
        part -= least[few]
        part /= divisor[few]
        part *= places - 1
        keys = part.astype(np.int64)
        keys += (np.arange(len(part), dtype=np.int64) * places)[:, np.newaxis]
        counts[few] += np.bincount(keys.ravel(), minlength=len(part) * places).reshape(-1, places)
