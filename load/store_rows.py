"""Retention with many rows: `make bench-rows ROWS=10000000`.

Fills a real PostgreSQL with outcomes as the release before left them, moves them into partitions as a start does, and then
measures what `put_first` takes: alone, while what has expired is purged as housekeeping does it, and while a partition
is vacuumed. Meanwhile it looks for locks that are waited for and for statements that run.

Every figure is of this machine and this moment; compare the columns of one run.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import asyncpg

from pcs_backend.dedup.migrations import apply_migrations, load_migrations
from pcs_backend.dedup.postgres_queries import PARTITIONS
from pcs_backend.dedup.postgres_store import MIGRATION_TIMEOUT_S, PostgresStore
from pcs_backend.dedup.store import Candidate
from pcs_backend.outcome import WholeOutcome
from servers import PostgresServer

FILL_ROWS = 250_000
"""Rows one statement fills in."""

FILLERS = 2
BATCH = 100
"""Records a measured call stores."""

EXPIRED_SHARE = 10
"""One row in so many has expired."""

ESCALATED_SHARE = 50
LOOK_INTERVAL_S = 0.02
NOW_MS = 1_750_000_000_000
LIFE_MS = 14 * 86_400_000
SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "8GB", "maintenance_work_mem": "256MB"}

_FILL = f"""
    INSERT INTO pcs_outcomes
    SELECT 'default', id, CASE WHEN i % {ESCALATED_SHARE} = 0 THEN 202 ELSE 200 END,
        convert_to('{{"pcs_id":"' || id || '","accepted":true,"escalated":false,"reasons":[],"recomputed":'
            || '{{"D_hat":1.234567891,"regime":"mixed","budget":0.285714286}}}}', 'UTF8'),
        encode(sha256(int8send(-i)), 'hex'), 'defaults-1', 'hmac-0123456789abcdef', '', at_ms, at_ms + {LIFE_MS}
    FROM (
        SELECT i, encode(sha256(int8send(i)), 'hex') AS id,
            -- Stored over the lifetime, those that have expired a little before it.
            {NOW_MS} - CASE WHEN i % {EXPIRED_SHARE} = 0 THEN {LIFE_MS} + i / 100 ELSE i / 100 END AS at_ms
        FROM generate_series($1::bigint, $2::bigint - 1) AS i
    ) AS rows"""  # noqa: S608 - numbers of ours
_WITHOUT_INDEXES = """
    ALTER TABLE pcs_escalations DROP CONSTRAINT pcs_escalations_tenant_pcs_id_fkey;
    ALTER TABLE pcs_outcomes DROP CONSTRAINT pcs_outcomes_pkey;
    DROP INDEX pcs_outcomes_by_expiry"""
_WITH_INDEXES = """
    ALTER TABLE pcs_outcomes ADD PRIMARY KEY (tenant, pcs_id);
    CREATE INDEX pcs_outcomes_by_expiry ON pcs_outcomes (expires_at_ms, tenant, pcs_id);
    INSERT INTO pcs_escalations SELECT tenant, pcs_id, stored_at_ms, NULL FROM pcs_outcomes WHERE status = 202;
    ALTER TABLE pcs_escalations ADD FOREIGN KEY (tenant, pcs_id) REFERENCES pcs_outcomes ON DELETE CASCADE"""
_LOOK = """
    SELECT
        (SELECT coalesce(extract(epoch FROM max(clock_timestamp() - waitstart)), 0)::float FROM pg_locks WHERE NOT granted),
        (SELECT coalesce(extract(epoch FROM max(clock_timestamp() - query_start)), 0)::float FROM pg_stat_activity
            WHERE state = 'active' AND backend_type = 'client backend' AND query NOT LIKE 'VACUUM%'
                AND pid <> pg_backend_pid())"""


class Phase(NamedTuple):
    """What a phase took.

    Attributes:
        name: What went on beside `put_first`.
        calls_s: How long each call of `put_first` took, sorted.
        longest_lock_wait_s: The longest that was seen.
        longest_statement_s: The same, of every statement but a vacuum.
        beside_s: How long what went on beside it took.
        rows: How many rows that concerned.
    """

    name: str
    calls_s: list[float]
    longest_lock_wait_s: float
    longest_statement_s: float
    beside_s: float
    rows: int

    def quantile_ms(self, share: float) -> float:
        """Return what that share of the calls stayed below, in milliseconds."""
        return self.calls_s[min(len(self.calls_s) - 1, int(share * len(self.calls_s)))] * 1_000


class Report(NamedTuple):
    """A run.

    Attributes:
        fill_s: How long filling took.
        migration_s: How long the rows were locked while they were moved.
        size_bytes: Of the database after it.
        phases: One after another.
        left: Outcomes at the end.
        expected: How many should be left.
        longest_purge_s: The longest call of the purge.
    """

    fill_s: float
    migration_s: float
    size_bytes: int
    phases: list[Phase]
    left: int
    expected: int
    longest_purge_s: float


async def measure(rows: int, seconds: float) -> Report:
    """Run it all.

    Args:
        rows: How many outcomes there are, of which one in `EXPIRED_SHARE` has expired.
        seconds: How long `put_first` is measured alone.
    """
    with PostgresServer(None, **SETTINGS) as server:
        dsn = server.create_database()
        connection = await asyncpg.connect(dsn)
        fill_s = await _taken_s(_fill(dsn, connection, rows))
        _say(f"{rows} rows were filled in {fill_s:.1f} s")
        moment = [NOW_MS / 1_000]
        store, replica = (PostgresStore(dsn, lambda: moment[0], call_timeout_s=60) for _ in range(2))
        migration_s = await _taken_s(store.open())
        _say(f"moved into {PARTITIONS} partitions in {migration_s:.1f} s")
        await replica.open()
        await connection.execute("CHECKPOINT")
        size_bytes: int = await connection.fetchval("SELECT pg_database_size(current_database())")
        put = _Putter(store)
        phases = [await put.phase("nothing", dsn, asyncio.sleep(seconds, 0))]
        _tell(phases[-1])
        purge = _Purge(replica)
        phases.append(await put.phase("purge", dsn, purge.run()))
        _tell(phases[-1])
        phases.append(await put.phase("vacuum of a partition", dsn, _vacuum(dsn)))
        _tell(phases[-1])
        left: int = await connection.fetchval("SELECT count(*) FROM pcs_outcomes")
        expected = rows - len(range(0, rows, EXPIRED_SHARE)) + put.stored
        await connection.close()
        for each in (store, replica):
            await each.close()
    return Report(fill_s, migration_s, size_bytes, phases, left, expected, purge.longest_s)


class _Putter:
    """Stores batches of new records, one after another."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self._numbers = self._count()
        self.stored = 0

    async def phase(self, name: str, dsn: str, beside: Awaitable[int]) -> Phase:
        """Store until what goes on beside it ends."""
        calls_s: list[float] = []
        async with _watch(dsn) as seen:
            began_s = time.perf_counter()
            running = asyncio.ensure_future(beside)
            while not running.done() or not calls_s:
                calls_s.append(await self._put())
            rows = await running
            beside_s = time.perf_counter() - began_s
        return Phase(name, sorted(calls_s), seen.lock_wait_s, seen.statement_s, beside_s, rows)

    async def _put(self) -> float:
        batch = [self._candidate(next(self._numbers)) for _ in range(BATCH)]
        began_s = time.perf_counter()
        placed = await self._store.put_first(batch)
        taken_s = time.perf_counter() - began_s
        self.stored += sum(each.first for each in placed)
        return taken_s

    def _candidate(self, number: int) -> Candidate:
        pcs_id = hashlib.sha256(b"new %d" % number).hexdigest()
        body = (
            b'{"pcs_id":"%s","accepted":true,"escalated":false,"reasons":[],"recomputed":'
            b'{"D_hat":1.234567891,"regime":"mixed","budget":0.285714286}}' % pcs_id.encode()
        )
        outcome = WholeOutcome(
            tenant="default",
            pcs_id=pcs_id,
            status=200 if number % ESCALATED_SHARE else 202,
            body=body,
            fingerprint=hashlib.sha256(body).hexdigest(),
            params_version="defaults-1",
            key_id="hmac-0123456789abcdef",
            stored_at_ms=NOW_MS,
            expires_at_ms=NOW_MS + LIFE_MS,
        ).outcome
        return Candidate(outcome, None)

    def _count(self) -> Iterator[int]:
        number = 0
        while True:
            number += 1
            yield number


class _Purge:
    """Purges as housekeeping does, by another replica."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self.longest_s = 0.0

    async def run(self) -> int:
        gone = 0
        while True:
            began_s = time.perf_counter()
            count = await self._store.purge_expired()
            self.longest_s = max(self.longest_s, time.perf_counter() - began_s)
            gone += count
            if not count:
                return gone
            await asyncio.sleep(0)


class _Seen:
    def __init__(self) -> None:
        self.lock_wait_s = 0.0
        self.statement_s = 0.0


@asynccontextmanager
async def _watch(dsn: str) -> AsyncIterator[_Seen]:
    """Look at locks and statements every `LOOK_INTERVAL_S`, on a connection of its own."""
    seen = _Seen()
    connection = await asyncpg.connect(dsn)

    async def look() -> None:
        while True:
            row = await connection.fetchrow(_LOOK)
            assert row is not None
            seen.lock_wait_s = max(seen.lock_wait_s, row[0])
            seen.statement_s = max(seen.statement_s, row[1])
            await asyncio.sleep(LOOK_INTERVAL_S)

    looking = asyncio.create_task(look())
    try:
        yield seen
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        connection.terminate()


async def _fill(dsn: str, connection: asyncpg.Connection[asyncpg.Record], rows: int) -> None:
    """Make the schema of version 1 and fill it; indexes come after the rows."""
    await apply_migrations(connection, load_migrations()[:1], 60, migration_timeout_s=MIGRATION_TIMEOUT_S)
    await connection.execute(_WITHOUT_INDEXES)
    starts = iter(range(0, rows, FILL_ROWS))

    async def fill() -> None:
        own = await asyncpg.connect(dsn)
        await own.execute("SET synchronous_commit = off")
        for start in starts:
            await own.execute(_FILL, start, min(rows, start + FILL_ROWS))
        await own.close()

    await asyncio.gather(*(fill() for _ in range(FILLERS)))
    await connection.execute(_WITH_INDEXES)


async def _vacuum(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    dead: int = await connection.fetchval(
        "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'pcs_outcomes_0'"
    )
    await connection.execute("VACUUM pcs_outcomes_0")
    await connection.close()
    return dead


async def _taken_s(work: Awaitable[object]) -> float:
    began_s = time.perf_counter()
    await work
    return time.perf_counter() - began_s


def _tell(phase: Phase) -> None:
    _say(
        f"beside {phase.name} ({phase.rows} rows, {phase.beside_s:.1f} s): put_first of {BATCH}: "
        f"{len(phase.calls_s)} calls, p50 {phase.quantile_ms(0.5):.1f} ms, p99 {phase.quantile_ms(0.99):.1f} ms, "
        f"longest {phase.calls_s[-1] * 1_000:.1f} ms; longest lock wait {phase.longest_lock_wait_s * 1_000:.1f} ms, "
        f"longest statement {phase.longest_statement_s * 1_000:.1f} ms"
    )


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Measure retention in PostgreSQL with many rows")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--seconds", type=float, default=15.0)
    options = parser.parse_args()
    report = asyncio.run(measure(options.rows, options.seconds))
    _say(
        f"{report.left} outcomes are left of {report.expected} that should be; {report.size_bytes / 2**20:.0f} MiB after "
        f"the move; longest call of the purge {report.longest_purge_s * 1_000:.1f} ms"
    )
    if report.left != report.expected:
        sys.exit(1)


if __name__ == "__main__":
    main()
