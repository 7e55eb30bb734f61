"""What is to be sent and when, and whether delivery pauses. Touches neither network nor disk.

A record that is on its way is not here: whoever took it puts it back, or it is settled.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from pcs_core.ports import MonotonicClock

Due = tuple[float, int]
"""When a record is due, on the monotonic clock, and its number."""


class Agenda:
    """Numbers of records by the time of their next attempt.

    Attributes:
        paused: Why delivery pauses, `None` while it does not.
    """

    def __init__(self, monotonic: MonotonicClock) -> None:
        """Begin with nothing."""
        self._monotonic = monotonic
        self._queue: list[Due] = []
        self._held: list[int] = []
        self._probe: int | None = None
        self._not_before_s = float("-inf")
        self._stopped = False
        self.paused: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to try, what is held back by a pause or a stop aside."""
        return not self._queue and self._probe is None

    def add(self, seq: int) -> None:
        """Take a new record; while paused it is tried once, alone, to see whether things are better."""
        if self.paused is not None:
            self._probe = seq
        self.put([(self._monotonic(), seq)])

    def put(self, due: Sequence[Due]) -> None:
        """Take records for a later attempt; while paused or stopped, hold them."""
        if self.paused is not None or self._stopped:
            self._held += [seq for _, seq in due]
            return
        for each in due:
            heapq.heappush(self._queue, each)

    def take(self, records: int, *, in_flight: bool) -> list[Due]:
        """Return what the next request is to hold, the longest due first; nothing if nothing is due.

        Args:
            records: How many it may hold.
            in_flight: Whether a request is on its way; while paused, there is one at a time.
        """
        now_s = self._monotonic()
        if self.paused is not None:
            if self._probe is None or in_flight:
                return []
            seq, self._probe = self._probe, None
            self._held.remove(seq)
            return [(now_s, seq)]
        due: list[Due] = []
        if self._not_before_s <= now_s:
            while self._queue and len(due) < records and self._queue[0][0] <= now_s:
                due.append(heapq.heappop(self._queue))
        return due

    def wait_s(self) -> float | None:
        """Return how long until something is due, ≥ 0; `None` if nothing will be by itself."""
        if self.paused is not None or not self._queue:
            return None
        return max(0.0, max(self._queue[0][0], self._not_before_s) - self._monotonic())

    def hold_until(self, time_s: float) -> None:
        """Let nothing be due before that time, on the monotonic clock."""
        self._not_before_s = max(self._not_before_s, time_s)

    def stop(self) -> None:
        """Hold everything for good."""
        self._stopped = True
        self._hold_all()
        self._probe = None

    def pause(self, why: str) -> None:
        """Hold everything until delivery goes on."""
        self.paused = why
        self._hold_all()

    def resume(self) -> None:
        """Let everything that is held be due now, unless stopped."""
        self.paused = None
        if self._stopped:
            return
        held, self._held, self._probe = self._held, [], None
        now_s = self._monotonic()
        self.put([(now_s, seq) for seq in held])

    def _hold_all(self) -> None:
        self._held += [seq for _, seq in self._queue]
        self._queue.clear()
