"""The calibration store in the PostgreSQL of the outcomes. Its tables are in `dedup.migrations`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import msgspec

from pcs_backend.conformal import postgres_calibration_queries as queries
from pcs_backend.conformal.calibration import Label, Labelled, Promotion
from pcs_backend.conformal.store import (
    ARTIFACT_RENEWED_MS,
    ARTIFACTS_MAX,
    FULL,
    LABELS_MAX,
    PROMOTIONS_MAX,
    by_digest,
    newest_first,
)
from pcs_backend.errors import StoreFullError, StoreUnavailableError
from pcs_core.ports import WallClock

if TYPE_CHECKING:
    import asyncpg
    from asyncpg.pool import PoolConnectionProxy

_CLASSES: tuple[Label, Label] = ("benign", "bad")

_encode = msgspec.json.Encoder().encode
_decode_label = msgspec.json.Decoder(Labelled).decode


class PostgresCalibrations:
    """As `CalibrationStore`. Every failure of the driver or the database is `StoreUnavailableError`."""

    def __init__(
        self,
        connection: Callable[[], AbstractAsyncContextManager[PoolConnectionProxy[asyncpg.Record]]],
        now: WallClock,
    ) -> None:
        """Share what takes a connection of the outcomes' store, and its clock."""
        self._connection = connection
        self._now = now

    async def put_labels(self, labels: Sequence[Labelled]) -> None:
        """As `CalibrationStore.put_labels`; all of them or none."""
        if not labels:
            return
        latest = {(label.tenant, label.pcs_id): label for label in labels}.values()
        columns = [
            [getattr(label, name) for label in latest]
            for name in ("tenant", "pcs_id", "label", "labelled_at_ms")
        ]
        async with self._connection() as connection:
            await connection.execute(queries.PUT_LABELS, *columns, [_encode(label) for label in latest])
            for tenant, name in sorted({(label.tenant, label.label) for label in latest}):
                await connection.execute(queries.TRIM_LABELS, tenant, name, LABELS_MAX)

    async def list_labels(self, tenant: str | None, *, since_ms: int, limit: int) -> list[Labelled]:
        """As `CalibrationStore.list_labels`."""
        listings = []
        async with self._connection() as connection:
            for name in _CLASSES:
                arguments = [name, since_ms, max(0, limit)]
                rows = await (
                    connection.fetch(queries.LIST_LABELS_OF_ALL, *arguments)
                    if tenant is None
                    else connection.fetch(queries.LIST_LABELS, *arguments, tenant)
                )
                listings.append(rows)
        try:
            return newest_first([_decode_label(row["data"]) for row in rows] for rows in listings)
        except msgspec.MsgspecError:  # its message may quote a value, so it is not chained
            raise StoreUnavailableError("PostgreSQL holds a label that this version cannot read") from None

    async def keep(self, artifacts: Sequence[bytes], *, always: bool = False) -> None:
        """As `CalibrationStore.keep`; all or none. Replicas that keep at the same moment may pass the bound by a few."""
        by_their_digest = by_digest(artifacts)
        if not by_their_digest:
            return
        digests = list(by_their_digest)
        async with self._connection() as connection:
            [(kept, new)] = await connection.fetch(queries.COUNT_ARTIFACTS, digests)
            if new and not always and kept + new > ARTIFACTS_MAX:
                raise StoreFullError(FULL)
            now_ms = int(self._now() * 1_000)
            await connection.execute(
                queries.KEEP, digests, list(by_their_digest.values()), now_ms, ARTIFACT_RENEWED_MS
            )

    async def fetch(self, digests: Sequence[str]) -> list[bytes | None]:
        """As `CalibrationStore.fetch`."""
        if not digests:
            return []
        async with self._connection() as connection:
            rows = await connection.fetch(queries.FETCH, list(set(digests)))
        found = {row["digest"]: row["data"] for row in rows}
        return [found.get(digest) for digest in digests]

    async def promote(self, promotion: Promotion) -> bool:
        """As `CalibrationStore.promote`."""
        columns = (promotion.scope, promotion.version, promotion.digest, promotion.by, promotion.note)
        async with self._connection() as connection:
            version = await connection.fetchval(queries.PROMOTE, *columns, promotion.promoted_at_ms)
            if version is not None and version > PROMOTIONS_MAX:
                await connection.execute(queries.TRIM_PROMOTIONS, promotion.scope, version - PROMOTIONS_MAX)
        return version is not None

    async def list_promotions(self, scope: str | None, limit: int) -> list[Promotion]:
        """As `CalibrationStore.list_promotions`."""
        async with self._connection() as connection:
            rows = await (
                connection.fetch(queries.LIST_IN_FORCE, max(0, limit))
                if scope is None
                else connection.fetch(queries.LIST_PROMOTIONS, scope, max(0, limit))
            )
        return [Promotion(**row) for row in rows]

    async def purge(self, before_ms: int) -> int:
        """As `CalibrationStore.purge`; what another replica is at is left to the next."""
        async with self._connection() as connection:
            gone: int = await connection.fetchval(queries.PURGE, before_ms)
        return gone
