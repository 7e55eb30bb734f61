"""The bounds of connections over real sockets: places, times, bytes held. The server is the shipped one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from pcs_backend.exchange import Reply
from pcs_backend.http import protocol, refusal
from pcs_backend.http.body import BodyReader
from pcs_backend.http.intake import CONNECTION_BYTES_MAX, Intake
from pcs_backend.http.protocol import ProblemServer, to_response
from raw_http import WAIT_S, Connection, connect, post

SHARED_BYTES_MAX = 300_000
BODY_BYTES_MAX = 262_144
HUGE_BYTES = 64 * 1024 * 1024


class Running:
    """A server whose handler echoes how long a body was, or waits where it is told to."""

    def __init__(self, intake: Intake) -> None:
        self.intake = intake
        self.refused = 0
        self.judging = asyncio.Queue[str]()
        self.may_answer = asyncio.Event()
        self._body_reader = BodyReader(size_bytes_max=BODY_BYTES_MAX, timeout_s=WAIT_S)
        self.server = ProblemServer(self._handle, intake, self._note_refused)
        self.port = 0
        self._open: list[Connection] = []

    async def connect(self, receive_buffer_bytes: int | None = None) -> Connection:
        connection = await connect(self.port, receive_buffer_bytes)
        self._open.append(connection)
        return connection

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                await asyncio.sleep(0.005)

    async def close(self) -> None:
        for connection in self._open:
            await connection.close()

    def _note_refused(self) -> None:
        self.refused += 1

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/huge":
            return to_response(Reply(200, bytes(HUGE_BYTES)))
        body = await self._body_reader.read(request)
        if isinstance(body, Reply):
            return to_response(body)
        if request.path == "/judged":
            self.judging.put_nowait("here")
            await self.may_answer.wait()
        return to_response(Reply(200, str(len(body)).encode()))


@asynccontextmanager
async def serving(
    connections_max: int = 100, shared_bytes_max: int = SHARED_BYTES_MAX
) -> AsyncIterator[Running]:
    running = Running(Intake(connections_max=connections_max, shared_bytes_max=shared_bytes_max))
    runner = web.ServerRunner(running.server, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    running.port = runner.addresses[0][1]
    try:
        yield running
    finally:
        running.may_answer.set()
        await running.close()
        await runner.cleanup()
        assert (running.intake.connections, running.intake.shared_bytes) == (0, 0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times short enough to wait for."""
    monkeypatch.setattr(protocol, "HEADER_TIMEOUT_S", 0.2)
    monkeypatch.setattr(protocol, "ANSWER_TIMEOUT_S", 0.2)
    monkeypatch.setattr(protocol, "CONNECTION_CHECK_INTERVAL_S", 0.05)


class TestPlaces:
    async def test_connection_beyond_the_limit_is_503_and_the_next_after_a_leave_is_served(self) -> None:
        async with serving(connections_max=2) as running:
            first, second, third = [await running.connect() for _ in range(3)]
            await third.send(post(2) + b"{}")
            status, headers, body = await third.answer()
            assert (status, headers["Retry-After"], headers["Connection"]) == (503, "1", "close")
            assert headers["Content-Type"] == "application/problem+json"
            assert b'"detail":"as many connections are open as are allowed"' in body
            assert await third.rest() == b""
            assert running.refused == 1
            await first.close()
            await running.until(lambda: running.intake.connections == 1)
            fourth = await running.connect()
            for each in (second, fourth):
                await each.send(post(2) + b"{}")
                assert (await each.answer())[0] == 200

    async def test_refused_connections_are_bounded_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(refusal, "REFUSALS_MAX", 2)
        async with serving(connections_max=1) as running:
            await running.connect()
            await running.until(lambda: running.intake.connections == 1)
            refused = [await running.connect() for _ in range(5)]
            answers = await asyncio.gather(*(each.rest() for each in refused))
            assert sorted(answer[:12] for answer in answers) == [b""] * 3 + [b"HTTP/1.1 503"] * 2
            assert running.refused == 5

    async def test_refused_connection_that_stays_is_ended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(refusal, "REFUSAL_LINGER_S", 0.05)
        async with serving(connections_max=1) as running:
            await running.connect()
            await running.until(lambda: running.intake.connections == 1)
            refused = await running.connect()
            assert (await refused.rest()).startswith(b"HTTP/1.1 503 ")
            with pytest.raises(ConnectionError):  # the server has closed for good: sending resets
                await self.send_on(refused)

    @staticmethod
    async def send_on(connection: Connection) -> None:
        for _ in range(200):
            await connection.send(b"x")
            await asyncio.sleep(0.01)

    async def test_place_is_kept_while_a_request_of_a_client_that_left_is_judged(self) -> None:
        async with serving(connections_max=1) as running:
            client = await running.connect()
            await client.send(post(100_000, "/judged") + bytes(100_000))
            await running.judging.get()
            held = running.intake.shared_bytes
            assert held > 100_000 - CONNECTION_BYTES_MAX
            await client.close()
            other = await running.connect()
            assert (await other.answer())[0] == 503
            assert (running.intake.connections, running.intake.shared_bytes) == (1, held)
            running.may_answer.set()
            await running.until(lambda: running.intake.connections == 0)
            assert running.intake.shared_bytes == 0


@pytest.mark.usefixtures("quick")
class TestTimes:
    async def test_connection_that_says_nothing_is_closed_without_a_word(self) -> None:
        async with serving() as running:
            assert await (await running.connect()).rest() == b""

    @pytest.mark.parametrize("requests_before", [0, 1, 2])
    async def test_header_that_does_not_end_is_408(self, requests_before: int) -> None:
        async with serving() as running:
            client = await running.connect()
            for _ in range(requests_before):
                await client.send(post(2) + b"{}")
                assert (await client.answer())[0] == 200
            dripping = asyncio.create_task(self.drip(client, post(2)[:-1]))
            status, headers, body = await client.answer()
            dripping.cancel()
            assert (status, headers["Connection"]) == (408, "close")
            assert b'"type":"urn:pcs:problem:timeout"' in body
            assert await client.rest() == b""

    async def test_idle_connection_after_an_answer_is_not_one_whose_header_is_slow(self) -> None:
        async with serving() as running:
            client = await running.connect()
            await client.send(post(2) + b"{}")
            await client.answer()
            await asyncio.sleep(4 * protocol.HEADER_TIMEOUT_S)
            await client.send(post(2) + b"{}")
            assert (await client.answer())[0] == 200

    async def test_request_that_is_judged_for_long_is_not_cut_off(self) -> None:
        async with serving() as running:
            client = await running.connect()
            await client.send(post(2, "/judged") + b"{}")
            await running.judging.get()
            await asyncio.sleep(4 * protocol.HEADER_TIMEOUT_S)
            running.may_answer.set()
            assert (await client.answer())[0] == 200

    async def test_client_that_does_not_read_its_answer_is_cut_off(self) -> None:
        async with serving() as running:
            client = await running.connect(receive_buffer_bytes=4_096)
            client.writer.transport.pause_reading()
            await client.send(b"GET /huge HTTP/1.1\r\nHost: x\r\n\r\n")
            await running.until(lambda: running.server.requests_count == 1)
            await running.until(lambda: running.intake.connections == 0)

    @staticmethod
    async def drip(client: Connection, data: bytes) -> None:
        for index in range(len(data)):
            await client.send(data[index : index + 1])
            await asyncio.sleep(0.02)


class TestBytes:
    async def test_body_that_passes_the_shared_budget_is_503_and_the_others_go_on(self) -> None:
        async with serving() as running:
            first, second, third = [await running.connect() for _ in range(3)]
            await first.send(post(200_000) + bytes(199_999))
            own = len(post(200_000)) + 199_999 - CONNECTION_BYTES_MAX
            await running.until(lambda: running.intake.shared_bytes == own)
            await second.send(post(200_000) + bytes(199_999))
            status, headers, body = await second.answer()
            assert (status, headers["Retry-After"], headers["Connection"]) == (503, "1", "close")
            assert b"more bytes are on their way in than may be held at once" in body
            await second.close()
            # A small one has bytes of its own, and what is under way is not touched.
            await third.send(post(1_000) + bytes(1_000))
            assert (await third.answer())[0::2] == (200, b"1000")
            await first.send(b"x")
            assert (await first.answer())[0::2] == (200, b"200000")
            assert running.intake.shared_bytes == 0

    async def test_bytes_are_given_back_after_every_answer(self) -> None:
        async with serving() as running:
            client = await running.connect()
            for _ in range(5):
                await client.send(post(250_000) + bytes(250_000))
                assert (await client.answer())[0] == 200
                assert running.intake.shared_bytes == 0

    async def test_bytes_of_a_client_that_leaves_amid_its_body_are_given_back(self) -> None:
        async with serving() as running:
            client = await running.connect()
            await client.send(post(250_000) + bytes(200_000))
            await running.until(lambda: running.intake.shared_bytes > 150_000)
            await client.close()
            await running.until(lambda: running.intake.connections == 0)
            assert running.intake.shared_bytes == 0

    async def test_header_longer_than_a_connection_may_hold_is_400(self) -> None:
        async with serving() as running:
            client = await running.connect()
            lines = b"".join(b"X-%d: %s\r\n" % (index, b"y" * 4_000) for index in range(5))
            await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n" + lines)
            status, headers, _ = await client.answer()
            assert (status, headers["Connection"]) == (400, "close")

    async def test_requests_sent_ahead_are_answered_in_order(self) -> None:
        async with serving() as running:
            client = await running.connect()
            await client.send(b"".join(post(size) + bytes(size) for size in (3, 20_000, 5)))
            assert [(await client.answer())[2] for _ in range(3)] == [b"3", b"20000", b"5"]

    async def test_more_sent_ahead_than_may_be_held_ends_the_connection_after_the_answer(self) -> None:
        async with serving(shared_bytes_max=20_000) as running:
            client = await running.connect()
            await client.send(post(2, "/judged") + b"{}")
            await running.judging.get()
            ahead = asyncio.create_task(client.send((post(2) + b"{}") * 5_000))
            await running.until(lambda: all(each.overloaded for each in running.server.connections))
            running.may_answer.set()
            assert (await client.answer())[0::2] == (200, b"2")
            assert await client.rest() == b""
            await asyncio.gather(ahead, return_exceptions=True)
            await running.until(lambda: running.intake.connections == 0)
            assert running.server.requests_count == 1

    async def test_large_header_sent_ahead_ends_the_connection_after_the_answer(self) -> None:
        """Its bytes are in the parser, and after the answer nothing would count them."""
        async with serving() as running:
            client = await running.connect()
            lines = b"".join(b"X-%d: %s\r\n" % (index, b"y" * 4_000) for index in range(5))
            await client.send(post(2, "/judged") + b"{}" + b"GET / HTTP/1.1\r\n" + lines)
            await running.judging.get()
            running.may_answer.set()
            assert (await client.answer())[0::2] == (200, b"2")
            assert await client.rest() == b""
