"""How much of the shipped code seeds cover: branches of both pipelines and of the log."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import coverage

from simulation.world import Result, run_seed

ROOT = Path(__file__).resolve().parents[2]
MEASURED_SEEDS = 80
"""The first seeds of the default run, which is slower while it is measured."""

BRANCHES_SHARE_MIN = 0.90
"""Least share of the branches of each part."""

PARTS = ("backend/pcs_backend/pipeline.py", "agent/pcs_agent/pipeline.py", "core/pcs_core/wal/")

_PATTERNS = [f"{part}*" if part.endswith("/") else part for part in PARTS]


class Covered(NamedTuple):
    """Branches of a file or of a part.

    Attributes:
        name: Path below the root; a folder ends with a slash.
        branches: How many there are.
        covered: How many were taken.
        missing: Lines from which not every branch was taken.
    """

    name: str
    branches: int
    covered: int
    missing: tuple[int, ...] = ()

    @property
    def share(self) -> float:
        """Covered share."""
        return self.covered / self.branches if self.branches else 1.0


def measure(seeds: Iterable[int]) -> tuple[list[Result], list[Covered]]:
    """Run seeds. Returns their results, and what they cover: each file, then each part that is a folder."""
    meter = coverage.Coverage(data_file=None, branch=True, include=[f"{ROOT}/{part}" for part in _PATTERNS])
    meter.start()
    try:
        results = [run_seed(seed) for seed in seeds]
    finally:
        meter.stop()
    files = [_file(meter, path) for part in PARTS for path in _files_of(ROOT / part)]
    return results, files + [_sum(part, files) for part in PARTS if part.endswith("/")]


def _files_of(part: Path) -> list[Path]:
    return [part] if part.is_file() else sorted(part.glob("*.py"))


def _file(meter: coverage.Coverage, path: Path) -> Covered:
    exits = meter.branch_stats(str(path))
    return Covered(
        str(path.relative_to(ROOT)),
        sum(total for total, _ in exits.values()),
        sum(taken for _, taken in exits.values()),
        tuple(line for line, (total, taken) in sorted(exits.items()) if taken < total),
    )


def _sum(part: str, files: Iterable[Covered]) -> Covered:
    own = [each for each in files if each.name.startswith(part)]
    return Covered(part, sum(each.branches for each in own), sum(each.covered for each in own))
