"""Parquet, through pyarrow. A stream is read whole first, since Parquet keeps its index at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from pcs_agent.errors import InputError
from pcs_agent.events.arrow_columns import ArrowColumns, import_pyarrow, read_whole
from pcs_agent.events.columns import LeftOutColumns
from pcs_agent.events.source import Batch, batch_rows


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
        self._pyarrow = import_pyarrow(name)
        from pyarrow import parquet  # noqa: PLC0415  # late, as all of pyarrow

        try:
            self._parquet = parquet.ParquetFile(read_whole(name, file) if is_stream else file)
        except (self._pyarrow.ArrowException, OSError, ValueError):
            self._parquet = None
        if self._parquet is None:
            raise InputError(f"{name}: found no Parquet document")
        self._columns = ArrowColumns(name, self._parquet.schema_arrow, columns, left_out)

    def count(self) -> int | None:
        """The footer tells."""
        return int(self._parquet.metadata.num_rows)

    def batches(self, rows_max: int) -> Iterator[Batch]:
        """As `EventSource.batches`."""
        first_row = 1
        batches = self._parquet.iter_batches(
            batch_size=batch_rows(self._columns.width, rows_max), columns=self._columns.names
        )
        while (record_batch := self._next(batches, first_row)) is not None:
            batch = self._columns.to_rows(record_batch, first_row)
            if len(batch):
                yield batch
            first_row += len(batch)

    def _next(self, batches: Iterator[Any], first_row: int) -> Any | None:  # noqa: ANN401  # pyarrow has no types
        try:
            return next(batches, None)
        except (self._pyarrow.ArrowException, OSError):
            pass
        raise InputError(f"{self.name}: row {first_row} and after: found a damaged Parquet document")
