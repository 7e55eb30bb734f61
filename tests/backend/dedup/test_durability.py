"""What a store says of its server's settings."""

from __future__ import annotations

import msgspec
import pytest

from pcs_backend.dedup.postgres_store import PostgresStore
from pcs_backend.dedup.redis_store import RedisStore
from pcs_backend.dedup.store import Candidate, DedupStore
from pcs_backend.errors import StoreUnavailableError
from pcs_backend.outcome import Outcome, WholeOutcome
from servers import PostgresServer, RedisServer

NOW_S = 1_750_000_000.0


def clock() -> float:
    return NOW_S


def outcome(body: bytes) -> Outcome:
    return WholeOutcome(
        tenant="default",
        pcs_id="0" * 64,
        status=202,
        body=body,
        fingerprint="f",
        params_version="p",
        key_id="",
        stored_at_ms=int(NOW_S) * 1_000,
        expires_at_ms=int(NOW_S) * 1_000 + 1_000_000,
    ).outcome


def numbered(base: Outcome, number: int) -> Outcome:
    return msgspec.structs.replace(base, pcs_id=f"{number:064x}")


async def warnings_of(store: DedupStore) -> list[str]:
    await store.open()
    try:
        return await store.durability_warnings()
    finally:
        await store.close()


@pytest.mark.slow
class TestRedis:
    @pytest.mark.parametrize(
        ("options", "warnings"),
        [
            ({}, []),
            (
                {"appendonly": "no"},
                ["Redis has appendonly off: a restart forgets acknowledged outcomes."],
            ),
            (
                {"appendfsync": "everysec"},
                ["Redis has appendfsync not always: a crash may lose acknowledged outcomes."],
            ),
            (
                {"no_appendfsync_on_rewrite": "yes"},
                [
                    "Redis has no-appendfsync-on-rewrite on: a crash during a rewrite may lose acknowledged outcomes."
                ],
            ),
            ({"maxmemory": "100mb"}, []),
            ({"maxmemory_policy": "allkeys-lru"}, []),
            (
                {"maxmemory": "100mb", "maxmemory_policy": "allkeys-lru", "appendonly": "no"},
                [
                    "Redis has appendonly off: a restart forgets acknowledged outcomes.",
                    "Redis has maxmemory with a maxmemory-policy other than noeviction: it may evict outcomes.",
                ],
            ),
            (
                {"rename_command": "CONFIG NOBODY-KNOWS"},
                ["Redis refuses CONFIG GET: whether it keeps what it acknowledged could not be checked."],
            ),
        ],
    )
    async def test_each_setting_that_loses_outcomes_is_named(
        self, options: dict[str, str], warnings: list[str]
    ):
        with RedisServer(**options) as server:
            assert await warnings_of(RedisStore(server.address, clock)) == warnings

    async def test_full_memory_is_unavailable_and_stores_nothing(self):
        """L15: a failed write of an outcome is never ignored. OOM comes before the script's first write."""
        with RedisServer(maxmemory="2mb") as server:
            store = RedisStore(server.address, clock)
            await store.open()
            refused = 0
            for number in range(10):
                try:
                    await store.put_first([Candidate(numbered(outcome(b"x" * 200_000), number), None)])
                except StoreUnavailableError:
                    refused += 1
            kept = await store.get([numbered(outcome(b""), number).key for number in range(10)])
            queued = await store.list_escalations("default", 100)
            assert {each.pcs_id for each in queued} == {each.pcs_id for each in kept if each is not None}
            assert 0 < refused < 10
            assert kept.count(None) == refused
            await store.close()

    async def test_a_replica_that_takes_no_writes_is_unavailable(self, redis_server: RedisServer):
        """L15: after a failover the old primary answers READONLY."""
        redis_server.start()
        with RedisServer(replicaof=f"127.0.0.1 {redis_server.port}") as server:
            store = RedisStore(server.address, clock)
            await store.open()
            with pytest.raises(StoreUnavailableError, match=r"\ARedis: \w+\Z"):
                await store.put_first([Candidate(outcome(b"x"), None)])
            await store.close()


@pytest.mark.slow
class TestPostgres:
    async def test_a_setting_of_the_database_that_loses_outcomes_is_named(
        self, postgres_server: PostgresServer, postgres_dsn: str
    ):
        store = PostgresStore(postgres_dsn, clock)
        assert await warnings_of(store) == []
        database = postgres_dsn.rpartition("/")[2]
        postgres_server.execute(f"ALTER DATABASE {database} SET synchronous_commit = off")
        assert await warnings_of(store) == [
            "PostgreSQL has synchronous_commit off: a crash may lose acknowledged outcomes."
        ]

    async def test_settings_of_the_server_that_lose_outcomes_are_named(
        self, postgres_server: PostgresServer, postgres_dsn: str
    ):
        settings = ("fsync", "full_page_writes")
        try:
            for name in settings:
                postgres_server.execute(f"ALTER SYSTEM SET {name} = off")
            postgres_server.stop()
            postgres_server.start()
            assert await warnings_of(PostgresStore(postgres_dsn, clock)) == [
                "PostgreSQL has fsync off: a power cut may lose or corrupt the database.",
                "PostgreSQL has full_page_writes off: a power cut may corrupt the database.",
            ]
        finally:
            for name in settings:
                postgres_server.execute(f"ALTER SYSTEM RESET {name}")
            postgres_server.stop()
            postgres_server.start()

    async def test_a_database_that_takes_no_writes_is_unavailable(
        self, postgres_server: PostgresServer, postgres_dsn: str
    ):
        """L15: a standby, or a database set to read only, refuses; nothing is accepted."""
        store = PostgresStore(postgres_dsn, clock)
        await store.open()
        await store.close()
        database = postgres_dsn.rpartition("/")[2]
        postgres_server.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
        await store.open()  # the schema is there already: nothing is written
        with pytest.raises(StoreUnavailableError, match=r"\APostgreSQL: ReadOnlySQLTransactionError\Z"):
            await store.put_first([Candidate(outcome(b"x"), None)])
        await store.close()
