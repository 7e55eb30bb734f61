"""`.npy`: one array of one or two axes of integers or floats. Nothing pickled is ever loaded.

A file is mapped into memory, a stream read batch by batch. One axis means one column. Rows are counted from 1.
"""

from __future__ import annotations

import math
import os
import tokenize
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from pcs_agent.errors import InputError
from pcs_agent.events.columns import label
from pcs_agent.events.source import Batch, batch_rows, require_columns, require_finite

FORTRAN_STREAM_BYTES_MAX = 400_000_000
"""An array stored by columns must be read whole from a stream before its first row is known."""

_NUMBER_KINDS = "iuf"
# The header is a Python literal, and numpy reads it with Python's own parser.
_HEADER_FAULTS = (
    ValueError,
    KeyError,
    OSError,
    SyntaxError,
    TypeError,
    EOFError,
    MemoryError,
    RecursionError,
    tokenize.TokenError,
)


class _Header(NamedTuple):
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[np.generic]

    @property
    def rows(self) -> int:
        return self.shape[0]

    @property
    def columns(self) -> int:
        return self.shape[1] if len(self.shape) == 2 else 1


class NumpySource:
    """Events of an `.npy` file or stream."""

    def __init__(self, name: str, file: BinaryIO, columns: Sequence[str] | None, *, path: str | None) -> None:
        """Read the header.

        Args:
            name: Redacted name for messages.
            file: Binary, at its start; the caller closes it.
            columns: Chosen 0-based positions; `None` for all.
            path: Where to map the array from; `None` for a stream.

        Raises:
            InputError: Not an `.npy` file, or not an array of numbers in one or two axes.
        """
        self.name = name
        self._file = file
        self._path = path
        self._header = _read_header(name, file)
        self._positions = _choose(name, columns, self._header.columns)
        require_columns(name, len(self._positions))
        self._first_byte = file.tell() if path is not None else 0
        self._changed_ns = os.fstat(file.fileno()).st_mtime_ns if path is not None else 0

    @property
    def holds_integers_in_one_axis(self) -> bool:
        """Whether the array may be one of token ids."""
        return len(self._header.shape) == 1 and self._header.dtype.kind in "iu"

    @property
    def columns(self) -> int:
        """Columns of every row."""
        return len(self._positions)

    @property
    def size_bytes(self) -> int:
        """Bytes of the array."""
        return math.prod(self._header.shape) * self._header.dtype.itemsize

    @property
    def can_be_reread(self) -> bool:
        """Whether `reread` can find any row again: in a file, and stored by rows."""
        return self._path is not None and not (self._header.fortran_order and len(self._header.shape) == 2)

    def count(self) -> int:
        """The header tells."""
        return self._header.rows

    def reread(self, first: int, last: int, rows_at_once: int) -> Iterator[Batch]:
        """Yield some rows, any number of times, holding no more of the file than is asked for.

        Args:
            first: The first row, from 0.
            last: The row after the last.
            rows_at_once: No batch has more rows.

        Raises:
            InputError: A number is not finite, the disk refused, or the file changed since the run began.
        """
        header = self._header
        row_bytes = header.columns * header.dtype.itemsize
        labels = [repr(str(position)) for position in self._positions]
        for begin in range(first, last, rows_at_once):
            raw = np.empty((min(rows_at_once, last - begin), header.columns), dtype=header.dtype)
            self._read_at(raw, self._first_byte + begin * row_bytes)
            batch = self._to_batch(raw)
            require_finite(self.name, batch, begin + 1, labels)
            yield batch

    def _read_at(self, place: npt.NDArray[np.generic], offset: int) -> None:
        view = place.view(np.uint8).data.cast("B")
        try:
            while view and (size_bytes := os.preadv(self._file.fileno(), [view], offset)):
                view, offset = view[size_bytes:], offset + size_bytes
            changed = view.nbytes > 0 or os.fstat(self._file.fileno()).st_mtime_ns != self._changed_ns
        except OSError as error:
            raise InputError(
                f"{self.name}: cannot be read: {error.strerror or type(error).__name__}"
            ) from None
        if changed:
            raise InputError(
                f"{self.name}: found a file that changed while it was read; allowed: one at rest"
            )

    def _to_batch(self, table: npt.NDArray[np.generic]) -> Batch:
        """Return the chosen columns as float64."""
        chosen = table if self._positions == list(range(table.shape[1])) else table[:, self._positions]
        with np.errstate(
            over="ignore"
        ):  # a long double beyond every double becomes an infinity, found where it is checked
            batch: Batch = np.ascontiguousarray(chosen, dtype=np.float64)
        return batch

    def batches(self, rows_max: int) -> Iterator[Batch]:
        """As `EventSource.batches`."""
        if math.prod(self._header.shape) == 0:
            return
        labels = [repr(str(position)) for position in self._positions]
        first_row = 1
        for part in self._parts(rows_max):
            batch = self._to_batch(part.reshape(len(part), self._header.columns))
            require_finite(self.name, batch, first_row, labels)
            yield batch
            first_row += len(batch)

    def _parts(self, rows_max: int) -> Iterator[npt.NDArray[np.generic]]:
        header = self._header
        size = batch_rows(header.columns, rows_max)
        if self._path is not None:
            try:
                array = np.load(self._path, mmap_mode="r", allow_pickle=False)
            except (ValueError, OSError):
                array = None
            if array is None:
                raise InputError(
                    f"{self.name}: found fewer bytes than the header tells, or no mapping of them"
                )
            for first in range(0, header.rows, size):
                yield array[first : first + size]
        elif header.fortran_order and len(header.shape) == 2:
            size_bytes = math.prod(header.shape) * header.dtype.itemsize
            if size_bytes > FORTRAN_STREAM_BYTES_MAX:
                raise InputError(
                    f"{self.name}: found {size_bytes} bytes stored by columns; allowed on standard input: up to "
                    f"{FORTRAN_STREAM_BYTES_MAX}, or any size stored by rows"
                )
            array = np.frombuffer(self._read(size_bytes), dtype=header.dtype).reshape(header.shape, order="F")
            for first in range(0, header.rows, size):
                yield array[first : first + size]
        else:
            row_bytes = header.columns * header.dtype.itemsize
            for first in range(0, header.rows, size):
                rows = min(size, header.rows - first)
                yield np.frombuffer(self._read(rows * row_bytes), dtype=header.dtype).reshape(rows, -1)

    def _read(self, size_bytes: int) -> bytes:
        parts = []
        missing = size_bytes
        while missing and (part := self._file.read(missing)):
            parts.append(part)
            missing -= len(part)
        if missing:
            raise InputError(f"{self.name}: found {missing} bytes fewer than the header tells")
        return b"".join(parts)


def _read_header(name: str, file: BinaryIO) -> _Header:
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        header = _Header(*read(file))
    except _HEADER_FAULTS:
        header = None
    if header is None:
        raise InputError(
            f"{name}: found no .npy header of version 1 or 2; allowed: an array saved by numpy.save"
        )
    if header.dtype.kind not in _NUMBER_KINDS or header.dtype.hasobject or header.dtype.subdtype is not None:
        raise InputError(f"{name}: found an array of kind {header.dtype.kind!r}; allowed: integers or floats")
    if len(header.shape) not in {1, 2}:
        raise InputError(f"{name}: found an array of {len(header.shape)} axes; allowed: 1 or 2")
    return header


def _choose(name: str, columns: Sequence[str] | None, width: int) -> list[int]:
    if columns is None:
        return list(range(width))
    for column in columns:
        if not (column.isascii() and column.isdigit() and int(column) < width):
            raise InputError(
                f"{name}: column {label(column)}: found no such column; allowed: positions from 0 to {width - 1}"
            )
    return [int(column) for column in columns]
