"""What a running service refuses or holds back: rate, disk, login, a stop in the middle of load."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import time
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

import pcs_records
from processes import HMAC_KEY, Answer, Backend, Client

pytestmark = [pytest.mark.slow]

RECORDS = 500
CLIENTS = 32
STOP_AFTER = 100


def signed(epoch: int) -> bytes:
    document = pcs_records.document(epoch=epoch)
    return pcs_records.body(pcs_records.sign(document, hmac_key=HMAC_KEY.encode()))


async def test_records_above_the_rate_are_429_and_not_in_the_wal(
    tmp_path: Path, hmac_variables: dict[str, str]
) -> None:
    """Contract §4 step 2, L16: the wait is said, the record counts as ingested, and nothing of it is kept."""
    with Backend(tmp_path / "data", TOKEN_RATE="2", **hmac_variables) as backend:
        async with Client(backend) as client:
            answers = [await client.submit(signed(epoch)) for epoch in range(12)]
            assert [answer.status for answer in answers[:2]] == [200, 200]
            refused = [answer for answer in answers if answer.status == 429]
            passed = len(answers) - len(refused)
            assert len(refused) >= 1
            for answer in refused:
                assert answer.document["type"] == "urn:pcs:problem:rate-limited"
                assert answer.headers["Retry-After"] == "1"
                assert answer.headers["RateLimit-Policy"] == '"records";q=2;w=1'
                assert answer.headers["RateLimit"] == '"records";r=0;t=1'
            assert await client.counters() == (12, 0, passed, 0)
            metrics = await client.metrics()
            assert metrics['flk_refused_total{problem="rate-limited"}'] == len(refused)
        assert backend.stop() == 0
    (segment,) = (backend.data_dir / "wal" / "0").glob("*.wal")
    kept = segment.read_bytes()
    in_wal = [pcs_records.document(epoch=epoch)["pcs_id"].encode() in kept for epoch in range(12)]
    assert in_wal == [answer.status == 200 for answer in answers]


def login(text: str, scheme: str = "Basic") -> dict[str, str]:
    """Return the header of a login."""
    return {"Authorization": f"{scheme} {base64.b64encode(text.encode()).decode()}"}


class TestMetricsLogin:
    async def test_only_the_right_login_is_shown_metrics(self, tmp_path: Path) -> None:
        right = login("prometheus:pass:wörd")
        wrong = [
            {},
            *({"Authorization": value} for value in ("", "Basic", "Basic !!!", "Basic ä")),
            login("prometheus:pass:wörd", "Bearer"),
            login("prometheus:pass"),
            login("Prometheus:pass:wörd"),
            login(":"),
            login(""),
        ]
        with Backend(tmp_path / "data", METRICS_USER="prometheus", METRICS_PASS="pass:wörd") as backend:
            async with Client(backend) as client:
                for method in ("GET", "HEAD"):
                    shown = await client.request(method, "/metrics", headers=right)
                    assert shown.status == 200
                    assert shown.headers["Content-Type"].startswith("text/plain; version=0.0.4")
                for each in wrong:
                    refused = await client.get("/metrics", headers=each)
                    assert refused.status == 401
                    assert refused.headers["WWW-Authenticate"] == 'Basic realm="metrics"'
                    assert refused.headers["Content-Type"] == "application/problem+json"
                    assert b"flk_" not in refused.body

    async def test_without_a_login_metrics_are_open_on_loopback(self, tmp_path: Path) -> None:
        with Backend(tmp_path / "data") as backend:
            async with Client(backend) as client:
                shown = await client.get("/metrics")
                assert shown.status == 200
                assert b"\nflk_ingest_total 0.0\n" in shown.body


async def test_nearly_full_disk_takes_nothing_from_the_first_request_on(
    tmp_path: Path, hmac_variables: dict[str, str]
) -> None:
    with Backend(tmp_path / "data", DISK_FREE_MIN_BYTES=str(2**50), **hmac_variables) as backend:
        async with Client(backend) as client:
            refused = await client.submit(signed(1))
            assert refused.status == 503
            assert refused.document["detail"] == "the disk is nearly full"
            assert int(refused.headers["Retry-After"]) >= 1
            ready = await client.get("/health/ready")
            assert (ready.status, ready.document["detail"]) == (503, "the disk is nearly full")
            assert (await client.get("/health/live")).status == 200
            metrics = await client.metrics()
            assert (metrics["flk_ready"], metrics["flk_open_requests"]) == (0, 0)
            assert await client.counters() == (1, 0, 0, 0)
        assert backend.stop() == 0
    (segment,) = (backend.data_dir / "wal" / "0").glob("*.wal")
    assert pcs_records.document(epoch=1)["pcs_id"].encode() not in segment.read_bytes()


async def test_stop_in_the_middle_of_load_answers_what_was_taken_and_loses_nothing(
    tmp_path: Path, store_variables: dict[str, str], hmac_variables: dict[str, str]
) -> None:
    """SIGTERM: each request is answered or its connection ends; exit 0; what was acknowledged is known afterwards."""
    backend = Backend(tmp_path / "data", **store_variables, **hmac_variables)
    waiting = list(range(RECORDS))
    answers: dict[int, Answer] = {}

    async def sender(client: Client) -> None:
        while waiting:
            epoch = waiting.pop()
            try:
                answers[epoch] = await client.submit(signed(epoch))
            except (aiohttp.ClientError, ConnectionError):
                return
            if len(answers) == STOP_AFTER:
                os.kill(backend.pid, signal.SIGTERM)

    with backend.start():
        async with Client(backend, CLIENTS) as client:
            await asyncio.gather(*(sender(client) for _ in range(CLIENTS)))
        assert backend.wait() == 0
    acknowledged = {epoch: answer for epoch, answer in answers.items() if answer.status == 200}
    assert {answer.status for answer in answers.values()} <= {200, 503}
    assert STOP_AFTER <= len(acknowledged) < RECORDS
    assert b'"event": "stopped"' in backend.output
    with backend.start():
        async with Client(backend) as client:
            assert (await client.metrics())["flk_open_requests"] == 0
            for epoch, answer in acknowledged.items():
                again = await client.submit(signed(epoch))
                assert (again.status, again.body, again.replayed) == (200, answer.body, True)
        assert backend.stop() == 0


async def test_stop_does_not_wait_for_bodies_under_way(
    tmp_path: Path, hmac_variables: dict[str, str]
) -> None:
    """They are 503 at once, and nothing of them is kept."""
    with Backend(tmp_path / "data", BODY_TIMEOUT_S="60", **hmac_variables) as backend:
        address = urlsplit(backend.url)
        clients = [await asyncio.open_connection(address.hostname, address.port) for _ in range(5)]
        for _, writer in clients:
            writer.write(
                b"POST /v1/pcs/submit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: 1000\r\n\r\n" + signed(1)[:500]
            )
            await writer.drain()
        async with Client(backend) as client:
            await client.wait_for_metric("flk_connections", 6)
        began_s = time.monotonic()
        assert await asyncio.to_thread(backend.stop) == 0
        assert time.monotonic() - began_s < 5.0
        for reader, writer in clients:
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b'"detail":"the service is stopping"' in answer
            writer.close()
    with backend.start():
        async with Client(backend) as client:
            assert (await client.metrics())["flk_open_requests"] == 0
        assert backend.stop() == 0


class TestOpenFiles:
    """Connections leave files to the log: a log that cannot open its next segment takes nothing any more."""

    @staticmethod
    def limited(data_dir: Path, files: int, **variables: str) -> Backend:
        backend = Backend(data_dir, **variables)
        backend.command = ["prlimit", f"--nofile={files}:{files}", *backend.command]
        return backend

    async def test_limit_of_open_files_limits_connections_and_is_said(
        self, tmp_path: Path, hmac_variables: dict[str, str]
    ) -> None:
        with self.limited(tmp_path / "data", 276, **hmac_variables) as backend:
            said = [json.loads(line) for line in backend.output.splitlines() if b"open files" in line]
            assert [(each["level"], each["connections_max"]) for each in said] == [("warning", 20)]
            address = urlsplit(backend.url)
            async with Client(backend, connections=1) as client:
                assert (await client.submit(signed(1))).status == 200
                opened = [await asyncio.open_connection(address.hostname, address.port) for _ in range(60)]
                # The 19 that got a place say nothing until they are asked.
                refused = await asyncio.gather(*(reader.read(12) for reader, _ in opened[19:]))
                assert set(refused) == {b"HTTP/1.1 503"}
                metrics = await client.metrics()
                assert (metrics["flk_connections"], metrics["flk_connections_refused_total"]) == (20, 41)
                assert (await client.submit(signed(2))).status == 200
                for _, writer in opened:
                    writer.close()
                await client.wait_for_metric("flk_connections", 1)
            assert backend.stop() == 0

    def test_limit_too_low_for_any_connection_is_named(self, tmp_path: Path) -> None:
        backend = self.limited(tmp_path / "data", 256)
        backend.start()
        assert backend.wait() == 2
        assert b"CONNECTIONS_MAX: found a limit of 256 open files; allowed: " in backend.output
        assert b"Traceback" not in backend.output
