"""What a record costs in the stores: `make bench-stores`.

For Redis and PostgreSQL, in batches of 100 and 1,000, of new records and of known ones: the driver alone with arguments that
were made before the clock started, then the store, behind its switch as the service has it. CPU is counted in this
process and in the server, so that the figures mean something on a busy machine.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import asyncpg
import psutil
import uvloop
from redis.asyncio import Redis

from pcs_backend.dedup import postgres_queries, redis_scripts
from pcs_backend.dedup.guarded_store import GuardedStore
from pcs_backend.dedup.postgres_store import PostgresStore
from pcs_backend.dedup.redis_store import RedisStore, put_first_arguments
from pcs_backend.dedup.store import Candidate
from pcs_backend.outcome import WholeOutcome
from servers import PostgresServer, RedisServer

NOW_MS = 1_750_000_000_000
SIZES = (100, 1_000)
WARM_UP_CALLS = 5

Call = Callable[[], Awaitable[object]]


class Cost(NamedTuple):
    """Of one record.

    Attributes:
        what: Store, who asked, batch size, new or known records.
        rate: Records a second, one call at a time.
        own_us: CPU microseconds in this process.
        server_us: The same in the server.
    """

    what: str
    rate: float
    own_us: float
    server_us: float


async def measure(records: int) -> list[Cost]:
    """Measure both stores; `records` of each kind and size."""
    costs = []
    with RedisServer(auto_aof_rewrite_percentage="0") as redis_server:
        client = Redis.from_url(f"redis://{redis_server.address}", protocol=2)
        digest = await client.script_load(redis_scripts.PUT_FIRST)

        def by_redis(batch: Sequence[Candidate]) -> Call:
            keys, arguments = put_first_arguments([each.outcome for each in batch], NOW_MS)
            return lambda: client.evalsha(digest, len(keys), *keys, *arguments)

        redis_store = GuardedStore(RedisStore(redis_server.address, _now), asyncio.sleep)
        costs += await _compare("redis", redis_server.pid, by_redis, redis_store, records)
        await client.aclose()
    with PostgresServer(shared_buffers="512MB") as postgres_server:
        dsn = postgres_server.create_database()
        postgres_store = GuardedStore(PostgresStore(dsn, _now), asyncio.sleep)
        await postgres_store.open()
        connection = await asyncpg.connect(dsn)
        await connection.execute(postgres_queries.SESSION)

        def by_postgres(batch: Sequence[Candidate]) -> Call:
            arguments = postgres_queries.put_first_arguments([each.outcome for each in batch], NOW_MS)
            return lambda: connection.fetch(postgres_queries.PUT_FIRST, *arguments)

        costs += await _compare("postgres", postgres_server.pid, by_postgres, postgres_store, records)
        await connection.close()
    return costs


async def _compare(
    name: str, pid: int, driver: Callable[[Sequence[Candidate]], Call], store: GuardedStore, records: int
) -> list[Cost]:
    await store.open()

    def by_store(batch: Sequence[Candidate]) -> Call:
        return lambda: store.put_first(batch)

    costs = []
    for size in SIZES:
        for who, call_for in (("driver", driver), ("store", by_store)):
            count = records // size
            batches = [
                [_candidate(f"{who} {size} {number} {place}") for place in range(size)]
                for number in range(count + WARM_UP_CALLS)
            ]
            calls = [call_for(batch) for batch in batches]
            for call in calls[:WARM_UP_CALLS]:
                await call()
            for kind in ("new", "known"):
                what = f"{name} {who} {size} {kind}"
                costs += [await _cost(what, pid, calls[WARM_UP_CALLS:], count * size)]
    await store.close()
    return costs


async def _cost(what: str, pid: int, calls: Sequence[Call], records: int) -> Cost:
    server_s, own_s, began_s = _server_cpu_s(pid), time.process_time(), time.perf_counter()
    for call in calls:
        await call()
    taken_s = time.perf_counter() - began_s
    own_s = time.process_time() - own_s
    server_s = _server_cpu_s(pid) - server_s
    return Cost(what, records / taken_s, own_s / records * 1e6, server_s / records * 1e6)


def _server_cpu_s(pid: int) -> float:
    """Return the CPU seconds of a server, its children of now and those that have ended."""
    process = psutil.Process(pid)
    living: list[Any] = process.children(recursive=True)
    return float(sum(process.cpu_times()[:4]) + sum(sum(each.cpu_times()[:2]) for each in living))


def _candidate(name: str) -> Candidate:
    pcs_id = hashlib.sha256(name.encode()).hexdigest()
    body = (
        b'{"pcs_id":"%s","accepted":true,"escalated":false,"reasons":[],"recomputed":'
        b'{"D_hat":1.234567891,"regime":"mixed","budget":0.285714286}}' % pcs_id.encode()
    )
    outcome = WholeOutcome(
        tenant="default",
        pcs_id=pcs_id,
        status=200,
        body=body,
        fingerprint=hashlib.sha256(body).hexdigest(),
        params_version="defaults-1",
        key_id="hmac-0123456789abcdef",
        stored_at_ms=NOW_MS,
        expires_at_ms=NOW_MS + 14 * 86_400_000,
    ).outcome
    return Candidate(outcome, None)


def _now() -> float:
    return NOW_MS / 1_000


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Measure what a record costs in the stores")
    parser.add_argument("--records", type=int, default=50_000)
    records = parser.parse_args().records
    sys.stdout.write(f"{'':32} {'records/s':>10} {'own µs':>8} {'server µs':>10}\n")
    for cost in uvloop.run(measure(records)):
        sys.stdout.write(f"{cost.what:32} {cost.rate:10.0f} {cost.own_us:8.1f} {cost.server_us:10.1f}\n")


if __name__ == "__main__":
    main()
