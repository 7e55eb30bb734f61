"""`python -m statistical`: the simulations at full size, as the tables of docs/statistics.md.

Exit codes: 0 every promise held; 1 one did not, and is named.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat

from statistical.guarantees import LEVELS, SIDES, SIZES, Case, chance_of_errors, simulate
from statistical.streams import (
    AFTER_SHIFT_MAX,
    SHIFTS,
    count_false_alarms,
    count_false_alarms_of_a_fixed_set,
    count_false_alarms_of_the_test,
    measure_delays,
)

STREAM_SCORES = 5_000
FALSE_ALARMS_MAX = 0.01
CHUNK = 250
"""Streams that a process takes at a time."""

SHIFTED_STREAMS = 500


def show_guarantees() -> Iterable[str]:
    """Print rates of every size and level; yield what broke a promise."""
    print("\n| class | scores | level | order statistic | expected | its law, p | interpolated | expected |")
    print("|---|---|---|---|---|---|---|---|")
    for side in SIDES:
        for scores in SIZES:
            for level in LEVELS:
                case = Case(side, scores, level)
                found = simulate(case)
                other = Case(side, scores, level, "interpolated", "uniform")
                missed = simulate(other)
                law = chance_of_errors(case, found.errors)
                print(
                    f"| {side} | {scores} | {level:.0%} | {found.mean:.3%} ± {found.standard_error:.3%} "
                    f"| {case.expected:.3%} | {law:.2f} | {missed.mean:.3%} ± {missed.standard_error:.3%} "
                    f"| {other.expected:.3%} |"
                )
                if found.mean > level + 3 * found.standard_error:
                    yield f"{side} {scores} {level}: more errors than promised"
                if law <= 0.001:
                    yield f"{side} {scores} {level}: another law than the Beta-binomial"


def show_false_alarms(pool: ProcessPoolExecutor, first: int, streams: int) -> Iterable[str]:
    """Print the share of null streams with an alarm; yield when it is above what is promised."""
    starts = range(first, first + streams, CHUNK)
    sizes = [min(CHUNK, first + streams - start) for start in starts]
    alarms = sum(pool.map(count_false_alarms, starts, sizes, repeat(STREAM_SCORES)))
    print(f"\nmartingale: {alarms} of {streams} null streams of {STREAM_SCORES} ({alarms / streams:.2%})")
    fixed = pool.submit(count_false_alarms_of_a_fixed_set, 500, STREAM_SCORES)
    test = pool.submit(count_false_alarms_of_the_test, 100, STREAM_SCORES)
    print(f"the same bets on ranks among a fixed set of 100: {fixed.result()} of 500")
    print(f"Kolmogorov and Smirnov's test, a look every 10 scores: {test.result()} of 100", flush=True)
    if alarms > FALSE_ALARMS_MAX * streams:
        yield f"{alarms} false alarms of {streams}"


def show_delays(pool: ProcessPoolExecutor) -> Iterable[str]:
    """Print median delays until a shift is seen; yield where most streams do not show it."""
    print("\n| shift after 1,000 scores | martingale: median, 9th decile | test: median, 9th decile |")
    print("|---|---|---|")
    for shift, found in zip(SHIFTS, pool.map(measure_delays, SHIFTS, repeat(SHIFTED_STREAMS)), strict=True):
        columns = []
        for delays in ([each.martingale for each in found], [each.test for each in found]):
            columns.append(f"{statistics.median(delays):g}, {statistics.quantiles(delays, n=10)[-1]:g}")
            if statistics.median(delays) >= AFTER_SHIFT_MAX:
                yield f"{shift}: seen in less than half of the streams"
        print(f"| {shift} | {columns[0]} | {columns[1]} |", flush=True)


def main() -> int:
    """Run all, and say what did not hold."""
    parser = argparse.ArgumentParser(prog="python -m statistical", description=__doc__)
    parser.add_argument("--streams", type=int, default=10_000, help="null streams of the martingale")
    parser.add_argument(
        "--first", type=int, default=0, help="seed of the first of them, to run them in parts"
    )
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    with ProcessPoolExecutor(arguments.processes) as pool:
        broken = [
            *show_guarantees(),
            *show_delays(pool),
            *show_false_alarms(pool, arguments.first, arguments.streams),
        ]
    for each in broken:
        print(f"BROKEN {each}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
