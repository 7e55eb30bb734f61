"""CSV: comma-separated, UTF-8, quotes as RFC 4180 has them.

A first row that is not all numbers is a header. The numeric columns are those whose first data row holds a number, as
`pcs_agent.events.columns` has it; `--columns` chooses by name, or by 0-based position where there is no header. Blank
lines are skipped; a row in a message is the line of the file, counted from 1.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import BinaryIO, NamedTuple

import numpy as np

from pcs_agent.errors import InputError
from pcs_agent.events.columns import (
    LeftOutColumns,
    holds_several_numbers,
    label,
    says_no_value,
    separator_hint,
    undecided,
)
from pcs_agent.events.source import Batch, batch_rows, describe_cell, kind_of, require_columns
from pcs_agent.events.text_lines import decode_line, iter_lines


class _Layout(NamedTuple):
    """Which cells of a row are taken: positions, what messages call them, cells every row must have."""

    positions: tuple[int, ...]
    labels: tuple[str, ...]
    width: int


class CsvSource:
    """Events of a CSV file or stream."""

    def __init__(
        self,
        name: str,
        file: BinaryIO,
        columns: Sequence[str] | None,
        left_out: LeftOutColumns,
        *,
        header_again: bool = False,
    ) -> None:
        """Take the open file.

        Args:
            name: Redacted name for messages.
            file: Binary, read to its end; the caller closes it.
            columns: Chosen columns; `None` for all numeric ones.
            left_out: Told of the others.
            header_again: Whether the header may stand there again, as in a followed file that was begun anew; such a
                row is skipped.
        """
        self.name = name
        self._file = file
        self._columns = columns
        self._left_out = left_out
        self._header_again = header_again

    def count(self) -> int | None:
        """Not known before reading."""
        return None

    def batches(self, rows_max: int) -> Iterator[Batch]:
        """As `EventSource.batches`."""
        rows = self._iter_rows()
        first = next(rows, None)
        if first is None:
            return
        header = None if all(_parse(cell) is not None for cell in first[1]) else first[1]
        if header is not None:
            self._require_header(*first)
            first = next(rows, None)
        if first is None:
            if self._columns is not None and header is not None:
                self._choose(header, self._columns)
            return
        layout = self._lay_out(header, first)
        size = batch_rows(len(layout.positions), rows_max)
        numbers: list[int] = []
        lines: list[list[str]] = []
        for number, cells in chain([first], rows):
            if self._header_again and cells == header:
                continue
            numbers.append(number)
            lines.append(cells)
            if len(lines) >= size:
                yield self._parse_rows(layout, numbers, lines)
                numbers, lines = [], []
        if lines:
            yield self._parse_rows(layout, numbers, lines)

    def _iter_rows(self) -> Iterator[tuple[int, list[str]]]:
        lines = enumerate(iter_lines(self.name, self._file), start=1)
        reader = csv.reader((decode_line(self.name, number, line) for number, line in lines), strict=True)
        try:
            for cells in reader:
                if cells:
                    yield reader.line_num, cells
        except csv.Error as error:
            # csv's messages tell what is wrong with the quoting and hold nothing of the line.
            raise InputError(f"{self.name}: row {reader.line_num}: not CSV: {error}") from None

    def _lay_out(self, header: list[str] | None, first: tuple[int, list[str]]) -> _Layout:
        number, cells = first
        width = len(cells if header is None else header)
        self._require_width(number, cells, width)
        names = [str(position) for position in range(width)] if header is None else header
        if self._columns is None:
            positions = self._find_numbers(number, names, cells)
        else:
            positions = self._choose(names, self._columns)
        return _Layout(positions, tuple(label(names[position]) for position in positions), width)

    def _require_header(self, number: int, cells: list[str]) -> None:
        """Refuse a first row of numbers and gaps: taken for a header, the first event would be lost."""
        if self._columns is None and any(map(says_no_value, cells)) and any(map(_is_number, cells)):
            raise InputError(
                f"{self.name}: row {number}: found numbers beside cells without a value; allowed: a header, or an event "
                "with a number in every column; or choose columns of a header with --columns"
            )

    def _find_numbers(self, number: int, names: Sequence[str], cells: list[str]) -> tuple[int, ...]:
        positions = []
        others = []
        for position, cell in enumerate(cells):
            if _is_number(cell):
                positions.append(position)
                continue
            if says_no_value(cell):
                found = "a mark for a missing value" if cell.strip() else "an empty cell"
                raise undecided(self.name, number, names[position], found)
            if len(cells) > 1 and holds_several_numbers(cell, _is_number):
                raise InputError(
                    f"{self.name}: row {number}, column {label(names[position])}: found several numbers in one cell; "
                    f"allowed: one{separator_hint([cell])}"
                )
            others.append((names[position], "text"))
        require_columns(self.name, len(positions), separator_hint(cells))
        self._left_out.note(self.name, others)
        return tuple(positions)

    def _choose(self, names: Sequence[str], columns: Sequence[str]) -> tuple[int, ...]:
        positions = []
        for column in columns:
            found = names.count(column)
            if found != 1:
                what = "no such column" if found == 0 else f"{found} columns of that name"
                raise InputError(
                    f"{self.name}: column {label(column)}: found {what}; "
                    "allowed: names of the header, or positions from 0 where there is none"
                )
            positions.append(names.index(column))
        return tuple(positions)

    def _require_width(self, number: int, cells: list[str], width: int) -> None:
        if len(cells) != width:
            hint = separator_hint(cells)
            raise InputError(f"{self.name}: row {number}: found {len(cells)} columns; allowed: {width}{hint}")

    def _parse_rows(self, layout: _Layout, numbers: list[int], lines: list[list[str]]) -> Batch:
        for number, cells in zip(numbers, lines, strict=True):
            if len(cells) != layout.width:
                self._require_width(number, cells, layout.width)
        flat = [cells[position] for cells in lines for position in layout.positions]
        try:
            batch = np.array(list(map(float, flat)), dtype=np.float64)
            # float() takes 1_000 and digits of other scripts, which are no numbers in a data file.
            plain = np.isfinite(batch).all() and _is_plain("".join(flat))
        except ValueError:
            plain = False
        if not plain:
            raise self._find_bad_cell(layout, numbers, lines)
        return batch.reshape(len(lines), len(layout.positions))

    def _find_bad_cell(self, layout: _Layout, numbers: list[int], lines: list[list[str]]) -> InputError:
        for number, cells in zip(numbers, lines, strict=True):
            for position, column in zip(layout.positions, layout.labels, strict=True):
                value = _parse(cells[position])
                if value is None:
                    cell = cells[position]
                    found = f"text of length {len(cell)}" if cell.strip() else "an empty cell"
                    return InputError(describe_cell(self.name, number, column, found))
                if not np.isfinite(value):
                    return InputError(describe_cell(self.name, number, column, kind_of(value)))
        return InputError(f"{self.name}: row {numbers[0]} and after: found cells that are not numbers")


def _parse(cell: str) -> float | None:
    """Return the number a cell holds, NaN and infinities included; `None` if it holds none."""
    try:
        return float(cell) if _is_plain(cell) else None
    except ValueError:
        return None


def _is_number(cell: str) -> bool:
    return _parse(cell) is not None


def _is_plain(text: str) -> bool:
    return text.isascii() and "_" not in text
