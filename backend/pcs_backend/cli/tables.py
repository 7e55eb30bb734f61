"""Tables of the command line: plain, one line a row whatever the width, so that they can be searched and piped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import click
from rich.console import Console
from rich.table import Table

_TABLE_CHARACTERS = 400
"""Wider than any row."""

Row = Mapping[str, str | list[str]]


def print_table(rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Print rows under their headings, or that there is nothing.

    Ids stay whole and on one line: a part of one can neither be searched for nor given to another command.

    Args:
        rows: One mapping a row; a list is joined by commas.
        columns: Which of its members, in order.
    """
    if not rows:
        click.echo("nothing")
        return
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in rows:
        cells = [row[column] for column in columns]
        table.add_row(*(cell if isinstance(cell, str) else ", ".join(cell) for cell in cells))
    Console(width=_TABLE_CHARACTERS, soft_wrap=True).print(table)


def iso_time(time_ms: int) -> str:
    """Return milliseconds since 1970 as a date and time in UTC, to the second."""
    return datetime.fromtimestamp(time_ms / 1_000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
