"""What waits while a store is asked is put together into the next call.

A call that has a place among `CALLS_MAX` begins at once, so that an idle server stays fast; behind them whatever comes
gathers, up to `BATCH_MAX` outcomes a call, and concurrency makes the batches. Nothing is held across an await: who waits
waits for a future of its own. A caller that gives up takes nothing from the others, and what it asked for may be stored
all the same, as with a call that timed out. What a call raises is raised to each of its callers, except that an outcome
that cannot be read is told only to who asked for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, cast

from pcs_backend.dedup.store import Candidate, Placed
from pcs_backend.errors import OutcomeUnreadableError, StoreUnavailableError

BATCH_MAX = 1_024
"""Outcomes that callers' batches are put together up to; a single larger one goes alone."""

CALLS_MAX = 2
"""Calls on their way at once: one is prepared and answered while the store works on the other."""

WAITING_MAX = 100_000
"""Outcomes that wait for a call at most; beyond it the store counts as too slow."""


class _Waiting(NamedTuple):
    candidates: Sequence[Candidate]
    answer: asyncio.Future[list[Placed]]


class Batches:
    """Puts the batches of concurrent callers together."""

    def __init__(self, put_first: Callable[[Sequence[Candidate]], Awaitable[list[Placed]]]) -> None:
        """Take what asks the store; it must end by itself, within a time of its own."""
        self._put_first = put_first
        self._waiting: deque[_Waiting] = deque()
        self._waiting_outcomes = 0
        self._calls: set[asyncio.Task[None]] = set()
        self._gathering = False  # whether a call has begun that has not yet taken what waits

    async def put_first(self, candidates: Sequence[Candidate]) -> list[Placed]:
        """As `DedupStore.put_first`."""
        if not candidates:
            return []
        if self._waiting_outcomes + len(candidates) > WAITING_MAX and self._waiting:
            raise StoreUnavailableError("too many outcomes wait for the dedup store")
        answer: asyncio.Future[list[Placed]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(candidates, answer))
        self._waiting_outcomes += len(candidates)
        self._begin()
        return await answer

    async def close(self) -> None:
        """Cancel the calls under way and wait for their end; whoever waits is told that the store is down."""
        waiting, self._waiting, self._waiting_outcomes = self._waiting, deque(), 0
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        self._gathering = False
        _answer(waiting, [], StoreUnavailableError("the dedup store was closed"))

    def _begin(self) -> None:
        if self._waiting and not self._gathering and len(self._calls) < CALLS_MAX:
            self._gathering = True
            call = asyncio.create_task(self._call(), name="store-put-first")
            self._calls.add(call)
            call.add_done_callback(self._end)

    def _end(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._begin()

    async def _call(self) -> None:
        self._gathering = False
        taken = self._take()
        self._begin()  # of what was too much for this one
        if not taken:  # all have given up
            return
        try:
            placed = await self._put_first([each for one in taken for each in one.candidates])
        except OutcomeUnreadableError as error:
            _answer(taken, error.placed, error)
        except Exception as error:  # noqa: BLE001 - each caller is told, and judges it
            _answer(taken, [], error)
        except asyncio.CancelledError:
            _answer(taken, [], StoreUnavailableError("the dedup store was closed"))
            raise
        else:
            _answer(taken, placed)

    def _take(self) -> list[_Waiting]:
        """Take what goes into one call: in the order it came, the first whatever its size."""
        taken: list[_Waiting] = []
        size = 0
        while self._waiting and (not taken or size + len(self._waiting[0].candidates) <= BATCH_MAX):
            each = self._waiting.popleft()
            self._waiting_outcomes -= len(each.candidates)
            if not each.answer.done():  # its caller has not given up
                taken.append(each)
                size += len(each.candidates)
        return taken


def _answer(
    taken: Sequence[_Waiting], placed: Sequence[Placed | None], error: Exception | None = None
) -> None:
    """Give each caller what became of its candidates, or the error where that is not known of all of them."""
    start = 0
    for candidates, answer in taken:
        own = placed[start : start + len(candidates)]
        start += len(candidates)
        if answer.done():  # its caller has given up
            continue
        if len(own) == len(candidates) and None not in own:
            answer.set_result(cast("list[Placed]", list(own)))
        elif isinstance(error, OutcomeUnreadableError):
            answer.set_exception(OutcomeUnreadableError(str(error), own))
        else:
            assert error is not None
            answer.set_exception(error)
