"""Cutting a stream of events into consecutive windows, one epoch each, holding one window and one batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pcs_agent.errors import InputError
from pcs_agent.events.source import Batch, EventSource

WINDOW_VALUES_MAX = 50_000_000
"""Numbers of one window: 400 MB, and about twice that while its signals are computed."""

WINDOW_EVENTS_MAX = 5_000_000
"""Events of one window: the Merkle tree holds some 70 bytes for each."""


class Window(NamedTuple):
    """One window of the stream.

    Attributes:
        number: 0 for the first; its epoch is the run's plus this.
        events: Shape (n, d), finite; n ≥ 1.
    """

    number: int
    events: Batch


def iter_windows(sources: Sequence[EventSource], window_rows: int | None) -> Iterator[Window]:
    """Yield the windows of all sources as one stream, in order; the short last one is kept.

    Args:
        sources: One stream in order.
        window_rows: Events a window; `None` for one window of everything.

    Raises:
        InputError: A source is not what it promises, columns differ between sources, or a window is too large.
    """
    parts: list[Batch] = []
    held = number = 0
    for batch in _iter_batches(sources, window_rows or WINDOW_EVENTS_MAX):
        rest = batch
        while window_rows is not None and held + len(rest) >= window_rows:
            taken = window_rows - held
            _require_size(window_rows, batch.shape[1])
            yield Window(number, np.concatenate([*parts, rest[:taken]]))
            parts, held, number = [], 0, number + 1
            rest = rest[taken:]
        if len(rest):
            # A copy, so that the whole batch is not kept alive for its last rows.
            parts.append(rest if len(rest) == len(batch) else rest.copy())
            held += len(rest)
            _require_size(held, batch.shape[1])
    if held:
        yield Window(number, np.concatenate(parts))


def count_windows(sources: Sequence[EventSource], window_rows: int | None) -> int | None:
    """Return how many windows there will be, if every source knows its count."""
    if window_rows is None:
        return 1
    counts = [source.count() for source in sources]
    known = [count for count in counts if count is not None]
    return -(-sum(known) // window_rows) if len(known) == len(counts) else None


def _iter_batches(sources: Sequence[EventSource], rows_max: int) -> Iterator[Batch]:
    columns: int | None = None
    for source in sources:
        for batch in source.batches(rows_max):
            if columns is None:
                columns = batch.shape[1]
            elif batch.shape[1] != columns:
                raise InputError(
                    f"{source.name}: found {batch.shape[1]} numeric columns; allowed: {columns}, as in the inputs before"
                )
            yield batch


def _require_size(events: int, columns: int) -> None:
    if events > WINDOW_EVENTS_MAX or events * columns > WINDOW_VALUES_MAX:
        raise InputError(
            f"window: found over {min(events, WINDOW_EVENTS_MAX)} events of {columns} columns; allowed: up to "
            f"{WINDOW_EVENTS_MAX} events and {WINDOW_VALUES_MAX} numbers a window; use --window ROWS"
        )
