"""Leaving the event loop: a thread for what blocks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from pcs_core.ports import Offload

T = TypeVar("T")


class OwnedOffload(Offload, Protocol):
    """An offload that its owner ends."""

    def close(self) -> None:
        """Wait for what runs, then give the thread back."""


# The results of unlike calls go through one queue; `run` alone knows the type of its own.
_Call = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class ThreadOffload:
    """One thread, so that calls run one after the other, in order. It starts with the first call.

    A `ThreadPoolExecutor` of one thread does the same with a second future, two locks and a semaphore a call, which cost
    a third of what a group of requests pays for its sync (ADR 23).
    """

    def __init__(self, name: str) -> None:
        """Name the thread."""
        # An owner that cannot close it, because the process ends in another way, must not wait for it for ever.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._closed = False

    async def run(self, call: Callable[[], T]) -> T:
        """Return what the call returns, or raise what it raises.

        Raises:
            RuntimeError: It was closed.
        """
        if self._closed:
            raise RuntimeError("the thread has ended")
        if self._thread.ident is None:
            self._thread.start()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._calls.put((loop, done, call))
        return await done

    def close(self) -> None:
        """Wait for what runs and what waits, then end the thread."""
        if self._closed:
            return
        self._closed = True
        if self._thread.ident is not None:
            self._calls.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (waiting := self._calls.get()) is not None:
            loop, done, call = waiting
            result, failure = None, None
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(_settle, done, result, failure)
            del waiting, done, call, result, failure  # nothing is kept alive while the thread waits


def _settle(done: asyncio.Future[Any], result: object, failure: BaseException | None) -> None:
    if done.done():  # whoever waited was cancelled
        return
    if failure is None:
        done.set_result(result)
    else:
        done.set_exception(failure)
