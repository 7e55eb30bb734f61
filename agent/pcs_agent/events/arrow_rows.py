"""Arrow IPC, through pyarrow: files (Feather of version 2 is the same) and streams, told apart by their first bytes.

Columns as `pcs_agent.events.arrow_columns` has them. A stream is read as it comes; a file from standard input whole.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from pcs_agent.errors import InputError
from pcs_agent.events.arrow_columns import ArrowColumns, import_pyarrow, read_whole
from pcs_agent.events.columns import LeftOutColumns
from pcs_agent.events.source import Batch, batch_rows

_FILE_MAGIC = b"ARROW1"


class ArrowSource:
    """Events of an Arrow IPC file or stream."""

    def __init__(
        self,
        name: str,
        file: BinaryIO,
        columns: Sequence[str] | None,
        left_out: LeftOutColumns,
        *,
        is_stream: bool,
    ) -> None:
        """Read the schema; arguments and errors as of `ParquetSource`."""
        self.name = name
        self._pyarrow = import_pyarrow(name)
        head, file = _peek(file, len(_FILE_MAGIC))
        self._reader: Any = None  # pyarrow has no types
        try:
            if head == _FILE_MAGIC:
                self._reader = self._pyarrow.ipc.open_file(read_whole(name, file) if is_stream else file)
            else:
                self._reader = self._pyarrow.ipc.open_stream(file)
        except (self._pyarrow.ArrowException, OSError, ValueError):
            pass
        if self._reader is None:
            raise InputError(f"{name}: found no Arrow IPC file or stream")
        self._is_file = head == _FILE_MAGIC
        self._columns = ArrowColumns(name, self._reader.schema, columns, left_out)

    def count(self) -> int | None:
        """Not known before reading."""
        return None

    def batches(self, rows_max: int) -> Iterator[Batch]:
        """As `EventSource.batches`."""
        size = batch_rows(self._columns.width, rows_max)
        row = 1
        number = 0
        while (record_batch := self._read(number, row)) is not None:
            for first in range(0, record_batch.num_rows, size):
                batch = self._columns.to_rows(record_batch.slice(first, size), row)
                yield batch
                row += len(batch)
            number += 1

    def _read(self, number: int, row: int) -> Any | None:  # noqa: ANN401
        try:
            if self._is_file:
                if number == self._reader.num_record_batches:
                    return None
                record_batch = self._reader.get_batch(number)
            else:
                record_batch = self._reader.read_next_batch()
            record_batch.validate()  # buffers as long as the header tells, before anything reads them
        except StopIteration:
            return None
        except (self._pyarrow.ArrowException, OSError, ValueError):
            pass
        else:
            return record_batch
        raise InputError(f"{self.name}: row {row} and after: found a damaged Arrow document")


def _peek(file: BinaryIO, size: int) -> tuple[bytes, BinaryIO]:
    """Return the first bytes, and the file as if they had not been read."""
    if isinstance(file, io.BufferedReader):
        return file.peek(size)[:size], file
    head = file.read(size)
    file.seek(0)
    return head, file
