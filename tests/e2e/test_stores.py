"""The stores as a running service sees them: two replicas, an outage, a memory store that is full."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import pcs_records
from processes import HMAC_KEY, Backend, Client
from servers import PostgresServer, RedisServer

pytestmark = [pytest.mark.slow]

KEY = HMAC_KEY.encode()
COPIES = 50


def signed(epoch: int, **overrides: object) -> bytes:
    return pcs_records.body(pcs_records.sign(pcs_records.document(epoch=epoch, **overrides), hmac_key=KEY))


@pytest.fixture(params=["redis", "postgres"])
def shared_store(request: pytest.FixtureRequest) -> tuple[RedisServer | PostgresServer, dict[str, str]]:
    """A server of one's own that the test may stop, and the variables that choose it."""
    if request.param == "redis":
        address = request.getfixturevalue("redis_address")
        return request.getfixturevalue("redis_server"), {"DEDUP_BACKEND": "redis", "REDIS_ADDR": address}
    dsn = request.getfixturevalue("postgres_dsn")
    return request.getfixturevalue("postgres_server"), {"DEDUP_BACKEND": "postgres", "POSTGRES_DSN": dsn}


@pytest.mark.parametrize("escalates", [False, True])
async def test_copies_at_two_replicas_have_one_first_outcome(
    tmp_path: Path,
    shared_store: tuple[RedisServer | PostgresServer, dict[str, str]],
    hmac_variables: dict[str, str],
    escalates: bool,
) -> None:
    """L7: 50 concurrent copies, one first outcome, 49 byte-identical replays."""
    _, variables = shared_store
    body = signed(1, **({"D_hat": 4.0} if escalates else {}))
    with (
        Backend(tmp_path / "a", **variables, **hmac_variables) as first,
        Backend(tmp_path / "b", **variables, **hmac_variables) as second,
    ):
        async with Client(first) as one, Client(second) as two:
            answers = await asyncio.gather(*((one, two)[copy % 2].submit(body) for copy in range(COPIES)))
            counters = [await client.counters() for client in (one, two)]
    assert {answer.status for answer in answers} == {202 if escalates else 200}
    assert {answer.body for answer in answers} == {answers[0].body}
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * (COPIES - 1)
    assert sum(accepted + escalated for _, _, accepted, escalated in counters) == 1
    assert sum(hits for _, hits, _, _ in counters) == COPIES - 1
    assert sum(ingest for ingest, _, _, _ in counters) == COPIES


async def test_copies_at_one_memory_replica_have_one_first_outcome(
    tmp_path: Path, hmac_variables: dict[str, str]
) -> None:
    """L7, for the store that lives in the process."""
    with Backend(tmp_path / "data", **hmac_variables) as backend:
        async with Client(backend) as client:
            answers = await asyncio.gather(*(client.submit(signed(1)) for _ in range(COPIES)))
            assert await client.counters() == (COPIES, COPIES - 1, 1, 0)
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * (COPIES - 1)
    assert {answer.body for answer in answers} == {answers[0].body}


async def test_outage_keeps_bodies_and_settles_them_when_the_store_is_back(
    tmp_path: Path,
    shared_store: tuple[RedisServer | PostgresServer, dict[str, str]],
    hmac_variables: dict[str, str],
) -> None:
    """L15: 503 with Retry-After, the WAL grows, health stays green, and the backlog is judged without a restart."""
    server, variables = shared_store
    with Backend(tmp_path / "data", **variables, **hmac_variables) as backend:
        async with Client(backend) as client:
            before = await client.submit(signed(1))
            assert before.status == 200
            size_before = (await client.metrics())["flk_wal_size_bytes"]
            server.stop()
            try:
                answers = [await client.submit(signed(epoch)) for epoch in range(1, 9)]
                assert {answer.status for answer in answers} == {503}
                assert {answer.document["type"] for answer in answers} == {"urn:pcs:problem:unavailable"}
                assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers)
                metrics = await client.metrics()
                assert metrics["flk_store_up"] == 0
                assert metrics["flk_wal_size_bytes"] > size_before + sum(
                    len(signed(epoch)) for epoch in range(1, 9)
                )
                assert metrics["flk_open_requests"] == 8
                assert (await client.get("/health/ready")).status == 200
                assert (await client.get("/health/live")).status == 200
            finally:
                server.start()
            await client.wait_for_metric("flk_open_requests", 0)
            assert (await client.metrics())["flk_store_up"] == 1
            assert await client.counters() == (9, 0, 8, 0)
            again = await client.submit(signed(1))
            assert (again.body, again.replayed) == (before.body, True)
            again = [await client.submit(signed(epoch)) for epoch in range(2, 9)]
            assert {(answer.status, answer.replayed) for answer in again} == {(200, True)}


async def test_store_that_is_down_at_start_does_not_stop_the_start(
    tmp_path: Path,
    shared_store: tuple[RedisServer | PostgresServer, dict[str, str]],
    hmac_variables: dict[str, str],
) -> None:
    """L6, L15: bodies reach the WAL, the answer is 503, and the backlog is settled when the store is back."""
    server, variables = shared_store
    server.stop()
    try:
        with Backend(tmp_path / "data", **variables, **hmac_variables) as backend:
            async with Client(backend) as client:
                assert (await client.submit(signed(1))).status == 503
                assert (await client.get("/health/ready")).status == 200
                server.start()
                await client.wait_for_metric("flk_open_requests", 0)
                again = await client.submit(signed(1))
                assert (again.status, again.replayed) == (200, True)
    finally:
        server.start()


async def test_full_memory_store_is_503_and_forgets_nothing(
    tmp_path: Path, hmac_variables: dict[str, str]
) -> None:
    with Backend(tmp_path / "data", MEMORY_STORE_MAX_RECORDS="3", **hmac_variables) as backend:
        async with Client(backend) as client:
            first = [await client.submit(signed(epoch)) for epoch in range(3)]
            assert [answer.status for answer in first] == [200, 200, 200]
            full = await client.submit(signed(3))
            assert full.status == 503
            assert int(full.headers["Retry-After"]) >= 1
            again = [await client.submit(signed(epoch)) for epoch in range(3)]
            assert [(answer.body, answer.replayed) for answer in again] == [
                (answer.body, True) for answer in first
            ]
