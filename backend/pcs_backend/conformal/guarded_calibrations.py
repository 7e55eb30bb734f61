"""The calibration store of a server, behind the time limit and the switch of the outcomes' store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from pcs_backend.conformal.calibration import Labelled, Promotion
from pcs_backend.conformal.store import CalibrationStore

T = TypeVar("T")


class _Asked(Protocol):
    def __call__(self, call: Callable[[], Awaitable[T]]) -> Awaitable[T]: ...


class GuardedCalibrations:
    """Wraps a store; a `CalibrationStore` itself."""

    def __init__(self, store: CalibrationStore, asked: _Asked) -> None:
        """Take a store.

        Args:
            store: Of the same server as the outcomes.
            asked: Makes a call within the time limit, unless the server is known to be down.
        """
        self._store = store
        self._asked = asked

    async def put_labels(self, labels: Sequence[Labelled]) -> None:
        """As `CalibrationStore.put_labels`."""
        await self._asked(lambda: self._store.put_labels(labels))

    async def list_labels(self, tenant: str | None, *, since_ms: int, limit: int) -> list[Labelled]:
        """As `CalibrationStore.list_labels`."""
        return await self._asked(lambda: self._store.list_labels(tenant, since_ms=since_ms, limit=limit))

    async def keep(self, artifacts: Sequence[bytes], *, always: bool = False) -> None:
        """As `CalibrationStore.keep`."""
        await self._asked(lambda: self._store.keep(artifacts, always=always))

    async def fetch(self, digests: Sequence[str]) -> list[bytes | None]:
        """As `CalibrationStore.fetch`."""
        return await self._asked(lambda: self._store.fetch(digests))

    async def promote(self, promotion: Promotion) -> bool:
        """As `CalibrationStore.promote`. After a failure nobody knows whether it was done: look before trying again."""
        return await self._asked(lambda: self._store.promote(promotion))

    async def list_promotions(self, scope: str | None, limit: int) -> list[Promotion]:
        """As `CalibrationStore.list_promotions`."""
        return await self._asked(lambda: self._store.list_promotions(scope, limit))

    async def purge(self, before_ms: int) -> int:
        """As `CalibrationStore.purge`."""
        return await self._asked(lambda: self._store.purge(before_ms))
