"""The express lane and aiohttp's own way over real sockets: the same answers, the same bounds, one order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from inboxes import Clock
from pcs_backend.batch import BATCH_PATH
from pcs_backend.conformal.labelling import Labelling
from pcs_backend.dedup.memory_store import MemoryStore
from pcs_backend.effects.metrics import Metrics
from pcs_backend.effects.tap import Filter, Tap
from pcs_backend.exchange import JSON_TYPE, NDJSON_TYPE, Reply, Request
from pcs_backend.http import express, protocol
from pcs_backend.http.arrivals import Arrivals
from pcs_backend.http.body import BodyReader
from pcs_backend.http.express import ExpressServer
from pcs_backend.http.intake import CONNECTION_BYTES_MAX, Intake
from pcs_backend.http.labels import Admission, Labels
from pcs_backend.http.overload import Overload
from pcs_backend.http.routes import Routes
from pcs_backend.http.submits import SUBMIT_PATH, Effects, Submits
from pcs_backend.http.whole import Alone
from pcs_backend.problems import Problem
from pcs_backend.trace_context import RequestIds
from pcs_backend.trust.policy import Trust
from pcs_backend.trust.token_bucket import TokenBucket
from pcs_core.keyring import Keyring
from raw_http import WAIT_S, Connection, connect

BODY_BYTES_MAX = 100_000
MUCH_BYTES = 1_000_000


class Healthy:
    """A service that started and is ready."""

    def not_started(self) -> str | None:
        return None

    def not_ready(self) -> str | None:
        return None


class Submitter:
    """Answers each request with its body, at once or when it is told to."""

    def __init__(self) -> None:
        self.calls: list[list[bytes]] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def submit(self, requests: Sequence[Request]) -> list[Reply]:
        self.calls.append([request.body for request in requests])
        await self.may_answer.wait()
        return [self._reply(request) for request in requests]

    def _reply(self, request: Request) -> Reply:
        if request.body == b"bad":
            return Problem.MALFORMED.reply("$: found a word", field="$")
        if request.body == b"much":
            return Reply(202, bytes(MUCH_BYTES))
        return Reply(202, request.body, headers={"Idempotent-Replayed": "true"})


def labels_of_a_new_store() -> Labels:
    clock = Clock()
    store = MemoryStore(now=clock, journal=None, records_max=1)
    return Labels(
        labelling=Labelling(store.get, store.calibrations, clock),
        admission=Admission(trust=lambda: Trust(keyring=Keyring([])), peers=None, login=None, is_local=True),
        health=Healthy(),
        now=clock,
        body_timeout_s=WAIT_S,
    )


class Running:
    """A server, and who it took which way."""

    def __init__(self, overload: Overload, shared_bytes_max: int) -> None:
        self.submitter = Submitter()
        self.metrics = Metrics()
        self.tap = Tap()
        self.overload = overload
        self.intake = Intake(connections_max=100, shared_bytes_max=shared_bytes_max)
        self.slow: list[str] = []
        self.arrivals = Arrivals(self.submitter)
        submits = Submits(
            arrivals=self.arrivals,
            health=Healthy(),
            effects=Effects(self.metrics, self.tap, RequestIds(bytes)),
            overload=overload,
            body_readers={
                SUBMIT_PATH: BodyReader(size_bytes_max=BODY_BYTES_MAX, timeout_s=WAIT_S),
                BATCH_PATH: BodyReader(
                    size_bytes_max=BODY_BYTES_MAX, timeout_s=WAIT_S, types=(NDJSON_TYPE, JSON_TYPE)
                ),
            },
            token_bucket=TokenBucket(0, lambda: 0.0),
            peer_of=None,
            now=lambda: 1_795_000_000.9,
            monotonic=asyncio.get_running_loop().time,
            busy_s=lambda: 0.0,
        )
        self.routes = Routes(
            submits=submits,
            whole=Alone(self.metrics, Healthy()),
            metrics=self.metrics,
            openapi=b"{}",
            metrics_login=None,
            labels=labels_of_a_new_store(),
            sleep=asyncio.sleep,
        )
        self.server = ExpressServer(self._handle, submits, self.intake)
        self.port = 0
        self._open: list[Connection] = []

    async def connect(self, receive_buffer_bytes: int | None = None) -> Connection:
        connection = await connect(self.port, receive_buffer_bytes)
        self._open.append(connection)
        # On a new connection aiohttp's task may not wait yet; from the second request on it does.
        await connection.send(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        await connection.answer()
        self.slow.clear()
        return connection

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                await asyncio.sleep(0.005)

    def counted(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    async def close(self) -> None:
        for connection in self._open:
            await connection.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.slow.append(f"{request.method} {request.path}")
        return await self.routes.handle(request)


@asynccontextmanager
async def serving(requests_max: int = 100, shared_bytes_max: int = 300_000) -> AsyncIterator[Running]:
    running = Running(Overload(requests_max), shared_bytes_max)
    runner = web.ServerRunner(running.server, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    running.port = runner.addresses[0][1]
    try:
        yield running
    finally:
        running.submitter.may_answer.set()
        await running.close()
        await runner.cleanup()
        await running.arrivals.finish(WAIT_S)
        assert (running.intake.connections, running.intake.shared_bytes) == (0, 0)
        assert running.overload.requests == 0


def submit(body: bytes, *lines: str, path: str = SUBMIT_PATH, version: str = "1.1") -> bytes:
    head = [f"POST {path} HTTP/{version}", "Host: x", *(lines or (f"Content-Type: {JSON_TYPE}",))]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body


def chunked(body: bytes) -> bytes:
    head = (
        f"POST {SUBMIT_PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: {JSON_TYPE}\r\nTransfer-Encoding: chunked"
    )
    return f"{head}\r\n\r\n{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"


class TestWays:
    async def test_whole_submit_is_answered_without_the_handler(self) -> None:
        async with serving() as running:
            client = await running.connect()
            for body in (b"1", b"22"):
                await client.send(submit(body))
                status, headers, answer = await client.answer()
                assert (status, answer) == (202, body)
            assert running.submitter.calls == [[b"1"], [b"22"]]
            assert running.slow == []
            assert headers == {
                "Server": "pcs-backend",
                "Date": "Wed, 18 Nov 2026 11:06:40 GMT",
                "Content-Type": JSON_TYPE,
                "Idempotent-Replayed": "true",
                "X-Request-ID": "00000000000000000002",
                "Content-Length": "2",
            }

    @pytest.mark.parametrize("content_type", [NDJSON_TYPE, JSON_TYPE])
    async def test_batch_takes_the_lane_too(self, content_type: str) -> None:
        async with serving() as running:
            client = await running.connect()
            await client.send(submit(b"1\n2\n", f"Content-Type: {content_type}", path=BATCH_PATH))
            assert (await client.answer())[0::2] == (202, b"1\n2\n")
            assert running.slow == []

    async def test_both_ways_answer_alike(self) -> None:
        async with serving() as running:
            client = await running.connect()
            answers = []
            for body in (b"1", b"bad"):
                for request in (submit(body), chunked(body)):
                    await client.send(request)
                    status, headers, answer = await client.answer()
                    del headers["X-Request-ID"], headers["Date"]
                    answers.append((status, headers, answer))
            assert answers[0] == answers[1]
            assert answers[2] == answers[3]
            assert [answer[0] for answer in answers] == [202, 202, 400, 400]
            assert running.slow == [f"POST {SUBMIT_PATH}"] * 2
            assert running.counted("flk_ingest_total") == 4
            assert running.counted("flk_refused_total", problem="malformed") == 2
            assert running.counted("flk_request_seconds_count") == 4

    @pytest.mark.parametrize(
        ("request_bytes", "status"),
        [
            (chunked(b"1"), 202),
            (submit(b"1", f"Content-Type: {JSON_TYPE}; charset=utf-8"), 202),
            (submit(b"1", f"Content-Type: {JSON_TYPE}", "Connection: close"), 202),
            (submit(b"1", f"Content-Type: {JSON_TYPE}", version="1.0"), 202),
            (submit(b"", f"Content-Type: {JSON_TYPE}"), 202),
            (submit(b"1", "Content-Type: text/plain"), 415),
            (submit(b"1", f"Content-Type: {JSON_TYPE}", "Content-Encoding: gzip"), 415),
            (submit(b"1", f"Content-Type: {NDJSON_TYPE}"), 415),
            (submit(b"1", path="/elsewhere"), 404),
            (submit(b"1", path=SUBMIT_PATH + "?a=1"), 202),
        ],
    )
    async def test_every_other_form_takes_the_handler(self, request_bytes: bytes, status: int) -> None:
        async with serving() as running:
            client = await running.connect()
            await client.send(request_bytes)
            assert (await client.answer())[0] == status
            assert len(running.slow) == 1

    async def test_body_in_pieces_is_read_by_the_handler(self) -> None:
        async with serving() as running:
            client = await running.connect()
            request = submit(b"123")
            await client.send(request[:-1])
            await running.until(lambda: running.slow != [])
            await client.send(request[-1:])
            assert (await client.answer())[0::2] == (202, b"123")

    async def test_requests_sent_ahead_by_both_ways_are_answered_in_order(self) -> None:
        async with serving() as running:
            client = await running.connect()
            bodies = [b"%d" % number for number in range(30)]
            await client.send(
                b"".join((chunked if index % 3 == 1 else submit)(body) for index, body in enumerate(bodies))
            )
            assert [(await client.answer())[2] for _ in bodies] == bodies
            assert running.submitter.calls == [[body] for body in bodies]
            assert len(running.slow) >= 10

    async def test_one_request_of_a_connection_is_under_way_at_a_time(self) -> None:
        async with serving() as running:
            client = await running.connect()
            running.submitter.may_answer.clear()
            await client.send(submit(b"1") + submit(b"2"))
            await client.send(submit(b"3") + chunked(b"4"))
            await running.until(lambda: running.submitter.calls != [])
            await asyncio.sleep(0.05)
            assert running.submitter.calls == [[b"1"]]
            running.submitter.may_answer.set()
            assert [(await client.answer())[2] for _ in range(4)] == [b"1", b"2", b"3", b"4"]

    async def test_more_sent_ahead_than_the_parser_queues_is_answered_to_the_last(self) -> None:
        async with serving() as running:
            client = await running.connect()
            bodies = [b"%03d" % number for number in range(150)]
            running.submitter.may_answer.clear()
            await client.send(b"".join(map(submit, bodies)))
            await running.until(lambda: running.submitter.calls != [])
            running.submitter.may_answer.set()
            assert [(await client.answer())[2] for _ in bodies] == bodies


class TestBounds:
    async def test_place_is_kept_while_a_request_of_a_client_that_left_is_judged(self) -> None:
        async with serving() as running:
            client = await running.connect()
            running.submitter.may_answer.clear()
            await client.send(submit(bytes(40_000)))
            await running.until(lambda: running.submitter.calls != [])
            held = running.intake.shared_bytes
            assert held > 40_000 - CONNECTION_BYTES_MAX
            await client.close()
            await running.until(lambda: running.server.connections == [])
            assert (running.intake.connections, running.intake.shared_bytes) == (1, held)
            assert running.overload.requests == 1
            running.submitter.may_answer.set()
            await running.until(lambda: running.intake.connections == 0)
            assert running.overload.requests == 0

    async def test_stop_answers_what_is_under_way_and_nothing_after_it(self) -> None:
        async with serving() as running:
            client = await running.connect()
            running.submitter.may_answer.clear()
            await client.send(submit(b"1") + submit(b"2"))
            await running.until(lambda: running.submitter.calls != [])
            running.server.pre_shutdown()
            stopping = asyncio.create_task(running.server.shutdown(WAIT_S))
            await asyncio.sleep(0.05)
            assert not stopping.done()
            running.submitter.may_answer.set()
            await stopping
            assert (await client.answer())[0::2] == (202, b"1")
            assert await client.rest() == b""
            assert running.submitter.calls == [[b"1"]]

    async def test_large_header_sent_ahead_ends_the_connection_after_the_answer(self) -> None:
        async with serving() as running:
            client = await running.connect()
            running.submitter.may_answer.clear()
            lines = b"".join(b"X-%d: %s\r\n" % (index, b"y" * 4_000) for index in range(5))
            await client.send(submit(b"1"))
            await running.until(lambda: running.submitter.calls != [])
            await client.send(b"GET / HTTP/1.1\r\n" + lines)
            await running.until(lambda: running.intake.shared_bytes > 0)
            running.submitter.may_answer.set()
            status, headers, _ = await client.answer()
            assert (status, headers["Connection"]) == (202, "close")
            assert await client.rest() == b""

    async def test_client_that_does_not_read_is_not_served_further(self) -> None:
        async with serving(shared_bytes_max=2**30) as running:
            client = await running.connect(receive_buffer_bytes=4_096)
            client.writer.transport.pause_reading()
            await client.send(submit(b"much") * 30)
            await running.until(lambda: any(each.writing_paused for each in running.server.connections))
            served = len(running.submitter.calls)
            await asyncio.sleep(0.3)
            assert len(running.submitter.calls) <= served + 1, "answers that nobody reads do not pile up"
            client.writer.transport.resume_reading()
            for _ in range(30):
                assert len((await client.answer())[2]) == MUCH_BYTES

    async def test_idle_connection_is_closed_and_one_under_way_is_not(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in (protocol, express):
            monkeypatch.setattr(module, "KEEPALIVE_TIMEOUT_S", 0.2)
        async with serving() as running:
            client = await running.connect()
            running.submitter.may_answer.clear()
            await client.send(submit(b"1"))
            await asyncio.sleep(0.8)
            running.submitter.may_answer.set()
            assert (await client.answer())[0] == 202
            assert await client.rest() == b""


class TestOverload:
    @staticmethod
    @asynccontextmanager
    async def full() -> AsyncIterator[tuple[Running, Connection, Connection]]:
        """A server that takes one request and has it under way, and a second connection."""
        async with serving(requests_max=1) as running:
            first, second = await running.connect(), await running.connect()
            running.submitter.may_answer.clear()
            await first.send(submit(b"1"))
            await running.until(lambda: running.submitter.calls != [])
            yield running, first, second

    async def test_submit_beyond_the_limit_is_503_unread_and_the_connection_stays(self) -> None:
        async with self.full() as (running, first, second):
            parsed = running.server.requests_count
            for _ in range(3):
                await second.send(submit(b"2"))
                status, headers, body = await second.answer()
                assert (status, headers["Retry-After"]) == (503, "1")
                assert headers["Content-Type"] == "application/problem+json"
                assert headers["X-Request-ID"] != ""
                assert b'"type":"urn:pcs:problem:unavailable"' in body
                assert "Connection" not in headers
            assert running.server.requests_count == parsed
            assert running.counted("flk_requests_shed_total") == 3
            assert running.counted("flk_refused_total", problem="unavailable") == 3
            assert running.counted("flk_ingest_total") == 1
            running.submitter.may_answer.set()
            assert (await first.answer())[0::2] == (202, b"1")
            await second.send(submit(b"3"))
            assert (await second.answer())[0::2] == (202, b"3")
            assert running.submitter.calls == [[b"1"], [b"3"]]

    @pytest.mark.parametrize(
        "request_bytes",
        [
            chunked(b"2"),
            submit(b"2", f"Content-Type: {JSON_TYPE}; charset=utf-8"),
            submit(b"2") + submit(b"3"),
        ],
    )
    async def test_in_another_form_it_is_503_as_well(self, request_bytes: bytes) -> None:
        async with self.full() as (running, _, second):
            await second.send(request_bytes)
            for _ in range(request_bytes.count(b"POST")):
                status, headers, _ = await second.answer()
                assert (status, headers["Retry-After"]) == (503, "1")
            assert running.counted("flk_ingest_total") == 1
            assert running.submitter.calls == [[b"1"]]

    @pytest.mark.parametrize(
        "lines",
        [
            ("Content-Length: 1",),
            ("Content-Length : 1",),
            ("content-length:1",),
            ("Transfer-Encoding: chunked",),
            ("Expect: 100-continue",),
            ("Connection: close",),
            ("X: a\r\n b",),
        ],
    )
    async def test_what_ends_in_another_way_than_its_length_says_is_left_to_the_parser(
        self, lines: tuple[str, ...]
    ) -> None:
        async with self.full() as (running, _, second):
            parsed = running.server.requests_count
            await second.send(submit(b"2", *lines))
            await running.until(lambda: running.server.requests_count > parsed)

    async def test_health_and_metrics_are_answered_all_the_same(self) -> None:
        async with self.full() as (_, _, second):
            for path in ("/health/ready", "/metrics"):
                await second.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert (await second.answer())[0] == 200

    async def test_taps_see_what_is_refused(self) -> None:
        async with self.full() as (running, _, second):
            with running.tap.listen(Filter()) as listener:
                await second.send(submit(b"2"))
                _, headers, _ = await second.answer()
                async for lines in listener.batches():
                    if lines:
                        break
            assert [(line.status, line.request_id, line.problem) for line in lines] == [
                (503, headers["X-Request-ID"], "unavailable")
            ]
