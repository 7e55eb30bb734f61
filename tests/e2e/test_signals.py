"""SIGTERM and SIGKILL at the worst moments: in rotation, snapshot, compaction, replay, and while a backlog is settled.

The process stands still just before one system call of the place when the signal comes. SIGTERM must end it with exit
code 0 within the time a stop has; after both, a start must find everything that was acknowledged.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import subprocess
import time
from pathlib import Path

import aiohttp
import pytest

from crash.plan import Place
from launched import Pause, launched
from processes import Answer, Backend, Client, clean_environment, run
from replicas import signed

pytestmark = [pytest.mark.slow]

DRAIN_S = 10.0
SENDERS = 12
SEGMENT_BYTES = 40_000
INTERVAL_S = 0.3
SIGNALS = (signal.SIGTERM, signal.SIGKILL)

CALLS = {
    Place.ROTATION: [("writev", 1), ("fsync", 1)],
    Place.SNAPSHOT: [("writev", 3), ("rename", 1)],
    Place.COMPACTION: [("unlink", 1), ("fsync", 1)],
}
REPLAY_CALLS = [("read", 4), ("fdatasync", 1)]


class Load:
    """Sends new records until the backend is gone, and remembers what was acknowledged.

    Attributes:
        acknowledged: Answers of 200 and 202 by epoch.
    """

    def __init__(self) -> None:
        self.acknowledged: dict[int, Answer] = {}
        self._epochs = itertools.count()

    @staticmethod
    def body(epoch: int) -> bytes:
        return signed(epoch, **({"D_hat": 4.0} if epoch % 10 == 0 else {}))

    async def send(self, client: Client) -> None:
        while True:
            epoch = next(self._epochs)
            try:
                answer = await client.submit(self.body(epoch))
            except (aiohttp.ClientError, OSError):
                return
            assert answer.status in {200, 202, 503}
            if answer.status != 503:
                self.acknowledged[epoch] = answer

    async def check(self, client: Client, known: bool = True) -> None:
        """Everything acknowledged is known, byte for byte, and nothing is left without an outcome."""
        await client.wait_for_metric("flk_open_requests", 0)
        for epoch, answer in self.acknowledged.items():
            again = await client.submit(self.body(epoch))
            assert (again.status, again.body, again.replayed) == (answer.status, answer.body, known), epoch


async def until_said(backend: Backend, event: bytes) -> None:
    async with asyncio.timeout(DRAIN_S):
        while b'"event": "%s"' % event not in backend.output:
            await asyncio.sleep(0.01)


async def end_in_place(backend: Backend, pause: Pause, number: signal.Signals) -> None:
    """Signal the process where it stands still, and check how it ends."""
    backend.output = b""
    began_s = time.monotonic()
    backend.signal(number)
    if number is signal.SIGTERM:
        await until_said(backend, b"stopping")
        pause.go_on()
        code = await asyncio.to_thread(backend.wait)
        assert (code, time.monotonic() - began_s < DRAIN_S) == (0, True), backend.output
        assert b'"event": "stopped' in backend.output
        assert b"Traceback" not in backend.output
    else:
        assert await asyncio.to_thread(backend.wait) == -signal.SIGKILL


def standing_still(pause: dict[str, object]) -> list[str]:
    return launched(["pcs-backend", "serve"], pause=pause, segment_bytes=SEGMENT_BYTES, interval_s=INTERVAL_S)


PLAIN = launched(["pcs-backend", "serve"], segment_bytes=SEGMENT_BYTES)


@pytest.mark.parametrize("place", list(CALLS))
async def test_signal_under_load(tmp_path: Path, hmac_variables: dict[str, str], place: Place) -> None:
    """One life after the other on one folder, each signalled at another system call of the place."""
    backend = Backend(tmp_path / "data", **hmac_variables, WAL_RETENTION_DAYS="0.00001")
    load = Load()
    for number, (call, nth) in itertools.product(SIGNALS, CALLS[place]):
        with Pause(tmp_path) as pause:
            backend.command = standing_still(pause.at(place, call, nth))
            with backend.start():
                async with Client(backend, SENDERS) as client:
                    senders = asyncio.gather(*(load.send(client) for _ in range(SENDERS)))
                    assert await asyncio.to_thread(pause.reached) == {"place": place, "call": call}
                    await end_in_place(backend, pause, number)
                    await senders
    assert len(load.acknowledged) > 40
    backend.command = PLAIN
    with backend.start():
        async with Client(backend) as client:
            await load.check(client)
        check_queue(backend, load)
        assert backend.stop() == 0


def check_queue(backend: Backend, load: Load) -> None:
    """Each acknowledged escalation stands in the queue, and no entry twice."""
    listing = run("pcs-backend", "escalations", "list", "--limit", "1000", "--json", **backend.variables)
    queued = [json.loads(line)["pcs_id"] for line in listing.stdout.splitlines()]
    escalated = {
        json.loads(answer.body)["pcs_id"] for answer in load.acknowledged.values() if answer.status == 202
    }
    assert len(queued) == len(set(queued))
    assert escalated - set(queued) == set()


async def test_signal_while_the_log_is_read(tmp_path: Path, hmac_variables: dict[str, str]) -> None:
    """The log has several segments, a snapshot behind it and a torn tail after a kill."""
    backend = Backend(tmp_path / "data", **hmac_variables)
    backend.command = PLAIN
    load = Load()
    with backend.start():
        async with Client(backend, SENDERS) as client:
            senders = asyncio.gather(*(load.send(client) for _ in range(SENDERS)))
            while len(load.acknowledged) < 200:
                await asyncio.sleep(0.01)
            backend.kill()
            await senders
    for number, (call, nth) in itertools.product(SIGNALS, REPLAY_CALLS):
        with max((backend.data_dir / "wal" / "0").glob("*.wal")).open("ab") as file:
            file.write(b"PCSF torn")
        with Pause(tmp_path) as pause:
            backend.command = standing_still(pause.at(Place.REPLAY, call, nth))
            with backend.start(wait_ready=False):
                await asyncio.to_thread(pause.reached)
                async with Client(backend) as client:
                    assert (await client.submit(load.body(0))).status == 503
                await end_in_place(backend, pause, number)
                # A stop does not wait until the log is read: that may take far longer than a stop may.
                if call == "read":
                    assert b'"event": "ready"' not in backend.output
    backend.command = PLAIN
    with backend.start():
        async with Client(backend) as client:
            await load.check(client)
        assert backend.stop() == 0


async def test_signal_while_a_backlog_is_settled(tmp_path: Path, hmac_variables: dict[str, str]) -> None:
    """Requests that found the store full are judged after a restart, in batches; a signal falls between them."""
    backlog = 200
    backend = Backend(tmp_path / "data", **hmac_variables, MEMORY_STORE_MAX_RECORDS="1")
    bodies = [Load.body(epoch) for epoch in range(1, backlog + 1)]
    with backend.start():
        async with Client(backend) as client:
            answers = await asyncio.gather(*map(client.submit, bodies))
            assert sorted(answer.status for answer in answers) == [200] + [503] * (backlog - 1)
        backend.kill()
    del backend.variables["MEMORY_STORE_MAX_RECORDS"]
    for number in SIGNALS:
        with Pause(tmp_path) as pause:
            backend.command = standing_still(pause.at(Place.REPLAY, "writev"))
            with backend.start(wait_ready=False):
                assert (await asyncio.to_thread(pause.reached))["call"] == "writev"
                await end_in_place(backend, pause, number)
    backend.command = PLAIN
    with backend.start():
        async with Client(backend) as client:
            await client.wait_for_metric("flk_open_requests", 0)
            again = [await client.submit(body) for body in bodies]
            assert {answer.replayed for answer in again} == {True}
            assert [answer.status for answer in again] == [
                202 if epoch % 10 == 0 else 200 for epoch in range(1, backlog + 1)
            ]
        listing = run("pcs-backend", "escalations", "list", "--json", **backend.variables)
        assert len(listing.stdout.splitlines()) == backlog // 10
        assert backend.stop() == 0


async def test_signal_while_the_agent_compacts_or_rotates(
    tmp_path: Path, hmac_variables: dict[str, str]
) -> None:
    """The outbox, run after run over the same stream: every window is delivered once, whatever ended the runs before."""
    stream = tmp_path / "stream.csv"
    windows = 40
    stream.write_text("x,y\n" + "".join(f"{row},{row * row % 97}\n" for row in range(10 * windows)))
    arguments = ["run", str(stream), "--shard-id", "s", "--epoch", "0", "--window", "10", "--json"]
    with Backend(tmp_path / "data", **hmac_variables) as backend:
        variables = hmac_variables | {
            "ENDPOINT": f"{backend.url}/v1/pcs/submit",
            "OUTBOX_DIR": str(tmp_path / "outbox"),
            "OUTBOX_RETENTION_DAYS": "0",
        }
        places = [
            (Place.OUTBOX_ROTATION, "fdatasync"),
            (Place.OUTBOX_COMPACTION, "unlink"),
            (Place.OUTBOX_REPLAY, "read"),
        ]
        for number, (place, call) in itertools.product(SIGNALS, places):
            with Pause(tmp_path) as pause:
                agent = await asyncio.create_subprocess_exec(
                    *launched(["pcs-agent", *arguments], pause=pause.at(place, call), segment_bytes=8_000),
                    env=clean_environment(**variables),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                )
                await asyncio.to_thread(pause.reached)
                agent.send_signal(number)
                if number is signal.SIGTERM:
                    pause.go_on()
                async with asyncio.timeout(DRAIN_S):
                    _, stderr = await agent.communicate()
                assert agent.returncode == (1 if number is signal.SIGTERM else -signal.SIGKILL), stderr
                assert b"Traceback" not in stderr
        done = run("pcs-agent", *arguments, **variables)
        assert done.returncode == 0, done.stderr
        assert sorted(json.loads(line)["epoch"] for line in done.stdout.splitlines()) == list(range(windows))
        assert run("pcs-agent", "dlq", "list", "--json", **variables).stdout == b""
        async with Client(backend) as client:
            assert (await client.counters())[2:] == (windows, 0)
            assert (await client.metrics())["flk_conflicts_total"] == 0
