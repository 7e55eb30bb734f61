"""Directional coherence coh★: the largest share of events that falls into one bin along one direction (contract §1)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pcs_agent.signals.directions import iter_directions
from pcs_agent.signals.scaling import Points

PROJECTION_VALUES_MAX = 4_000_000
"""Projections held at once, 8 bytes each, beside one direction's worth of them."""


def directional_coherence(scaled: Points, seed: int, directions: int, bins: int) -> tuple[float, Points]:
    """Return coh★ in (0, 1] and the direction it was found along, neither rounded.

    Each direction's projections are put into equal bins between the least and the greatest, the last bin closed. If
    least and greatest are equal, all events share one place and the share is 1. The first maximum wins.

    Args:
        scaled: Shape (n, d), n ≥ 1, d ≥ 1.
        seed: Seed of the directions, 0 … 2^63−1.
        directions: How many, ≥ 1.
        bins: Equal bins per direction, ≥ 1.
    """
    events = len(scaled)
    best_count, best_direction = 0, np.zeros(scaled.shape[1])
    block_rows = max(1, min(directions, PROJECTION_VALUES_MAX // events))
    for block in iter_directions(seed, directions, scaled.shape[1], block_rows):
        fullest = _fullest_bins(block @ scaled.T, bins)
        winner = int(fullest.argmax())
        if fullest[winner] > best_count:
            best_count, best_direction = int(fullest[winner]), block[winner]
    return best_count / events, best_direction


def _fullest_bins(projections: Points, bins: int) -> npt.NDArray[np.int64]:
    """Return the events in the fullest bin of each row; overwrites the projections."""
    rows, events = projections.shape
    least = projections.min(axis=1, keepdims=True)
    width = projections.max(axis=1, keepdims=True) - least
    flat = width[:, 0] == 0
    projections -= least
    projections /= np.where(width == 0, 1.0, width)
    projections *= bins
    places = projections.astype(np.int64)
    np.minimum(places, bins - 1, out=places)
    places += (np.arange(rows, dtype=np.int64) * bins)[:, np.newaxis]
    counts: npt.NDArray[np.int64] = np.bincount(places.ravel(), minlength=rows * bins).reshape(rows, bins)
    counts[flat, 0] = events  # without width there is one place, and all events are in it
    fullest: npt.NDArray[np.int64] = counts.max(axis=1)
    return fullest
