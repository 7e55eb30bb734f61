"""The schema: complete, applied once whoever starts first, and never older than the database's."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from pcs_backend.dedup.migrations import Migration, apply_migrations, load_migrations
from pcs_backend.dedup.postgres_store import PostgresStore
from pcs_backend.errors import DataError, StoreUnavailableError


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
            DataError, match=r"schema version 900, newer than this program's 1: start a newer"
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
            assert await apply_migrations(connection, known, 5) == [each.version for each in known]
            with pytest.raises(asyncpg.DivisionByZeroError):
                await apply_migrations(connection, [*known, broken], 5)
            assert await connection.fetchval("SELECT to_regclass('pcs_half')") is None
            assert await apply_migrations(connection, [*known, mended], 5) == [mended.version]
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
        assert len(rows) == 6
        assert [row["indexname"] for row in rows if "tenant" not in row["indexdef"]] == []
