"""The door through which events come in, kept narrow for what will stand behind it later.

A source is anything with a name, perhaps a count, and batches. Of numbers: arrays of shape (rows, columns), float64,
finite, C-contiguous, the same number of columns in every batch, 1 … 4096. Of text or tokens: `Pieces`, leaves and what
makes rows of them. The order of the rows is the order of the leaves. Nothing else of the agent knows where events come
from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pcs_agent.embed import Embedder
from pcs_agent.errors import InputError
from pcs_core.record import DIMENSIONS_MAX

Batch = npt.NDArray[np.float64]

BATCH_VALUES_MAX = 1_000_000
"""Numbers read at once: 8 MB as an array, some ten times that as the text cells they are parsed from."""

LINE_BYTES_MAX = 1 << 20
"""Longest line of a text format: 4096 columns of 25 characters take a tenth of it."""


class Pieces(NamedTuple):
    """Events that are no numbers.

    Attributes:
        leaves: One an event: UTF-8 of text, or little-endian uint32 of tokens.
        embedder: Makes rows of them, when their window is complete.
    """

    leaves: Sequence[bytes]
    embedder: Embedder


class EventSource(Protocol):
    """A stream of events, read once, in order."""

    @property
    def name(self) -> str:
        """What messages call it: redacted, fit for a terminal."""

    def count(self) -> int | None:
        """Number of events if that is known without reading them."""

    def batches(self, rows_max: int) -> Iterator[Batch | Pieces]:
        """Yield the events in bounded batches, each as soon as it is full.

        Args:
            rows_max: No batch has more rows; a window's worth, so that no full window waits for a batch.

        Raises:
            InputError: The input is not what its format promises; names file, row and column.
        """


def batch_rows(columns: int, rows_max: int) -> int:
    """Return how many rows of so many columns make a batch of up to `rows_max` rows."""
    return max(1, min(rows_max, BATCH_VALUES_MAX // columns))


def require_columns(name: str, columns: int, hint: str = "") -> None:
    """Check the number of columns.

    Args:
        name: The source's name.
        columns: How many there are.
        hint: The message's end if there is none.

    Raises:
        InputError: There is none, or more than 4096.
    """
    if not 1 <= columns <= DIMENSIONS_MAX:
        raise InputError(f"{name}: found {columns} numeric columns; allowed: 1 to {DIMENSIONS_MAX}{hint}")


def require_finite(name: str, batch: Batch, first_row: int, columns: Sequence[str]) -> None:
    """Check a batch whose rows are numbered without gaps.

    Args:
        name: The source's name.
        batch: Shape (rows, columns).
        first_row: 1-based number of the batch's first row.
        columns: What messages call the columns.

    Raises:
        InputError: A value is NaN or infinite.
    """
    finite = np.isfinite(batch)
    if not finite.all():
        row, column = (int(place[0]) for place in np.nonzero(~finite))
        raise InputError(
            describe_cell(name, first_row + row, columns[column], kind_of(float(batch[row, column])))
        )


def describe_cell(name: str, row: int, column: str, found: str) -> str:
    """Return the message for one bad cell; the value itself never stands in it."""
    return f"{name}: row {row}, column {column}: found {found}; allowed: a finite number"


def kind_of(value: float) -> str:
    """Return what a float that is not finite is called in messages."""
    return "NaN" if value != value else "an infinity"  # noqa: PLR0124  # NaN alone differs from itself
