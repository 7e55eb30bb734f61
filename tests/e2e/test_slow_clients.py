"""Ten thousand clients that send a byte a second: the process grows by little, and the others are served.

The slow ones are one event loop in this process. Half of them drip a header, half a body; each that is cut off for being
slow comes back at once, so that all the time as many are there.
"""

from __future__ import annotations

import asyncio
import re
import resource
import statistics
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import pcs_records
from processes import Backend, Client

pytestmark = [pytest.mark.slow]

CLIENTS = 10_000
GROWTH_BYTES_MAX = 256 * 1024 * 1024
LATENCY_S_MAX = 5.0
MEDIAN_S_MAX = 0.5
SECONDS = 14
"""Long enough that every client is cut off at least once: headers and bodies have 10 seconds."""

FILES_BESIDE = 500
SOURCES = 4
"""Local addresses the clients come from: one has some 28,000 ports, and closed ones rest for a minute."""

CONNECTING_MAX = 200
WARM_UP_RECORDS = 200
BODY_BYTES = 1_000
HEADER = (
    b"POST /v1/pcs/submit HTTP/1.1\r\nHost: backend\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nX-Slow: " % BODY_BYTES
)


@pytest.fixture
def many_files() -> None:
    """As many open files as the clients need; without them the test fails and says so."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = CLIENTS + FILES_BESIDE
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.fail(
            f"the hard limit of open files is {hard}; {CLIENTS} clients need {wanted} (ulimit -Hn)",
            pytrace=False,
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else hard, hard))


class SlowClient(asyncio.Protocol):
    """Sends the first part at once, then a byte whenever it is told to."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        self._crowd = crowd
        self._number = number
        self._answer = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._crowd.open.add(self)
        transport.write(HEADER if self._number % 2 else HEADER + b"\r\n\r\n")

    def data_received(self, data: bytes) -> None:
        self._answer += data

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._crowd.open.discard(self)
        self._crowd.note_end(self._number, self._answer)


class Crowd:
    """Keeps `CLIENTS` slow clients connected.

    Attributes:
        open: Those that are connected now.
        away: Numbers of those that are not.
        ended: How the backend ended connections.
    """

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url)
        self.open: set[SlowClient] = set()
        self.away: asyncio.Queue[int] = asyncio.Queue()
        self.ended: Counter[str] = Counter()
        self._closing = False
        for number in range(CLIENTS):
            self.away.put_nowait(number)

    async def keep_connecting(self) -> None:
        """Connect whoever is away, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            number = await self.away.get()
            await loop.create_connection(
                lambda number=number: SlowClient(self, number),
                self._address.hostname,
                self._address.port,
                local_addr=(f"127.0.0.{2 + number % SOURCES}", 0),
            )

    async def keep_dripping(self) -> None:
        """Have everybody send one byte a second, for ever; spread over the second."""
        parts = 20
        while True:
            for part in range(parts):
                started_s = time.monotonic()
                for index, client in enumerate(list(self.open)):
                    if index % parts == part and client.transport is not None:
                        client.transport.write(b"x")
                await asyncio.sleep(max(0.0, 1 / parts - (time.monotonic() - started_s)))

    def note_end(self, number: int, answer: bytes) -> None:
        if not self._closing:
            self.ended[answer[:12].decode() or "no answer"] += 1
            self.away.put_nowait(number)

    def close(self) -> None:
        self._closing = True
        for client in list(self.open):
            if client.transport is not None:
                client.transport.abort()


def resident_bytes(pid: int) -> int:
    match = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024


def record(epoch: int) -> bytes:
    return pcs_records.body(pcs_records.document(epoch=epoch))


@pytest.mark.usefixtures("many_files")
async def test_ten_thousand_slow_clients_cost_little_and_others_are_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Backend(tmp_path / "data") as backend:
        async with Client(backend, connections=4) as client:
            for epoch in range(WARM_UP_RECORDS):
                assert (await client.submit(record(epoch))).status == 200
            before = most = resident_bytes(backend.pid)
            crowd = Crowd(backend.url)
            tasks = [asyncio.create_task(crowd.keep_connecting()) for _ in range(CONNECTING_MAX)]
            tasks.append(asyncio.create_task(crowd.keep_dripping()))
            latencies_s: list[float] = []
            fewest = CLIENTS
            try:
                async with asyncio.timeout(10):
                    while (at_once := int((await client.metrics())["flk_connections"])) <= CLIENTS:
                        await asyncio.sleep(0.05)
                until_s = time.monotonic() + SECONDS
                while time.monotonic() < until_s:
                    began_s = time.monotonic()
                    answer = await client.submit(record(WARM_UP_RECORDS + len(latencies_s)))
                    latencies_s.append(time.monotonic() - began_s)
                    assert (answer.status, answer.replayed) == (200, False)
                    most = max(most, resident_bytes(backend.pid))
                    fewest = min(fewest, len(crowd.open))
                    await asyncio.sleep(0.02)
                assert [task for task in tasks if task.done()] == []
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                crowd.close()
            await client.wait_for_metric("flk_connections", 1)
            assert (await client.metrics())["flk_open_requests"] == 0
        assert backend.stop() == 0
    ordered = sorted(latencies_s)
    with capsys.disabled():
        print(
            f"\n{at_once} connections at once, a byte a second each: growth {(most - before) / 2**20:.0f} MiB "
            f"({(most - before) / CLIENTS / 1024:.1f} KiB each); {len(ordered)} records of others: "
            f"median {statistics.median(ordered) * 1e3:.1f} ms, 99th percentile "
            f"{ordered[len(ordered) * 99 // 100] * 1e3:.0f} ms, longest {ordered[-1] * 1e3:.0f} ms; "
            f"cut off: {dict(crowd.ended)}; fewest at once {fewest}"
        )
    assert at_once > CLIENTS
    assert most - before < GROWTH_BYTES_MAX
    assert ordered[-1] < LATENCY_S_MAX
    assert statistics.median(ordered) < MEDIAN_S_MAX
    assert crowd.ended["HTTP/1.1 408"] >= CLIENTS * 9 // 10
