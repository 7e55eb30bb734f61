"""Windows larger than memory: their rows are read again, some at a time, in every pass over them.

An `.npy` file that is stored by rows is read where it is. What can be read only once, or has to be parsed, is written
as it comes into a temporary file without a name, in `TMPDIR`, that only this user can open and that is gone with the
process. What is computed does not depend on how many rows are read at a time (`pcs_agent.signals.blocks`).
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import numpy as np

from pcs_agent.errors import InputError
from pcs_agent.events.numpy_rows import NumpySource
from pcs_agent.events.source import Batch, EventSource, Pieces
from pcs_agent.events.windows import Window, iter_batches
from pcs_agent.signals.blocks import cut_blocks

CHUNK_VALUES_MAX = 8_000_000
"""Numbers read at once, 64 MB, however many rows are asked for."""

CHUNKED_EVENTS_MAX = 50_000_000
"""Events of one window that is read in chunks: distinct cells take up to 8 bytes for each, or for each eight of their axes."""

Part = Callable[[], Iterator[Batch]]


class StoredBlocks:
    """Rows that are read from a disk in every pass."""

    def __init__(self, count: int, dimensions: int, parts: Sequence[Part]) -> None:
        """Take what reads them.

        Args:
            count: How many rows, ≥ 1.
            dimensions: Columns of every row.
            parts: Called in order in every pass, for the rows in parts of any size.
        """
        self._count, self._dimensions, self._parts = count, dimensions, parts

    @property
    def dimensions(self) -> int:
        """Columns of every row."""
        return self._dimensions

    def __len__(self) -> int:
        """Number of rows."""
        return self._count

    def __iter__(self) -> Iterator[Batch]:
        """Read the rows.

        Raises:
            InputError: The disk refused, or the file is no more what it was.
        """
        return cut_blocks(chain.from_iterable(part() for part in self._parts), self._dimensions)


class Spool:
    """Rows in a temporary file, which is gone with this object."""

    def __init__(self) -> None:
        """Make the file.

        Raises:
            InputError: The temporary folder cannot be written.
        """
        try:
            with tempfile.TemporaryFile() as file:
                self._descriptor = os.dup(file.fileno())
        except OSError as error:
            raise _refused(error) from None
        weakref.finalize(self, os.close, self._descriptor)
        self.rows = 0

    def append(self, batch: Batch) -> None:
        """Write more rows.

        Raises:
            InputError: The temporary folder is full, or the disk refused.
        """
        rest = np.ascontiguousarray(batch).data.cast("B")
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            raise _refused(error) from None
        self.rows += len(batch)

    def read(self, columns: int, rows_at_once: int) -> Iterator[Batch]:
        """Yield all rows, so many at a time.

        Raises:
            InputError: The disk refused.
        """
        for first in range(0, self.rows, rows_at_once):
            part = np.empty((min(rows_at_once, self.rows - first), columns))
            try:
                read_bytes = os.preadv(self._descriptor, [part.data.cast("B")], first * columns * 8)
            except OSError as error:
                raise _refused(error) from None
            if read_bytes < part.nbytes:
                raise InputError("temporary folder: found fewer bytes than were written")
            yield part


def iter_chunked_windows(
    sources: Sequence[EventSource], window_rows: int | None, chunk_rows: int
) -> Iterator[Window]:
    """Yield the windows of all sources as one stream, in order, without holding any of them in memory.

    Args:
        sources: One stream in order, of numbers.
        window_rows: Events a window; `None` for one window of everything.
        chunk_rows: Rows read at a time, fewer if they are more than `CHUNK_VALUES_MAX` numbers.

    Raises:
        InputError: A source is not what it promises or not of numbers, columns differ, or a window is too large.
    """
    stored = [source for source in sources if isinstance(source, NumpySource) and source.can_be_reread]
    if len(stored) < len(sources):
        yield from _iter_spooled(sources, window_rows, chunk_rows)
    else:
        yield from _iter_stored(stored, window_rows, chunk_rows)


def _iter_stored(
    sources: Sequence[NumpySource], window_rows: int | None, chunk_rows: int
) -> Iterator[Window]:
    filled = [source for source in sources if source.count()]
    for source in filled:
        if source.columns != filled[0].columns:
            raise InputError(
                f"{source.name}: found {source.columns} numeric columns; allowed: {filled[0].columns}, as in the inputs "
                "before"
            )
    total = sum(source.count() for source in filled)
    if not total:
        return
    columns = filled[0].columns
    size = window_rows or total
    _require_events(min(size, total))
    for number, first in enumerate(range(0, total, size)):
        last = min(first + size, total)
        parts: list[Part] = []
        begin = 0
        for source in filled:
            end = begin + source.count()
            if first < end and begin < last:
                ranges = (max(first, begin) - begin, min(last, end) - begin)
                parts.append(_reader(source, *ranges, _rows_at_once(columns, chunk_rows)))
            begin = end
        yield Window(number, StoredBlocks(last - first, columns, parts))


def _reader(source: NumpySource, first: int, last: int, rows_at_once: int) -> Part:
    return lambda: source.reread(first, last, rows_at_once)


def _iter_spooled(
    sources: Sequence[EventSource], window_rows: int | None, chunk_rows: int
) -> Iterator[Window]:
    spool: Spool | None = None
    columns = number = 0
    for batch in iter_batches(sources, window_rows):
        if isinstance(batch, Pieces):
            raise InputError("--chunk: found text or tokens; allowed: rows of numbers")
        rest, columns = batch, batch.shape[1]
        while len(rest):
            spool = spool or Spool()
            taken = len(rest) if window_rows is None else min(len(rest), window_rows - spool.rows)
            _require_events(spool.rows + taken)
            spool.append(rest[:taken])
            rest = rest[taken:]
            if spool.rows == window_rows:
                yield _spooled(number, spool, columns, chunk_rows)
                spool, number = None, number + 1
    if spool is not None:
        yield _spooled(number, spool, columns, chunk_rows)


def _spooled(number: int, spool: Spool, columns: int, chunk_rows: int) -> Window:
    rows_at_once = _rows_at_once(columns, chunk_rows)
    return Window(number, StoredBlocks(spool.rows, columns, [lambda: spool.read(columns, rows_at_once)]))


def _rows_at_once(columns: int, chunk_rows: int) -> int:
    return max(1, min(chunk_rows, CHUNK_VALUES_MAX // columns))


def _require_events(events: int) -> None:
    if events > CHUNKED_EVENTS_MAX:
        raise InputError(
            f"window: found over {CHUNKED_EVENTS_MAX} events; allowed: up to {CHUNKED_EVENTS_MAX} a window; use --window "
            "ROWS"
        )


def _refused(error: OSError) -> InputError:
    return InputError(f"temporary folder: cannot be used: {error.strerror or type(error).__name__}")
