"""Parquet, through pyarrow, which is imported only here and only when it is needed.

The columns are the top-level ones of integers, floats or decimals; `--columns` chooses by name. A stream is read whole
first, since Parquet keeps its index at the end. Rows are counted from 1.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from pcs_agent.errors import InputError
from pcs_agent.events.columns import LABEL_CHARACTERS_MAX, LeftOutColumns, label
from pcs_agent.events.source import Batch, batch_rows, describe_cell, require_columns, require_finite

STREAM_BYTES_MAX = 1 << 30
"""Largest Parquet document taken from a stream."""


class ParquetSource:
    """Events of a Parquet file or stream."""

    def __init__(
        self,
        name: str,
        file: BinaryIO,
        columns: Sequence[str] | None,
        left_out: LeftOutColumns,
        *,
        is_stream: bool,
    ) -> None:
        """Read the footer.

        Args:
            name: Redacted name for messages.
            file: Binary; the caller closes it.
            columns: Chosen names; `None` for all numeric columns.
            left_out: Told of the others.
            is_stream: Whether the file cannot be sought and must be read whole.

        Raises:
            InputError: pyarrow is missing, or this is not Parquet, or it has no such column.
        """
        self.name = name
        self._pyarrow, parquet = _import_pyarrow(name)
        if is_stream:
            data = file.read(STREAM_BYTES_MAX + 1)
            if len(data) > STREAM_BYTES_MAX:
                raise InputError(
                    f"{name}: found over {STREAM_BYTES_MAX} bytes; allowed on standard input: up to that, files any size"
                )
            file = io.BytesIO(data)
        try:
            self._parquet = parquet.ParquetFile(file)
        except (self._pyarrow.ArrowException, OSError, ValueError):
            self._parquet = None
        if self._parquet is None:
            raise InputError(f"{name}: found no Parquet document")
        self._columns = self._choose(columns)
        require_columns(name, len(self._columns))
        if columns is None:
            left_out.note(name, self._find_others())

    def count(self) -> int | None:
        """The footer tells."""
        return int(self._parquet.metadata.num_rows)

    def batches(self, rows_max: int) -> Iterator[Batch]:
        """As `EventSource.batches`."""
        first_row = 1
        labels = [label(column) for column in self._columns]
        batches = self._parquet.iter_batches(
            batch_size=batch_rows(len(self._columns), rows_max), columns=self._columns
        )
        while (record_batch := self._next(batches, first_row)) is not None:
            batch: Batch = np.empty((record_batch.num_rows, len(self._columns)), dtype=np.float64)
            for position, column in enumerate(self._columns):
                values = record_batch.column(record_batch.schema.get_field_index(column))
                if values.null_count:
                    row = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
                    raise InputError(describe_cell(self.name, first_row + row, labels[position], "null"))
                batch[:, position] = self._to_floats(values)
            require_finite(self.name, batch, first_row, labels)
            if len(batch):
                yield batch
            first_row += len(batch)

    def _next(self, batches: Iterator[Any], first_row: int) -> Any | None:  # noqa: ANN401  # pyarrow has no types
        try:
            return next(batches, None)
        except (self._pyarrow.ArrowException, OSError):
            pass
        raise InputError(f"{self.name}: row {first_row} and after: found a damaged Parquet document")

    def _to_floats(self, values: Any) -> Batch:  # noqa: ANN401
        # Not a safe cast: integers beyond 2^53 become the nearest double, as in every other format.
        floats: Batch = values.cast(self._pyarrow.float64(), safe=False).to_numpy(zero_copy_only=False)
        return floats

    def _find_others(self) -> list[tuple[str, str]]:
        return [
            (field.name, str(field.type)[:LABEL_CHARACTERS_MAX])
            for field in self._parquet.schema_arrow
            if field.name not in self._columns
        ]

    def _choose(self, columns: Sequence[str] | None) -> list[str]:
        types = self._pyarrow.types
        schema = self._parquet.schema_arrow
        numeric = [
            field.name
            for field in schema
            if types.is_integer(field.type) or types.is_floating(field.type) or types.is_decimal(field.type)
        ]
        if columns is None:
            return numeric
        for column in columns:
            if column not in numeric:
                found = "a column that is not numeric" if column in schema.names else "no such column"
                raise InputError(
                    f"{self.name}: column {label(column)}: found {found}; allowed: numeric columns"
                )
        return list(columns)


def _import_pyarrow(name: str) -> tuple[Any, Any]:
    try:
        import pyarrow as pa  # noqa: PLC0415
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        pass
    else:
        return pa, parquet
    raise InputError(f"{name}: reading Parquet needs pyarrow, which is not installed")
