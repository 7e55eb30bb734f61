"""Sample streams of the demo, each of a shape whose signals are known."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

EVENTS = 20_000
_SEED = 7
_LOOP = "I will check the result. The result is not there. I will check the log. The log says to check the result. "
_LOOP_EVENTS = 4_000


class Stream(NamedTuple):
    """A stream in a file.

    Attributes:
        name: What it is.
        path: Where it lies.
    """

    name: str
    path: Path


def write_streams(folder: Path) -> list[Stream]:
    """Write every sample stream below a folder, in the formats that the agent reads; the last one is missing."""
    streams = [Stream(name, _write(folder / file_name, points)) for name, file_name, points in _shapes()]
    return [*streams, Stream("a source gone silent", folder / "missing.csv")]


def _shapes() -> Iterator[tuple[str, str, Points]]:
    generator = np.random.Generator(np.random.PCG64(_SEED))
    along = generator.random((EVENTS, 1))
    yield "straight line", "line.csv", np.hstack([along, 2 * along + 1])
    yield "filled square", "square.npy", generator.random((EVENTS, 2))
    yield "filled cube", "cube.npy", generator.random((5 * EVENTS, 3))
    yield "Sierpinski triangle", "sierpinski.jsonl", _sierpinski(generator)
    yield "noise, 8 dimensions", "noise.npy", generator.standard_normal((EVENTS, 8))
    yield "random walk", "walk.csv", np.cumsum(generator.standard_normal((EVENTS, 2)), axis=0)
    yield "stuck: two states", "stuck.csv", np.repeat([[0.0, 0.0], [1.0, 1.0]], [EVENTS - 5, 5], axis=0)
    yield "looping text", "loop.csv", _text_points(_LOOP)


def _sierpinski(generator: np.random.Generator) -> Points:
    """Every point is a sum of halved corners, chosen at random: the chaos game, all points at once."""
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])
    choices = generator.integers(0, 3, (EVENTS, 24))
    weights = 0.5 ** np.arange(1, 25)
    return np.einsum("ekd,k->ed", corners[choices], weights)


def _text_points(text: str) -> Points:
    """Turn text into points: each event is a character and the two before it."""
    codes = np.frombuffer((text * (_LOOP_EVENTS // len(text) + 2)).encode("ascii"), dtype=np.uint8)
    return np.lib.stride_tricks.sliding_window_view(codes, 3)[:_LOOP_EVENTS].astype(np.float64)


def _write(path: Path, points: Points) -> Path:
    match path.suffix:
        case ".npy":
            np.save(path, points)
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in points.tolist()))
        case _:
            with path.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow([f"x{column}" for column in range(points.shape[1])])
                writer.writerows(points.tolist())
    return path
