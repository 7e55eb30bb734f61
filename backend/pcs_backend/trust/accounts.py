"""What was spent of rates and daily numbers: kept in this process, or in memory that the workers of a service share.

Shared, an account is read, changed and written back under a lock of the kernel, so that the limits hold for all workers
together as exactly as for one: no worker has a part of its own that it could spend beyond them. The lock is held for some
microseconds, and the kernel lets go of it when a worker dies.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import mmap
import os
import struct
from collections.abc import Callable
from typing import Protocol

ACCOUNTS_MAX = 4_096
"""Accounts that workers share, above TENANTS_MAX and what earlier key files named."""

ACCOUNTS_TRIED_MAX = 16
"""Places looked at for one account; if others have all of them, the one not used for longest makes room."""

_LAYOUT = struct.Struct("<16sdddqq")
_SLOT_BYTES = 64  # one line of the processor's cache, which holds the layout


class Account:
    """What was spent of one rate, and of one daily number.

    Attributes:
        rate: Records a second, as last asked for; 0 for an account that was never drawn on.
        tokens: What is left, below 0 for what is owed.
        filled_at_s: When that was; monotonic.
        day: Which day the next is of.
        spent: Records of that day.
    """

    __slots__ = ("day", "filled_at_s", "rate", "spent", "tokens")

    def __init__(
        self, rate: float = 0.0, tokens: float = 0.0, filled_at_s: float = 0.0, day: int = 0, spent: int = 0
    ) -> None:
        """An account of its own, full and unspent, unless told otherwise."""
        self.rate = rate
        self.tokens = tokens
        self.filled_at_s = filled_at_s
        self.day = day
        self.spent = spent

    @property
    def left(self) -> int:
        """Whole records that may come at once, as of the last draw."""
        return max(0, int(self.tokens))

    def draw(self, rate: float, now_s: float, records: int) -> int:
        """Take tokens for records if they are there, all or none.

        A burst is as large as one second's worth, at least one record. What is more than a burst passes when the bucket
        is full, and is owed: nothing else passes before that was made up for. When the rate changes, what was spent stays
        spent.

        Args:
            rate: Records a second, above 0.
            now_s: Monotonic.
            records: How many.

        Returns:
            0 if they were there; else whole seconds, at least 1, after which they would be.
        """
        burst = max(1.0, rate)
        if self.rate != rate:
            self.tokens += burst - (max(1.0, self.rate) if self.rate else 0.0)
            self.rate = rate
        self.tokens = min(burst, self.tokens + max(0.0, now_s - self.filled_at_s) * rate)
        self.filled_at_s = max(self.filled_at_s, now_s)
        needed = min(float(records), burst)
        if self.tokens >= needed:
            self.tokens -= records
            return 0
        return max(1, math.ceil((needed - self.tokens) / rate))


class Accounts(Protocol):
    """Accounts by name."""

    def change(self, name: str, apply: Callable[[Account], int]) -> int:
        """Do something with an account that nobody else does anything with meanwhile. Returns what it returns."""
        ...


class OwnAccounts:
    """Accounts of this process."""

    def __init__(self) -> None:
        """Nothing is spent."""
        self._accounts: dict[str, Account] = {}

    def change(self, name: str, apply: Callable[[Account], int]) -> int:
        """As `Accounts.change`."""
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = Account()
        return apply(account)


class SharedAccounts:
    """Accounts in memory that processes share, by a handle that they inherited."""

    def __init__(self, handle: int) -> None:
        """Take a handle of `new_shared_accounts`."""
        self._handle = handle
        self._memory = mmap.mmap(handle, ACCOUNTS_MAX * _SLOT_BYTES)

    def change(self, name: str, apply: Callable[[Account], int]) -> int:
        """As `Accounts.change`, for all processes. `apply` must be quick: others wait."""
        key = hashlib.blake2b(name.encode(), digest_size=16).digest()
        fcntl.lockf(self._handle, fcntl.LOCK_EX)
        try:
            offset, account = self._find(key)
            result = apply(account)
            fields = (account.rate, account.tokens, account.filled_at_s, account.day, account.spent)
            _LAYOUT.pack_into(self._memory, offset, key, *fields)
        finally:
            fcntl.lockf(self._handle, fcntl.LOCK_UN)
        return result

    def _find(self, key: bytes) -> tuple[int, Account]:
        """Return an account and its place; a new one where it has none yet."""
        first = int.from_bytes(key[:8], "little")
        oldest, oldest_at_s = 0, math.inf
        for step in range(ACCOUNTS_TRIED_MAX):
            offset = (first + step) % ACCOUNTS_MAX * _SLOT_BYTES
            found, *fields = _LAYOUT.unpack_from(self._memory, offset)
            if found == key:
                return offset, Account(*fields)
            if not any(found):
                return offset, Account()
            if fields[2] < oldest_at_s:
                oldest, oldest_at_s = offset, fields[2]
        return oldest, Account()


def new_shared_accounts() -> int:
    """Make memory for `SharedAccounts`, nothing of it spent. Returns the handle."""
    handle = os.memfd_create("pcs-accounts")
    os.ftruncate(handle, ACCOUNTS_MAX * _SLOT_BYTES)
    return handle
