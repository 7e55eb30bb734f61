"""Concurrent callers put together: what comes while one call is at its first step goes through the next one as a whole.

There is no task and no clock: the caller that finds nobody under way goes at once, with what it has. Whoever comes
meanwhile waits, and when it is their turn the first of them goes with all that wait. So an idle service answers at once,
and concurrency makes batches.

The rest of a call overlaps with the first step of the next. Or calls take turns: the rest computes, and then waits for
somebody else, and only between the two it hands over to the next. There are mostly two groups then, where more and smaller
ones would each pay what a group costs; and where both wait for one disk, it writes for both at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from pcs_backend.errors import InboxUnavailableError

T = TypeVar("T")
S = TypeVar("S")
R = TypeVar("R")

GATHERED_MAX = 1_024
"""Items that go together, unless one caller has more."""

GATHERED_BYTES_MAX = 16 * 1024 * 1024
"""Bytes of them, likewise."""

WAITING_MAX = 16_384
"""Items that may wait; beyond it callers are refused at once."""

WAITING_BYTES_MAX = 64 * 1024 * 1024
"""Bytes of them, likewise."""

HAND_OVER_TURNS_MAX = 5
"""Turns of the event loop in which a call that hands over looks for others: what stands in the sockets is read in them."""


class _Waiting(NamedTuple, Generic[T, R]):
    """A caller.

    Attributes:
        items: What it brings.
        size_bytes: Of all of it.
        done: The results, or `None` when it is this caller's turn to go.
    """

    items: Sequence[T]
    size_bytes: int
    done: asyncio.Future[list[R] | None]


class Gathering(Generic[T, S, R]):
    """Runs two steps over what concurrent callers bring."""

    def __init__(
        self,
        first: Callable[[Sequence[T]], Awaitable[S]],
        rest: Callable[[Sequence[T], S], Awaitable[list[R]]],
        size_of: Callable[[T], int],
        *,
        takes_turns: bool,
    ) -> None:
        """Take the steps.

        Args:
            first: Runs one at a time.
            rest: Given the items and what `first` returned, returns a result an item, in order. Where calls take turns it
                calls `hand_over` or `let_in` before it waits; else the next go when it has ended.
            size_of: Bytes of an item.
            takes_turns: Whether the next wait until the rest hands over.
        """
        self._first = first
        self._rest = rest
        self._size_of = size_of
        self._takes_turns = takes_turns
        self._waiting: deque[_Waiting[T, R]] = deque()
        self._waiting_items = self._waiting_bytes = 0
        self._is_taken = False
        self._is_held = False

    async def run(self, items: Sequence[T]) -> list[R]:
        """Return the results of these items, in order.

        Raises:
            InboxUnavailableError: Too many wait already, or the caller that went for all was cut short.
        """
        if not self._is_taken:
            self._is_taken = True
            return await self._go(items, [])
        size_bytes = sum(map(self._size_of, items))
        if (
            self._waiting_items + len(items) > WAITING_MAX
            or self._waiting_bytes + size_bytes > WAITING_BYTES_MAX
        ):
            raise InboxUnavailableError("as many requests wait as are allowed")
        own: _Waiting[T, R] = _Waiting(items, size_bytes, asyncio.get_running_loop().create_future())
        self._waiting.append(own)
        self._waiting_items += len(items)
        self._waiting_bytes += size_bytes
        try:
            results = await own.done
        except asyncio.CancelledError:
            if own in self._waiting:
                self._waiting.remove(own)
                self._leave(own)
            elif not own.done.cancelled() and own.done.exception() is None and own.done.result() is None:
                self._pass_on()  # it was this caller's turn
            raise
        return await self._go(items, self._take(own)) if results is None else results

    async def hand_over(self, count: int) -> None:
        """Let the next go, once as many wait as go now, or nobody else comes at once.

        Args:
            count: Items that go now.
        """
        if count > 1:  # one alone has nobody to share with
            for _ in range(HAND_OVER_TURNS_MAX):
                if not self._is_held or self._waiting_items >= count:
                    break
                await asyncio.sleep(0)
        self.let_in()

    def let_in(self) -> None:
        """Let the next go, if they were kept waiting until a call had computed. Whoever says so: it is no lock."""
        if self._is_held:
            self._is_held = False
            self._pass_on()

    def _take(self, own: _Waiting[T, R]) -> list[_Waiting[T, R]]:
        """Take those that go with this caller."""
        count, size_bytes = len(own.items), own.size_bytes
        taken = []
        while self._waiting:
            following = self._waiting[0]
            count += len(following.items)
            size_bytes += following.size_bytes
            if count > GATHERED_MAX or size_bytes > GATHERED_BYTES_MAX:
                break
            self._leave(self._waiting.popleft())
            taken.append(following)
        return taken

    def _pass_on(self) -> None:
        """Give the first step to the caller that waits longest, or free it."""
        while self._waiting:
            following = self._waiting.popleft()
            self._leave(following)
            if not following.done.done():
                following.done.set_result(None)
                return
        self._is_taken = False

    def _leave(self, waiting: _Waiting[T, R]) -> None:
        self._waiting_items -= len(waiting.items)
        self._waiting_bytes -= waiting.size_bytes

    async def _go(self, own: Sequence[T], others: Sequence[_Waiting[T, R]]) -> list[R]:
        items = [*own, *(item for each in others for item in each.items)]
        try:
            try:
                state = await self._first(items)
            except BaseException:
                self._pass_on()
                raise
            self._is_held = True
            if not self._takes_turns:
                self.let_in()
            try:
                results = await self._rest(items, state)
            finally:
                self.let_in()
        except BaseException:
            for each in others:
                if not each.done.done():
                    each.done.set_exception(InboxUnavailableError("the request was cut short"))
                    each.done.exception()  # a caller that went away leaves nobody to ask for it
            raise
        position = len(own)
        for each in others:
            if not each.done.done():
                each.done.set_result(results[position : position + len(each.items)])
            position += len(each.items)
        return results[: len(own)]
