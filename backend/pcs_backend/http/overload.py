"""How many requests may be under way: all that come for a moment, hundreds for longer, few while the event loop never rests.

A request that waits for the disk or for a store costs nothing while it waits, so a slow store may have hundreds of them.
One that waits for the processor makes every other wait too. What tells the two apart is whether the loop's thread has
anything to wait for. A burst is served, however large; a queue that stands is not, wherever it stands: beyond hundreds of
requests disk and store are what makes each wait, and the more there are the longer. Then requests are refused until it is
gone. `Overload` is pure: it is told the time, and how busy the thread was.
"""

from __future__ import annotations

import os
import time

REQUESTS_MIN = 64
"""Requests that are always taken, however busy the loop is."""

REQUESTS_STANDING_MAX = 512
"""Requests that may be under way for longer than a burst while the loop rests now and then."""

TICK_INTERVAL_S = 0.01
"""How often the loop is looked at while more than `REQUESTS_MIN` are under way."""

BUSY_SHARE = 0.9
"""From this share of the time on the loop counts as busy: some of it goes to the thread that writes the log."""

BURST_S = 0.25
"""How long it may be busy, or more than `REQUESTS_STANDING_MAX` be under way, before anything is refused."""

_SHRINK = 0.9
_GROW = 1.1
_SCHEDSTAT = "/proc/thread-self/schedstat"
_SCHEDSTAT_BYTES = 128


class BusyClock:
    """Tells how long the one thread that asks it ran or wanted to run, in seconds. Close it.

    Time in which others had the processor is in it: the requests wait for that as well. Where Linux does not tell, it is
    the time in which the thread ran.
    """

    def __init__(self) -> None:
        """Open nothing yet: the file is the thread's that opens it."""
        self._handle: int | None = None
        self._is_told = True

    def __call__(self) -> float:
        """Return it."""
        if self._is_told:
            try:
                if self._handle is None:  # which takes longer than all else, and so is done once
                    self._handle = os.open(_SCHEDSTAT, os.O_RDONLY | os.O_CLOEXEC)
                ran_ns, waited_ns, _ = map(int, os.pread(self._handle, _SCHEDSTAT_BYTES, 0).split())
                return (ran_ns + waited_ns) / 1e9
            except (OSError, ValueError):
                self._is_told = False
        return time.thread_time()

    def close(self) -> None:
        """Give the file back."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


class Overload:
    """Counts requests under way, and adapts how many may be.

    Attributes:
        requests: Taken and not answered.
        limit: Requests that may be under way now.
    """

    def __init__(self, requests_max: int) -> None:
        """Set the bound that holds however idle the loop is.

        Args:
            requests_max: Requests under way at once, at least `REQUESTS_MIN`.
        """
        self._requests_max = requests_max
        self.requests = 0
        self.limit = requests_max
        self._full_since_s: float | None = None

    @property
    def is_full(self) -> bool:
        """Whether a request that comes now is refused."""
        return self.requests >= self.limit

    @property
    def needs_ticks(self) -> bool:
        """Whether `tick` is to be called."""
        return self.requests >= REQUESTS_MIN or self.limit < self._requests_max

    def enter(self) -> None:
        """Count a request that was taken."""
        self.requests += 1

    def leave(self) -> None:
        """Count its answer."""
        self.requests -= 1

    def tick(self, now_s: float, busy_share: float) -> None:
        """Adapt.

        Args:
            now_s: Time.
            busy_share: Share of the time since the last call in which the loop's thread ran or wanted to.
        """
        is_busy = busy_share >= BUSY_SHARE
        if not is_busy and self.requests <= REQUESTS_STANDING_MAX:
            self._full_since_s = None
            self.limit = min(self._requests_max, int(self.limit * _GROW) + 1)
            return
        if self._full_since_s is None:
            self._full_since_s = now_s
        # One that refused lately has had its burst.
        if self.limit < self._requests_max or now_s - self._full_since_s >= BURST_S:
            floor = REQUESTS_MIN if is_busy else REQUESTS_STANDING_MAX
            self.limit = max(floor, int(min(self.limit, self.requests) * _SHRINK))
