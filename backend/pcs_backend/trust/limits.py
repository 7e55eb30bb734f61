"""What tenants may send: a rate and a number a day, counted after the signature, so that no stranger spends them.

Counts are this process's own and begin anew with it; replicas do not share them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from pcs_backend.trust.quota import Quota
from pcs_backend.trust.token_bucket import TokenBucket
from pcs_core.keyring_file import TenantLimits
from pcs_core.ports import MonotonicClock, WallClock

_DAY_S = 86_400
_NO_LIMITS = TenantLimits()


class TenantLimiter:
    """Counts the records of every tenant that has limits."""

    def __init__(
        self, limits: Callable[[], Mapping[str, TenantLimits]], now: WallClock, monotonic: MonotonicClock
    ) -> None:
        """Start with everything unspent.

        Args:
            limits: The limits that hold now.
            now: Tells the day, UTC.
            monotonic: Seconds.
        """
        self._limits = limits
        self._now = now
        self._monotonic = monotonic
        self._buckets: dict[str, tuple[float, TokenBucket]] = {}
        self._day = 0
        self._spent: dict[str, int] = {}

    @property
    def limited(self) -> Mapping[str, TenantLimits]:
        """The tenants that have limits now."""
        return self._limits()

    def take(self, tenant: str) -> int:
        """Take one record of a tenant's.

        Returns:
            0 if it may be taken; else whole seconds, at least 1, after which it may.
        """
        limits = self._limits().get(tenant, _NO_LIMITS)
        if limits.daily:
            day, since_s = divmod(self._now(), _DAY_S)
            if day != self._day:
                self._day = int(day)
                self._spent.clear()
            if self._spent.get(tenant, 0) >= limits.daily:
                return max(1, math.ceil(_DAY_S - since_s))
        if limits.rate and (wait_s := self._bucket(tenant, limits.rate).take(1)):
            return wait_s
        if limits.daily:
            self._spent[tenant] = self._spent.get(tenant, 0) + 1
        return 0

    def quota(self, tenant: str) -> Quota:
        """Return the limit that refused a record of this tenant just now."""
        limits = self._limits().get(tenant, _NO_LIMITS)
        if limits.daily and self._spent.get(tenant, 0) >= limits.daily:
            return Quota("tenant-day", limits.daily, _DAY_S)
        return self._bucket(tenant, limits.rate).quota

    def _bucket(self, tenant: str, rate: float) -> TokenBucket:
        known = self._buckets.get(tenant)
        if known is None or known[0] != rate:
            known = self._buckets[tenant] = (rate, TokenBucket(rate, self._monotonic, "tenant"))
        return known[1]
