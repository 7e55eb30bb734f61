"""Two serving processes over one store that each reaches through a faulty proxy of its own, and what must hold of them.

async with replicas(folder, server, database, HMAC) as pair:
answers = await pair.submit_all(records)       # again and again, to both, until every one is acknowledged
await pair.check(answers)
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pcs_records
from faulty_proxy import FaultyProxy
from processes import HMAC_KEY, WAIT_TIMEOUT_S, Answer, Backend, Client, run
from servers import PostgresServer, RedisServer

RETRY_S = 0.05


class Replica(NamedTuple):
    """One process, what asks it, and its way to the store."""

    backend: Backend
    client: Client
    proxy: FaultyProxy

    def settled_first(self) -> int:
        """First outcomes the process stored while it settled its backlog, by its own log."""
        lines = [json.loads(line) for line in self.backend.output.splitlines() if b"backlog settled" in line]
        return sum(line.get("accepted", 0) + line.get("escalated", 0) for line in lines)


class Replicas:
    """Both of them.

    Attributes:
        each: First and second.
        first_answers: Answers so far that were no replays.
        unavailable: Answers so far that were 503.
    """

    def __init__(self, first: Replica, second: Replica) -> None:
        self.each = (first, second)
        self.first_answers = 0
        self.unavailable = 0

    async def submit(self, replica: Replica, body: bytes) -> Answer:
        """Submit until it is acknowledged."""
        async with asyncio.timeout(3 * WAIT_TIMEOUT_S):
            while (answer := await replica.client.submit(body)).status == 503:
                assert int(answer.headers["Retry-After"]) >= 1
                self.unavailable += 1
                await asyncio.sleep(RETRY_S)
        assert answer.status in {200, 202}, answer
        self.first_answers += not answer.replayed
        return answer

    async def submit_all(self, records: Mapping[str, bytes], at_once: int = 16) -> dict[str, Answer]:
        """Submit every record to both, `at_once` at a time to each; both must have the same answer."""
        answers: dict[str, Answer] = {}

        async def sender(replica: Replica, waiting: list[tuple[str, bytes]]) -> None:
            while waiting:
                pcs_id, body = waiting.pop()
                answer = await self.submit(replica, body)
                known = answers.setdefault(pcs_id, answer)
                assert (known.status, known.body) == (answer.status, answer.body)

        queues = [list(records.items()), list(records.items())[::-1]]
        await asyncio.gather(
            *(
                sender(replica, queue)
                for replica, queue in zip(self.each, queues, strict=True)
                for _ in range(at_once)
            )
        )
        return answers

    async def settle(self) -> None:
        """Wait until no request is without an outcome."""
        for replica in self.each:
            await replica.client.wait_for_metric("flk_open_requests", 0)

    async def counted(self) -> int:
        """First outcomes by the counters of both."""
        return sum([sum((await replica.client.counters())[2:]) for replica in self.each])

    async def check(
        self, records: Mapping[str, bytes], answers: Mapping[str, Answer], *, uncounted: int | None = None
    ) -> None:
        """Check what every fault must leave true.

        Args:
            records: All that were submitted.
            answers: What was acknowledged.
            uncounted: Outcomes whose call failed after the store had placed them, which no process counts; `None`
                where that depends on the moment of the fault.
        """
        await self.settle()
        # Counted is what this process told somebody or its log to be first: no more, no less.
        counted = await self.counted()
        assert counted == self.first_answers + sum(replica.settled_first() for replica in self.each)
        if uncounted is None:
            assert counted <= len(records)
        else:
            assert counted == len(records) - uncounted
        for pcs_id, body in records.items():
            for replica in self.each:
                again = await replica.client.submit(body)
                assert again.replayed
                if pcs_id in answers:
                    assert (again.status, again.body) == (answers[pcs_id].status, answers[pcs_id].body)
        assert await self.counted() == counted
        escalated = {pcs_id: 1 for pcs_id, answer in answers.items() if answer.status == 202}
        assert self.escalations() == Counter(escalated)
        assert [replica.backend.stop() for replica in self.each] == [0, 0]

    def escalations(self) -> Counter[str]:
        """How often each id is in the queue, asked without the proxy's faults."""
        done = run(
            "pcs-backend",
            "escalations",
            "list",
            "--limit",
            "1000",
            "--json",
            **self.each[0].backend.variables,
        )
        assert done.returncode == 0, done.stderr
        return Counter(json.loads(line)["pcs_id"] for line in done.stdout.splitlines())


@asynccontextmanager
async def replicas(
    folder: Path, store: RedisServer | PostgresServer, dsn: str, **variables: str
) -> AsyncIterator[Replicas]:
    """Start both; `dsn` is the database's where the store is PostgreSQL."""
    async with AsyncExitStack() as stack:
        each = []
        for name in ("first", "second"):
            proxy = stack.enter_context(FaultyProxy("127.0.0.1", store.port))
            backend = stack.enter_context(
                Backend(folder / name, **store_variables(store, dsn, proxy.port), **variables)
            )
            each.append(Replica(backend, await stack.enter_async_context(Client(backend)), proxy))
        yield Replicas(*each)


def store_variables(store: RedisServer | PostgresServer, dsn: str, port: int) -> dict[str, str]:
    """Return the variables that choose the store, reached through another port of this machine."""
    if isinstance(store, RedisServer):
        return {"DEDUP_BACKEND": "redis", "REDIS_ADDR": f"127.0.0.1:{port}"}
    return {"DEDUP_BACKEND": "postgres", "POSTGRES_DSN": re.sub(rf":{urlsplit(dsn).port}/", f":{port}/", dsn)}


def signed(epoch: int, **overrides: object) -> bytes:
    document = pcs_records.document(epoch=epoch, **overrides)
    return pcs_records.body(pcs_records.sign(document, hmac_key=HMAC_KEY.encode()))


def record_id(epoch: int) -> str:
    pcs_id: str = pcs_records.document(epoch=epoch)["pcs_id"]
    return pcs_id


def records(count: int, first: int = 0) -> dict[str, bytes]:
    """Return signed records by id; every third one escalates."""
    return {
        record_id(epoch): signed(epoch, **({"D_hat": 4.0} if epoch % 3 == 0 else {}))
        for epoch in range(first, first + count)
    }
