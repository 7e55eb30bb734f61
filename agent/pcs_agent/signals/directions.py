"""Sampled unit vectors, by an algorithm of our own over raw PCG64 output (contract §1).

NumPy promises that a bit generator's raw output stays the same, and promises nothing for its distributions. So
direction m of D components is made of raw outputs only:

1. `raw = PCG64(seed).random_raw(...)`; component i takes the outputs at 2·(m·D + i) and 2·(m·D + i) + 1.
2. Each becomes a uniform `u = ((raw >> 11) + 0.5) · 2⁻⁵³`.
3. The component is `sqrt(−2·ln u₁) · cos(2π·u₂)` (Box–Muller, cosine half).
4. The vector is divided by its Euclidean length. A vector of length 0 becomes the first axis.

Direction m does not depend on how many are asked for. Golden vectors: tests/agent/golden_directions.json.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pcs_agent.signals.scaling import Points

_UNIFORM_STEP = 2.0**-53
_DROPPED_BITS = np.uint64(11)


def iter_directions(seed: int, count: int, dimensions: int, block_rows: int) -> Iterator[Points]:
    """Yield the directions in order, in blocks of shape (≤ block_rows, dimensions).

    Args:
        seed: 0 … 2^63−1.
        count: How many directions, ≥ 1.
        dimensions: Components of each, ≥ 1.
        block_rows: Directions a block, ≥ 1; changes the blocks' sizes and no value.
    """
    bits = np.random.PCG64(seed)
    for first in range(0, count, block_rows):
        rows = min(block_rows, count - first)
        yield _directions(bits, rows, dimensions)


def _directions(bits: np.random.PCG64, rows: int, dimensions: int) -> Points:
    raw = bits.random_raw(2 * rows * dimensions)
    uniforms = ((raw >> _DROPPED_BITS).astype(np.float64) + 0.5) * _UNIFORM_STEP
    pairs = uniforms.reshape(rows, dimensions, 2)
    normals: Points = np.sqrt(-2.0 * np.log(pairs[:, :, 0])) * np.cos(2.0 * np.pi * pairs[:, :, 1])
    lengths = np.sqrt((normals * normals).sum(axis=1))
    degenerate = lengths == 0
    if degenerate.any():
        normals[degenerate, 0] = 1.0
        lengths[degenerate] = 1.0
    directions: Points = normals / lengths[:, np.newaxis]
    return directions
