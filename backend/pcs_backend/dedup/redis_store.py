"""The store on one Redis server, shared by replicas. Redis Cluster is not supported.

Layout, the tenant being the hash tag: `pcs:{tenant}:o:<pcs_id>` an outcome with its expiry, `pcs:{tenant}:esc` the open
escalations by expiry, `pcs:{tenant}:conf` the conflicts by time. Labels and calibration sets: `conformal.redis_calibrations`. An outcome, its queue entry and its expiry are written
by one script (`redis_scripts`).

A batch of more than `SCRIPT_RECORDS_MAX` records may be stored in part when the store fails in between; each record is
whole, and the caller's retry finds the first outcomes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast
from urllib.parse import quote

import msgspec

from pcs_backend.conformal.redis_calibrations import RedisCalibrations
from pcs_backend.dedup.outcome_codec import UNREADABLE, decode_outcome, encode_outcome
from pcs_backend.dedup.redis_connection import CALL_TIMEOUT_S, RedisConnection, RedisRefusedError
from pcs_backend.dedup.redis_scripts import ACK_ESCALATIONS, NOTE_CONFLICTS, PUT_FIRST
from pcs_backend.dedup.store import CONFLICTS_MAX, LIST_MAX, Candidate, Conflict, Escalation, Placed
from pcs_backend.errors import OutcomeUnreadableError
from pcs_backend.outcome import Key, Outcome
from pcs_core.ports import WallClock

SCRIPT_RECORDS_MAX = 1_024
"""Records one script call takes: Redis answers nobody else while it runs, about 10 ms."""

TENANTS_REMEMBERED_MAX = 1_000
"""Tenants whose part of the key is not spelled anew for each record."""

T = TypeVar("T")


class RedisStore:
    """As `DedupStore`. Every failure, replies such as MISCONF, OOM and READONLY included, is `StoreUnavailableError`."""

    def __init__(self, address: str, now: WallClock, *, call_timeout_s: float = CALL_TIMEOUT_S) -> None:
        """Check the address; nothing is connected yet.

        Args:
            address: `host:port`, or a `redis://`, `rediss://` or `unix://` URL.
            now: Judges expiry.
            call_timeout_s: How long one call may take.

        Raises:
            ConfigError: The address is none.
        """
        self._connection = RedisConnection(address, call_timeout_s)
        self._now = now
        self.calibrations = RedisCalibrations(self._connection, now)

    async def open(self) -> None:
        """As `DedupStore.open`."""
        await self._connection.open()

    async def close(self) -> None:
        """As `DedupStore.close`."""
        await self._connection.close()

    async def ping(self) -> None:
        """As `DedupStore.ping`."""
        await self._connection.call("PING")

    async def get(self, keys: Sequence[Key]) -> list[Outcome | None]:
        """As `DedupStore.get`."""
        if not keys:
            return []
        now_ms = self._now_ms()
        values = cast("list[bytes | None]", await self._connection.call("MGET", *map(_outcome_key, keys)))
        return [_unexpired(value, now_ms) for value in values]

    async def put_first(self, candidates: Sequence[Candidate]) -> list[Placed]:
        """As `DedupStore.put_first`."""
        outcomes = [candidate.outcome for candidate in candidates]
        placed = [each for chunk in _chunks(outcomes) for each in await self._put_chunk(chunk)]
        if None in placed:
            raise OutcomeUnreadableError(UNREADABLE, placed)
        return cast("list[Placed]", placed)

    async def note_conflicts(self, conflicts: Sequence[Conflict]) -> None:
        """As `DedupStore.note_conflicts`."""
        for tenant, numbered in _by_tenant(conflicts, lambda conflict: conflict.tenant).items():
            for chunk in _chunks([conflict for _, conflict in numbered]):
                arguments: list[int | bytes] = [CONFLICTS_MAX]
                for conflict in chunk:
                    member = msgspec.msgpack.encode((conflict.pcs_id, conflict.fingerprint))
                    arguments += [conflict.seen_at_ms, member]
                await self._connection.script(NOTE_CONFLICTS, [_conflicts_key(tenant)], arguments)

    async def list_conflicts(self, tenant: str, limit: int) -> list[Conflict]:
        """As `DedupStore.list_conflicts`."""
        if (count := min(limit, LIST_MAX)) < 1:  # Redis takes a negative count for "all"
            return []
        reply = await self._connection.call("ZREVRANGE", _conflicts_key(tenant), 0, count - 1, "WITHSCORES")
        flat = cast("list[bytes]", reply)
        listed = []
        for member, seen_at_ms in zip(flat[::2], flat[1::2], strict=True):
            pcs_id, fingerprint = msgspec.msgpack.decode(member, type=tuple[str, str])
            listed.append(
                Conflict(tenant=tenant, pcs_id=pcs_id, fingerprint=fingerprint, seen_at_ms=int(seen_at_ms))
            )
        return listed

    async def list_escalations(self, tenant: str, limit: int) -> list[Escalation]:
        """As `DedupStore.list_escalations`; oldest by expiry, which is the order of storing while the TTL stays."""
        if (count := min(limit, LIST_MAX)) < 1:
            return []
        queue = (_escalations_key(tenant), f"({self._now_ms()}", "+inf", "LIMIT", 0, count)
        members = cast("list[bytes]", await self._connection.call("ZRANGEBYSCORE", *queue))
        outcomes = await self.get([Key(tenant, member.decode()) for member in members])
        listed = [
            Escalation(tenant=tenant, pcs_id=each.pcs_id, body=each.body, stored_at_ms=each.stored_at_ms)
            for each in outcomes
            if each is not None and each.escalated
        ]
        return sorted(listed, key=lambda escalation: escalation.stored_at_ms)

    async def ack_escalations(self, keys: Sequence[Key]) -> list[bool]:
        """As `DedupStore.ack_escalations`."""
        # What Redis forgot before its time may have left an entry behind, which only the outcome tells.
        outcomes = await self.get(keys)
        present: dict[int, bool] = {}
        for tenant, numbered in _by_tenant(keys, lambda key: key.tenant).items():
            for chunk in _chunks(numbered):
                arguments: list[int | str] = [self._now_ms(), *(key.pcs_id for _, key in chunk)]
                replies = await self._connection.script(
                    ACK_ESCALATIONS, [_escalations_key(tenant)], arguments
                )
                for (position, _), reply in zip(chunk, cast("list[int]", replies), strict=True):
                    outcome = outcomes[position]
                    present[position] = reply == 1 and outcome is not None and outcome.escalated
        return [present[position] for position in range(len(keys))]

    async def purge_expired(self) -> int:
        """Nothing to do, always 0: Redis forgets by itself, and the scripts trim the queue."""
        return 0

    async def durability_warnings(self) -> list[str]:
        """As `DedupStore.durability_warnings`; where `CONFIG` is forbidden, says that it could not be checked."""
        settings: dict[str, str] = {}
        for name in (
            "appendonly",
            "appendfsync",
            "no-appendfsync-on-rewrite",
            "maxmemory",
            "maxmemory-policy",
        ):
            try:
                reply = await self._connection.call("CONFIG GET", name)
            except RedisRefusedError:
                return [
                    "Redis refuses CONFIG GET: whether it keeps what it acknowledged could not be checked."
                ]
            settings.update(
                {_text(key): _text(value) for key, value in cast("dict[Any, Any]", reply).items()}
            )
        warnings = []
        if settings.get("appendonly") != "yes":
            warnings.append("Redis has appendonly off: a restart forgets acknowledged outcomes.")
        elif settings.get("appendfsync") != "always":
            warnings.append("Redis has appendfsync not always: a crash may lose acknowledged outcomes.")
        elif settings.get("no-appendfsync-on-rewrite") == "yes":
            warnings.append(
                "Redis has no-appendfsync-on-rewrite on: a crash during a rewrite may lose acknowledged outcomes."
            )
        if settings.get("maxmemory") != "0" and settings.get("maxmemory-policy") != "noeviction":
            warnings.append(
                "Redis has maxmemory with a maxmemory-policy other than noeviction: it may evict outcomes."
            )
        return warnings

    async def _put_chunk(self, outcomes: Sequence[Outcome]) -> list[Placed | None]:
        keys, arguments = put_first_arguments(outcomes, self._now_ms())
        lost = cast("list[Any]", await self._connection.script(PUT_FIRST, keys, arguments))
        placed: list[Placed | None] = [Placed(outcome, True) for outcome in outcomes]
        for number, held in zip(lost[::2], lost[1::2], strict=True):
            try:
                placed[number - 1] = Placed(decode_outcome(held), first=False)
            except OutcomeUnreadableError:
                placed[number - 1] = None
        return placed

    def _now_ms(self) -> int:
        return int(self._now() * 1_000)


def put_first_arguments(
    outcomes: Sequence[Outcome], now_ms: int
) -> tuple[list[str], list[int | str | bytes]]:
    """Return the keys and the arguments of `redis_scripts.PUT_FIRST`.

    Args:
        outcomes: At least one, at most `SCRIPT_RECORDS_MAX`.
        now_ms: What has expired by then may be replaced, milliseconds since 1970.
    """
    keys = [_prefix(outcome.tenant) + outcome.pcs_id for outcome in outcomes]
    # One life for all: it decides nothing, and values tell their expiry themselves.
    life_ms = max(1, max([outcome.expires_at_ms for outcome in outcomes]) - now_ms)
    arguments: list[int | str | bytes] = [now_ms, life_ms, len(outcomes)]
    arguments += map(encode_outcome, outcomes)
    queues: dict[str, int] = {}
    for number, outcome in enumerate(outcomes, 1):
        if outcome.escalated:
            queue = queues.setdefault(outcome.tenant, len(outcomes) + len(queues) + 1)
            arguments += (number, queue, outcome.expires_at_ms, outcome.pcs_id)
    keys += map(_escalations_key, queues)
    return keys, arguments


def _by_tenant(values: Sequence[T], tenant_of: Callable[[T], str]) -> dict[str, list[tuple[int, T]]]:
    """Group values by tenant, each with its position."""
    grouped: dict[str, list[tuple[int, T]]] = {}
    for position, value in enumerate(values):
        grouped.setdefault(tenant_of(value), []).append((position, value))
    return grouped


def _chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), SCRIPT_RECORDS_MAX):
        yield values[start : start + SCRIPT_RECORDS_MAX]


def _unexpired(value: bytes | None, now_ms: int) -> Outcome | None:
    outcome = decode_outcome(value) if value is not None else None
    return outcome if outcome is not None and outcome.expires_at_ms > now_ms else None


def _tag(tenant: str) -> str:
    """The hash tag. Quoted, so that a brace in a tenant's name does not end it early."""
    return f"pcs:{{{quote(tenant, safe='')}}}"


@functools.lru_cache(TENANTS_REMEMBERED_MAX)
def _prefix(tenant: str) -> str:
    return f"{_tag(tenant)}:o:"


def _outcome_key(key: Key) -> str:
    return _prefix(key.tenant) + key.pcs_id


def _escalations_key(tenant: str) -> str:
    return f"{_tag(tenant)}:esc"


def _conflicts_key(tenant: str) -> str:
    return f"{_tag(tenant)}:conf"


def _text(value: Any) -> str:  # noqa: ANN401 - the driver answers bytes or str, depending on its version
    return value.decode() if isinstance(value, bytes) else str(value)
