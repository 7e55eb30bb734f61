"""JSON Lines: one object or one array of numbers a line, UTF-8.

The columns are the numeric fields of the first object in its own order, as `pcs_agent.events.columns` has it, or all
positions of the first array; `--columns` chooses others. Booleans are no numbers. Later objects may have more fields, never fewer of these. Blank lines are skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import BinaryIO, cast

import numpy as np
import orjson

from pcs_agent.errors import InputError
from pcs_agent.events.columns import LeftOutColumns, label, says_no_value, undecided
from pcs_agent.events.source import Batch, batch_rows, describe_cell, kind_of, require_columns
from pcs_agent.events.text_lines import iter_lines
from pcs_core.typed import describe

_KINDS = {str: "text", bool: "boolean", list: "list", dict: "object"}


class JsonLinesSource:
    """Events of a JSON Lines file or stream."""

    def __init__(
        self, name: str, file: BinaryIO, columns: Sequence[str] | None, left_out: LeftOutColumns
    ) -> None:
        """Take the open file; arguments as of `CsvSource`."""
        self.name = name
        self._file = file
        self._columns = columns
        self._left_out = left_out

    def count(self) -> int | None:
        """Not known before reading."""
        return None

    def batches(self, rows_max: int) -> Iterator[Batch]:
        """As `EventSource.batches`."""
        keys: list[str] | None = None
        width: int | None = None
        numbers: list[int] = []
        rows: list[list[object]] = []
        for number, document in self._iter_documents():
            if keys is None:
                keys, width = self._lay_out(number, document)
            rows.append(self._take(number, document, keys, width))
            numbers.append(number)
            if len(rows) >= batch_rows(len(keys), rows_max):
                yield self._to_array(numbers, rows, keys)
                numbers, rows = [], []
        if keys is not None and rows:
            yield self._to_array(numbers, rows, keys)

    def _iter_documents(self) -> Iterator[tuple[int, object]]:
        for number, line in enumerate(iter_lines(self.name, self._file), start=1):
            if line.isspace():
                continue
            try:
                yield number, orjson.loads(line)
                continue
            except orjson.JSONDecodeError:
                pass
            yield number, self._loads_leniently(number, line)

    def _loads_leniently(self, number: int, line: bytes) -> object:
        """Read a line that may be JSON but for a NaN, so that the message can name its column."""
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            pass
        raise InputError(f"{self.name}: row {number}: found {len(line)} bytes that are not JSON")

    def _lay_out(self, number: int, document: object) -> tuple[list[str], int | None]:
        """Return the columns, and the length of every row where rows are arrays."""
        if isinstance(document, dict):
            keys = list(self._columns or self._find_numbers(number, document))
            for key in keys:
                if key not in document:
                    raise InputError(
                        f"{self.name}: column {label(key)}: found no such field in row {number}; "
                        "allowed: fields of the first object"
                    )
            width = None
        elif isinstance(document, list):
            width = len(document)
            keys = list(self._columns or map(str, range(width)))
            for key in keys:
                if not (key.isascii() and key.isdigit() and int(key) < width):
                    raise InputError(
                        f"{self.name}: column {label(key)}: found no such column; "
                        f"allowed: positions from 0 to {width - 1}"
                    )
        else:
            raise InputError(
                f"{self.name}: row {number}: found {describe(document)}; allowed: an object, or an array of numbers"
            )
        require_columns(self.name, len(keys))
        return keys, width

    def _find_numbers(self, number: int, document: dict[str, object]) -> list[str]:
        others = []
        for key, value in document.items():
            if _is_number(value):
                continue
            if value is None or (isinstance(value, str) and says_no_value(value)):
                found = "null" if value is None else "a string without a value"
                raise undecided(self.name, number, key, found)
            others.append((key, _KINDS[type(value)]))
        self._left_out.note(self.name, others)
        return [key for key, value in document.items() if _is_number(value)]

    def _take(self, number: int, document: object, keys: list[str], width: int | None) -> list[object]:
        if width is None:
            if not isinstance(document, dict):
                raise InputError(f"{self.name}: row {number}: found {describe(document)}; allowed: an object")
            try:
                return [document[key] for key in keys]
            except KeyError:
                missing = next(key for key in keys if key not in document)
            raise InputError(describe_cell(self.name, number, label(missing), "nothing"))
        if not isinstance(document, list) or len(document) != width:
            raise InputError(
                f"{self.name}: row {number}: found {describe(document)}; allowed: a list of length {width}"
            )
        return document if self._columns is None else [document[int(key)] for key in keys]

    def _to_array(self, numbers: list[int], rows: list[list[object]], keys: list[str]) -> Batch:
        flat = [value for row in rows for value in row]
        if set(map(type, flat)) <= {int, float}:
            try:
                batch = np.array(flat, dtype=np.float64)
            except OverflowError:  # an integer beyond every double
                pass
            else:
                if np.isfinite(batch).all():
                    return batch.reshape(len(rows), len(keys))
        raise self._find_bad_value(numbers, rows, keys)

    def _find_bad_value(self, numbers: list[int], rows: list[list[object]], keys: list[str]) -> InputError:
        for number, row in zip(numbers, rows, strict=True):
            for key, value in zip(keys, row, strict=True):
                if not _is_number(value):
                    return InputError(describe_cell(self.name, number, label(key), describe(value)))
                try:
                    as_float = float(cast("float", value))
                except OverflowError:
                    as_float = float("inf")
                if not np.isfinite(as_float):
                    return InputError(describe_cell(self.name, number, label(key), kind_of(as_float)))
        return InputError(f"{self.name}: row {numbers[0]} and after: found values that are not numbers")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
