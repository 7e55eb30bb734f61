"""`python -m evaluate`: how well the signals separate broken streams of text from healthy ones; `tune` decides first.

Exit codes: 0 it was measured, whatever the figures; 2 usage.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import NamedTuple

from evaluate import page, picture, results, tuning, verdicts
from evaluate.measure import CODEBOOK_STREAMS, by_kind, measure_all, train_codebooks
from evaluate.scoring import Fits, add_scores, fit_scores
from evaluate.sources import TEST, TUNING, Text, load
from evaluate.streams import HEALTHY, LENGTHS, Source, build, kinds_for, source_of
from pcs_agent.signals import Codebook

DOCS = results.ROOT / "docs"

TUNING_SEED, TEST_SEED, CODEBOOK_SEED, FITTING_SEED, CALIBRATION_SEED, JUDGED_SEED = 70, 71, 72, 73, 74, 75
CODEBOOK_LENGTH = 200


class Counts(NamedTuple):
    """Streams of a length; multiples of the number of texts keep those balanced."""

    healthy: int
    each_kind: int


FULL, LONG = Counts(150, 90), Counts(90, 45)
JUDGED = Counts(900, 150)
"""Of verdicts, to calibrate and to judge: only what a record says is measured, in a fraction of the time."""

LONG_FROM = 500
"""From so many tokens on there are fewer streams, as each takes longer."""


def main() -> None:
    """Tune, or evaluate."""
    arguments = _parse()
    begun = time.monotonic()
    learned = _sources(TUNING)
    codebooks = train_codebooks(build(learned, HEALTHY, CODEBOOK_LENGTH, CODEBOOK_STREAMS, CODEBOOK_SEED))
    if arguments.step == "tune":
        _tune(learned, codebooks, arguments)
        return
    decided = tuning.read()
    tested = _sources(TEST)
    measured, streams = _measure(tested, codebooks, TEST_SEED, arguments)
    rows = results.judge(_with_scores(measured, decided.fits), decided)
    decisions = _judge(learned, tested, decided, arguments)
    run = results.describe(
        arguments.command, streams, time.monotonic() - begun, decided.texts, tuning.pin(TEST)
    )
    folder = arguments.out
    if arguments.keep:
        rows, run = results.join(results.read(folder / "evaluation"), rows, run)
        decisions = verdicts.join(verdicts.read(folder / "evaluation" / verdicts.FILE), decisions)
    results.write(folder / "evaluation", rows, run)
    verdicts.write(folder / "evaluation" / verdicts.FILE, decisions)
    page.write_tables(folder / "evaluation.md", rows, run, decided, decisions)
    picture.draw(folder / "pictures" / "evaluation.svg", rows)
    for row, goal, met in page.goals_met(rows, decided):
        print(f"{row.kind:8} {row.signal:8} {row.auroc:.3f}, goal {goal}: {'met' if met else 'NOT MET'}")
    _say(f"{run.streams} streams, {run.seconds} s; wrote {folder / 'evaluation.md'}")


def _tune(sources: Sequence[Source], codebooks: Sequence[Codebook], arguments: argparse.Namespace) -> None:
    fitting, _ = _measure(sources, None, FITTING_SEED, arguments)
    fits = {length: fit_scores(values) for length, values in fitting.items()}
    measured, _ = _measure(sources, codebooks, TUNING_SEED, arguments)
    decided = tuning.decide(
        _with_scores(measured, {str(length): each for length, each in fits.items()}), fits
    )
    tuning.write(decided)
    _say(f"default score: {decided.default_score} of {decided.score_means}; wrote {tuning.TUNING_FILE}")


def _with_scores(measured: tuning.Measured, fits: Mapping[str, Fits]) -> tuning.Measured:
    return {length: add_scores(values, fits[str(length)]) for length, values in measured.items()}


def _judge(
    learned: Sequence[Source],
    tested: Sequence[Source],
    decided: tuning.Tuning,
    arguments: argparse.Namespace,
) -> list[verdicts.Row]:
    """Return what the gate decides on streams of the test texts."""
    chosen = copy(arguments)
    chosen.lengths = [length for length in verdicts.LENGTHS if length in arguments.lengths]
    calibrating = {}
    for name, sources in ((verdicts.SAME, tested), (verdicts.OTHER, learned)):
        measured, _ = _measure(sources, None, CALIBRATION_SEED, chosen, JUDGED)
        calibrating[name] = _with_scores(measured, decided.fits)
    measured, _ = _measure(tested, None, JUDGED_SEED, chosen, JUDGED)
    rows = []
    for length, judged in _with_scores(measured, decided.fits).items():
        every = [kind for kind in judged if kind != HEALTHY]
        seen = [kind for kind in every if kind in decided.seen]
        for name, values in calibrating.items():
            for bad_kinds in ((verdicts.ALL, every), (verdicts.SEEN, seen)):
                rows += verdicts.decide(values[length], judged, length, name, bad_kinds)
    return rows


def _sources(texts: Sequence[Text]) -> list[Source]:
    return [source_of(name, words) for name, words in load(texts).items()]


def _measure(
    sources: Sequence[Source],
    codebooks: Sequence[Codebook] | None,
    seed: int,
    arguments: argparse.Namespace,
    counts: Counts | None = None,
) -> tuple[tuning.Measured, int]:
    measured = {}
    streams = 0
    for length in arguments.lengths:
        wanted = counts or (LONG if length >= LONG_FROM else FULL)
        if arguments.few:
            wanted = Counts(wanted.healthy // 3, wanted.each_kind // 3)
        built = []
        for kind in kinds_for(length):
            count = wanted.healthy if kind == HEALTHY else wanted.each_kind
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
