"""The tables of docs/statistics.md are of this code: every size and level, what theory expects, and figures near it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import scipy.stats

from pcs_backend.conformal.martingale import FALSE_ALARM_SHARE
from pcs_backend.conformal.thresholds import rank_at
from statistical.guarantees import LEVELS, SIDES, SIZES, Case
from statistical.streams import SHIFTS

PAGE = (Path(__file__).parents[2] / "docs/statistics.md").read_text(encoding="utf-8")


def rows(head: str) -> list[list[str]]:
    """Return the cells of the table whose first column has that head."""
    table = re.search(rf"^\| {re.escape(head)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert table is not None, head
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()]


def percentages(cell: str) -> list[float]:
    return [float(number) for number in re.findall(r"[\d.]+", cell)]


def test_rates_are_of_every_case_and_near_what_theory_expects() -> None:
    found = rows("class")
    cases = [Case(side, scores, level) for side in SIDES for scores in SIZES for level in LEVELS]
    assert [row[:3] for row in found] == [
        [case.side, str(case.scores), f"{case.level:.0%}".replace("%", " %")] for case in cases
    ]
    for case, row in zip(cases, found, strict=True):
        interpolated = case._replace(method="interpolated")
        for said, expected, law in ((row[3], row[4], case), (row[6], row[7], interpolated)):
            rate, standard_error = percentages(said)
            assert percentages(expected) == [round(100 * law.expected, 3)]
            assert rate == pytest.approx(100 * law.expected, abs=4 * standard_error)


def test_the_spread_of_single_sets_is_that_of_the_beta_law() -> None:
    for cells in rows("scores"):
        scores = int(cells[0].replace(",", ""))
        for level, cell in zip(LEVELS, cells[1:], strict=True):
            rank = rank_at(scores, level)
            law = scipy.stats.beta(rank, scores + 1 - rank)
            assert percentages(cell) == [round(100 * law.ppf(share), 2) for share in (0.05, 0.95)]


def test_shifts_are_those_that_are_simulated_and_false_alarms_are_few() -> None:
    assert [row[0] for row in rows("shift after 1,000 scores")] == list(SHIFTS)
    alarms, streams = re.findall(r"[\d,]+", rows("null streams of 5,000 scores")[0][1])[:2]
    assert int(streams.replace(",", "")) == 10_000
    assert int(alarms) <= FALSE_ALARM_SHARE * 10_000
