"""`.npz`: the arrays of an archive side by side, one row an event. Nothing pickled is ever loaded.

Each member with integers or floats of one or two axes gives its columns, in the archive's order; `--columns` chooses
members by name. All that are taken have the same number of rows. Others are left out with a warning. Members are read
row by row at the same time and never unpacked as a whole, unless they are stored by columns. A stream is read whole.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import IO, BinaryIO, cast

import numpy as np

from pcs_agent.errors import InputError
from pcs_agent.events.arrow_columns import read_whole
from pcs_agent.events.columns import LeftOutColumns, label
from pcs_agent.events.numpy_rows import NumpySource
from pcs_agent.events.source import Batch, batch_rows, require_columns

MEMBERS_MAX = 256
"""Arrays of an archive."""

UNPACKED_BYTES_MAX = 1 << 36
"""Bytes of all arrays that are taken together, unpacked: 64 GiB, 2,000 times what zlib makes of so many zeros."""

_ENDING = ".npy"
_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


class NpzSource:
    """Events of an `.npz` file or stream."""

    def __init__(
        self,
        name: str,
        file: BinaryIO,
        columns: Sequence[str] | None,
        left_out: LeftOutColumns,
        *,
        is_stream: bool,
    ) -> None:
        """Read the archive's directory and the headers of its members.

        Args:
            name: Redacted name for messages.
            file: Binary; the caller closes it.
            columns: Chosen members; `None` for all numeric ones.
            left_out: Told of the others.
            is_stream: Whether the file cannot be sought and must be read whole.

        Raises:
            InputError: Not an `.npz`, or its arrays are no columns of one table, or it passes a bound.
        """
        self.name = name
        try:
            self._archive = zipfile.ZipFile(read_whole(name, file) if is_stream else file)
        except _FAULTS:
            raise InputError(f"{name}: found no .npz archive; allowed: one that numpy.savez wrote") from None
        entries = [info for info in self._archive.infolist() if info.filename.endswith(_ENDING)]
        if len(entries) > MEMBERS_MAX:
            raise InputError(f"{name}: found {len(entries)} members; allowed: up to {MEMBERS_MAX}")
        if columns is None:
            self._members = self._open_numeric(entries, left_out)
        else:
            self._members = [self._open_chosen(entries, column) for column in columns]
        self._width = sum(member.columns for member in self._members)
        require_columns(name, self._width)
        self._require_one_table()

    def count(self) -> int | None:
        """The headers tell."""
        return self._members[0].count()

    def batches(self, rows_max: int) -> Iterator[Batch]:
        """As `EventSource.batches`."""
        size = batch_rows(self._width, rows_max)
        for parts in zip(*(member.batches(size) for member in self._members), strict=True):
            yield np.hstack(parts)

    def _open_numeric(
        self, entries: Sequence[zipfile.ZipInfo], left_out: LeftOutColumns
    ) -> list[NumpySource]:
        members, others = [], []
        for info in entries:
            try:
                members.append(self._open(info))
            except InputError:
                others.append(
                    (info.filename.removesuffix(_ENDING), "not numeric, or of other than 1 or 2 axes")
                )
        left_out.note(self.name, others)
        return members

    def _open_chosen(self, entries: Sequence[zipfile.ZipInfo], column: str) -> NumpySource:
        found = [info for info in entries if info.filename == column + _ENDING]
        if len(found) != 1:
            what = "no such member" if not found else f"{len(found)} members of that name"
            raise InputError(f"{self.name}: column {label(column)}: found {what}; allowed: names of arrays")
        return self._open(found[0])

    def _open(self, info: zipfile.ZipInfo) -> NumpySource:
        name = f"{self.name}: member {label(info.filename.removesuffix(_ENDING))}"
        try:
            stream = self._archive.open(info)
        except _FAULTS:
            raise InputError(f"{name}: found a member that cannot be unpacked") from None
        return NumpySource(name, cast("BinaryIO", _Member(name, stream)), None, path=None)

    def _require_one_table(self) -> None:
        rows = {member.count() for member in self._members}
        if len(rows) > 1:
            raise InputError(
                f"{self.name}: found arrays of {min(rows)} and of {max(rows)} rows; allowed: the same number, or choose "
                "members with --columns"
            )
        size_bytes = sum(member.size_bytes for member in self._members)
        if size_bytes > UNPACKED_BYTES_MAX:
            raise InputError(
                f"{self.name}: found {size_bytes} bytes unpacked; allowed: up to {UNPACKED_BYTES_MAX}"
            )


class _Member:
    """A member's bytes; what is wrong with the archive is an `InputError`."""

    def __init__(self, name: str, stream: IO[bytes]) -> None:
        self._name = name
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        try:
            return self._stream.read(size)
        except _FAULTS:
            raise InputError(f"{self._name}: found damaged or encrypted bytes") from None
