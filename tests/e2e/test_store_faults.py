"""Stores that die, forget, hang, are late or are full of work, behind a network that fails; real servers throughout.

What must hold each time is in `Replicas.check`: what was acknowledged answers the same bytes at both processes, each
record has one first outcome, each escalation stands in the queue once, and nothing is left open.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest

from processes import Answer
from replicas import Replica, record_id, records, replicas, signed
from servers import PostgresServer, RedisServer

pytestmark = [pytest.mark.slow]

RECORDS = 300
PLACING = b'"recomputed"'
"""What only the write of an outcome holds."""

STORE_TIMEOUT_S = 5.0
BOUND_S = 2 * STORE_TIMEOUT_S + 3.0
"""A call may take the store's time limit, and taking a hung connection out of use as long again."""

PROBE_S = 1.0

FAULTS_OF_A_WRITE: dict[str, dict[str, Any]] = {
    "answer late": {"to_client_latency_s": STORE_TIMEOUT_S + 1},
    "answer lost": {"answers": "drop"},
    "connection reset": {"answers": "reset"},
}
"""Each takes effect in the store, and its caller does not hear of it in time."""


class Store(NamedTuple):
    """An empty store of a test's own."""

    server: RedisServer | PostgresServer
    dsn: str


def store_of(request: pytest.FixtureRequest, kind: str) -> Store:
    if kind == "redis":
        request.getfixturevalue("redis_address")
        return Store(request.getfixturevalue("redis_server"), "")
    dsn = request.getfixturevalue("postgres_dsn")
    return Store(request.getfixturevalue("postgres_server"), dsn)


@pytest.fixture(params=["redis", "postgres"])
def store(request: pytest.FixtureRequest) -> Store:
    return store_of(request, request.param)


@contextmanager
def back_again(server: RedisServer | PostgresServer) -> Iterator[None]:
    """Leave the server running for the next test whatever happens."""
    try:
        yield
    finally:
        server.start()


async def timed(answer: Awaitable[Answer]) -> tuple[int, float]:
    began_s = time.monotonic()
    return (await answer).status, time.monotonic() - began_s


async def check_probes(replica: Replica) -> None:
    """The process answers its probes at once, and stays ready: bodies still reach the log."""
    for path in ("/health/live", "/health/ready"):
        status, took_s = await timed(replica.client.get(path))
        assert (status, took_s < PROBE_S) == (200, True)


async def check_unavailable(replica: Replica, bodies: Iterable[bytes]) -> None:
    """Submit at once: each is 503 within the bound, and probes are answered meanwhile."""
    submitted = [asyncio.create_task(timed(replica.client.submit(body))) for body in bodies]
    while not all(task.done() for task in submitted):
        await check_probes(replica)
        await asyncio.sleep(0.2)
    results = [task.result() for task in submitted]
    assert {status for status, _ in results} == {503}
    assert max(took_s for _, took_s in results) < BOUND_S


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("redis", "kill"),
        ("postgres", "kill"),
        ("postgres", "stop_immediately"),
        ("postgres", "crash_sessions"),
    ],
)
async def test_store_that_dies_under_load(
    tmp_path: Path, request: pytest.FixtureRequest, hmac_variables: dict[str, str], kind: str, how: str
) -> None:
    """SIGKILL of all of it; an immediate stop; SIGKILL of the processes amid a statement."""
    server, dsn = store_of(request, kind)
    all_records = records(RECORDS)
    async with replicas(tmp_path, server, dsn, **hmac_variables) as pair:
        with back_again(server):
            load = asyncio.create_task(pair.submit_all(all_records))
            while pair.first_answers < RECORDS // 4:
                await asyncio.sleep(0.002)
            if how == "crash_sessions":
                assert isinstance(server, PostgresServer)
                assert server.crash_sessions(dsn.rpartition("/")[2]) > 0
            else:
                getattr(server, how)()
                for replica in pair.each:
                    await check_probes(replica)
                server.start()
        answers = await load
        assert pair.unavailable > 0
        assert len(answers) == RECORDS
        await pair.check(all_records, answers)


async def test_redis_that_is_emptied_judges_duplicates_anew_and_the_log_has_everything(
    tmp_path: Path, redis_server: RedisServer, redis_address: str, hmac_variables: dict[str, str]
) -> None:
    """What a store forgets is forgotten: no error, no other verdict, but a second first outcome. Bodies stay."""
    del redis_address
    before = records(40)
    async with replicas(tmp_path, redis_server, "", **hmac_variables) as pair:
        load = asyncio.create_task(pair.submit_all(before | records(RECORDS, first=1_000)))
        while pair.first_answers < RECORDS // 4:
            await asyncio.sleep(0.002)
        redis_server.flush()
        answers = await load
        assert pair.unavailable == 0
        redis_server.flush()
        await pair.settle()
        counted = await pair.counted()
        assert counted >= len(answers)
        for pcs_id, body in before.items():
            again = await pair.each[0].client.submit(body)
            assert (again.status, again.body, again.replayed) == (
                answers[pcs_id].status,
                answers[pcs_id].body,
                False,
            )
            other = await pair.each[1].client.submit(body)
            assert (other.body, other.replayed) == (again.body, True)
        assert await pair.counted() == counted + len(before)
        assert pair.escalations() == Counter(pcs_id for pcs_id in before if answers[pcs_id].status == 202)
        # A restart does not put back what the store forgot: the log notes it as settled. Its bodies are all there.
        redis_server.flush()
        for replica in pair.each:
            assert replica.backend.stop() == 0
            replica.backend.start()
        await pair.settle()
        assert await pair.counted() == 0
        kept = b"".join(path.read_bytes() for path in tmp_path.rglob("wal/0/*.wal"))
        assert [pcs_id for pcs_id in answers if pcs_id.encode() not in kept] == []
        assert (await pair.each[1].client.submit(before[record_id(1)])).replayed is False


class TestBusy:
    """More work than connections. Redis holds 16 a process, PostgreSQL 8."""

    async def test_store_that_stalls_for_less_than_the_time_limit_fails_nothing(
        self, tmp_path: Path, store: Store, hmac_variables: dict[str, str]
    ) -> None:
        all_records = records(120)
        async with replicas(tmp_path, *store, **hmac_variables) as pair:
            answers = await pair.submit_all(records(3))
            async with stalled(store, seconds=2.0):
                load = asyncio.create_task(pair.submit_all(all_records, at_once=60))
                for _ in range(5):
                    await asyncio.sleep(0.2)
                    for replica in pair.each:
                        await check_probes(replica)
            answers |= await load
            assert pair.unavailable == 0
            await pair.check(all_records, answers, uncounted=0)

    async def test_locks_that_are_held_longer_are_503_in_bounded_time(
        self,
        tmp_path: Path,
        postgres_server: PostgresServer,
        postgres_dsn: str,
        hmac_variables: dict[str, str],
    ) -> None:
        all_records = records(43)
        async with replicas(tmp_path, postgres_server, postgres_dsn, **hmac_variables) as pair:
            known = await pair.submit(pair.each[0], all_records[record_id(1)])
            async with asyncio.timeout(2 * BOUND_S), holding_locks(postgres_dsn):
                await asyncio.gather(
                    *(
                        check_unavailable(replica, (all_records[record_id(epoch)] for epoch in epochs))
                        for replica, epochs in zip(pair.each, (range(3, 23), range(23, 43)), strict=True)
                    )
                )
            answers = {record_id(1): known} | await pair.submit_all(all_records)
            await pair.check(all_records, answers, uncounted=0)


class TestLate:
    async def test_late_write_does_not_become_a_second_first_outcome(
        self, tmp_path: Path, store: Store, hmac_variables: dict[str, str]
    ) -> None:
        """The first process's write is on its way for longer than it waits; the second process's overtakes it."""
        async with replicas(tmp_path, *store, **hmac_variables) as pair:
            first, second = pair.each
            await pair.submit_all(records(1, first=7))  # one that is accepted
            first.proxy.set(to_server_latency_s=STORE_TIMEOUT_S + 2, matching=PLACING)
            late = asyncio.create_task(timed(first.client.submit(signed(1))))
            async with asyncio.timeout(STORE_TIMEOUT_S):
                while (await first.client.metrics())["flk_open_requests"] == 0:
                    await asyncio.sleep(0)
            winner = await pair.submit(second, signed(1, D_hat=4.0))
            status, took_s = await late
            assert (status, took_s < BOUND_S) == (503, True)
            assert winner.status == 202
            # The late write arrives all the same, and the store judges it: nothing may have changed after it.
            async with asyncio.timeout(BOUND_S):
                while first.proxy.counts.matched_to_server == 0:
                    await asyncio.sleep(0.05)
            first.proxy.set()
            await pair.settle()
            again = await first.client.submit(signed(1))
            assert (again.status, again.body, again.replayed) == (202, winner.body, True)
            assert again.headers["PCS-Conflict"] == "true"
            assert pair.escalations() == Counter([record_id(1)])
            counters = [(await replica.client.counters())[2:] for replica in pair.each]
            assert sum(accepted for accepted, _ in counters) == 1  # the record before
            assert [escalated for _, escalated in counters] == [0, 1]

    @pytest.mark.parametrize("fault", sorted(FAULTS_OF_A_WRITE))
    async def test_outcome_whose_call_failed_is_stored_once_answered_and_counted_nowhere(
        self, tmp_path: Path, store: Store, hmac_variables: dict[str, str], fault: str
    ) -> None:
        """Who asks again finds the outcome known. It is the one thing that counters do not count."""
        async with replicas(tmp_path, *store, **hmac_variables) as pair:
            first, second = pair.each
            answers = await pair.submit_all(records(3))
            first.proxy.set(matching=PLACING, **FAULTS_OF_A_WRITE[fault])
            body = signed(3, D_hat=4.0)
            status, took_s = await timed(first.client.submit(body))
            assert (status, took_s < BOUND_S) == (503, True)
            first.proxy.set()
            await pair.settle()
            answer = await second.client.submit(body)
            assert (answer.status, answer.replayed) == (202, True)
            await pair.check(records(4), answers | {record_id(3): answer}, uncounted=1)


class TestHalfOpen:
    async def test_store_behind_a_dead_network_is_503_in_bounded_time_and_recovers(
        self, tmp_path: Path, store: Store, hmac_variables: dict[str, str]
    ) -> None:
        all_records = records(33)
        async with replicas(tmp_path, *store, **hmac_variables) as pair:
            answers = await pair.submit_all(records(3))
            for replica in pair.each:
                replica.proxy.set(silent=True)
            await asyncio.gather(
                *(
                    check_unavailable(replica, (all_records[record_id(epoch)] for epoch in range(3, 33)))
                    for replica in pair.each
                )
            )
            # From now on it is known to be down, and nobody waits for it.
            for replica in pair.each:
                status, took_s = await timed(replica.client.submit(all_records[record_id(0)]))
                assert (status, took_s < PROBE_S) == (503, True)
                assert (await replica.client.metrics())["flk_store_up"] == 0
            for replica in pair.each:
                replica.proxy.set()
            answers |= await pair.submit_all(all_records)
            await pair.check(all_records, answers, uncounted=0)

    async def test_pool_of_dead_sockets_is_replaced_after_one_call_without_an_answer(
        self, tmp_path: Path, store: Store, hmac_variables: dict[str, str]
    ) -> None:
        """Every connection dies without a word while new ones work: one record pays for it.

        How many connections there are depends on what goes together; `tests/backend/dedup` has a pool of many.
        """
        all_records = records(RECORDS)
        async with replicas(tmp_path, *store, **hmac_variables) as pair:
            answers = await pair.submit_all(records(100), at_once=60)
            for replica in pair.each:
                replica.proxy.silence()
            await asyncio.gather(
                *(check_unavailable(replica, [all_records[record_id(100)]]) for replica in pair.each)
            )
            for replica in pair.each:
                await replica.client.wait_for_metric("flk_store_up", 1)
            answers |= await pair.submit_all(all_records, at_once=60)
            assert pair.unavailable == 0
            await pair.check(all_records, answers, uncounted=0)


@asynccontextmanager
async def stalled(store: Store, seconds: float) -> AsyncIterator[None]:
    """Let the store answer nobody for so long."""
    if isinstance(store.server, RedisServer):
        store.server.freeze()
        try:
            began_s = time.monotonic()
            yield
            await asyncio.sleep(max(0.0, seconds - (time.monotonic() - began_s)))
        finally:
            store.server.thaw()
    else:
        async with holding_locks(store.dsn):
            yield
            await asyncio.sleep(seconds / 2)


@asynccontextmanager
async def holding_locks(dsn: str) -> AsyncIterator[None]:
    """Hold the table of outcomes in a transaction that does not end."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE pcs_outcomes IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()
