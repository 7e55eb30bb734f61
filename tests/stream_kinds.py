"""Streams of the four kinds that a report's sentences speak of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PERIOD = 40
WINDOW = 500


def wander(generator: np.random.Generator, events: int) -> NDArray[np.float64]:
    """Events that hang together and stay where they are."""
    steps = generator.standard_normal((events, 2))
    for row in range(1, events):
        steps[row] += 0.6 * steps[row - 1]
    return steps


def write_kinds(folder: Path) -> dict[str, str]:
    """Write a healthy, a looping, a drifting and a truncated stream; the looping one is healthy for two windows of four."""
    generator = np.random.Generator(np.random.PCG64(5))
    healthy = wander(generator, 4 * WINDOW)
    loop = np.tile(wander(generator, PERIOD), (2 * WINDOW // PERIOD, 1))
    drift = 0.4 * wander(generator, 4 * WINDOW) + np.linspace(0, 1, 4 * WINDOW)[:, None] * [14.0, 6.0]
    streams = {
        "healthy": healthy,
        "looping": np.vstack([wander(generator, 2 * WINDOW), loop]),
        "drifting": drift,
        "truncated": healthy[:9],
    }
    paths = {}
    for name, points in streams.items():
        paths[name] = str(folder / f"{name}.npy")
        np.save(paths[name], points)
    return paths
