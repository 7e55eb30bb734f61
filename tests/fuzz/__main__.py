"""Fuzzes every parser that meets bytes of strangers or of a damaged disk, in turns, for some minutes.

    PYTHONPATH=tests .venv/bin/python -m fuzz --minutes 10

What mutations find that takes a new branch is kept in `build/fuzz`, and the next run goes on from there. An input that
crashes a target is saved in the corpus, where `make test` meets it again; that target has no further turn.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from fuzz.running import Tally, run_turn
from fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
TURN_S = 30.0
TURN_S_MIN = 2.0
START_S = 5.0
"""What a process needs before its first input: a guess for the first one."""


def run(names: Sequence[str], minutes: float, work: Path) -> dict[str, Tally]:
    """Give each target its turns until the time is over: each at least one, as long as the time is enough."""
    ends_s = time.monotonic() + minutes * 60
    tallies = {name: Tally() for name in names}
    start_s = START_S
    with tempfile.TemporaryDirectory() as folder:
        while running := [name for name in names if not tallies[name].crashes]:
            for position, name in enumerate(running):
                began_s = time.monotonic()
                share_s = (ends_s - began_s) / (len(running) - position) - start_s
                if share_s < TURN_S_MIN and tallies[name].executions:
                    return tallies
                turn_s = min(TURN_S, max(TURN_S_MIN, share_s))
                tallies[name].add(run_turn(name, turn_s, work / name, Path(folder)))
                start_s = max(0.0, time.monotonic() - began_s - turn_s)
    return tallies


def main() -> int:
    """Run, print, and return 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--target", choices=sorted(TARGETS), action="append", help="these alone")
    arguments = parser.parse_args()
    tallies = run(arguments.target or list(TARGETS), arguments.minutes, ROOT / "build" / "fuzz")
    print(f"{'target':<12}{'executions':>12}{'a second':>10}{'new inputs':>12}{'crashes':>9}")
    for name, tally in tallies.items():
        rate = tally.executions / tally.seconds if tally.seconds else 0.0
        print(f"{name:<12}{tally.executions:>12}{rate:>10.0f}{tally.new_inputs:>12}{len(tally.crashes):>9}")
    for name, tally in tallies.items():
        for crash in tally.crashes:
            print(f"{name}: {crash}")
    executions = sum(tally.executions for tally in tallies.values())
    crashes = sum(len(tally.crashes) for tally in tallies.values())
    print(f"fuzz minutes {arguments.minutes:g} executions {executions} crashes {crashes}")
    return 1 if crashes or not all(tally.executions for tally in tallies.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
