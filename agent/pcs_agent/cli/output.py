"""What commands print: JSON lines or tables on standard output, warnings and progress on standard error.

Colour, tables' widths and progress follow the terminal; where there is none there is no colour and no progress.
"""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Self

import orjson
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from pcs_agent.errors import OutputError
from pcs_agent.outbox import Verdict
from pcs_agent.pipeline import Outcome
from pcs_agent.streams import print_error, print_text

ROWS_MAX = 200
"""Rows of a table; of a longer list the last are shown, and how many there were."""

_ID_DIGITS = 12
_WIDTH_WITHOUT_TERMINAL = 200
_STYLES = {
    Verdict.ACCEPTED: "green",
    Verdict.ESCALATED: "yellow",
    Verdict.PENDING: "yellow",
    Verdict.DEAD: "red",
}


def print_json(document: object) -> None:
    """Print one line of JSON, as `print_text` does."""
    print_text(orjson.dumps(document).decode("utf-8"))


def warn(message: str) -> None:
    """Print a warning on standard error, if that takes it."""
    print_error(f"Warning: {message}")


def print_table(
    headings: Sequence[str], rows: Sequence[Sequence[str | Text]], *, total: int | None = None
) -> None:
    """Print a table, as `print_text` does.

    Args:
        headings: One per column.
        rows: Cells; text is taken as it is, never as markup.
        total: How many rows there were, if more than are given.
    """
    is_terminal = sys.stdout.isatty()
    console = Console(
        file=sys.stdout, width=None if is_terminal else _WIDTH_WITHOUT_TERMINAL, highlight=False
    )
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading == "pcs_id")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    with console.capture() as captured:  # rich would end the process at a closed pipe
        console.print(table)
        if total is not None and total > len(rows):
            console.print(Text(f"… the last {len(rows)} of {total}"))
    print_text(captured.get().removesuffix("\n"))


def short_id(pcs_id: str) -> str:
    """Return as much of a pcs_id as a table shows."""
    return pcs_id[:_ID_DIGITS]


class OutcomePrinter:
    """Prints what becomes of records: JSON at once, or a table in the end.

    Attributes:
        total: How many outcomes were told.
        failed: Whether standard output took nothing more. That is told once; records go on being taken.
    """

    def __init__(self, *, as_json: bool, by_shard: bool = False) -> None:
        """Choose the form; a table of several shards has a column of them."""
        self._as_json = as_json
        self._by_shard = by_shard
        self._rows: deque[Outcome] = deque(maxlen=ROWS_MAX)
        self.total = 0
        self.failed = False

    def report(self, outcome: Outcome) -> None:
        """Take one outcome."""
        self.total += 1
        if not self._as_json:
            self._rows.append(outcome)
        elif not self.failed:
            self._guard(lambda: print_json(outcome_document(outcome)))

    def close(self) -> None:
        """Print the table, if that is the form."""
        if not self._as_json and self.total:
            self._guard(self._print_table)

    def _guard(self, output: Callable[[], None]) -> None:
        try:
            output()
        except OutputError as error:
            self.failed = True
            warn(f"{error}; what becomes of the other records is not shown, and pcs-agent outbox list tells")

    def _print_table(self) -> None:
        headings = ["epoch", "events", "D̂", "coh★", "r", "regime", "budget", "verdict", "pcs_id"]
        rows = sorted(self._rows, key=self._place)
        cells = [_outcome_cells(outcome) for outcome in rows]
        if self._by_shard:
            headings.insert(0, "shard")
            for row, outcome in zip(cells, rows, strict=True):
                row.insert(0, "?" if outcome.record is None else outcome.record.shard_id)
        print_table(headings, cells, total=self.total)
        # Below the table, because they are long and mostly the same.
        for (verdict, why), count in Counter((row.verdict, _why(row)) for row in rows).items():
            if why:
                print_text(f"{verdict} ({count}): {why}")

    def _place(self, outcome: Outcome) -> tuple[str, int]:
        if outcome.record is None:
            return "", -1
        return outcome.record.shard_id if self._by_shard else "", outcome.record.epoch


def outcome_document(outcome: Outcome) -> dict[str, object]:
    """Return an outcome for machines. Figures of a record that an earlier run built and this one did not read are null."""
    record = outcome.record
    return {
        "pcs_id": outcome.pcs_id,
        "shard_id": None if record is None else record.shard_id,
        "epoch": None if record is None else record.epoch,
        "events": outcome.events,
        "D_hat": None if record is None else record.d_hat,
        "coh_star": None if record is None else record.coh_star,
        "r": None if record is None else record.r,
        "regime": None if record is None else record.regime,
        "budget": None if record is None else record.budget,
        "degraded": None if record is None else record.ft.degraded,
        "fallbacks": None if record is None else record.ft.fallbacks,
        "verdict": str(outcome.verdict),
        "reason": outcome.reason,
        "attempts": outcome.attempts,
        "already_delivered": outcome.already_delivered,
        "conflict": outcome.conflict,
    }


def _why(outcome: Outcome) -> str:
    why = "delivered before" if outcome.already_delivered else outcome.reason
    if outcome.conflict:
        why = f"{why} (conflict: the backend holds another record under this pcs_id)".strip()
    return why


def _outcome_cells(outcome: Outcome) -> list[str | Text]:
    record = outcome.record
    events = "earlier" if outcome.events is None else str(outcome.events)
    verdict = Text(str(outcome.verdict), style=_STYLES[outcome.verdict])
    if record is None:
        return ["?", events, "", "", "", "", "", verdict, short_id(outcome.pcs_id)]
    return [
        str(record.epoch),
        events,
        f"{record.d_hat:.3f}",
        f"{record.coh_star:.3f}",
        f"{record.r:.3f}",
        record.regime,
        f"{record.budget:.3f}",
        verdict,
        short_id(outcome.pcs_id),
    ]


class DeliveryProgress:
    """A progress bar on standard error while records are built and delivered, if that is a terminal."""

    def __init__(self) -> None:
        """Decide whether to show anything."""
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._files = self._progress.add_task("files read", total=None, visible=False)
        self._task = self._progress.add_task("records settled", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def expect(self, windows: int | None) -> None:
        """Take the number of windows, if it is known."""
        self._progress.update(self._task, total=windows)

    def advance(self) -> None:
        """Note one record."""
        self._progress.advance(self._task)

    def expect_files(self, files: int) -> None:
        """Take the number of files that are a stream each."""
        self._progress.update(self._files, total=files, visible=True)

    def advance_files(self) -> None:
        """Note one file."""
        self._progress.advance(self._files)
