"""Backends that each have one fault, for the test of the alerts: what breaks, how it heals, and which alerts it sets off.

A `Fault` is a running backend under a steady load that sends every record twice. `strike` breaks something, `heal` mends
it; both return at once or when it is done. While it is struck, `tick` is called with each turn of the load. Where the load
does not matter to the fault there is little of it: seventeen backends share the machine with whatever else is tested.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import aiohttp
import msgspec
import psutil
import redis

import pcs_records
from faulty_proxy import FaultyProxy
from gates import promote, set_of
from inboxes import request, running_inbox
from labels import labelled, now_ms, put_labels
from pcs_backend.conformal.calibration import Signals
from pcs_backend.conformal.scores import score_from
from pcs_core.params import Params
from processes import HMAC_KEY, Backend, Client, clean_environment, run
from servers import RedisServer
from small_disk import SmallDisk, small_disk

BUSY_S, QUIET_S = 0.125, 1.0
"""Between turns of the load. Each sends a new record and that of some turns ago."""

REPLAY_TURNS = 4
PRIORITY = -10
LAUNCHER = str(Path(__file__).parent / "faulty_command.py")
MIB = 1 << 20
DAY_S = 86_400.0
DEGRADED = {"outbox_seq": 1, "degraded": True, "fallbacks": ["no_input"], "clock_skew_ms": 0}
OTHER_COUNTS = {"2": 3, "4": 5, "8": 9, "16": 17, "32": 33}


class Fault:
    """A backend in which nothing breaks.

    Attributes:
        alerts: What its fault sets off, and nothing else.
        healing: What may fire besides, because mending takes a restart.
        turn_s: Between turns of the load.
    """

    alerts: ClassVar[set[str]] = set()
    healing: ClassVar[set[str]] = set()
    settings: ClassVar[dict[str, str]] = {}
    turn_s: ClassVar[float] = QUIET_S

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        self.name = type(self).__name__.lower()
        self.struck = False
        self._stack = stack
        self._sent: list[bytes] = []
        self.backend = self.make_backend()
        stack.callback(self.backend.__exit__, None, None, None)

    @property
    def job(self) -> str:
        return f"pcs-{self.name}"

    def make_backend(self, **variables: str) -> Backend:
        signing = {"PCS_SIGN_ALG": "hmac", "PCS_HMAC_KEY": HMAC_KEY}
        return Backend(self.folder / "data", **(signing | self.settings | variables))

    def start(self) -> None:
        """Start the backend, and keep its port for the next start: Prometheus knows no other."""
        self.start_again()
        self.backend.variables["PORT"] = str(urlsplit(self.backend.url).port)

    def start_again(self) -> None:
        self.backend.start()
        prefer(self.backend.pid)

    def restart(self) -> None:
        self.backend.kill()
        self.start_again()

    def document(self, number: int) -> pcs_records.Document:
        return pcs_records.document(epoch=number, shard_id=self.name)

    async def run(self, client: Client) -> None:
        """Send for ever, at an even pace."""
        async with asyncio.TaskGroup() as group:
            due_s = time.monotonic()
            while True:
                document = pcs_records.sign(self.document(len(self._sent)), hmac_key=HMAC_KEY.encode())
                self._sent.append(pcs_records.body(document))
                group.create_task(self.submit(client, self._sent[-1]))
                if len(self._sent) > REPLAY_TURNS:
                    group.create_task(self.submit(client, self._sent[-1 - REPLAY_TURNS]))
                if self.struck:
                    group.create_task(self.tick(client))
                due_s += self.turn_s
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    async def submit(self, client: Client, body: bytes) -> int:
        """Submit as a sender does that is not there for the answer; returns the status, 0 without an answer."""
        try:
            return (await client.submit(body)).status
        except (aiohttp.ClientError, TimeoutError):
            return 0

    async def tick(self, client: Client) -> None:
        """Do what the fault does again and again."""

    async def strike(self) -> None:
        self.struck = True

    async def next_strike(self, firing: set[str]) -> None:
        """Called while it is struck, with what fires: for a fault that goes on in steps."""

    async def heal(self) -> None:
        self.struck = False


class Healthy(Fault):
    """Nothing ever breaks here."""

    turn_s: ClassVar[float] = BUSY_S


class Store(Fault):
    """Redis stops."""

    alerts: ClassVar[set[str]] = {"PcsStoreDown"}

    def make_backend(self, **variables: str) -> Backend:
        self.redis = self._stack.enter_context(RedisServer(appendfsync="everysec"))
        prefer(self.redis.pid)
        address = self.redis_address()
        return super().make_backend(DEDUP_BACKEND="redis", REDIS_ADDR=address, **variables)

    def redis_address(self) -> str:
        return self.redis.address

    async def strike(self) -> None:
        await asyncio.to_thread(self.redis.stop)

    async def heal(self) -> None:
        await asyncio.to_thread(self.redis.start)


class Latency(Store):
    """The way to Redis takes long."""

    alerts: ClassVar[set[str]] = {"PcsVerifyLatencyFastBurn", "PcsVerifyLatencySlowBurn"}
    turn_s: ClassVar[float] = BUSY_S

    def redis_address(self) -> str:
        self.proxy = self._stack.enter_context(FaultyProxy("127.0.0.1", self.redis.port))
        return f"127.0.0.1:{self.proxy.port}"

    async def strike(self) -> None:
        self.proxy.set(latency_s=0.13)

    async def heal(self) -> None:
        self.proxy.set()


class Forgetful(Store):
    """Redis forgets everything, again and again."""

    alerts: ClassVar[set[str]] = {"PcsDedupRatioLow"}
    turn_s: ClassVar[float] = BUSY_S

    async def strike(self) -> None:
        self.struck = True

    async def tick(self, client: Client) -> None:
        await asyncio.to_thread(self.redis.flush)

    async def heal(self) -> None:
        self.struck = False


class Stuck(Store):
    """Redis holds a value that is no outcome, so one request can never be judged."""

    alerts: ClassVar[set[str]] = {"PcsReplayStuck"}
    number: ClassVar[int] = 10**6

    @property
    def key(self) -> str:
        return f"pcs:{{default}}:o:{self.document(self.number)['pcs_id']}"

    async def strike(self) -> None:
        with redis.Redis(port=self.redis.port) as client:
            client.set(self.key, b"nonsense")
        document = pcs_records.sign(self.document(self.number), hmac_key=HMAC_KEY.encode())
        async with Client(self.backend) as client:
            assert await self.submit(client, pcs_records.body(document)) == 503

    async def heal(self) -> None:
        with redis.Redis(port=self.redis.port) as client:
            client.delete(self.key)


class Escalations(Fault):
    """A third of the records is degraded."""

    alerts: ClassVar[set[str]] = {"PcsEscalationFastBurn", "PcsEscalationSlowBurn"}
    turn_s: ClassVar[float] = BUSY_S

    def document(self, number: int) -> pcs_records.Document:
        degraded = {"ft": DEGRADED} if self.struck and number % 3 == 0 else {}
        return pcs_records.document(epoch=number, shard_id=self.name, **degraded)


class Signatures(Fault):
    """Somebody signs with a key that is not known."""

    alerts: ClassVar[set[str]] = {"Pcs401Spike"}
    turn_s: ClassVar[float] = BUSY_S

    async def tick(self, client: Client) -> None:
        document = pcs_records.sign(self.document(len(self._sent)), hmac_key=b"a key that nobody knows")
        assert await self.submit(client, pcs_records.body(document)) == 401


class Calibrated(Store):
    """The gate is on, its sets are replaced by hand, and its promises hold."""

    turn_s: ClassVar[float] = BUSY_S
    settings: ClassVar[dict[str, str]] = {
        "ENABLE_CONFORMAL_GATE": "true",
        "CALIBRATION_RECALIBRATE": "manual",
        "CALIBRATION_DRIFT_SCORES": "10",
    }
    shifted: ClassVar[dict[str, Any]] = {"coh_star": 0.95}

    def start(self) -> None:
        self.digest = self.promote()
        super().start()

    def promote(self) -> str:
        """Bring a set into force whose benign records are like those that come; returns its digest."""
        usual = self.document(1)
        score = score_from("weighted", "{}", Params())
        benign = score.of(Signals(round(usual["D_hat"], 9), usual["coh_star"], usual["r"]))
        made = msgspec.structs.replace(set_of([benign] * 200, [1.0] * 200), made_at_ms=now_ms())
        asyncio.run(promote(self.aside(), made))
        return made.digest

    def aside(self) -> dict[str, str]:
        """The environment of a service beside, over the same store."""
        variables = {name: value for name, value in self.backend.variables.items() if name != "PORT"}
        return clean_environment(**variables | {"DATA_DIR": str(self.folder / "aside")})

    async def strike(self) -> None:
        self.struck = True

    async def heal(self) -> None:
        self.struck = False
        await asyncio.to_thread(self.promote)


class Drift(Calibrated):
    """Records change, and stay as good."""

    alerts: ClassVar[set[str]] = {"PcsCalibrationDrift", "PcsRecalibrationDue"}

    def document(self, number: int) -> pcs_records.Document:
        shifted = self.shifted if self.struck else {}
        return pcs_records.document(epoch=number, shard_id=self.name, **shifted)


class Miscoverage(Calibrated):
    """Labels come that say that many of the records that were accepted are bad."""

    alerts: ClassVar[set[str]] = {"PcsMiscoverage", "PcsRecalibrationDue"}

    async def strike(self) -> None:
        wrong = labelled("bad", Signals(3.5, 1.05, 0.65), 100, sets=(self.digest, self.digest))
        await put_labels(self.aside(), wrong)


class Conflicts(Fault):
    """Two agents summarise one stream in two ways."""

    alerts: ClassVar[set[str]] = {"PcsConflicts"}

    async def tick(self, client: Client) -> None:
        document = pcs_records.document(epoch=1, shard_id=self.name, N_j=OTHER_COUNTS)
        signed = pcs_records.sign(document, hmac_key=HMAC_KEY.encode())
        assert await self.submit(client, pcs_records.body(signed)) == 200


class Throttled(Fault):
    """More comes than TOKEN_RATE lets through."""

    alerts: ClassVar[set[str]] = {"PcsThrottled"}
    turn_s: ClassVar[float] = BUSY_S
    settings: ClassVar[dict[str, str]] = {"TOKEN_RATE": "40"}

    async def tick(self, client: Client) -> None:
        await asyncio.gather(*(self.submit(client, self._sent[0]) for _ in range(6)))


class Connections(Fault):
    """Somebody opens more connections than CONNECTIONS_MAX."""

    alerts: ClassVar[set[str]] = {"PcsConnectionsRefused"}
    settings: ClassVar[dict[str, str]] = {"CONNECTIONS_MAX": "24"}

    async def tick(self, client: Client) -> None:
        address = urlsplit(self.backend.url)
        opened = [await asyncio.open_connection(address.hostname, address.port) for _ in range(30)]
        for _, writer in opened:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in opened), return_exceptions=True)


class Keys(Fault):
    """The key file is replaced by one that cannot be used."""

    alerts: ClassVar[set[str]] = {"PcsKeysStale"}

    def make_backend(self, **variables: str) -> Backend:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / "keys.toml"
        self.write(f'[[keys]]\nid = "the-key"\nalgorithm = "hmac"\nsecret = "{HMAC_KEY}"\n')
        return super().make_backend(PCS_SIGN_ALG="", PCS_HMAC_KEY="", PCS_KEYS_FILE=str(self.path))

    def write(self, text: str) -> None:
        self.path.write_text(text)
        self.path.chmod(0o600)

    async def strike(self) -> None:
        self.good = self.path.read_text()
        self.write("[[keys]]\nid = 7\n")
        self.backend.signal(signal.SIGHUP)

    async def heal(self) -> None:
        self.write(self.good)
        self.backend.signal(signal.SIGHUP)


class OnSmallDisk(Fault):
    """The shipped command on a file system of its own."""

    watermark_bytes: ClassVar[int]

    def make_backend(self, **variables: str) -> Backend:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.disk: SmallDisk = self._stack.enter_context(small_disk(self.folder))
        backend = super().make_backend(DISK_FREE_MIN_BYTES=str(self.watermark_bytes), **self.disk.variables)
        backend.data_dir = self.disk.folder / "data"
        backend.variables["DATA_DIR"] = str(backend.data_dir)
        backend.command = [sys.executable, LAUNCHER, "pcs-backend", "serve"]
        return backend


class Disk(OnSmallDisk):
    """The disk fills up: first near the watermark, then below it."""

    alerts: ClassVar[set[str]] = {"PcsDiskNearWatermark", "PcsDiskBelowWatermark"}
    watermark_bytes: ClassVar[int] = 16 * MIB

    async def strike(self) -> None:
        self.disk.fill(30 * MIB)

    async def next_strike(self, firing: set[str]) -> None:
        if "PcsDiskNearWatermark" in firing:
            self.disk.fill(10 * MIB)

    async def heal(self) -> None:
        self.disk.relieve()


class Growth(OnSmallDisk):
    """Records are suddenly large."""

    alerts: ClassVar[set[str]] = {"PcsWalGrowth"}
    turn_s: ClassVar[float] = BUSY_S
    watermark_bytes: ClassVar[int] = MIB

    def document(self, number: int) -> pcs_records.Document:
        large: dict[str, Any] = {"padding": "x" * 50_000} if self.struck else {}
        return super().document(number) | large


class BadLog(Fault):
    """The disk refuses to sync: the log takes nothing until a restart."""

    alerts: ClassVar[set[str]] = {"PcsNotReady"}
    healing: ClassVar[set[str]] = {"PcsDown"}

    def make_backend(self, **variables: str) -> Backend:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.trigger = self.folder / "the disk is bad"
        fault = {"FAULT_CALL": "fdatasync", "FAULT_ERROR": "EIO", "FAULT_WHEN": str(self.trigger)}
        backend = super().make_backend(**fault)
        backend.command = [sys.executable, LAUNCHER, "pcs-backend", "serve"]
        return backend

    async def strike(self) -> None:
        self.trigger.touch()

    async def heal(self) -> None:
        self.trigger.unlink()
        await asyncio.to_thread(self.restart)


class Crash(Fault):
    """It is killed, and comes back with requests in its log that are older than it remembers outcomes."""

    alerts: ClassVar[set[str]] = {"PcsDown", "PcsRequestsLeft"}

    async def strike(self) -> None:
        await asyncio.to_thread(self.backend.kill)
        async with running_inbox(self.backend.data_dir / "wal" / "0") as inbox:
            await inbox.append([request(self._sent[0], received_at_s=time.time() - 30 * DAY_S)])

    async def next_strike(self, firing: set[str]) -> None:
        if "PcsDown" in firing and not self.struck:
            self.struck = True
            await asyncio.to_thread(self.start_again)

    async def heal(self) -> None:
        self.struck = False
        assert await asyncio.to_thread(self.backend.stop) == 0
        variables = {
            name: value for name, value in self.backend.variables.items() if name not in {"PORT", "DATA_DIR"}
        }
        arguments = {"DATA_DIR": str(self.backend.data_dir), **variables}
        done = await asyncio.to_thread(run, "pcs-backend", "replay", "--force", **arguments)
        assert done.returncode == 0, done.stderr
        await asyncio.to_thread(self.start_again)


def prefer(pid: int) -> None:
    """Let a process go before others where that is allowed: what other tests do shall not look like slowness of its."""
    for thread in psutil.Process(
        pid
    ).threads():  # each has a priority of its own, and hands it to those it starts
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, thread.id, PRIORITY)


def every_fault() -> Iterator[type[Fault]]:
    """Every class above that stands for a situation."""
    yield from (
        Healthy,
        Store,
        Latency,
        Forgetful,
        Stuck,
        Escalations,
        Signatures,
        Drift,
        Miscoverage,
        Conflicts,
        Throttled,
        Connections,
        Keys,
        Disk,
        Growth,
        BadLog,
        Crash,
    )
