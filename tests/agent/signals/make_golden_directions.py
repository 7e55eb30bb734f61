"""Writes golden_directions.json: the algorithm of `pcs_agent.signals.directions` in plain `math`, one number at a time.

Independent of the shipped code but for the raw outputs of PCG64, the first of which are pinned beside the vectors.
Run by hand: python tests/agent/signals/make_golden_directions.py
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent.parent / "golden_directions.json"


def direction(raw: list[int], index: int, dimensions: int) -> list[float]:
    components = []
    for axis in range(dimensions):
        place = 2 * (index * dimensions + axis)
        first, second = (((raw[place + offset] >> 11) + 0.5) * 2.0**-53 for offset in (0, 1))
        components.append(math.sqrt(-2.0 * math.log(first)) * math.cos(2.0 * math.pi * second))
    length = math.sqrt(math.fsum(component * component for component in components))
    return [component / length for component in components]


def make() -> list[dict[str, object]]:
    cases = []
    for seed, count, dimensions in [(0, 3, 1), (42, 4, 2), (42, 3, 3), (2**63 - 1, 2, 5), (7, 1, 16)]:
        raw = [int(output) for output in np.random.PCG64(seed).random_raw(2 * count * dimensions)]
        cases.append(
            {
                "seed": seed,
                "dimensions": dimensions,
                "raw": [str(output) for output in raw[:4]],
                "directions": [direction(raw, index, dimensions) for index in range(count)],
            }
        )
    return cases


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(make(), indent=1) + "\n", encoding="utf-8")
