"""Which columns of an Arrow table are coordinates, and their numbers. pyarrow is imported only when it is needed.

Taken are the top-level columns of integers, floats or decimals, and those of fixed-size lists of integers or floats, as
embeddings are kept: each position of the list is a coordinate. `--columns` chooses by name. Rows are counted from 1.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

from pcs_agent.errors import InputError
from pcs_agent.events.columns import LABEL_CHARACTERS_MAX, LeftOutColumns, label
from pcs_agent.events.source import Batch, describe_cell, require_columns, require_finite

STREAM_BYTES_MAX = 1 << 30
"""Largest document taken from a stream by a format that must be sought in: it is held in memory."""


class ArrowColumns:
    """The columns of one table that are taken."""

    def __init__(
        self,
        name: str,
        schema: Any,  # noqa: ANN401  # pyarrow has no types
        columns: Sequence[str] | None,
        left_out: LeftOutColumns,
    ) -> None:
        """Choose the columns.

        Args:
            name: The input's name.
            schema: The table's, of pyarrow.
            columns: Chosen names; `None` for all numeric columns.
            left_out: Told of the others.

        Raises:
            InputError: There is no such column, or none at all, or too many.
        """
        self._name = name
        self._pyarrow = import_pyarrow(name)
        widths = {field.name: width for field in schema if (width := self._width_of(field.type))}
        self.names = list(widths) if columns is None else list(columns)
        for column in self.names:
            if column not in widths or schema.get_field_index(column) < 0:
                raise self._refuse(column, schema)
        self._widths = [widths[column] for column in self.names]
        self.width = sum(self._widths)
        require_columns(name, self.width)
        if columns is None:
            others = [
                (each.name, str(each.type)[:LABEL_CHARACTERS_MAX])
                for each in schema
                if each.name not in widths
            ]
            left_out.note(name, others)
        self._labels = [
            label(column) if width == 1 else label(f"{column}[{position}]")
            for column, width in zip(self.names, self._widths, strict=True)
            for position in range(width)
        ]

    def to_rows(self, record_batch: Any, first_row: int) -> Batch:  # noqa: ANN401
        """Return the numbers of a record batch, shape (rows, width).

        Args:
            record_batch: Of pyarrow.
            first_row: 1-based number of its first row.

        Raises:
            InputError: A value is null, NaN or infinite.
        """
        batch: Batch = np.empty((record_batch.num_rows, self.width), dtype=np.float64)
        first = 0
        for column, width in zip(self.names, self._widths, strict=True):
            values = record_batch.column(record_batch.schema.get_field_index(column))
            self._require_values(values, first_row, first, 1)
            if self._pyarrow.types.is_fixed_size_list(values.type):
                values = values.flatten()
                self._require_values(values, first_row, first, width)
            # Not a safe cast: integers beyond 2^53 become the nearest double, as in every other format.
            floats = values.cast(self._pyarrow.float64(), safe=False).to_numpy(zero_copy_only=False)
            batch[:, first : first + width] = floats.reshape(-1, width)
            first += width
        require_finite(self._name, batch, first_row, self._labels)
        return batch

    def _require_values(self, values: Any, first_row: int, first: int, width: int) -> None:  # noqa: ANN401
        if values.null_count:
            place = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
            column = self._labels[first + place % width]
            raise InputError(describe_cell(self._name, first_row + place // width, column, "null"))

    def _width_of(self, kind: Any) -> int:  # noqa: ANN401
        """Return how many coordinates a column of that type is; 0 if it is none."""
        types = self._pyarrow.types
        if types.is_fixed_size_list(kind):
            inner = kind.value_type
            return int(kind.list_size) if types.is_integer(inner) or types.is_floating(inner) else 0
        return int(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))

    def _refuse(self, column: str, schema: Any) -> InputError:  # noqa: ANN401
        among = schema.names.count(column)
        found = (
            ("no such column", "a column that is not numeric")[among]
            if among < 2
            else f"{among} columns of that name"
        )
        return InputError(f"{self._name}: column {label(column)}: found {found}; allowed: numeric columns")


def read_whole(name: str, file: BinaryIO) -> BinaryIO:
    """Return a stream's bytes as a file that can be sought in.

    Raises:
        InputError: There are more than `STREAM_BYTES_MAX`.
    """
    data = file.read(STREAM_BYTES_MAX + 1)
    if len(data) > STREAM_BYTES_MAX:
        raise InputError(
            f"{name}: found over {STREAM_BYTES_MAX} bytes; allowed on standard input: up to that, files any size"
        )
    return io.BytesIO(data)


def import_pyarrow(name: str) -> Any:  # noqa: ANN401
    """Return pyarrow.

    Raises:
        InputError: It is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415
    except ImportError:
        pass
    else:
        return pa
    raise InputError(f"{name}: reading Parquet or Arrow needs pyarrow, which is not installed")
