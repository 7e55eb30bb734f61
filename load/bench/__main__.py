"""`python -m bench`: measures the service and the floors it stands on, in one run.

Exit codes: 0 it was measured, whatever the figures; 1 an answer was wrong or a record is missing; 2 usage.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path

import msgspec

from bench.endurance import FULL_LENGTHS, MILLION, QUICK_LENGTHS, million, overload
from bench.items import FULL, QUICK, QUICK_ITEMS, Item, Sizes, plan
from bench.musts import MILLION as MILLION_NAME
from bench.musts import OVERLOAD, judge
from bench.rig import Figures, Rig, Setup
from bench.table import show_items, show_musts

_BUILD = Path(__file__).resolve().parents[2] / "build" / "bench"

OVERLOAD_RECORDS = 600_000
"""Records of the pool that overload takes from; where it needs more, the later ones are replays."""


def main() -> None:
    """Measure."""
    arguments = _parse()
    sizes = QUICK if arguments.quick else FULL
    items = [item for item in plan(sizes) if _is_wanted(arguments, item.name, long=False)]
    wants_overload = _is_wanted(arguments, OVERLOAD, long=True)
    wants_million = _is_wanted(arguments, MILLION_NAME, long=True)
    counts = _pool_counts(sizes)
    if wants_overload and not arguments.quick:
        counts["hmac"] = max(counts["hmac"], OVERLOAD_RECORDS)
    if wants_million:
        counts["hmac"] = max(counts["hmac"], arguments.million)
    with Rig(arguments.folder, _BUILD / "pools", counts) as rig:
        results = _measure(rig, items, 1 if arguments.quick else arguments.rounds)
        if wants_overload:
            lengths = QUICK_LENGTHS if arguments.quick else FULL_LENGTHS
            rounds = 1 if arguments.quick else arguments.rounds
            results[OVERLOAD] = overload(rig, Setup("hmac", arguments.overload_store), lengths, rounds)
        if wants_million:
            results[MILLION_NAME] = [million(rig, arguments.million)]
    _report(arguments, results)


def _pool_counts(sizes: Sizes) -> dict[str, int]:
    at_least = max(sizes.constant, sizes.single, sizes.driver, sizes.checks)
    return {algorithm: max(at_least, count) for algorithm, count in sizes.batch.items()}


def _measure(rig: Rig, items: list[Item], rounds: int) -> dict[str, list[Figures]]:
    results: dict[str, list[Figures]] = {item.name: [] for item in items}
    for number in range(rounds):
        for item in items if number % 2 == 0 else reversed(items):
            _say(f"round {number + 1} of {rounds}: {item.name}")
            results[item.name].append(item.run(rig))
    return results


def _report(arguments: argparse.Namespace, results: dict[str, list[Figures]]) -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print(show_items(results, markdown=arguments.markdown), end="\n\n")
    print(show_musts(judge(results), markdown=arguments.markdown))
    if arguments.json:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    wrong = {name: [run.wrong for run in runs if run.wrong] for name, runs in results.items()}
    for name, found in wrong.items():
        if found:
            _say(f"WRONG: {name}: {found}")
    raise SystemExit(1 if any(wrong.values()) else 0)


def _is_wanted(arguments: argparse.Namespace, name: str, *, long: bool) -> bool:
    if arguments.only:
        return any(word in name for word in arguments.only)
    if arguments.quick:
        return name in QUICK_ITEMS
    return not (long and arguments.short)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="how often each is measured (default: 5)")
    add("--quick", action="store_true", help="one short round of what matters most")
    add("--short", action="store_true", help="leave overload and the million records out")
    add("--only", action="append", default=[], metavar="NAME", help="items whose name holds NAME")
    add("--million", type=int, default=MILLION, metavar="N", help="records of `million` (default: 1,000,000)")
    add("--overload-store", default="redis", choices=("memory", "redis", "postgres"), help="default: redis")
    add("--json", type=Path, metavar="FILE", help="write the figures of all rounds")
    add("--markdown", action="store_true", help="print tables as Markdown")
    add(
        "--folder",
        type=Path,
        default=_BUILD / "runs",
        help="on the disk that is measured (default: build/bench/runs)",
    )
    return parser.parse_args()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


main()
