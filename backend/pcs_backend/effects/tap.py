"""Live verdicts for whoever listens (`pcs-backend tap`): never a payload, and never a wait.

`show` only appends to the queues of those who listen, and drops what has no room: a listener that is slow loses lines and
is told how many. Nobody listening costs one look at a tuple.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import msgspec

from pcs_backend.exchange import Request
from pcs_backend.trace_context import trace_id_of
from pcs_core.record import Record
from pcs_core.redact import redact

TAP_LISTENERS_MAX = 8
"""Listeners at once; a further one is refused."""

TAP_QUEUE_LINES_MAX = 1_000
"""Lines that wait for one listener; beyond them it loses lines."""


TAP_IDLE_INTERVAL_S = 1.0
"""How often a listener with nothing to show is looked after: it may have gone without a word."""


class Sighting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One answer, or one request of the backlog that was judged.

    Attributes:
        at_ms: When, milliseconds since 1970.
        status: What it was answered, or would have been.
        request_id: Names it in the logs.
        trace_id: The sender's trace; empty if none.
        tenant: Whose it is; empty where that was not found out.
        regime: As the record claims it; as all of the following, empty where nothing could be read.
        shard_id: Who summarised, redacted.
        epoch: Which window.
        pcs_id: The record's id.
        reasons: Why it was escalated, or for operators only why its signature was refused.
        problem: Kind of problem if it is no outcome.
        replayed: Whether it is a first outcome again.
        conflict: Whether the first record of this id had other contents.
        backlog: Whether nobody waits for the answer.
    """

    at_ms: int
    status: int
    request_id: str = ""
    trace_id: str = ""
    tenant: str = ""
    regime: str = ""
    shard_id: str = ""
    epoch: int | None = None
    pcs_id: str = ""
    reasons: tuple[str, ...] = ()
    problem: str = ""
    replayed: bool = False
    conflict: bool = False
    backlog: bool = False


def sighting(
    request: Request,
    at_ms: int,
    status: int,
    *,
    record: Record | None = None,
    tenant: str = "",
    reasons: tuple[str, ...] = (),
    problem: str = "",
    replayed: bool = False,
    conflict: bool = False,
    backlog: bool = False,
) -> Sighting:
    """Return what is shown of a request: what names it and its record, and the attributes of `Sighting` as given."""
    return Sighting(
        at_ms=at_ms,
        status=status,
        request_id=request.envelope.request_id,
        trace_id=trace_id_of(request.envelope.traceparent),
        tenant=tenant,
        regime="" if record is None else record.regime,
        shard_id="" if record is None else redact(record.shard_id),
        epoch=None if record is None else record.epoch,
        pcs_id="" if record is None else record.pcs_id,
        reasons=reasons,
        problem=problem,
        replayed=replayed,
        conflict=conflict,
        backlog=backlog,
    )


class Lost(msgspec.Struct, frozen=True):
    """Said to a listener that was too slow.

    Attributes:
        lost: Lines that it did not get since the last one it got.
    """

    lost: int


class Filter(NamedTuple):
    """What a listener wants to see; empty means everything.

    Attributes:
        tenant: Whose.
        regime: Which regime the record claims.
        statuses: Which answers.
    """

    tenant: str = ""
    regime: str = ""
    statuses: frozenset[int] = frozenset()

    def wants(self, seen: Sighting) -> bool:
        """Whether it passes."""
        return (
            (not self.statuses or seen.status in self.statuses)
            and (not self.tenant or seen.tenant == self.tenant)
            and (not self.regime or seen.regime == self.regime)
        )


class TooManyListenersError(Exception):
    """`TAP_LISTENERS_MAX` listen already."""


class Listener:
    """One who listens."""

    def __init__(self, wanted: Filter) -> None:
        """Take what it wants to see."""
        self._wanted = wanted
        self._queue: deque[Sighting] = deque()
        self._lost = 0
        self._closed = False
        self._wake = asyncio.Event()

    def put(self, seen: Sighting) -> None:
        """Queue a line if it is wanted and there is room."""
        if not self._wanted.wants(seen):
            return
        if len(self._queue) >= TAP_QUEUE_LINES_MAX:
            self._lost += 1
        else:
            self._queue.append(seen)
        self._wake.set()

    def lose(self, lines: int) -> None:
        """Say that lines were lost on their way here."""
        self._lost += lines
        self._wake.set()

    def close(self) -> None:
        """Nothing more comes."""
        self._closed = True
        self._wake.set()

    async def batches(self) -> AsyncIterator[list[Sighting | Lost]]:
        """Yield all lines there are whenever there are some, what was lost last; and nothing now and then while idle.

        Ends when the tap is closed and everything in the queue was taken.
        """
        while not self._closed or self._queue:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TAP_IDLE_INTERVAL_S):
                    await self._wake.wait()
            self._wake.clear()
            lines: list[Sighting | Lost] = list(self._queue)
            self._queue.clear()
            if self._lost:
                lines.append(Lost(self._lost))
                self._lost = 0
            yield lines


class Tap:
    """Where verdicts are shown.

    Attributes:
        listeners: Those who listen now.
    """

    def __init__(self) -> None:
        """Nobody listens yet."""
        self.listeners: tuple[Listener, ...] = ()
        self._closed = False

    def show(self, seen: Sighting) -> None:
        """Show one line to whoever wants it. Ask `listeners` first: without any there is nothing to make a line for."""
        for listener in self.listeners:
            listener.put(seen)

    @contextlib.contextmanager
    def listen(self, wanted: Filter) -> Iterator[Listener]:
        """Listen from now on.

        Raises:
            TooManyListenersError: There is no place.
        """
        if len(self.listeners) >= TAP_LISTENERS_MAX:
            raise TooManyListenersError
        listener = Listener(wanted)
        if self._closed:
            listener.close()
        self.listeners += (listener,)
        try:
            yield listener
        finally:
            self.listeners = tuple(each for each in self.listeners if each is not listener)

    def close(self) -> None:
        """End every listener, once it has got what was shown."""
        self._closed = True
        for listener in self.listeners:
            listener.close()
