"""Cutting a stream of events into consecutive windows, one epoch each, holding one window and one batch at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pcs_agent.embed import Method, concatenate_leaves, join_leaves
from pcs_agent.errors import InputError
from pcs_agent.events.source import Batch, EventSource, Pieces
from pcs_agent.signals.blocks import Blocks

WINDOW_VALUES_MAX = 50_000_000
"""Numbers of one window: 400 MB, and about twice that while its signals are computed."""

WINDOW_EVENTS_MAX = 5_000_000
"""Events of one window: the Merkle tree holds some 70 bytes for each."""


class Window(NamedTuple):
    """One window of the stream.

    Attributes:
        number: 0 for the first; its epoch is the run's plus this.
        events: Shape (n, d), finite; n ≥ 1; in memory, or read again in every pass. What D̂ and coh★ see.
        leaves: One an event: UTF-8 of text, little-endian uint32 of tokens; `None` where the rows themselves are the
            events, whose leaves are their columns as little-endian float64.
        symbols: What r sees of text and tokens, the leaves one after the other; `None` as above.
        method: How the leaves became rows, for the record's `methods.events`; `None` as above.
    """

    number: int
    events: Batch | Blocks
    leaves: Sequence[bytes] | None = None
    symbols: bytes | None = None
    method: Method | None = None


def iter_windows(sources: Sequence[EventSource], window_rows: int | None) -> Iterator[Window]:
    """Yield the windows of all sources as one stream, in order; the short last one is kept.

    Args:
        sources: One stream in order.
        window_rows: Events a window; `None` for one window of everything.

    Raises:
        InputError: A source is not what it promises, columns differ between sources, or a window is too large.
    """
    parts: list[Batch | Pieces] = []
    held = number = 0
    for batch in iter_batches(sources, window_rows):
        count, columns = _measure(batch)
        first = 0
        while window_rows is not None and held + count - first >= window_rows:
            _require_size(window_rows, columns)
            last = first + window_rows - held
            yield _make_window(number, [*parts, _cut(batch, first, last)])
            parts, held, number = [], 0, number + 1
            first = last
        if first < count:
            # A copy of a part, so that the whole batch is not kept alive for its last rows.
            parts.append(batch if first == 0 else _cut(batch, first, count, copied=True))
            held += count - first
            _require_size(held, columns)
    if held:
        yield _make_window(number, parts)


def count_windows(sources: Sequence[EventSource], window_rows: int | None) -> int | None:
    """Return how many windows there will be, if every source knows its count."""
    if window_rows is None:
        return 1
    counts = [source.count() for source in sources]
    known = [count for count in counts if count is not None]
    return -(-sum(known) // window_rows) if len(known) == len(counts) else None


def iter_batches(sources: Sequence[EventSource], window_rows: int | None) -> Iterator[Batch | Pieces]:
    """Yield the batches of all sources, so that no full window waits for one."""
    first: Batch | Pieces | None = None
    events = 0
    for source in sources:
        rows_max = window_rows or WINDOW_EVENTS_MAX
        if window_rows is not None and source is sources[-1] and source.count() is None:
            # It may still be written to: batches that end where windows do, also where inputs before began one.
            rows_max = math.gcd(rows_max, events)
        for batch in source.batches(rows_max):
            if first is None:
                first = batch
            else:
                _require_like(source.name, batch, first)
            yield batch
            events += _measure(batch)[0]


def _require_like(name: str, batch: Batch | Pieces, first: Batch | Pieces) -> None:
    """Refuse to go on with events of another kind or width than the stream began with."""
    method = batch.embedder.method if isinstance(batch, Pieces) else None
    begun = first.embedder.method if isinstance(first, Pieces) else None
    if method != begun:
        raise InputError(
            f"{name}: found {_kind_of(method)}; allowed: {_kind_of(begun)}, as in the inputs before"
        )
    columns, wanted = _measure(batch)[1], _measure(first)[1]
    if columns != wanted:
        raise InputError(
            f"{name}: found {columns} numeric columns; allowed: {wanted}, as in the inputs before"
        )


def _kind_of(method: Method | None) -> str:
    return "rows of numbers" if method is None else f"events for {method['name']}"


def _measure(batch: Batch | Pieces) -> tuple[int, int]:
    """Return events and columns."""
    if isinstance(batch, Pieces):
        return len(batch.leaves), batch.embedder.dimension
    return len(batch), batch.shape[1]


def _cut(batch: Batch | Pieces, first: int, last: int, *, copied: bool = False) -> Batch | Pieces:
    if isinstance(batch, Pieces):
        return batch._replace(leaves=batch.leaves[first:last])
    return batch[first:last].copy() if copied else batch[first:last]


def _make_window(number: int, parts: Sequence[Batch | Pieces]) -> Window:
    rows = [part for part in parts if not isinstance(part, Pieces)]
    if rows:
        return Window(number, np.concatenate(rows))
    pieces = [part for part in parts if isinstance(part, Pieces)]
    leaves = concatenate_leaves([part.leaves for part in pieces])
    embedder = pieces[0].embedder
    return Window(number, embedder.embed(leaves), leaves, join_leaves(leaves), embedder.method)


def _require_size(events: int, columns: int) -> None:
    if events > WINDOW_EVENTS_MAX or events * columns > WINDOW_VALUES_MAX:
        raise InputError(
            f"window: found over {min(events, WINDOW_EVENTS_MAX)} events of {columns} columns; allowed: up to "
            f"{WINDOW_EVENTS_MAX} events and {WINDOW_VALUES_MAX} numbers a window; use --window ROWS"
        )
