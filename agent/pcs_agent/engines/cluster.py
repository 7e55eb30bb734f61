"""What the engines of clusters share: tasks that end in a callback, and a queue from there to whoever waits."""

from __future__ import annotations

import queue
from typing import Generic, TypeVar

from pcs_agent.engines.port import Done, EngineClosedError, Lost

R = TypeVar("R")

TASKS_PER_CORE_MAX = 2
"""One is worked on, one is on its way."""


class Arrivals(Generic[R]):
    """Results in the order in which they come, from callbacks on any thread."""

    def __init__(self) -> None:
        """Begin without any."""
        self._done: queue.SimpleQueue[Done[R] | None] = queue.SimpleQueue()
        self.closed = False

    def put(self, number: int, result: R | Lost) -> None:
        """Take what became of a task."""
        self._done.put(Done(number, result))

    def get(self) -> Done[R]:
        """Return the next, or raise `EngineClosedError` once closed."""
        done = self._done.get()
        if done is None or self.closed:
            self.close()
            raise EngineClosedError("the engine was closed")
        return done

    def close(self) -> None:
        """Wake who waits."""
        self.closed = True
        self._done.put(None)
