"""What `put_first` asks of a server: one statement or script a batch, whatever was there before."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
import redis.asyncio

from outcomes import LIFE_MS, NOW_MS, Clock, outcome, put
from pcs_backend.dedup.guarded_store import GuardedStore
from pcs_backend.dedup.postgres_store import PostgresStore
from pcs_backend.dedup.redis_store import RedisStore
from pcs_backend.dedup.store import Candidate, Placed
from pcs_backend.errors import OutcomeUnreadableError
from servers import PostgresServer

pytestmark = pytest.mark.slow

BATCH = 1_000


class Statements:
    """Counts the statements that sessions opened from now on run in a database, by the server's own log."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._read_bytes = log.stat().st_size

    def since(self) -> list[str]:
        """Return the first line of each since the last time."""
        with self._log.open("rb") as log:
            log.seek(self._read_bytes)
            said = log.read()
        self._read_bytes += len(said)
        return re.findall(r"LOG:  (?:execute \w+|statement):\s+(.+)", said.decode())


@asynccontextmanager
async def logged(
    server: PostgresServer, dsn: str, clock: Clock
) -> AsyncIterator[tuple[PostgresStore, Statements]]:
    connection = await asyncpg.connect(dsn)
    await connection.execute(f"ALTER DATABASE {dsn.rpartition('/')[2]} SET log_statement = 'all'")
    await connection.close()
    store = PostgresStore(dsn, clock)
    await store.open()
    await put(store, outcome(-1))  # the driver asks for types and prepares, once a connection
    statements = Statements(server.log_path)
    try:
        yield store, statements
    finally:
        await store.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_postgres_takes_a_batch_in_one_statement_also_where_some_or_all_are_known(
    postgres_server: PostgresServer, postgres_dsn: str, clock: Clock
) -> None:
    old = [outcome(number, body=b"old", status=202 if number % 3 else 200) for number in range(BATCH)]
    new = [outcome(number, body=b"new", tenant="default") for number in range(BATCH // 2, BATCH + BATCH // 2)]
    async with logged(postgres_server, postgres_dsn, clock) as (store, statements):
        assert await put(store, *old) == [Placed(each, True) for each in old]
        assert await put(store, *new) == [
            Placed(old[number], False) if number < BATCH else Placed(new[number - BATCH // 2], True)
            for number in range(BATCH // 2, BATCH + BATCH // 2)
        ]
        assert await put(store, *old) == [Placed(each, False) for each in old]
        assert await put(store, outcome(1)) == [Placed(old[1], False)]
        ran = statements.since()
        assert [line for line in ran if not line.startswith("WITH candidate")] == []
        assert len(ran) == 4

        # Only what has expired takes more: it is forgotten, and the rest is not asked for again.
        clock.pass_ms(LIFE_MS)
        again = outcome(1, body=b"again", stored_at_ms=NOW_MS + LIFE_MS)
        assert await put(store, outcome(BATCH, life_ms=2 * LIFE_MS), again) == [
            Placed(outcome(BATCH, life_ms=2 * LIFE_MS), True),
            Placed(again, True),
        ]
        assert [line.split()[1] for line in statements.since()] == ["candidate", "expired", "candidate"]


async def test_redis_takes_a_batch_of_several_tenants_in_one_call_also_where_some_are_known(
    redis_address: str, clock: Clock
) -> None:
    store = RedisStore(redis_address, clock)
    await store.open()
    await put(store, outcome(0, tenant="a"))  # the script is known from now on
    old = [outcome(number, tenant=f"t{number % 3}", status=202) for number in range(BATCH)]
    async with redis.asyncio.Redis.from_url(f"redis://{redis_address}") as client:
        await client.config_resetstat()
        assert await put(store, *old) == [Placed(each, True) for each in old]
        late = [outcome(number, tenant=f"t{number % 3}", body=b"late") for number in range(BATCH // 2)]
        assert await put(store, *late, outcome(BATCH, tenant="a")) == [
            *(Placed(each, False) for each in old[: BATCH // 2]),
            Placed(outcome(BATCH, tenant="a"), True),
        ]
        stats = await client.info("commandstats")
    asked = {
        name.removeprefix("cmdstat_"): stats[name]["calls"]
        for name in stats
        if name in {"cmdstat_evalsha", "cmdstat_eval", "cmdstat_mget"}
    }
    assert asked == {"evalsha": 2}
    # What is stored is written once, and read only where another was first.
    assert (stats["cmdstat_set"]["calls"], stats["cmdstat_get"]["calls"]) == (
        2 * BATCH - BATCH // 2 + 1,
        BATCH // 2,
    )
    assert [len(await store.list_escalations(f"t{number}", BATCH)) for number in range(3)] == [334, 333, 333]
    await store.close()


@pytest.mark.parametrize(
    "held", [b"nonsense", None], ids=["a value that is none of ours", "a key of another type"]
)
async def test_an_outcome_that_cannot_be_read_leaves_its_neighbours_in_the_batch_theirs(
    redis_address: str, clock: Clock, held: bytes | None
) -> None:
    store = RedisStore(redis_address, clock)
    await store.open()
    batch = [outcome(number, status=202) for number in range(3)]
    async with redis.asyncio.Redis.from_url(f"redis://{redis_address}") as client:
        key = f"pcs:{{default}}:o:{batch[1].pcs_id}"
        await (client.lpush(key, "x") if held is None else client.set(key, held))
    with pytest.raises(OutcomeUnreadableError, match="cannot read") as error:
        await store.put_first([Candidate(each, None) for each in batch])
    assert error.value.placed == [Placed(batch[0], True), None, Placed(batch[2], True)]
    assert [each.pcs_id for each in await store.list_escalations("default", 10)] == [
        each.pcs_id for each in sorted((batch[0], batch[2]), key=lambda each: each.pcs_id)
    ]
    await store.close()


async def test_single_submits_at_one_moment_go_in_one_statement(
    postgres_server: PostgresServer, postgres_dsn: str, clock: Clock
) -> None:
    async with logged(postgres_server, postgres_dsn, clock) as (store, statements):
        guarded = GuardedStore(store, asyncio.sleep)
        await guarded.open()
        statements.since()
        placed = await asyncio.gather(*(put(guarded, outcome(number % 150)) for number in range(200)))
        assert placed == [[Placed(outcome(number % 150), number < 150)] for number in range(200)]
        assert len(statements.since()) == 1
        await guarded.close()
