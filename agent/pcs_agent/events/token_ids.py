"""Token ids, 0 … 2^32−1: one a line, or JSON arrays of them a line, or an `.npy` of integers in one axis.

A leaf is the id as little-endian uint32. Blank lines are skipped; rows are counted from 1, of text by its lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import orjson

from pcs_agent.embed import Embedder, TokenLeaves
from pcs_agent.errors import InputError
from pcs_agent.events.numpy_rows import NumpySource
from pcs_agent.events.source import Pieces, batch_rows
from pcs_agent.events.text_lines import iter_lines
from pcs_core.typed import describe

TOKEN_MAX = 2**32 - 1


class TokenLinesSource:
    """Events of a file or stream of lines of token ids."""

    def __init__(self, name: str, file: BinaryIO, embedder: Embedder) -> None:
        """Take the open file; arguments as of `TextSource`."""
        self.name = name
        self._file = file
        self._embedder = embedder

    def count(self) -> int | None:
        """Not known before reading."""
        return None

    def batches(self, rows_max: int) -> Iterator[Pieces]:
        """As `EventSource.batches`."""
        size = batch_rows(self._embedder.dimension, rows_max)
        held: list[int] = []
        for row, line in enumerate(iter_lines(self.name, self._file), start=1):
            if line.isspace():
                continue
            held += self._parse(row, line)
            while len(held) >= size:
                yield self._pack(held[:size])
                held = held[size:]
        if held:
            yield self._pack(held)

    def _parse(self, row: int, line: bytes) -> list[int]:
        try:
            document = orjson.loads(line)
        except orjson.JSONDecodeError:
            document = None
        if document is None:
            raise InputError(
                f"{self.name}: row {row}: found {len(line.strip())} bytes that are no token id; allowed: an integer from 0 "
                f"to {TOKEN_MAX}, or an array of them"
            )
        ids = document if isinstance(document, list) else [document]
        if not (set(map(type, ids)) <= {int} and (not ids or (min(ids) >= 0 and max(ids) <= TOKEN_MAX))):
            raise self._find_bad_id(row, ids, is_list=isinstance(document, list))
        return ids

    def _find_bad_id(self, row: int, ids: list[object], *, is_list: bool) -> InputError:
        for position, value in enumerate(ids):
            if type(value) is int and 0 <= value <= TOKEN_MAX:
                continue
            where = f"row {row}, position {position}" if is_list else f"row {row}"
            return InputError(_describe_id(self.name, where, describe(value)))
        raise AssertionError

    def _pack(self, ids: list[int]) -> Pieces:
        return Pieces(TokenLeaves(np.array(ids, dtype=np.uint32)), self._embedder)


class TokenArraySource:
    """Events of an `.npy` of integers in one axis."""

    def __init__(self, array: NumpySource, embedder: Embedder) -> None:
        """Take the array.

        Raises:
            InputError: It holds floats, or has two axes.
        """
        self.name = array.name
        self._array = array
        self._embedder = embedder
        if not array.holds_integers_in_one_axis:
            raise InputError(
                f"{self.name}: found an array of floats or of 2 axes; allowed for tokens: integers in one axis"
            )

    def count(self) -> int | None:
        """The header tells."""
        return self._array.count()

    def batches(self, rows_max: int) -> Iterator[Pieces]:
        """As `EventSource.batches`."""
        row = 1
        for batch in self._array.batches(batch_rows(self._embedder.dimension, rows_max)):
            # Doubles hold every id exactly; an integer that they do not hold is out of range all the more.
            ids: npt.NDArray[np.float64] = batch[:, 0]
            bad = (ids < 0) | (ids > TOKEN_MAX)
            if bad.any():
                index = int(np.argmax(bad))
                found = "a negative integer" if ids[index] < 0 else "an integer"
                raise InputError(_describe_id(self.name, f"row {row + index}", found))
            yield Pieces(TokenLeaves(ids.astype(np.uint32)), self._embedder)
            row += len(ids)


def _describe_id(name: str, where: str, found: str) -> str:
    return f"{name}: {where}: found {found}; allowed: a token id, an integer from 0 to {TOKEN_MAX}"
