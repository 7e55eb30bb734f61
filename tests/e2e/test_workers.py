"""Several workers on one port, over a real Redis and a real PostgreSQL.

Nothing acknowledged is lost or doubled, limits and metrics are of all together, and no second service gets folder or port.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import certificates
import psutil
import pytest

from processes import HMAC_KEY, WAIT_TIMEOUT_S, Answer, Backend, Client, clean_environment, command, run
from replicas import records
from servers import PostgresServer, RedisServer

pytestmark = [pytest.mark.slow]

HMAC = {"PCS_SIGN_ALG": "hmac", "PCS_HMAC_KEY": HMAC_KEY}


@pytest.fixture(params=["redis", "postgres"])
def store(request: pytest.FixtureRequest) -> dict[str, str]:
    if request.param == "redis":
        return {"DEDUP_BACKEND": "redis", "REDIS_ADDR": request.getfixturevalue("redis_address")}
    return {"DEDUP_BACKEND": "postgres", "POSTGRES_DSN": request.getfixturevalue("postgres_dsn")}


@pytest.fixture
def server(request: pytest.FixtureRequest, store: dict[str, str]) -> RedisServer | PostgresServer:
    """The server of the store."""
    name = "redis_server" if "REDIS_ADDR" in store else "postgres_server"
    found: RedisServer | PostgresServer = request.getfixturevalue(name)
    return found


@asynccontextmanager
async def serving(
    folder: Path, workers: int, store: Mapping[str, str], **variables: str
) -> AsyncIterator[tuple[Backend, Client]]:
    backend = Backend(folder, WORKERS=str(workers), **HMAC, **store, **variables)
    with backend:
        async with Client(backend, connections=32) as client:
            yield backend, client


def worker_processes(backend: Backend) -> list[psutil.Process]:
    """The workers' processes, by number."""
    return sorted(psutil.Process(backend.pid).children(), key=lambda each: each.cmdline()[-1])


async def submit_until_gone(
    client: Client, bodies: Mapping[str, bytes], enough: asyncio.Event, count: int
) -> dict[str, Answer]:
    """Submit until everything is answered or nothing answers; set an event after so many answers."""
    answers: dict[str, Answer] = {}
    waiting = list(bodies.items())

    async def send() -> None:
        while waiting:
            pcs_id, body = waiting.pop()
            try:
                answer = await client.submit(body)
            except (aiohttp.ClientError, TimeoutError):
                continue
            if answer.status in {200, 202}:
                answers[pcs_id] = answer
            if len(answers) >= count:
                enough.set()

    await asyncio.gather(*(send() for _ in range(32)))
    enough.set()
    return answers


async def check_all(client: Client, bodies: Mapping[str, bytes], acknowledged: Mapping[str, Answer]) -> None:
    """Nothing is open, what was acknowledged is answered as it was, and every record counts once."""
    await client.wait_for_metric("flk_open_requests", 0)
    answers = dict(zip(bodies, await asyncio.gather(*map(client.submit, bodies.values())), strict=True))
    assert {answer.status for answer in answers.values()} == {200, 202}
    for pcs_id, first in acknowledged.items():
        again = answers[pcs_id]
        assert (again.status, again.body, again.replayed) == (first.status, first.body, True)
    listed = run("pcs-backend", "escalations", "list", "--limit", "1000", "--json", **variables_of(client))
    escalated = Counter(json.loads(line)["pcs_id"] for line in listed.stdout.splitlines())
    assert escalated == Counter(pcs_id for pcs_id, answer in answers.items() if answer.status == 202)


def variables_of(client: Client) -> dict[str, str]:
    assert isinstance(client.backend, Backend)
    return client.backend.variables


def frames(folder: Path, workers: Iterable[int]) -> dict[int, int]:
    """Bytes in the log of each worker."""
    return {
        each: sum(file.stat().st_size for file in (folder / "wal" / str(each)).glob("*.wal"))
        for each in workers
    }


async def test_workers_share_the_port_and_are_seen_as_one(tmp_path: Path, store: dict[str, str]) -> None:
    bodies = records(300)
    async with serving(tmp_path / "data", 3, store) as (backend, client):
        assert backend.output.count(b"listening on ") == 1
        answers = await asyncio.gather(*map(client.submit, bodies.values()))
        assert Counter(answer.status for answer in answers) == {200: 200, 202: 100}
        again = await asyncio.gather(*map(client.submit, bodies.values()))
        assert [answer.body for answer in again] == [answer.body for answer in answers]
        assert all(answer.replayed for answer in again)
        # Each connection is one worker's; whichever is asked has the sum of all.
        for _ in range(6):
            async with Client(backend) as other:
                assert await other.counters() == (600, 300, 200, 100)
        metrics = await client.metrics()
        assert metrics["flk_ready"] == metrics["flk_store_up"] == metrics["flk_keys"] == 1
        assert metrics["flk_open_requests"] == 0
        written = frames(tmp_path / "data", range(3))
        assert metrics["flk_wal_size_bytes"] == sum(written.values())
        assert min(written.values()) > 10_000  # every worker took its part
        assert (await client.get("/health/ready")).status == 200
        assert len(list((tmp_path / "data").glob("*.sock"))) == 4
        shown = run("pcs-backend", "top", "--once", "--json", **backend.variables)
        assert json.loads(shown.stdout)["totals"]["accepted"] == 200
        listed = run("pcs-backend", "records", "--limit", "1000", "--json", **backend.variables)
        found = [json.loads(line) for line in listed.stdout.splitlines()]
        assert {row["frame"].partition("/")[0] for row in found} == {"0", "1", "2"}
        assert len(found) == 600
        assert backend.stop() == 0
    assert list((tmp_path / "data").glob("*.sock")) == []
    checked = run("pcs-backend", "fsck", "--json", **backend.variables)
    assert [log["worker"] for log in json.loads(checked.stdout)["logs"]] == ["0", "1", "2"]
    assert checked.returncode == 0


async def test_tap_shows_what_every_worker_answers(tmp_path: Path, redis_address: str) -> None:
    store = {"DEDUP_BACKEND": "redis", "REDIS_ADDR": redis_address}
    bodies = records(120)
    async with serving(tmp_path / "data", 3, store) as (backend, client):
        tap = await asyncio.create_subprocess_exec(
            backend.command[0], "tap", "--json", "--status", "202", "--limit", "40",
            env=backend.variables, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert tap.stderr is not None
        assert await tap.stderr.readline() == b"listening; Ctrl-C ends it\n"
        answers = await asyncio.gather(*map(client.submit, bodies.values()))
        async with asyncio.timeout(WAIT_TIMEOUT_S):
            shown, _ = await tap.communicate()
        escalated = {pcs_id for pcs_id, answer in zip(bodies, answers, strict=True) if answer.status == 202}
        assert {json.loads(line)["pcs_id"] for line in shown.splitlines()} == escalated
        assert len(escalated) == 40
        written = frames(tmp_path / "data", range(3))
        assert min(written.values()) > 5_000


async def test_token_rate_is_for_all_workers_together(tmp_path: Path, redis_address: str) -> None:
    rate, seconds = 40, 3.0
    store = {"DEDUP_BACKEND": "redis", "REDIS_ADDR": redis_address}
    bodies = itertools.cycle(records(100).values())  # a replay is a record too
    statuses: Counter[int] = Counter()
    async with serving(tmp_path / "data", 2, store, TOKEN_RATE=str(rate)) as (_, client):
        began_s = time.monotonic()

        async def send() -> None:
            while time.monotonic() - began_s < seconds:
                answer = await client.submit(next(bodies))
                statuses[200 if answer.status == 202 else answer.status] += 1

        await asyncio.gather(*(send() for _ in range(16)))
        took_s = time.monotonic() - began_s
        assert set(statuses) == {200, 429}
        # One second's worth at once and then the rate; each worker on its own would let through twice as many.
        assert rate * seconds <= statuses[200] <= rate * (1 + took_s) + 1
        written = frames(tmp_path / "data", range(2))
        assert min(written.values()) > 1_000


async def test_a_batch_beyond_a_burst_is_owed_to_every_worker(tmp_path: Path, redis_address: str) -> None:
    store = {"DEDUP_BACKEND": "redis", "REDIS_ADDR": redis_address}
    bodies = list(records(40).values())
    async with serving(tmp_path / "data", 2, store, TOKEN_RATE="2") as (_, client):
        batch = await client.request(
            "POST",
            "/v1/pcs/batch",
            data=b"\n".join(bodies),
            headers={"Content-Type": "application/x-ndjson"},
        )
        assert Counter(json.loads(line)["status"] for line in batch.body.splitlines()) == {200: 26, 202: 14}
        answers = await asyncio.gather(*map(client.submit, bodies))
        assert {answer.status for answer in answers} == {429}
        assert {int(answer.headers["Retry-After"]) for answer in answers} <= set(range(10, 21))
        written = frames(tmp_path / "data", range(2))
        assert min(written.values()) == 28  # none of them was written down; the batch was, once


async def test_a_worker_that_stands_still_is_neither_ready_nor_counted_as_nothing(
    tmp_path: Path, redis_address: str
) -> None:
    store = {"DEDUP_BACKEND": "redis", "REDIS_ADDR": redis_address}
    probe = [sys.executable, "-m", "pcs_backend.probe"]
    async with serving(tmp_path / "data", 2, store) as (backend, client):
        answers = await asyncio.gather(*map(client.submit, records(60).values()))
        assert {answer.status for answer in answers} == {200, 202}
        asked = {"DATA_DIR": str(tmp_path / "data")}
        assert subprocess.run(probe, env=asked, check=False).returncode == 0
        still = worker_processes(backend)[1]
        still.suspend()
        try:
            done = await asyncio.to_thread(
                subprocess.run, probe, env=asked, check=False, capture_output=True, text=True
            )
            assert done.returncode == 1
            assert "worker 1 does not answer" in done.stderr
            shown = await asyncio.to_thread(run, "pcs-backend", "top", "--once", **backend.variables)
            assert (shown.returncode, shown.stderr) == (
                1,
                b"pcs-backend: the serving process could not answer\n",
            )
        finally:
            still.resume()
        assert subprocess.run(probe, env=asked, check=False).returncode == 0
        assert await client.counters() == (60, 0, 40, 20)
        assert backend.stop() == 0


async def test_a_renewed_certificate_is_taken_by_every_worker(tmp_path: Path, redis_address: str) -> None:
    authority = certificates.make_authority()
    ca = certificates.write(authority, tmp_path, "ca")[0]

    def issue() -> tuple[Path, Path]:
        issued = certificates.issue(authority, ("localhost", "127.0.0.1"), for_server=True, days=1)
        return certificates.write(issued, tmp_path, "server")

    context = ssl.create_default_context(cafile=ca)
    cert, key = issue()
    store = {"DEDUP_BACKEND": "redis", "REDIS_ADDR": redis_address}
    tls = {"TLS_CERT": str(cert), "TLS_KEY": str(key)}
    async with serving(tmp_path / "data", 2, store, **tls) as (backend, _):
        assert backend.url.startswith("https://127.0.0.1:")
        port = int(backend.url.rpartition(":")[2])

        async def serials() -> set[str]:
            """Of as many connections that both workers have some."""
            found = set()
            for _ in range(24):
                _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
                found.add(writer.get_extra_info("peercert")["serialNumber"])
                writer.close()
                await writer.wait_closed()
            return found

        old = await serials()
        assert len(old) == 1
        issue()
        deadline_s = time.monotonic() + WAIT_TIMEOUT_S
        while (new := await serials()) & old:
            assert time.monotonic() < deadline_s
        assert len(new) == 1
        assert backend.output.count(b"the certificate was renewed") == 2
        assert backend.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_while_workers_start_is_a_stop_in_good_order(
    tmp_path: Path, redis_address: str, number: signal.Signals
) -> None:
    store = {"DEDUP_BACKEND": "redis", "REDIS_ADDR": redis_address}
    served = subprocess.Popen(
        [command("pcs-backend"), "serve", "--workers", "3"],
        env=clean_environment(DATA_DIR=str(tmp_path / "data"), PORT="0", **HMAC, **store),
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        deadline_s = time.monotonic() + WAIT_TIMEOUT_S
        while len(psutil.Process(served.pid).children()) < 3:
            assert time.monotonic() < deadline_s
        os.killpg(served.pid, number)
        _, said = served.communicate(timeout=WAIT_TIMEOUT_S)
    finally:
        if served.poll() is None:
            os.killpg(served.pid, signal.SIGKILL)
    assert (served.returncode, b"Traceback" in said) == (0, False), said.decode()
    assert b"listening on" not in said


async def test_keys_are_read_anew_by_every_worker(tmp_path: Path, redis_address: str) -> None:
    store = {"DEDUP_BACKEND": "redis", "REDIS_ADDR": redis_address}
    async with serving(tmp_path / "data", 2, store) as (backend, client):
        backend.signal(signal.SIGHUP)
        deadline_s = time.monotonic() + WAIT_TIMEOUT_S
        while backend.output.count(b"the keys were reloaded") < 2:
            assert (await client.get("/health/live")).status == 200
            assert time.monotonic() < deadline_s
        lines = [json.loads(line) for line in backend.output.splitlines() if b"were reloaded" in line]
        assert sorted(line["worker"] for line in lines) == [0, 1]
        assert backend.stop() == 0


@pytest.mark.parametrize("killed", ["worker 0", "worker 1", "supervisor"])
async def test_a_killed_process_loses_nothing_that_was_acknowledged(
    tmp_path: Path, store: dict[str, str], killed: str
) -> None:
    bodies = records(600)
    enough = asyncio.Event()
    async with serving(tmp_path / "data", 2, store) as (backend, client):
        processes = worker_processes(backend)
        assert len(processes) == 2
        load = asyncio.create_task(submit_until_gone(client, bodies, enough, 150))
        await enough.wait()
        if killed == "supervisor":
            psutil.Process(backend.pid).kill()
        else:
            processes[int(killed[-1])].kill()
        code = await asyncio.to_thread(backend.wait)  # until the last process that writes to it is gone
        acknowledged = await load
        assert code == (-9 if killed == "supervisor" else 1)
        if killed != "supervisor":
            assert f"pcs-backend: {killed} ended by signal 9\n".encode() in backend.output
        assert psutil.wait_procs(processes, timeout=WAIT_TIMEOUT_S)[1] == []
        assert 150 <= len(acknowledged) < len(bodies)
    async with serving(tmp_path / "data", 2, store) as (_, client):
        await check_all(client, bodies, acknowledged)


async def test_fewer_workers_settle_what_more_of_them_left_open(
    tmp_path: Path, store: dict[str, str], server: RedisServer | PostgresServer
) -> None:
    bodies = records(240)
    async with serving(tmp_path / "data", 3, store) as (backend, client):
        answered = dict(list(bodies.items())[:60])
        first = await asyncio.gather(*map(client.submit, answered.values()))
        acknowledged = dict(zip(answered, first, strict=True))
        server.stop()
        left = {pcs_id: body for pcs_id, body in bodies.items() if pcs_id not in answered}
        put_off = await asyncio.gather(*map(client.submit, left.values()))
        assert {answer.status for answer in put_off} == {503}
        metrics = await client.metrics()
        assert (metrics["flk_open_requests"], metrics["flk_store_up"]) == (180, 0)
        family = [psutil.Process(backend.pid), *worker_processes(backend)]
        for process in family:
            process.kill()
        await asyncio.to_thread(backend.wait)
    assert min(frames(tmp_path / "data", (1, 2)).values()) > 10_000
    server.start()
    async with serving(tmp_path / "data", 1, store) as (backend, client):
        await client.wait_for_metric("flk_open_requests", 0)
        settled = [json.loads(line) for line in backend.output.splitlines() if b"backlog settled" in line]
        judged = sum(line.get("accepted", 0) + line.get("escalated", 0) for line in settled)
        assert judged == 180
        assert (
            sum(line.get("replayed", 0) for line in settled) <= 60
        )  # of a settled note that was not yet written
        assert (await client.counters())[2:] == (120, 60)
        await check_all(client, bodies, acknowledged)
        assert backend.stop() == 0
    async with serving(tmp_path / "data", 2, store) as (backend, client):
        await check_all(client, bodies, acknowledged)
        assert (await client.counters())[2:] == (0, 0)


class TestRefused:
    """What stops a start, with exit code 2 and a message that names the variable."""

    def refusal(self, folder: Path, workers: int, store: Mapping[str, str], **variables: str) -> str:
        done = run(
            "pcs-backend", "serve", "--workers", str(workers),
            **({"DATA_DIR": str(folder), "PORT": "0", "LOG_LEVEL": "ERROR"} | HMAC | dict(store) | variables),
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        return done.stderr.decode()

    async def test_a_second_service(self, tmp_path: Path, redis_address: str) -> None:
        store = {"DEDUP_BACKEND": "redis", "REDIS_ADDR": redis_address}
        async with serving(tmp_path / "data", 2, store) as (backend, client):
            port = backend.url.rpartition(":")[2]
            for workers in (1, 2):
                assert self.refusal(tmp_path / "data", workers, store).startswith("pcs-backend: DATA_DIR: ")
                elsewhere = self.refusal(tmp_path / "other", workers, store, PORT=port)
                assert elsewhere.startswith(f"pcs-backend: PORT: found {port}, where nothing can listen")
            assert run("pcs-backend", "fsck", **backend.variables).returncode == 2
            assert (await client.get("/health/ready")).status == 200
            assert backend.stop() == 0

    @pytest.mark.parametrize("shared", [False, True], ids=["alone", "with SO_REUSEPORT"])
    def test_a_port_that_another_program_listens_on(
        self, tmp_path: Path, redis_address: str, shared: bool
    ) -> None:
        with socket.socket() as other:
            if shared:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = str(other.getsockname()[1])
            store = {"DEDUP_BACKEND": "redis", "REDIS_ADDR": redis_address}
            assert self.refusal(tmp_path / "data", 2, store, PORT=port) == (
                f"pcs-backend: PORT: found {port}, where nothing can listen (Address already in use); allowed: a free "
                "port, on a HOST that is an address of this machine\n"
            )

    def test_the_memory_store(self, tmp_path: Path) -> None:
        assert self.refusal(tmp_path / "data", 2, {}).startswith(
            "pcs-backend: WORKERS: found 2 with the memory store"
        )
        assert not (tmp_path / "data").exists()
