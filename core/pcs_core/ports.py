"""Ports both sides share: what a simulation replaces to run the shipped code in virtual time.

Clocks, sleeping and randomness are plain callables, so that `time.time`, `asyncio.sleep` and `os.urandom` fit as they
are. Files are a port of the log (`pcs_core.wal.files`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

T = TypeVar("T")

WallClock = Callable[[], float]
"""Seconds since 1970; may jump."""

MonotonicClock = Callable[[], float]
"""Seconds from an arbitrary start; never goes back."""

Sleep = Callable[[float], Awaitable[object]]
"""Waits that many seconds."""

RandomBytes = Callable[[int], bytes]
"""That many unpredictable bytes."""


class Offload(Protocol):
    """Runs a blocking call off the event loop: fsync, hashing of large bodies, numpy."""

    async def run(self, call: Callable[[], T]) -> T:
        """Return what `call()` returns, or raise what it raises."""
        ...
