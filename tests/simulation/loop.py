"""An event loop in virtual time: when nothing can run, the clock jumps to the next timer.

It has no selector, no threads and no sockets: what asks for one of them fails. Connections come from a simulated network.
Everything that may run at one moment runs in the order it was asked for, so one seed gives one history.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

TURNS_WITHOUT_TIME_MAX = 100_000
"""Turns of the loop at one moment; more of them are an endless loop."""


class StuckError(Exception):
    """Nothing is left that could ever run, or everything runs without time passing."""


class OrderedTask(asyncio.Task):  # type: ignore[type-arg]
    """A task whose hash is its number, so that a set of tasks has the same order in every run."""

    _numbers = itertools.count()

    def __init__(self, coro: Coroutine[Any, Any, Any], **options: Any) -> None:
        self._number = next(OrderedTask._numbers)
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module.

    Attributes:
        network: What makes connections; set by its owner.
        on_task: Told of every task, with the context it runs in.
    """

    def __init__(self) -> None:
        super().__init__()
        OrderedTask._numbers = itertools.count()  # so that a run does not depend on the ones before it
        self._now_s = 0.0
        self._turns = 0
        self.network: Any = None
        self.on_task: Callable[[asyncio.Task[Any], contextvars.Context], None] | None = None
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        """Virtual seconds since the start."""
        return self._now_s

    def _run_once(self) -> None:
        """One turn: let the clock jump if nothing is ready, then run what is. asyncio's own, less what asks a selector."""
        ready, scheduled = self._ready, self._scheduled
        while scheduled and scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(scheduled)._scheduled = False
        if ready:
            self._turns += 1
            if self._turns > TURNS_WITHOUT_TIME_MAX:
                raise StuckError("the loop turns without time passing")
        elif not scheduled:
            raise StuckError("nothing is left that could run")
        else:
            self._turns = 0
            self._now_s = max(self._now_s, scheduled[0]._when)
        while scheduled and scheduled[0]._when <= self._now_s:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _write_to_self(self) -> None:
        raise StuckError("something runs on a thread")

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """Refuse: threads are a port."""
        raise StuckError("something wants a thread")

    async def create_server(
        self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any
    ) -> Any:
        """Listen in the simulated network."""
        return self.network.listen(protocol_factory, host, port, options.get("sock"))

    async def create_unix_connection(self, protocol_factory: Any, path: Any = None, **options: Any) -> Any:
        """Connect in the simulated network; `path` is what the network knows the other side by."""
        del options
        return await self.network.connect(protocol_factory, path)

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coro: Any, context: contextvars.Context | None = None
    ) -> asyncio.Task[Any]:
        task = OrderedTask(coro, loop=loop, context=context)
        if self.on_task is not None:
            self.on_task(task, contextvars.copy_context() if context is None else context)
        return task
