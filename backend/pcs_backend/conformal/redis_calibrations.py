"""The calibration store on the Redis server of the outcomes. Redis Cluster is not supported.

Layout, the tenant being the hash tag: `pcs:{tenant}:lab` the labels by pcs_id, `pcs:{tenant}:lab:benign` and
`pcs:{tenant}:lab:bad` their pcs_ids by time. Of all tenants: `pcs:cal:tenants` who has labels, `pcs:cal:artifacts` the
artifacts by digest, `pcs:cal:needed` their digests by when they were last needed, `pcs:cal:force` the promotion in force
by scope, `pcs:cal:history:<scope>` its promotions, newest first. Each script is whole or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast
from urllib.parse import quote

import msgspec

from pcs_backend.conformal.calibration import Label, Labelled, Promotion
from pcs_backend.conformal.redis_calibration_scripts import KEEP, LIST_LABELS, PROMOTE, PURGE, PUT_LABELS
from pcs_backend.conformal.store import (
    ARTIFACTS_MAX,
    FULL,
    LABELS_MAX,
    PROMOTIONS_MAX,
    by_digest,
    newest_first,
)
from pcs_backend.dedup.redis_connection import RedisConnection
from pcs_backend.errors import StoreFullError, StoreUnavailableError
from pcs_core.ports import WallClock

SCRIPT_LABELS_MAX = 1_000
"""Labels one script call takes: Redis answers nobody else while it runs."""

_CLASSES: tuple[Label, Label] = ("benign", "bad")
_TENANTS, _ARTIFACTS, _NEEDED, _FORCE = (
    "pcs:cal:tenants",
    "pcs:cal:artifacts",
    "pcs:cal:needed",
    "pcs:cal:force",
)

_encode = msgspec.json.Encoder().encode
_decode_label = msgspec.json.Decoder(Labelled).decode
_decode_promotion = msgspec.json.Decoder(Promotion).decode


class RedisCalibrations:
    """As `CalibrationStore`. Every failure is `StoreUnavailableError`."""

    def __init__(self, connection: RedisConnection, now: WallClock) -> None:
        """Share the connections of the outcomes' store, and its clock."""
        self._connection = connection
        self._now = now

    async def put_labels(self, labels: Sequence[Labelled]) -> None:
        """As `CalibrationStore.put_labels`; in the order given, tenant by tenant."""
        by_tenant: dict[str, list[Labelled]] = {}
        for label in labels:
            by_tenant.setdefault(label.tenant, []).append(label)
        for tenant, own in by_tenant.items():
            for first in range(0, len(own), SCRIPT_LABELS_MAX):
                arguments: list[int | str | bytes] = [tenant, LABELS_MAX]
                for label in own[first : first + SCRIPT_LABELS_MAX]:
                    arguments += [_CLASSES.index(label.label) + 1, label.labelled_at_ms, label.pcs_id]
                    arguments.append(_encode(label))
                keys = [*(_order_key(tenant, each) for each in _CLASSES), _labels_key(tenant), _TENANTS]
                await self._connection.script(PUT_LABELS, keys, arguments)

    async def list_labels(self, tenant: str | None, *, since_ms: int, limit: int) -> list[Labelled]:
        """As `CalibrationStore.list_labels`; of all tenants one by one."""
        if limit < 1:  # Redis takes a negative count for "all"
            return []
        if tenant is not None:
            tenants = [tenant]
        else:
            members = cast("list[bytes]", await self._connection.call("SMEMBERS", _TENANTS))
            tenants = [member.decode() for member in members]
        listings = []
        for name in _CLASSES:
            own = [await self._list_class(each, name, since_ms, limit) for each in tenants]
            listings.append(newest_first(own, limit))
        return newest_first(listings)

    async def keep(self, artifacts: Sequence[bytes], *, always: bool = False) -> None:
        """As `CalibrationStore.keep`; each whole, of several perhaps some."""
        for digest, data in by_digest(artifacts).items():
            arguments: list[int | str | bytes] = [digest, data, int(self._now() * 1_000)]
            arguments.append(-1 if always else ARTIFACTS_MAX)
            if not await self._connection.script(KEEP, [_ARTIFACTS, _NEEDED], arguments):
                raise StoreFullError(FULL)

    async def fetch(self, digests: Sequence[str]) -> list[bytes | None]:
        """As `CalibrationStore.fetch`."""
        if not digests:
            return []
        return cast("list[bytes | None]", await self._connection.call("HMGET", _ARTIFACTS, *digests))

    async def promote(self, promotion: Promotion) -> bool:
        """As `CalibrationStore.promote`."""
        arguments: list[int | str | bytes] = [
            promotion.scope,
            promotion.version,
            promotion.digest,
            promotion.promoted_at_ms,
            PROMOTIONS_MAX,
            _encode(promotion),
        ]
        keys = [_ARTIFACTS, _NEEDED, _FORCE, _history_key(promotion.scope)]
        return await self._connection.script(PROMOTE, keys, arguments) == 1

    async def list_promotions(self, scope: str | None, limit: int) -> list[Promotion]:
        """As `CalibrationStore.list_promotions`."""
        if limit < 1:
            return []
        if scope is not None:
            reply = await self._connection.call("LRANGE", _history_key(scope), 0, limit - 1)
            return [_decoded(value) for value in cast("list[bytes]", reply)]
        values = cast("list[bytes]", await self._connection.call("HVALS", _FORCE))
        in_force = [_decoded(value.split(b":", 2)[-1]) for value in values]
        return sorted(in_force, key=lambda each: each.scope)[:limit]

    async def purge(self, before_ms: int) -> int:
        """As `CalibrationStore.purge`."""
        return cast("int", await self._connection.script(PURGE, [_ARTIFACTS, _NEEDED, _FORCE], [before_ms]))

    async def _list_class(self, tenant: str, name: Label, since_ms: int, limit: int) -> list[Labelled]:
        keys = [_order_key(tenant, name), _labels_key(tenant)]
        values = cast("list[bytes]", await self._connection.script(LIST_LABELS, keys, [since_ms, limit]))
        try:
            return [_decode_label(value) for value in values]
        except msgspec.MsgspecError:  # its message may quote a value, so it is not chained
            raise StoreUnavailableError(_UNREADABLE) from None


_UNREADABLE = "Redis holds a label or a promotion that this version cannot read"


def _decoded(value: bytes) -> Promotion:
    try:
        return _decode_promotion(value)
    except msgspec.MsgspecError:
        raise StoreUnavailableError(_UNREADABLE) from None


def _labels_key(tenant: str) -> str:
    # Quoted, so that a brace in a tenant's name does not end the tag early.
    return f"pcs:{{{quote(tenant, safe='')}}}:lab"


def _order_key(tenant: str, name: Label) -> str:
    return f"{_labels_key(tenant)}:{name}"


def _history_key(scope: str) -> str:
    return f"pcs:cal:history:{quote(scope, safe='')}"
