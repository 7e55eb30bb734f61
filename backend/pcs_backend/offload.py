"""Leaving the event loop: a thread for what blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from pcs_core.ports import Offload

T = TypeVar("T")


class OwnedOffload(Offload, Protocol):
    """An offload that its owner ends."""

    def close(self) -> None:
        """Wait for what runs, then give the thread back."""


class ThreadOffload:
    """One thread, so that calls run one after the other, in order."""

    def __init__(self, name: str) -> None:
        """Name the thread."""
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, call: Callable[[], T]) -> T:
        """Return what the call returns, or raise what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    def close(self) -> None:
        """Wait for what runs, then end the thread."""
        self._executor.shutdown()
