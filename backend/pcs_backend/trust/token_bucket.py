"""The rate limit (contract §4 step 2)."""

from __future__ import annotations

from pcs_backend.trust.accounts import Accounts, OwnAccounts
from pcs_backend.trust.quota import Quota, rate_quota
from pcs_core.ports import MonotonicClock

_ALL_SENDERS = "*"
"""Account of what all senders together may send; no tenant can be named so."""


class TokenBucket:
    """A token bucket: `rate` records a second, bursts as large as one second's worth (at least one record)."""

    def __init__(self, rate: float, monotonic: MonotonicClock, accounts: Accounts | None = None) -> None:
        """Start full.

        Args:
            rate: Records a second; 0 means no limit.
            monotonic: Seconds.
            accounts: Where it is kept what was taken; of its own by default.
        """
        self._rate = rate
        self._monotonic = monotonic
        self._accounts = OwnAccounts() if accounts is None else accounts

    @property
    def quota(self) -> Quota:
        """The limit, and what is left of it."""
        left = self._accounts.change(_ALL_SENDERS, lambda account: account.left)
        return rate_quota("records", self._rate, left)

    def take(self, records: int) -> int:
        """Take as many tokens, all or none. More than a burst passes when the bucket is full, and the rest is owed.

        Returns:
            0 if they were there; else whole seconds, at least 1, after which they would be.
        """
        if not self._rate:
            return 0
        return self._accounts.change(
            _ALL_SENDERS, lambda account: account.draw(self._rate, self._monotonic(), records)
        )
