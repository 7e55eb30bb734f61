"""The tables of docs/evaluation.md, put between two marks; what stands around them is written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evaluate import verdicts
from evaluate.measure import BASELINES, PQ_SIGNALS, SIGNALS
from evaluate.page_verdicts import verdict_tables
from evaluate.results import Row, Run
from evaluate.scoring import scores_for
from evaluate.tables import table
from evaluate.tuning import FIRST_LOOK_LENGTH, Pinned, Tuning
from pcs_backend.conformal.scores import SCORES

BEGIN, END = "<!-- tables: begin, written by make evaluate -->", "<!-- tables: end -->"

GOALS = (("loop", 0.99), ("drift", 0.90))
"""By the first word of the kind, at `FIRST_LOOK_LENGTH` tokens."""

_HEADINGS = (
    "kind",
    *("D̂", "coh★", "r", "shift"),
    *SCORES,
    "learned, kind not shown",
    "r_pq, seeds 1 to 3",
    "length",
    "sentences",
)


def write_tables(
    path: Path, rows: Sequence[Row], run: Run, tuning: Tuning, decisions: Sequence[verdicts.Row]
) -> None:
    """Put the tables between the marks of a page.

    Raises:
        ValueError: The page has no such marks.
    """
    page = path.read_text(encoding="utf-8")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path.name}: found no marks for the tables; allowed: a page with both")
    tables = "\n\n".join([*_tables(rows, run, tuning), *verdict_tables(decisions, tuning)])
    path.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}", encoding="utf-8")


def goals_met(rows: Sequence[Row], tuning: Tuning) -> list[tuple[Row, float, bool]]:
    """Return for each kind with a goal the row of the signal that tuning chose, the goal, and whether it is met."""
    found = []
    for word, goal in GOALS:
        for row in rows:
            wanted = row.kind.split()[0] == word and row.length == FIRST_LOOK_LENGTH
            if wanted and row.signal == tuning.first_look[row.kind]:
                found.append((row, goal, row.auroc >= goal))
    return found


def _tables(rows: Sequence[Row], run: Run, tuning: Tuning) -> list[str]:
    parts = [_where(run), "### Goals, at 200 tokens", _goals(rows, tuning)]
    parts += ["### Scores on the tuning texts, mean over lengths and kinds", _means(tuning)]
    for length in sorted({row.length for row in rows}):
        here = [row for row in rows if row.length == length]
        parts += [f"### {length} tokens ({_counts(here)})", _by_kind(here, tuning)]
    return parts


def _means(tuning: Tuning) -> str:
    means = (f"{tuning.score_means[name]:.3f}" for name in SCORES)
    return table([("", *SCORES), ("AUROC", *means)])


def _where(run: Run) -> str:
    return "\n".join(
        [
            f"`{run.command}` on commit {run.commit}: {run.streams:,} streams in {run.seconds} s ({run.machine}).",
            f"Tuning: commit {run.tuning_commit}; SHA-256 over decisions and code `{run.digest}`.",
            "",
            table(
                [
                    ("text", "used for", "package", "SHA-256 of the package"),
                    *_texts(run.tuned_on, "tuning, codebooks"),
                    *_texts(run.tested_on, "test"),
                ],
            ),
        ]
    )


def _texts(texts: Sequence[Pinned], used_for: str) -> list[tuple[str, ...]]:
    return [(text.name, used_for, text.package, f"`{text.sha256}`") for text in texts]


def _goals(rows: Sequence[Row], tuning: Tuning) -> str:
    lines = [("kind", "signal that tuning chose", "AUROC", "goal", "met")]
    for row, goal, met in goals_met(rows, tuning):
        lines.append((row.kind, row.signal, _with_interval(row), f"{goal:.2f}", "yes" if met else "**no**"))
    return table(lines)


def _by_kind(rows: Sequence[Row], tuning: Tuning) -> str:
    lines: list[tuple[str, ...]] = [_HEADINGS]
    for kind in dict.fromkeys(row.kind for row in rows):
        by_signal = {row.signal: row for row in rows if row.kind == kind}
        chosen = tuning.first_look[kind]
        cells = [_cell(by_signal[name], chosen) for name in SIGNALS]
        pq = [by_signal[name].auroc for name in PQ_SIGNALS]
        cells += [_with_interval(by_signal[name]) for name in scores_for(kind)]
        cells.append(" / ".join(f"{each:.3f}" for each in pq))
        cells += [_with_interval(by_signal[name]) for name in BASELINES]
        lines.append((kind, *cells))
    return table(lines)


def _cell(row: Row, chosen: str) -> str:
    text = f"{_with_interval(row)} {'↑' if row.bad_when == 'high' else '↓'}"
    return f"**{text}**" if row.signal == chosen else text


def _with_interval(row: Row) -> str:
    return f"{row.auroc:.3f} ({row.low:.3f}–{row.high:.3f})"


def _counts(rows: Sequence[Row]) -> str:
    return f"{rows[0].healthy_streams} healthy streams, {rows[0].bad_streams} of each other kind"
