"""What tenants may send: a rate and a number a day, counted after the signature, so that no stranger spends them.

Counts are those of the service, all its workers together, and begin anew with it; replicas do not share them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from pcs_backend.trust.accounts import Account, Accounts, OwnAccounts
from pcs_backend.trust.quota import Quota, rate_quota
from pcs_core.keyring_file import TenantLimits
from pcs_core.ports import MonotonicClock, WallClock

_DAY_S = 86_400
_NO_LIMITS = TenantLimits()


class TenantLimiter:
    """Counts the records of every tenant that has limits."""

    def __init__(
        self,
        limits: Callable[[], Mapping[str, TenantLimits]],
        now: WallClock,
        monotonic: MonotonicClock,
        accounts: Accounts | None = None,
    ) -> None:
        """Start with everything unspent.

        Args:
            limits: The limits that hold now.
            now: Tells the day, UTC.
            monotonic: Seconds.
            accounts: Where it is kept what was spent; of its own by default.
        """
        self._limits = limits
        self._now = now
        self._monotonic = monotonic
        self._accounts = OwnAccounts() if accounts is None else accounts

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
        if not limits.daily and not limits.rate:
            return 0
        return self._accounts.change(tenant, lambda account: self._take(account, limits))

    def _take(self, account: Account, limits: TenantLimits) -> int:
        if limits.daily:
            day, since_s = divmod(self._now(), _DAY_S)
            if day != account.day:
                account.day, account.spent = int(day), 0
            if account.spent >= limits.daily:
                return max(1, math.ceil(_DAY_S - since_s))
        if limits.rate and (wait_s := account.draw(limits.rate, self._monotonic(), 1)):
            return wait_s
        if limits.daily:
            account.spent += 1
        return 0

    def quota(self, tenant: str) -> Quota:
        """Return the limit that refused a record of this tenant just now."""
        limits = self._limits().get(tenant, _NO_LIMITS)
        today = int(self._now() // _DAY_S)
        spent = self._accounts.change(tenant, lambda account: account.spent if account.day == today else 0)
        if limits.daily and spent >= limits.daily:
            return Quota("tenant-day", limits.daily, _DAY_S)
        left = self._accounts.change(tenant, lambda account: account.left)
        return rate_quota("tenant", limits.rate, left)
