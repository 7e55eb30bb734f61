"""`python -m evaluate`: how well the signals separate broken streams of text from healthy ones; `tune` decides first.

Exit codes: 0 it was measured, whatever the figures; 2 usage.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from evaluate import page, picture, results, tuning
from evaluate.measure import CODEBOOK_STREAMS, by_kind, measure_all, train_codebooks
from evaluate.sources import TEST, TUNING, Text, load
from evaluate.streams import HEALTHY, LENGTHS, Source, build, kinds_for, source_of
from pcs_agent.signals import Codebook

DOCS = results.ROOT / "docs"

TUNING_SEED, TEST_SEED, CODEBOOK_SEED = 70, 71, 72
CODEBOOK_LENGTH = 200


class Counts(NamedTuple):
    """Streams of a length; multiples of the number of texts keep those balanced."""

    healthy: int
    each_kind: int


FULL, LONG, FEW = Counts(150, 90), Counts(90, 45), Counts(60, 30)
LONG_FROM = 500
"""From so many tokens on there are fewer streams, as each takes longer."""


def main() -> None:
    """Tune, or evaluate."""
    arguments = _parse()
    begun = time.monotonic()
    learned = _sources(TUNING)
    codebooks = train_codebooks(build(learned, HEALTHY, CODEBOOK_LENGTH, CODEBOOK_STREAMS, CODEBOOK_SEED))
    if arguments.step == "tune":
        measured, _ = _measure(learned, codebooks, TUNING_SEED, arguments)
        tuning.write(tuning.decide(measured))
        _say(f"wrote {tuning.TUNING_FILE}")
        return
    decided = tuning.read()
    measured, streams = _measure(_sources(TEST), codebooks, TEST_SEED, arguments)
    rows = results.judge(measured, decided)
    run = results.describe(
        arguments.command, streams, time.monotonic() - begun, decided.texts, tuning.pin(TEST)
    )
    folder = arguments.out
    if arguments.keep:
        rows, run = results.join(results.read(folder / "evaluation"), rows, run)
    results.write(folder / "evaluation", rows, run)
    page.write_tables(folder / "evaluation.md", rows, run, decided)
    picture.draw(folder / "pictures" / "evaluation.svg", rows)
    for row, goal, met in page.goals_met(rows, decided):
        print(f"{row.kind:8} {row.signal:8} {row.auroc:.3f}, goal {goal}: {'met' if met else 'NOT MET'}")
    _say(f"{run.streams} streams, {run.seconds} s; wrote {folder / 'evaluation.md'}")


def _sources(texts: Sequence[Text]) -> list[Source]:
    return [source_of(name, words) for name, words in load(texts).items()]


def _measure(
    sources: Sequence[Source], codebooks: Sequence[Codebook], seed: int, arguments: argparse.Namespace
) -> tuple[tuning.Measured, int]:
    measured = {}
    streams = 0
    for length in arguments.lengths:
        counts = FEW if arguments.few else LONG if length >= LONG_FROM else FULL
        built = []
        for kind in kinds_for(length):
            count = counts.healthy if kind == HEALTHY else counts.each_kind
            built += build(sources, kind, length, count, seed)
        measured[length] = by_kind(built, measure_all(built, codebooks, arguments.jobs))
        streams += len(built)
        _say(f"{length} tokens: {len(built)} streams")
    return measured, streams


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="evaluate", description=__doc__)
    add = parser.add_argument
    add("step", nargs="?", choices=("run", "tune"), default="run", help="default: run")
    add("--few", action="store_true", help="a third of the streams")
    add("--lengths", type=int, nargs="+", default=list(LENGTHS), metavar="TOKENS", help="default: all")
    add(
        "--keep",
        action="store_true",
        help="keep the results of other lengths, of the same commit, that are there",
    )
    add("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: as many as cores)")
    add("--out", type=Path, default=DOCS, help="folder with evaluation.md (default: docs)")
    add("--command", default="python -m evaluate", help="what the page says was run")
    arguments = parser.parse_args()
    if arguments.step == "tune" and tuning.FIRST_LOOK_LENGTH not in arguments.lengths:
        parser.error(f"--lengths: tuning needs {tuning.FIRST_LOOK_LENGTH}")
    return arguments


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
