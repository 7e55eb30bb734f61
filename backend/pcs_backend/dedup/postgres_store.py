"""The store in PostgreSQL, shared by replicas. The schema is in `migrations`, the statements in `postgres_queries`.

`put_first` is one statement, which answers who lost with the winner. Only when a winner has expired, or was stored while
the statement ran, are there further round trips: what has expired is forgotten, and the insert runs again. Statements
commit one by one: each record is whole, a batch may be stored in part when the database fails in between, and the
caller's retry finds the first outcomes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING

import asyncpg

from pcs_backend.conformal.postgres_calibrations import PostgresCalibrations
from pcs_backend.dedup import postgres_queries as queries
from pcs_backend.dedup.migrations import apply_migrations, load_migrations
from pcs_backend.dedup.store import CONFLICTS_MAX, LIST_MAX, Candidate, Conflict, Escalation, Placed
from pcs_backend.errors import ConfigError, StoreUnavailableError
from pcs_backend.outcome import Key, Outcome, WholeOutcome
from pcs_core.ports import WallClock

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

CONNECT_TIMEOUT_S = 2.0
"""How long one connection may take."""

CALL_TIMEOUT_S = 5.0
"""How long one call of the store may take, waiting for a connection included. Taking a hung connection out of use may
take as long again."""

MIGRATION_TIMEOUT_S = 900.0
"""How long connecting and migrating may take, whoever waits for it."""

POOL_MAX = 8
"""Connections one process holds; further calls wait."""

PUT_ROUNDS_MAX = 4
"""Times `put_first` tries again what an expired outcome or another transaction was in the way of."""

PURGE_MAX = 1_000
"""Expired outcomes one purge removes at most."""

_DRIVER_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_TRY_AGAIN_ERRORS = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)


class _Connection(asyncpg.Connection):
    """A connection that nothing is left in: what is set is set for good, so there is nothing to reset."""

    def get_reset_query(self) -> str:
        """Save a round trip a call."""
        return ""


class PostgresStore:
    """As `DedupStore`. Every failure of the driver or the database is `StoreUnavailableError`."""

    def __init__(self, dsn: str, now: WallClock, *, call_timeout_s: float = CALL_TIMEOUT_S) -> None:
        """Keep the settings; nothing is connected yet.

        Args:
            dsn: A `postgresql://` URL, never told to anyone.
            now: Judges expiry.
            call_timeout_s: How long one call may take.
        """
        self._dsn = dsn
        self._now = now
        self._call_timeout_s = call_timeout_s
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._idle_may_be_dead = False
        self._opening: asyncio.Task[None] | None = None
        self.calibrations = PostgresCalibrations(self._connection, now)

    async def open(self) -> None:
        """As `DedupStore.open`; also brings the schema up to date.

        Raises:
            ConfigError: The connection string is none.
            DataError: The database's schema is newer than this program.
            StoreUnavailableError: The database is down.
        """
        if self._pool is not None:
            await self.ping()
            return
        # A task of its own: whoever waits may give up, a migration goes on, and the next call waits for the same.
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open(), name="postgres-open")
        await asyncio.shield(self._opening)

    async def close(self) -> None:
        """As `DedupStore.close`; a migration under way is given up, and leaves the old schema."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        pool, self._pool = self._pool, None
        if pool is not None:
            await self._close_pool(pool)

    async def ping(self) -> None:
        """As `DedupStore.ping`."""
        async with self._connection() as connection:
            await connection.execute(queries.PING)

    async def get(self, keys: Sequence[Key]) -> list[Outcome | None]:
        """As `DedupStore.get`."""
        if not keys:
            return []
        async with self._connection() as connection:
            found = await self._get(connection, list(dict.fromkeys(keys)))
        return [found.get(key) for key in keys]

    async def put_first(self, candidates: Sequence[Candidate]) -> list[Placed]:
        """As `DedupStore.put_first`; one round trip unless something has expired or was stored at the same moment."""
        outcomes = [candidate.outcome for candidate in candidates]
        missing = wanted = _first_of_each_key(outcomes)
        known: dict[tuple[str, str], Outcome] = {}
        if wanted:
            async with self._connection() as connection:
                for round_number in range(PUT_ROUNDS_MAX):
                    with contextlib.suppress(*_TRY_AGAIN_ERRORS):
                        if round_number:
                            await self._forget_expired(connection, [outcome.key for outcome in missing])
                        missing = await self._insert(connection, missing, known)
                    if not missing:
                        break
                else:
                    raise StoreUnavailableError("PostgreSQL: a first outcome could not be read")
        if wanted is outcomes and not known:
            return [Placed(outcome, True) for outcome in outcomes]
        placed = []
        for outcome in outcomes:
            winner = known.get(key := (outcome.tenant, outcome.pcs_id))
            placed.append(Placed(outcome if winner is None else winner, winner is None))
            if winner is None:
                known[key] = outcome  # of equal keys the first is known to the others
        return placed

    async def note_conflicts(self, conflicts: Sequence[Conflict]) -> None:
        """As `DedupStore.note_conflicts`."""
        if not conflicts:
            return
        columns = _columns(conflicts, "tenant", "pcs_id", "fingerprint", "seen_at_ms")
        async with self._connection() as connection:
            rows = await connection.fetch(queries.NOTE_CONFLICTS, *columns)
            for tenant in sorted({row["tenant"] for row in rows}):
                await connection.execute(queries.TRIM_CONFLICTS, tenant, CONFLICTS_MAX)

    async def list_conflicts(self, tenant: str, limit: int) -> list[Conflict]:
        """As `DedupStore.list_conflicts`."""
        async with self._connection() as connection:
            rows = await connection.fetch(queries.LIST_CONFLICTS, tenant, _clamped(limit))
        return [Conflict(tenant=tenant, **row) for row in rows]

    async def list_escalations(self, tenant: str, limit: int) -> list[Escalation]:
        """As `DedupStore.list_escalations`."""
        async with self._connection() as connection:
            rows = await connection.fetch(queries.LIST_ESCALATIONS, tenant, self._now_ms(), _clamped(limit))
        return [Escalation(tenant=tenant, **row) for row in rows]

    async def ack_escalations(self, keys: Sequence[Key]) -> list[bool]:
        """As `DedupStore.ack_escalations`."""
        if not keys:
            return []
        columns = _columns(list(dict.fromkeys(keys)), "tenant", "pcs_id")
        async with self._connection() as connection:
            rows = await connection.fetch(queries.ACK_ESCALATIONS, *columns, self._now_ms())
        acked = {Key(row["tenant"], row["pcs_id"]) for row in rows}
        present = []
        for key in keys:
            present.append(key in acked)
            acked.discard(key)  # of equal keys the first took it off
        return present

    async def purge_expired(self) -> int:
        """As `DedupStore.purge_expired`; at most `PURGE_MAX` a call, partition by partition."""
        gone = 0
        for statement in queries.PURGE_EXPIRED:
            async with self._connection() as connection:  # given back between two
                gone += await connection.fetchval(statement, self._now_ms(), PURGE_MAX - gone)
            if gone >= PURGE_MAX:
                break
        return gone

    async def durability_warnings(self) -> list[str]:
        """As `DedupStore.durability_warnings`, for the sessions of this store."""
        async with self._connection() as connection:
            rows = await connection.fetch(queries.SETTINGS)
        settings = {row["name"]: row["setting"] for row in rows}
        consequences = {
            "fsync": "a power cut may lose or corrupt the database",
            "full_page_writes": "a power cut may corrupt the database",
            "synchronous_commit": "a crash may lose acknowledged outcomes",
        }
        return [
            f"PostgreSQL has {name} off: {consequence}."
            for name, consequence in consequences.items()
            if settings.get(name) == "off"
        ]

    async def _open(self) -> None:
        with _translated():
            async with asyncio.timeout(MIGRATION_TIMEOUT_S):
                self._pool = await self._connected_pool()

    async def _connected_pool(self) -> asyncpg.Pool[asyncpg.Record]:
        pool = asyncpg.create_pool(
            self._dsn,
            # No floor: keeping one has the driver reconnect on its own in an outage, and log the address each time.
            min_size=0,
            max_size=POOL_MAX,
            timeout=min(CONNECT_TIMEOUT_S, self._call_timeout_s),
            command_timeout=self._call_timeout_s,
            connection_class=_Connection,
            init=_prepare_session,
        )
        try:
            await pool
            try:
                connection = await pool.acquire(timeout=self._call_timeout_s)
            except ValueError:  # of which the driver's configuration errors are some
                raise ConfigError("POSTGRES_DSN is not a PostgreSQL connection string") from None
            await apply_migrations(
                connection, load_migrations(), self._call_timeout_s, migration_timeout_s=MIGRATION_TIMEOUT_S
            )
            await pool.release(connection)
        except BaseException:
            pool.terminate()
            raise
        return pool

    async def _close_pool(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        try:
            async with asyncio.timeout(self._call_timeout_s):
                await pool.close()
        except _DRIVER_ERRORS:
            pool.terminate()  # what is broken or hung is dropped

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[PoolConnectionProxy[asyncpg.Record]]:
        pool = self._pool
        if pool is None:
            raise StoreUnavailableError("PostgreSQL: not open")
        if self._idle_may_be_dead:
            self._idle_may_be_dead = False
            await pool.expire_connections()  # each is replaced when it is next taken
        answered = False
        try:
            with _translated():
                # `acquire` is told the timeout too: giving a hung connection back is bounded by it.
                async with (
                    asyncio.timeout(self._call_timeout_s),
                    pool.acquire(timeout=self._call_timeout_s) as connection,
                ):
                    yield connection
            answered = True
        finally:
            # One that died without a word cannot be told from a good one, so all are replaced after a call that failed.
            self._idle_may_be_dead |= not answered

    async def _insert(
        self,
        connection: PoolConnectionProxy[asyncpg.Record],
        outcomes: Sequence[Outcome],
        known: dict[tuple[str, str], Outcome],
    ) -> list[Outcome]:
        """Store what is new, add to `known` what was there first; return what was neither stored nor seen."""
        arguments = queries.put_first_arguments(outcomes, self._now_ms())
        unseen = set()
        # Unpacked and spelt out: a row that is asked by name costs sixteen times as much.
        for (
            tenant,
            pcs_id,
            status,
            body,
            fingerprint,
            params_version,
            key_id,
            provenance,
            stored_at_ms,
            expires_at_ms,
        ) in await connection.fetch(queries.PUT_FIRST, *arguments):
            if status is None:
                unseen.add((tenant, pcs_id))
                continue
            known[tenant, pcs_id] = WholeOutcome(
                tenant=tenant,
                pcs_id=pcs_id,
                status=status,
                body=body,
                fingerprint=fingerprint,
                params_version=params_version,
                key_id=key_id,
                provenance=provenance,
                stored_at_ms=stored_at_ms,
                expires_at_ms=expires_at_ms,
            ).outcome
        return [each for each in outcomes if (each.tenant, each.pcs_id) in unseen] if unseen else []

    async def _get(
        self, connection: PoolConnectionProxy[asyncpg.Record], keys: Sequence[Key]
    ) -> dict[Key, Outcome]:
        rows = await connection.fetch(queries.GET, *_columns(keys, "tenant", "pcs_id"), self._now_ms())
        return {Key(row["tenant"], row["pcs_id"]): WholeOutcome(**row).outcome for row in rows}

    async def _forget_expired(
        self, connection: PoolConnectionProxy[asyncpg.Record], keys: Sequence[Key]
    ) -> None:
        columns = _columns(keys, "tenant", "pcs_id")
        await connection.execute(queries.FORGET_EXPIRED, *columns, self._now_ms())

    def _now_ms(self) -> int:
        return int(self._now() * 1_000)


async def _prepare_session(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    await connection.execute(queries.SESSION)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn a driver's error into ours; its message may hold a row or the address, so only its kind is told."""
    try:
        yield
    except _DRIVER_ERRORS as error:
        raise StoreUnavailableError(f"PostgreSQL: {type(error).__name__}") from None


def _first_of_each_key(outcomes: list[Outcome]) -> list[Outcome]:
    """Return the first of equal keys; the same list where all are different."""
    if len({outcome.pcs_id for outcome in outcomes}) == len(outcomes):
        return outcomes
    firsts: dict[Key, Outcome] = {}
    for outcome in outcomes:
        firsts.setdefault(outcome.key, outcome)
    return list(firsts.values())


def _columns(rows: Sequence[object], *names: str) -> list[list[object]]:
    return [[getattr(row, name) for row in rows] for name in names]


def _clamped(limit: int) -> int:
    return max(0, min(limit, LIST_MAX))
