"""Measures the three signals beside a plain NumPy loop of what each is defined as, and a stream larger than memory.

`make bench-agent`; figures and how to read them are in docs/performance.md. Both sides get the same rows in the same
process, with one thread of BLAS; times are CPU time, which what else the machine does hardly touches. A plain loop that would take minutes is run on fewer rows and its time is multiplied, which the table says: its
cost grows with the rows (of sorting, faster), so that a true run would take no less.

The plain loops:

- D̂: at each scale the distinct rows of floor(x·scale), by `numpy.unique(axis=0)`, over all columns;
- coh★: for each direction the projections and their histogram;
- r: for every row and subspace the distances to all centroids and the least of them, as often as the training and the
  coding of these rows look at a row.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pcs_agent.signals import ArrayBlocks, SignalSettings
from pcs_agent.signals.codebook import cut_columns
from pcs_agent.signals.coherence import directional_coherence
from pcs_agent.signals.compressibility import measure_r
from pcs_agent.signals.derived import measure_extent, scale_blocks
from pcs_agent.signals.dimension import PLAIN_DIMENSIONS_MAX, PLAIN_SCALES, count_occupied
from pcs_agent.signals.directions import iter_directions
from pcs_agent.signals.principal import RowSample
from pcs_agent.signals.scaling import scale_points
from pcs_agent.signals.training import ROUNDS_MAX, SAMPLE_ROWS_MAX, SUBSPACES_DEFAULT

ROWS, COLUMNS = (1_000, 10_000, 100_000, 1_000_000), (3, 64, 768)
SHORT_ROWS, SHORT_COLUMNS = (1_000, 10_000), (3, 64)
GOALS = {(100_000, 3): 20.0, (10_000, 768): 5.0}
VALUES_IN_MEMORY_MAX = 80_000_000
"""More numbers are not made in memory; their row of the table is left out, and the run from a file stands for it."""

PLAIN_VALUES_MAX = 10_000_000
PLAIN_CODED_ROWS = 500
REPEATS = 3
MEMORY_MAX_MIB = 2_048
SETTINGS = SignalSettings()


class Figure(NamedTuple):
    """Seconds of one signal on one size of input.

    Attributes:
        signal: Its name.
        product_s: The median of the repeats.
        plain_s: The plain loop's, multiplied where it ran on fewer rows.
        share: The share of the rows the plain loop ran on.
    """

    signal: str
    product_s: float
    plain_s: float
    share: float


def make_rows(count: int, columns: int) -> np.ndarray:
    """Return rows around 64 centres."""
    rng = np.random.default_rng(count + columns)
    centres = rng.normal(size=(64, columns))
    return centres[rng.integers(0, 64, count)] + 0.3 * rng.normal(size=(count, columns))


def time_product(rows: np.ndarray, repeats: int) -> dict[str, float]:
    """Return the median seconds of each signal; scaling is counted to D̂."""
    times: dict[str, list[float]] = {"D_hat": [], "coh_star": [], "r": []}
    for _ in range(repeats):
        blocks = ArrayBlocks(rows)
        began_s = time.process_time()
        extent = measure_extent(blocks)
        scaled = scale_blocks(blocks, extent)
        sample = None
        if blocks.dimensions > PLAIN_DIMENSIONS_MAX:
            chosen = RowSample(len(rows), blocks.dimensions)
            for block in scaled:
                chosen.add(block)
            sample = chosen.rows
        count_occupied(scaled, sample, None, SETTINGS.d_hat_dimensions)
        times["D_hat"].append(time.process_time() - began_s)
        began_s = time.process_time()
        directional_coherence(scaled, SETTINGS.seed, SETTINGS.directions, SETTINGS.bins)
        times["coh_star"].append(time.process_time() - began_s)
        began_s = time.process_time()
        measure_r(blocks, [], "symbols", None, of_text=False)
        times["r"].append(time.process_time() - began_s)
    return {signal: sorted(found)[len(found) // 2] for signal, found in times.items()}


def count_plainly(scaled: np.ndarray) -> None:
    """Count the occupied cells scale by scale."""
    for scale in PLAIN_SCALES:
        len(np.unique(np.floor(scaled * scale).astype(np.int64), axis=0))


def bin_plainly(scaled: np.ndarray) -> None:
    """Bin the projections direction by direction."""
    best = 0.0
    for block in iter_directions(SETTINGS.seed, SETTINGS.directions, scaled.shape[1], SETTINGS.directions):
        for direction in block:
            counts, _ = np.histogram(scaled @ direction, bins=SETTINGS.bins)
            best = max(best, counts.max() / len(scaled))


def code_plainly(rows: np.ndarray) -> None:
    """Find the nearest centroid row by row, in each subspace."""
    parts = cut_columns(rows.shape[1], min(SUBSPACES_DEFAULT, rows.shape[1]))
    for part in parts:
        centroids = rows[:256, part]
        for row in rows:
            ((centroids - row[part]) ** 2).sum(axis=1).argmin()


def time_plain(rows: np.ndarray) -> dict[str, tuple[float, float]]:
    """Return each plain loop's seconds for all rows, and the share of the rows it was run on."""
    fewer = rows[: max(1_000, PLAIN_VALUES_MAX // rows.shape[1])]
    scaled = scale_points(fewer)
    share = len(fewer) / len(rows)
    coded = rows[:PLAIN_CODED_ROWS]
    looks = len(rows) + ROUNDS_MAX * min(len(rows), SAMPLE_ROWS_MAX)
    return {
        "D_hat": (timed(lambda: count_plainly(scaled)) / share, share),
        "coh_star": (timed(lambda: bin_plainly(scaled)) / share, share),
        "r": (timed(lambda: code_plainly(coded)) * looks / len(coded), len(coded) / looks),
    }


def timed(work: Callable[[], None]) -> float:
    """Return how many seconds the work takes."""
    began_s = time.process_time()
    work()
    return time.process_time() - began_s


def measure(count: int, columns: int, repeats: int) -> list[Figure]:
    """Measure one size of input."""
    rows = make_rows(count, columns)
    product = time_product(rows, repeats)
    plain = time_plain(rows)
    return [Figure(signal, product[signal], *plain[signal]) for signal in product]


def table(sizes: Sequence[tuple[int, int]], repeats: int) -> bool:
    """Print a line a size; whether every goal that was measured is reached."""
    print("| rows × columns | D̂ ms | ratio | coh★ ms | ratio | r ms | ratio | all three |")
    print("|---|---|---|---|---|---|---|---|")
    reached = True
    for count, columns in sizes:
        figures = measure(count, columns, repeats)
        cells = []
        for figure in figures:
            mark = "" if figure.share == 1 else "*"
            cells += [f"{1_000 * figure.product_s:,.1f}", f"{figure.plain_s / figure.product_s:.1f}{mark}"]
        ratio = sum(figure.plain_s for figure in figures) / sum(figure.product_s for figure in figures)
        goal = GOALS.get((count, columns))
        note = "" if goal is None else f" (goal {goal:g})"
        reached = reached and (goal is None or ratio >= goal)
        print(f"| {count:,} × {columns} | {' | '.join(cells)} | {ratio:.1f}{note} |", flush=True)
    print("\n* the plain loop ran on fewer rows and its time was multiplied")
    return reached


def write_rows(path: Path, count: int, columns: int) -> None:
    """Write an `.npy` of float32 in parts."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, columns)}
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(64, columns)).astype(np.float32)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for first in range(0, count, 10_000):
            size = min(10_000, count - first)
            noise = rng.standard_normal((size, columns), dtype=np.float32)
            file.write((centres[rng.integers(0, 64, size)] + np.float32(0.3) * noise).tobytes())


def run_from_file(count: int, columns: int) -> bool:
    """Summarise a file in chunks by the command itself; whether the memory stayed below the goal."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npy"
        write_rows(path, count, columns)
        command = [str(Path(sys.executable).parent / "pcs-agent"), "build", str(path)]
        command += ["--shard-id", "bench", "--epoch", "0", "--chunk", "65536"]
        began_s = time.perf_counter()
        with (Path(folder) / "record.json").open("wb") as output:
            process = subprocess.Popen(command, stdout=output)
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        took_s = time.perf_counter() - began_s
        if process.returncode:
            raise SystemExit(f"pcs-agent build ended with {process.returncode}")
        record = json.loads((Path(folder) / "record.json").read_bytes())
        peak_mib = usage.ru_maxrss / 1024
        print(
            f"\n{count:,} × {columns} float32 from a file of {path.stat().st_size / 2**20:,.0f} MiB: {took_s:,.1f} s, peak "
            f"{peak_mib:,.0f} MiB resident (goal below {MEMORY_MAX_MIB:,}); D̂ {record['D_hat']}, coh★ {record['coh_star']}, "
            f"r {record['r']}"
        )
    return peak_mib < MEMORY_MAX_MIB


def main() -> int:
    """Run what the command line asks for; 1 if a goal is not reached."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="small sizes, once each; a part of the tests")
    parser.add_argument("--only", help="sizes such as 100000x3,10000x768 instead of all")
    parser.add_argument("--no-file", action="store_true", help="without the run from a file of 3 GB")
    arguments = parser.parse_args()
    rows, columns = (SHORT_ROWS, SHORT_COLUMNS) if arguments.short else (ROWS, COLUMNS)
    sizes = [(count, width) for width in columns for count in rows if count * width <= VALUES_IN_MEMORY_MAX]
    if arguments.only:
        sizes = [
            (int(count), int(width))
            for count, width in (size.split("x") for size in arguments.only.split(","))
        ]
    reached = table(sizes, 1 if arguments.short else REPEATS)
    if not arguments.no_file:
        reached &= run_from_file(20_000 if arguments.short else 1_000_000, 64 if arguments.short else 768)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
