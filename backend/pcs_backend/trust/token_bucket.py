"""The rate limit (contract §4 step 2)."""

from __future__ import annotations

import math

from pcs_backend.trust.quota import Quota
from pcs_core.ports import MonotonicClock


class TokenBucket:
    """A token bucket: `rate` records a second, bursts as large as one second's worth (at least one record)."""

    def __init__(self, rate: float, monotonic: MonotonicClock, name: str = "records") -> None:
        """Start full.

        Args:
            rate: Records a second; 0 means no limit.
            monotonic: Seconds.
            name: Of the limit, as senders are told.
        """
        self._name = name
        self._rate = rate
        self._burst = max(1.0, rate)
        self._tokens = self._burst
        self._monotonic = monotonic
        self._filled_at_s = monotonic()

    @property
    def quota(self) -> Quota:
        """The limit, and what is left of it: whole records in the whole seconds in which they come back."""
        records = int(self._burst)
        return Quota(self._name, records, math.ceil(records / self._rate), max(0, int(self._tokens)))

    def take(self, records: int) -> int:
        """Take as many tokens if they are there. More than the bucket holds are given when it is full, and owed.

        Returns:
            0 if they were; else whole seconds, at least 1, after which they would be.
        """
        if not self._rate:
            return 0
        now_s = self._monotonic()
        self._tokens = min(self._burst, self._tokens + (now_s - self._filled_at_s) * self._rate)
        self._filled_at_s = now_s
        wanted = min(records, self._burst)
        if self._tokens >= wanted:
            self._tokens -= records
            return 0
        return max(1, math.ceil((wanted - self._tokens) / self._rate))
