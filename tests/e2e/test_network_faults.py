"""Agent and backend with a network between them that loses, delays, cuts and hangs: nothing lost, nothing doubled.

The agent is the installed command. After every fault it must end with everything delivered and exit code 0, its outbox
acknowledged, and the backend with one first outcome a record.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from faulty_proxy import FaultyProxy
from processes import HMAC_KEY, Backend, Client, clean_environment, command, run

pytestmark = [pytest.mark.slow]

SUBMIT = "/v1/pcs/submit"
WINDOWS, ROWS = 12, 20
FLIGHTS = 8
ATTEMPT_TIMEOUT_S = 30.0
END_TIMEOUT_S = 90.0


class Agent:
    """`pcs-agent run` over standard input, as a process that the test feeds."""

    def __init__(self, folder: Path, endpoint: str, **variables: str) -> None:
        self.variables = {
            "ENDPOINT": endpoint,
            "OUTBOX_DIR": str(folder / "outbox"),
            "PCS_SIGN_ALG": "hmac",
            "PCS_HMAC_KEY": HMAC_KEY,
            "LOG_LEVEL": "info",
            **variables,
        }
        self._generator = random.Random(7)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            command("pcs-agent"),
            *("run", "-", "--shard-id", "net", "--epoch", "0", "--window", str(ROWS), "--json"),
            env=clean_environment(**self.variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(b"x,y\n")

    async def feed(self, windows: int) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        rows = (f"{self._generator.random()},{self._generator.random()}\n" for _ in range(windows * ROWS))
        self._process.stdin.write("".join(rows).encode())
        await self._process.stdin.drain()

    async def end(self) -> tuple[int, list[dict[str, Any]], bytes]:
        """Close the input; return exit code, what was said of each record, and the log."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(END_TIMEOUT_S):
            stdout, stderr = await self._process.communicate()
        code = self._process.returncode
        assert code is not None
        return code, [json.loads(line) for line in stdout.splitlines()], stderr

    def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    def entries(self) -> list[dict[str, Any]]:
        done = run("pcs-agent", "outbox", "list", "--json", **self.variables)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


class Line:
    """Agent, proxy and backend."""

    def __init__(self, agent: Agent, proxy: FaultyProxy, client: Client) -> None:
        self.agent = agent
        self.proxy = proxy
        self.client = client

    async def metric(self, name: str) -> int:
        return int((await self.client.metrics())[name])

    async def check_delivered(self, windows: int = WINDOWS) -> bytes:
        """Let the agent end, and check both sides; returns the agent's log."""
        code, said, log = await self.agent.end()
        assert code == 0, log.decode()
        assert sorted(each["epoch"] for each in said) == list(range(windows))
        assert {each["verdict"] for each in said} == {"accepted"}
        entries = self.agent.entries()
        assert [entry["state"] for entry in entries] == ["acked"] * windows
        assert len({entry["pcs_id"] for entry in entries}) == windows
        metrics = await self.client.metrics()
        assert (metrics["flk_accepted_total"], metrics["flk_escalated_total"]) == (windows, 0)
        assert (metrics["flk_conflicts_total"], metrics["flk_open_requests"]) == (0, 0)
        return log


@pytest.fixture
async def line(tmp_path: Path, hmac_variables: dict[str, str]) -> AsyncIterator[Line]:
    """A running backend behind a proxy, and an agent that has begun and was given nothing."""
    with Backend(tmp_path / "data", BODY_TIMEOUT_S="2", **hmac_variables) as backend:
        port = int(backend.url.rpartition(":")[2])
        with FaultyProxy("127.0.0.1", port) as proxy:
            agent = Agent(tmp_path, f"http://127.0.0.1:{proxy.port}{SUBMIT}")
            await agent.start()
            async with Client(backend) as client:
                yield Line(agent, proxy, client)
            agent.kill()
            assert backend.stop() == 0


async def until(line: Line, name: str, least: int) -> None:
    async with asyncio.timeout(END_TIMEOUT_S):
        while await line.metric(name) < least:
            await asyncio.sleep(0.02)


async def until_accepted(line: Line, count: int) -> None:
    await until(line, "flk_accepted_total", count)


@pytest.mark.parametrize("lost", ["reset", "cut in the header", "cut in the body"])
async def test_answers_lost_after_the_commit_are_asked_for_again(line: Line, lost: str) -> None:
    """The backend has every record before the agent hears of one; each is answered again, with the first outcome."""
    match lost:
        case "reset":
            line.proxy.set(answers="reset")
        case "cut in the header":
            line.proxy.set(to_client_bytes=60)
        case _:
            line.proxy.set(to_client_bytes=250)
    await line.agent.feed(WINDOWS)
    await until_accepted(line, WINDOWS)
    # An outcome is counted before its answer leaves: after some more requests every first answer is lost.
    await until(line, "flk_dedup_hits_total", await line.metric("flk_dedup_hits_total") + FLIGHTS)
    line.proxy.set()
    await line.check_delivered()
    assert await line.metric("flk_dedup_hits_total") >= WINDOWS


async def test_bodies_cut_on_the_way_are_not_taken_and_sent_again(line: Line) -> None:
    line.proxy.set(to_server_bytes=600)
    await line.agent.feed(WINDOWS)
    async with asyncio.timeout(END_TIMEOUT_S):
        while line.proxy.counts.truncated < 2 * WINDOWS:
            await asyncio.sleep(0.02)
    metrics = await line.client.metrics()
    assert (metrics["flk_ingest_total"], metrics["flk_open_requests"]) == (0, 0)
    line.proxy.set()
    await line.check_delivered()
    assert await line.metric("flk_dedup_hits_total") == 0


async def test_slow_bytes_both_ways_are_waited_for(line: Line) -> None:
    """Some 1.1 KB there and 0.6 KB back, at 1,500 bytes a second each connection."""
    line.proxy.set(bytes_per_s=1_500)
    await line.agent.feed(4)
    began_s = time.monotonic()
    await until_accepted(line, 4)
    assert time.monotonic() - began_s > 0.3
    await line.check_delivered(4)
    assert await line.metric("flk_dedup_hits_total") == 0


async def test_bytes_too_slow_for_a_body_are_408_and_sent_again(line: Line) -> None:
    """The backend gives a body 2 seconds here."""
    line.proxy.set(bytes_per_s=150)
    await line.agent.feed(4)
    await until(line, 'flk_refused_total{problem="timeout"}', 4)
    assert await line.metric("flk_ingest_total") == 0
    line.proxy.set()
    log = await line.check_delivered(4)
    assert b"status 408" in log


@pytest.mark.parametrize("how", ["cut", "reset"])
async def test_kept_connections_that_end_between_two_requests_cost_nothing(line: Line, how: str) -> None:
    await line.agent.feed(FLIGHTS)
    await until_accepted(line, FLIGHTS)
    getattr(line.proxy, how)()
    await line.agent.feed(WINDOWS - FLIGHTS)
    await line.check_delivered()


async def test_kept_connections_that_are_dead_without_a_word_are_given_up(line: Line) -> None:
    """Half-open: nothing tells the agent. It waits for its time limit, and sends again on connections of its own."""
    await line.agent.feed(FLIGHTS)
    await until_accepted(line, FLIGHTS)
    line.proxy.silence()
    began_s = time.monotonic()
    await line.agent.feed(WINDOWS - FLIGHTS)
    log = await line.check_delivered()
    took_s = time.monotonic() - began_s
    assert ATTEMPT_TIMEOUT_S <= took_s < 2 * ATTEMPT_TIMEOUT_S
    assert b'"why":"no answer within ' in log
    assert await line.metric("flk_dedup_hits_total") == 0


async def test_network_that_is_gone_for_longer_than_the_deadline_leaves_dead_letters(
    tmp_path: Path, hmac_variables: dict[str, str]
) -> None:
    """Exit code 1, each record in the dead letters with its reason; put back, they are delivered once."""
    with Backend(tmp_path / "data", **hmac_variables) as backend:
        with FaultyProxy("127.0.0.1", int(backend.url.rpartition(":")[2])) as proxy:
            proxy.set(refuse=True)
            agent = Agent(tmp_path, f"http://127.0.0.1:{proxy.port}{SUBMIT}", DELIVERY_DEADLINE_S="1")
            await agent.start()
            await agent.feed(WINDOWS)
            code, said, _ = await agent.end()
            assert code == 1
            assert [each["verdict"] for each in said] == ["dead"] * WINDOWS
            dead = run("pcs-agent", "dlq", "list", "--json", **agent.variables)
            reasons = [json.loads(line)["reason"] for line in dead.stdout.splitlines()]
            assert len(reasons) == WINDOWS
            assert {reason.partition(";")[0] for reason in reasons} == {"deadline of 1 s passed"}
            proxy.set()
            back = run("pcs-agent", "dlq", "redrive", **agent.variables)
            assert back.returncode == 0, back.stderr
            flushed = run("pcs-agent", "outbox", "flush", **agent.variables)
            assert flushed.returncode == 0, flushed.stderr
            assert [entry["state"] for entry in agent.entries()] == ["acked"] * WINDOWS
        async with Client(backend) as client:
            assert await client.counters() == (WINDOWS, 0, WINDOWS, 0)
