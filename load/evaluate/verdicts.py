"""What the gate would decide on streams of known kind, beside what its levels promise.

It is calibrated twice: on other streams of the texts that are judged, where the promise holds, and on streams of the
tuning texts, where nothing is promised. And with two sets of bad streams: all kinds, and those that the signals can see.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from scipy.stats import betabinom

from evaluate.auroc import Values as Floats
from evaluate.measure import Values
from evaluate.streams import HEALTHY
from pcs_backend.conformal.scores import SCORES
from pcs_backend.conformal.thresholds import bad_threshold, benign_threshold, rank_at

FILE = "verdicts.csv"
LENGTHS = (50, 200)
LEVELS = (0.01, 0.05, 0.10)
"""Both of alpha and of delta."""

SHOWN_LEVEL = 0.05
"""The default of both; the page has the kinds at it."""

SAME, OTHER = "the same texts", "other texts"
ALL, SEEN = "all kinds", "kinds that are seen"

_COVERED = 0.95


class Row(msgspec.Struct, frozen=True):
    """Decisions on streams of a kind.

    Attributes:
        length: In tokens.
        calibrated_on: `SAME` or `OTHER`.
        bad_kinds: `ALL` or `SEEN`: which bad streams calibrated.
        score: Its name.
        level: Alpha and delta.
        kind: Of the streams that were judged.
        streams: How many.
        accepted: Of them.
        refused: Of them; the rest is escalated.
        above: Whose score is above the threshold of benign scores.
        below: Whose score is below the threshold of bad scores.
        benign_scores: That calibrated.
        bad_scores: That calibrated.
    """

    length: int
    calibrated_on: str
    bad_kinds: str
    score: str
    level: float
    kind: str
    streams: int
    accepted: int
    refused: int
    above: int
    below: int
    benign_scores: int
    bad_scores: int


def decide(
    calibration: Mapping[str, Values],
    judged: Mapping[str, Values],
    length: int,
    calibrated_on: str,
    bad_kinds: tuple[str, Sequence[str]],
) -> list[Row]:
    """Return the decisions of every score at every level on every kind.

    Args:
        calibration: Scores by kind that thresholds are taken from.
        judged: Scores by kind of other streams.
        length: In tokens.
        calibrated_on: `SAME` or `OTHER`.
        bad_kinds: `ALL` or `SEEN`, and the kinds it stands for.
    """
    name, kinds = bad_kinds
    rows = []
    for score in SCORES:
        benign = sorted(calibration[HEALTHY][score].tolist())
        bad = sorted(np.concatenate([calibration[kind][score] for kind in kinds]).tolist())
        for level in LEVELS:
            thresholds = benign_threshold(benign, level), bad_threshold(bad, level)
            for kind, values in judged.items():
                counts = _count(values[score], *thresholds)
                row = (length, calibrated_on, name, score, level, kind, len(values[score]), *counts)
                rows.append(Row(*row, len(benign), len(bad)))
    return rows


def _count(scores: Floats, upper: float, lower: float) -> tuple[int, int, int, int]:
    above, below = scores > upper, scores < lower
    counts = (below & ~above, above & ~below, above, below)
    accepted, refused, all_above, all_below = (int(each.sum()) for each in counts)
    return accepted, refused, all_above, all_below


def expected_range(
    calibrating: int, judged: int, level: float, covered: float = _COVERED
) -> tuple[float, float]:
    """Return between which rates of errors most such experiments end, where the promise holds.

    The threshold is one of the scores, so the rate behind it varies from one calibration to the next (Beta), and the
    count of errors around that (Beta-binomial).

    Args:
        calibrating: Scores of the class that calibrated.
        judged: Streams of the class that were judged.
        level: What was promised.
        covered: Share of the experiments.
    """
    rank = rank_at(calibrating, level)
    low, high = betabinom(judged, rank, calibrating + 1 - rank).ppf([(1 - covered) / 2, (1 + covered) / 2])
    return float(low) / judged, float(high) / judged


def join(earlier: Sequence[Row], rows: Sequence[Row]) -> list[Row]:
    """Return earlier rows of other lengths put before or behind these, by length."""
    lengths = {row.length for row in rows}
    return sorted([*(row for row in earlier if row.length not in lengths), *rows], key=lambda row: row.length)


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows as CSV."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row.__struct_fields__)
        writer.writerows(msgspec.structs.astuple(row) for row in rows)


def read(path: Path) -> list[Row]:
    """Return what `write` wrote.

    Raises:
        msgspec.ValidationError: The file holds something else.
    """
    with open(path, encoding="utf-8", newline="") as file:
        return [msgspec.convert(row, Row, strict=False) for row in csv.DictReader(file)]
