"""`make simulate`: run seeds, and let the run prove itself. Exit code 1 if a promise was broken or a proof failed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context

from simulation.coverage import BRANCHES_SHARE_MIN, MEASURED_SEEDS, PARTS, measure
from simulation.mutants import MUTANTS, SEEDS_MAX, catch
from simulation.summary import Summary, describe_failure
from simulation.world import run_seed

SEEDS_DEFAULT = 2_000
CHUNK_SEEDS = 4
FAILURES_SHOWN_MAX = 5


def run_one(seed: int) -> int:
    """Run one seed and print every event; returns the exit code."""
    result = run_seed(seed, echo=True)
    for violation in result.violations:
        print(f"seed {seed}: {violation}")
    print(f"seed {seed} events {result.events} hash {result.digest} violations {len(result.violations)}")
    return 1 if result.violations else 0


def run_many(seeds: range, jobs: int) -> int:
    """Run seeds and print the sum; returns the exit code. A run that has the first seeds proves itself before."""
    proves = seeds.start == 0 and len(seeds) >= SEEDS_MAX
    summary = Summary()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        is_proven = not proves or prove(pool)
        for result in pool.map(run_seed, seeds, chunksize=CHUNK_SEEDS):
            summary.add(result)
            if result.violations and len(summary.failed) <= FAILURES_SHOWN_MAX:
                print(*describe_failure(result), sep="\n", flush=True)
    print(*summary.lines(), sep="\n")
    return 1 if summary.failed or not is_proven else 0


def prove(pool: Executor) -> bool:
    """Print what catches each mutant and what some seeds cover of the shipped code; returns whether it is enough."""
    measuring = pool.submit(measure, range(MEASURED_SEEDS))
    missed = 0
    for mutant, caught in zip(MUTANTS, pool.map(catch, MUTANTS), strict=True):
        missed += caught is None
        told = f"seeds {caught.seeds:3}  {caught.result.violations[0]}" if caught else "NOT CAUGHT"
        print(f"mutant   {mutant:42} {told}", flush=True)
    _, report = measuring.result()
    for module in report:
        print(f"branches {module.name:42} {module.covered:3} of {module.branches:3} {module.share:7.1%}")
    short = [module for module in report if module.name in PARTS and module.share < BRANCHES_SHARE_MIN]
    print(f"mutants {len(MUTANTS)} caught {len(MUTANTS) - missed}; branches of {MEASURED_SEEDS} seeds")
    return not missed and not short


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="simulation", description="Run the simulation.")
    parser.add_argument("--seeds", type=int, default=SEEDS_DEFAULT, help="how many; 1 prints every event")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    return parser.parse_args(arguments)


def main() -> int:
    """Run what the command line asks for; returns the exit code."""
    arguments = parse(sys.argv[1:])
    if arguments.seeds == 1:
        return run_one(arguments.first)
    return run_many(range(arguments.first, arguments.first + arguments.seeds), arguments.jobs)


if __name__ == "__main__":
    raise SystemExit(main())
