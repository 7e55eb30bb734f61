"""The tables of what the gate would decide, for docs/evaluation.md."""

from __future__ import annotations

from collections.abc import Sequence

from evaluate import verdicts
from evaluate.streams import HEALTHY
from evaluate.tables import table
from evaluate.tuning import Tuning
from evaluate.verdicts import ALL, OTHER, SAME, SEEN, SHOWN_LEVEL, Row
from pcs_backend.conformal.scores import SCORES


def verdict_tables(rows: Sequence[Row], tuning: Tuning) -> list[str]:
    """Return headings and tables."""
    parts = ["### Promised and found", _promised(rows, tuning)]
    for length in sorted({row.length for row in rows}):
        for bad_kinds in (ALL, SEEN):
            shown = [
                row
                for row in rows
                if (row.length, row.bad_kinds, row.calibrated_on, row.level)
                == (length, bad_kinds, SAME, SHOWN_LEVEL)
            ]
            counts = f"{shown[0].benign_scores} benign and {shown[0].bad_scores} bad scores"
            parts += [f"### Decisions at {length} tokens, bad: {bad_kinds} ({counts})", _decisions(shown)]
    return parts


def _promised(rows: Sequence[Row], tuning: Tuning) -> str:
    lines: list[tuple[str, ...]] = [
        (
            "tokens",
            "level",
            "error",
            "to expect",
            *(f"{name}, {on}" for on in (SAME, OTHER) for name in SCORES),
        )
    ]
    for length in sorted({row.length for row in rows}):
        for level in verdicts.LEVELS:
            here = [row for row in rows if (row.length, row.level) == (length, level)]
            every = [row for row in here if row.bad_kinds == ALL]
            seen = [row for row in here if row.bad_kinds == SEEN and row.kind in tuning.seen]
            lines += [
                _errors("healthy above", [row for row in every if row.kind == HEALTHY]),
                _errors(f"{ALL} below", [row for row in every if row.kind != HEALTHY]),
                _errors(f"{SEEN} below", seen),
            ]
    return table(lines)


def _errors(name: str, rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the line of one promise: what theory gives, then the rate for each texts and score."""
    first = rows[0]
    is_benign = first.kind == HEALTHY
    cells = []
    for on in (SAME, OTHER):
        for score in SCORES:
            mine = [row for row in rows if (row.calibrated_on, row.score) == (on, score)]
            errors = sum(row.above if is_benign else row.below for row in mine)
            cells.append(_percent(errors, sum(row.streams for row in mine)))
    streams = sum(row.streams for row in rows) // len(cells)
    calibrating = first.benign_scores if is_benign else first.bad_scores
    low, high = verdicts.expected_range(calibrating, streams, first.level)
    expected = f"{100 * low:.1f}–{100 * high:.1f} %"
    return (str(first.length), f"{100 * first.level:g} %", name, expected, *cells)


def _decisions(rows: Sequence[Row]) -> str:
    lines: list[tuple[str, ...]] = [("kind", *(f"{name}: accept / escalate / reject" for name in SCORES))]
    for kind in dict.fromkeys(row.kind for row in rows):
        cells = []
        for score in SCORES:
            (row,) = (each for each in rows if (each.kind, each.score) == (kind, score))
            escalated = row.streams - row.accepted - row.refused
            shares = (row.accepted, escalated, row.refused)
            cells.append(" / ".join(f"{100 * each / row.streams:.0f}" for each in shares) + " %")
        lines.append((kind, *cells))
    return table(lines)


def _percent(errors: int, trials: int) -> str:
    return f"{100 * errors / trials:.1f} %"
