"""The schema: complete, applied once whoever starts first, and never older than the database's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from outcomes import LIFE_MS, NOW_MS, Clock, changed, escalation, outcome, put
from pcs_backend.dedup import migrations as migrating
from pcs_backend.dedup.migrations import Migration, apply_migrations, load_migrations
from pcs_backend.dedup.postgres_queries import PARTITIONS
from pcs_backend.dedup.postgres_store import PostgresStore
from pcs_backend.dedup.store import Placed
from pcs_backend.errors import DataError, StoreUnavailableError
from pcs_backend.outcome import Outcome, WholeOutcome


def clock() -> float:
    return 1_750_000_000.0


async def applied(dsn: str) -> list[tuple[int, str]]:
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("SELECT version, name FROM pcs_schema_migrations ORDER BY version")
    finally:
        await connection.close()
    return [(row["version"], row["name"]) for row in rows]


async def execute(dsn: str, sql: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


def test_migrations_are_numbered_from_one_without_gaps():
    migrations = load_migrations()
    assert [migration.version for migration in migrations] == list(range(1, len(migrations) + 1))
    assert (migrations[0].version, migrations[0].name) == (1, "outcomes")


@pytest.mark.slow
class TestApplying:
    async def test_four_replicas_that_start_at_once_migrate_a_fresh_database_once(self, postgres_dsn: str):
        replicas = [PostgresStore(postgres_dsn, clock) for _ in range(4)]
        await asyncio.gather(*(store.open() for store in replicas))
        assert [await store.list_conflicts("default", 1) for store in replicas] == [[]] * 4
        await asyncio.gather(*(store.close() for store in replicas))
        assert await applied(postgres_dsn) == [(each.version, each.name) for each in load_migrations()]

    async def test_opening_again_applies_nothing(self, postgres_dsn: str):
        for _ in range(2):
            store = PostgresStore(postgres_dsn, clock)
            await store.open()
            await store.close()
        assert await applied(postgres_dsn) == [(each.version, each.name) for each in load_migrations()]

    async def test_a_newer_database_is_refused(self, postgres_dsn: str):
        """L5 in spirit: data that this program cannot understand is never taken for none."""
        store = PostgresStore(postgres_dsn, clock)
        await store.open()
        await store.close()
        await execute(
            postgres_dsn, "INSERT INTO pcs_schema_migrations (version, name) VALUES (900, 'of the future')"
        )
        with pytest.raises(
            DataError, match=r"schema version 900, newer than this program's 3: start a newer"
        ):
            await store.open()
        await store.close()

    async def test_a_migration_that_fails_leaves_the_old_schema(self, postgres_dsn: str):
        known = load_migrations()
        broken = Migration(len(known) + 1, "broken", "CREATE TABLE pcs_half (x int); SELECT 1 / 0")
        mended = broken._replace(sql="CREATE TABLE pcs_half (x int)")
        async with (
            asyncpg.create_pool(postgres_dsn, min_size=1, max_size=1) as pool,
            pool.acquire() as connection,
        ):
            assert await apply_migrations(connection, known, 5, migration_timeout_s=5) == [
                each.version for each in known
            ]
            with pytest.raises(asyncpg.DivisionByZeroError):
                await apply_migrations(connection, [*known, broken], 5, migration_timeout_s=5)
            assert await connection.fetchval("SELECT to_regclass('pcs_half')") is None
            assert await apply_migrations(connection, [*known, mended], 5, migration_timeout_s=5) == [
                mended.version
            ]
        assert await applied(postgres_dsn) == [(each.version, each.name) for each in [*known, mended]]

    async def test_a_schema_that_is_in_the_way_is_unavailable(self, postgres_dsn: str):
        await execute(postgres_dsn, "CREATE TABLE pcs_outcomes (x int)")
        store = PostgresStore(postgres_dsn, clock)
        with pytest.raises(StoreUnavailableError, match=r"\APostgreSQL: DuplicateTableError\Z"):
            await store.open()
        await store.close()

    async def test_the_tenant_is_in_every_key_and_index(self, postgres_dsn: str):
        """L10: no index without the tenant, from the first migration on."""
        store = PostgresStore(postgres_dsn, clock)
        await store.open()
        await store.close()
        connection = await asyncpg.connect(postgres_dsn)
        rows = await connection.fetch(
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'pcs_schema_migrations'"
        )
        await connection.close()
        assert len(rows) == 2 * (1 + PARTITIONS) + 4 + 7
        # An artifact is found by the digest of its bytes alone; a promotion's tenant is its scope.
        assert sorted(row["indexname"] for row in rows if "tenant" not in row["indexdef"]) == [
            "pcs_artifacts_by_need",
            "pcs_artifacts_pkey",
            "pcs_promotions_by_digest",
            "pcs_promotions_pkey",
        ]


PUT_FIRST_OF_THE_RELEASE_BEFORE = """
    WITH stored AS (
        INSERT INTO pcs_outcomes AS o (
            tenant, pcs_id, status, body, fingerprint, params_version, key_id, provenance, stored_at_ms, expires_at_ms
        )
        SELECT o.tenant, o.pcs_id, o.status, o.body, o.fingerprint, o.params_version, o.key_id, o.provenance,
            o.stored_at_ms, o.expires_at_ms
        FROM unnest(
            $1::text[], $2::text[], $3::smallint[], $4::bytea[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::bigint[], $10::bigint[]
        ) AS o (
            tenant, pcs_id, status, body, fingerprint, params_version, key_id, provenance, stored_at_ms, expires_at_ms
        )
        ORDER BY o.tenant COLLATE "C", o.pcs_id COLLATE "C"
        ON CONFLICT DO NOTHING
        RETURNING tenant, pcs_id, status, stored_at_ms
    ), queued AS (
        INSERT INTO pcs_escalations (tenant, pcs_id, stored_at_ms)
        SELECT tenant, pcs_id, stored_at_ms FROM stored WHERE status = 202
    )
    SELECT tenant, pcs_id FROM stored"""

PURGE_OF_THE_RELEASE_BEFORE = """
    WITH expired AS (
        SELECT tenant, pcs_id FROM pcs_outcomes WHERE expires_at_ms <= $1
        ORDER BY expires_at_ms LIMIT $2
        FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM pcs_outcomes AS o USING expired AS e WHERE o.tenant = e.tenant AND o.pcs_id = e.pcs_id
        RETURNING 1
    )
    SELECT count(*) FROM gone"""


class ReleaseBefore:
    """A process that serves with schema version 1: one connection, its statements prepared."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection

    async def put(self, *outcomes: Outcome) -> list[str]:
        columns = [[getattr(each, name) for each in outcomes] for name in WholeOutcome.__struct_fields__]
        rows = await self.connection.fetch(PUT_FIRST_OF_THE_RELEASE_BEFORE, *columns)
        return [row["pcs_id"] for row in rows]

    async def purge(self, now_ms: int) -> int:
        return await self.connection.fetchval(PURGE_OF_THE_RELEASE_BEFORE, now_ms, 1_000)


@pytest.fixture
async def before(postgres_dsn: str) -> AsyncIterator[ReleaseBefore]:
    connection = await asyncpg.connect(postgres_dsn)
    await apply_migrations(connection, load_migrations()[:1], 5, migration_timeout_s=5)
    yield ReleaseBefore(connection)
    await connection.close()


@pytest.mark.slow
class TestPartitions:
    async def test_rows_are_moved_with_their_place_in_the_queue(
        self, postgres_dsn: str, before: ReleaseBefore
    ) -> None:
        stored = [
            outcome(number, tenant=f"t{number % 2}", status=202 if number % 3 else 200)
            for number in range(300)
        ]
        await before.put(*stored)
        await before.connection.execute(
            "UPDATE pcs_escalations SET acked_at_ms = 1 WHERE pcs_id = $1", stored[1].pcs_id
        )
        store = PostgresStore(postgres_dsn, clock)
        await store.open()
        assert await store.get([each.key for each in stored]) == stored
        assert await put(store, *stored) == [Placed(each, False) for each in stored]
        for tenant in ("t0", "t1"):
            waiting = [
                escalation(each)
                for each in sorted(stored, key=lambda each: each.pcs_id)
                if each.escalated and each.tenant == tenant and each != stored[1]
            ]
            assert await store.list_escalations(tenant, 1_000) == waiting
        await store.close()
        spread = await before.connection.fetch(
            "SELECT tableoid, count(*) FROM pcs_outcomes GROUP BY tableoid"
        )
        assert len(spread) == PARTITIONS
        assert min(row["count"] for row in spread) > 300 / PARTITIONS / 3

    async def test_a_process_of_the_release_before_goes_on_when_the_rows_were_moved(
        self, postgres_dsn: str, before: ReleaseBefore
    ) -> None:
        """Version skew: its prepared statements, purge and foreign key included, do on partitions what they did."""
        moment = Clock()
        first = outcome(1, status=202)
        assert await before.put(first) == [first.pcs_id]
        store = PostgresStore(postgres_dsn, moment)
        await store.open()

        late, new = changed(first, body=b"late"), outcome(2, status=202)
        assert await before.put(late, new) == [new.pcs_id]
        assert await put(store, late, changed(new, body=b"late")) == [
            Placed(first, False),
            Placed(new, False),
        ]
        moment.pass_ms(LIFE_MS)
        assert await before.purge(NOW_MS + LIFE_MS) == 2
        again = outcome(1, status=202, stored_at_ms=NOW_MS + LIFE_MS)
        assert await put(store, again) == [Placed(again, True)]
        assert await store.list_escalations("default", 10) == [escalation(again)]
        await store.close()

    async def test_a_migration_waits_for_nobody_for_long_and_comes_again(
        self, postgres_dsn: str, before: ReleaseBefore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While it waits for a table, everybody else waits behind it."""
        monkeypatch.setattr(migrating, "LOCK_WAIT_MS", 200)
        stored = outcome(1)
        store = PostgresStore(postgres_dsn, clock)
        async with before.connection.transaction():
            await before.put(stored)
            with pytest.raises(StoreUnavailableError, match=r"\APostgreSQL: LockNotAvailableError\Z"):
                await store.open()
        assert await applied(postgres_dsn) == [(1, "outcomes")]
        await store.open()
        assert await store.get([stored.key]) == [stored]
        await store.close()

    async def test_who_gives_up_waiting_for_a_migration_does_not_end_it(
        self, postgres_dsn: str, before: ReleaseBefore
    ) -> None:
        """A migration that takes longer than a caller waits would else begin again for ever."""
        stored = outcome(1)
        store = PostgresStore(postgres_dsn, clock)
        transaction = before.connection.transaction()
        await transaction.start()
        await before.put(stored)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await store.open()
        await transaction.commit()
        async with asyncio.timeout(10):
            while len(await applied(postgres_dsn)) < len(load_migrations()):
                await asyncio.sleep(0)
        await store.open()
        assert await store.get([stored.key]) == [stored]
        await store.close()
