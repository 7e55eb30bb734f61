"""A store behind a time limit and a switch: a store known to be down is not asked, so requests fail fast.

Outcomes of concurrent callers go in one call (`batching`); the time limit is that call's.

The monitor's ping is what switches it on again. `is_up` is what `flk_store_up` shows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from pcs_backend.conformal.guarded_calibrations import GuardedCalibrations
from pcs_backend.dedup.batching import Batches
from pcs_backend.dedup.store import Candidate, Conflict, DedupStore, Escalation, Placed
from pcs_backend.errors import OutcomeUnreadableError, StoreFullError, StoreUnavailableError
from pcs_backend.outcome import Key, Outcome
from pcs_core.ports import Sleep

T = TypeVar("T")

STORE_TIMEOUT_S = 5.0
"""Longest wait for one call. What the store does after it is found out by asking again: first write still wins."""

OPEN_TIMEOUT_S = 75.0
"""Longest wait for opening: above a store's own limits for connecting and migrating, so that those speak first."""

PING_INTERVAL_UP_S = 5.0
PING_INTERVAL_DOWN_S = 0.5


class GuardedStore:
    """Wraps any store; a `DedupStore` itself.

    Attributes:
        calibrations: The store's, behind the same time limit and switch.
        is_up: Whether the last call or ping succeeded.
    """

    def __init__(self, store: DedupStore, sleep: Sleep, timeout_s: float = STORE_TIMEOUT_S) -> None:
        """Take a store that is not open yet."""
        self._store = store
        self._sleep = sleep
        self._timeout_s = timeout_s
        self._is_open = False
        self._batches = Batches(lambda candidates: self._asked(lambda: store.put_first(candidates)))
        self.calibrations = GuardedCalibrations(store.calibrations, self._asked)
        self.is_up = False

    async def open(self) -> None:
        """Open the store, or ask it if it is open already. Only an answer makes it up."""
        if self._is_open:
            await self._limited(self._store.ping())
        else:
            await self._limited(self._store.open(), OPEN_TIMEOUT_S)
            self._is_open = True
        self.is_up = True

    async def close(self) -> None:
        """Close the store."""
        self.is_up = False
        await self._batches.close()
        await self._store.close()

    async def ping(self) -> None:
        """As `DedupStore.ping`; opens the store if that has not worked yet."""
        await self.open()

    async def monitor(self) -> None:
        """Ping for ever: now and then while the store is up, often from the moment a call finds it down."""
        while True:
            try:
                await self.ping()
            except StoreUnavailableError:
                self.is_up = False
            slept_s = 0.0
            while slept_s == 0 or (self.is_up and slept_s < PING_INTERVAL_UP_S):
                await self._sleep(PING_INTERVAL_DOWN_S)
                slept_s += PING_INTERVAL_DOWN_S

    async def get(self, keys: Sequence[Key]) -> list[Outcome | None]:
        """As `DedupStore.get`."""
        return await self._asked(lambda: self._store.get(keys))

    async def put_first(self, candidates: Sequence[Candidate]) -> list[Placed]:
        """As `DedupStore.put_first`; what several callers ask for at once goes in one call."""
        self._check_up()
        return await self._batches.put_first(candidates)

    async def note_conflicts(self, conflicts: Sequence[Conflict]) -> None:
        """As `DedupStore.note_conflicts`."""
        await self._asked(lambda: self._store.note_conflicts(conflicts))

    async def list_conflicts(self, tenant: str, limit: int) -> list[Conflict]:
        """As `DedupStore.list_conflicts`."""
        return await self._asked(lambda: self._store.list_conflicts(tenant, limit))

    async def list_escalations(self, tenant: str, limit: int) -> list[Escalation]:
        """As `DedupStore.list_escalations`."""
        return await self._asked(lambda: self._store.list_escalations(tenant, limit))

    async def ack_escalations(self, keys: Sequence[Key]) -> list[bool]:
        """As `DedupStore.ack_escalations`."""
        return await self._asked(lambda: self._store.ack_escalations(keys))

    async def purge_expired(self) -> int:
        """As `DedupStore.purge_expired`."""
        return await self._asked(self._store.purge_expired)

    async def durability_warnings(self) -> list[str]:
        """As `DedupStore.durability_warnings`."""
        return await self._asked(self._store.durability_warnings)

    def _check_up(self) -> None:
        if not self.is_up:
            raise StoreUnavailableError("the dedup store is down")

    async def _asked(self, call: Callable[[], Awaitable[T]]) -> T:
        self._check_up()
        try:
            return await self._limited(call())
        except (OutcomeUnreadableError, StoreFullError):
            raise  # the store answered
        except StoreUnavailableError:
            self.is_up = False
            raise

    async def _limited(self, call: Awaitable[T], timeout_s: float | None = None) -> T:
        try:
            async with asyncio.timeout(timeout_s or self._timeout_s):
                return await call
        except TimeoutError:
            pass
        raise StoreUnavailableError("the dedup store did not answer in time")
