"""coh★ by a refined search: fewer directions are sampled, the rest are steps from the best one found so far.

The directions of the seed (`pcs_agent.signals.directions`) are taken in order. The first share of them are tried as they
are; every later one is a step: added, shortened, to the best direction so far, and the sum divided by its length. Steps
are tried a round at a time. A round that finds nothing better shortens the next. As many projections are computed as a
plain search of the same number of directions has, in a bounded number of passes over the events.
"""

from __future__ import annotations

import math

import numpy as np

from pcs_agent.signals.blocks import Blocks
from pcs_agent.signals.coherence import fullest_bins
from pcs_agent.signals.directions import iter_directions
from pcs_agent.signals.scaling import Points

ROUNDS_MAX = 16
"""Rounds of steps, and so passes over the events, whatever the number of directions."""

_SAMPLED_SHARE = 0.3
_STEP_FIRST = 0.5
_STEP_FACTOR = 0.8
_STEPS_MIN = 4


def refined_coherence(rows: Blocks, seed: int, directions: int, bins: int) -> tuple[float, Points]:
    """Return the coherence found, in (0, 1], and its direction, neither rounded; the first maximum wins.

    Args:
        rows: Scaled, shape (n, d), n ≥ 1.
        seed: Seed of the directions, 0 … 2^63−1.
        directions: Projections of all events that are computed, ≥ 1.
        bins: Equal bins per direction, ≥ 1.
    """
    sampled = max(1, math.floor(_SAMPLED_SHARE * directions))
    at_once = max(_STEPS_MIN, math.ceil((directions - sampled) / ROUNDS_MAX))
    vectors = next(iter_directions(seed, directions, rows.dimensions, directions))
    counts = fullest_bins(rows, vectors[:sampled], bins)
    winner = int(counts.argmax())
    best_count, best = int(counts[winner]), vectors[winner]
    step = _STEP_FIRST
    for first in range(sampled, directions, at_once):
        tried = _normalise(best + step * vectors[first : first + at_once])
        counts = fullest_bins(rows, tried, bins)
        winner = int(counts.argmax())
        if counts[winner] > best_count:
            best_count, best = int(counts[winner]), tried[winner]
        else:
            step *= _STEP_FACTOR
    return best_count / len(rows), best


def _normalise(vectors: Points) -> Points:
    """Return the vectors with length 1; steps are shorter than the direction they begin at, so none has length 0."""
    normalised: Points = vectors / np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
    return normalised
