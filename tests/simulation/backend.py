"""The backend's side: an operator who keeps the shipped service running on a machine.

`pcs_backend.app.Service` runs whole, aiohttp's server included, over the ports of the simulation.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import msgspec

from pcs_backend.app import Service
from pcs_backend.config import Config, Settings, load_config
from pcs_backend.dedup.store import Candidate, Placed
from pcs_backend.engine import FIRST_WORKER, SNAPSHOT, WAL_FOLDER, Ports
from pcs_backend.errors import DataError
from pcs_backend.fsck import DataFolder, DataReport
from pcs_core.ports import WallClock
from simulation.logs import Logs
from simulation.machine import Machine, Process
from simulation.model import Model
from simulation.onlooker import Onlooker, read_beside
from simulation.records import KEY, OTHER_KEY
from simulation.scenario import DAY_S, Scenario
from simulation.store import StoreClient, StoreServer

DATA_DIR = "/simulated/data"
SNAPSHOT_PATH = f"{DATA_DIR}/{SNAPSHOT}"
LOG_PATH = f"{DATA_DIR}/{WAL_FOLDER}/{FIRST_WORKER}"
DISK_FREE_MIN_BYTES = 2_000
UNREADY_S_MAX = 40.0
"""An operator restarts a service whose log takes nothing any more, at the latest after this."""

_LOG_FAILED = "the log takes nothing"


class CountingClient(StoreClient):
    """A store client that counts the first outcomes its process learned of."""

    def __init__(self, server: StoreServer, now: WallClock) -> None:
        super().__init__(server, now)
        self.firsts = 0

    async def put_first(self, candidates: Sequence[Candidate]) -> list[Placed]:
        """As `DedupStore.put_first`."""
        placed = await super().put_first(candidates)
        self.firsts += sum(each.first for each in placed)
        return placed


class BackendOperator:
    """Starts the service, starts it again when it ends, and stops it when asked.

    Attributes:
        machine: Where it runs.
        service: What runs now, or ran last.
        pause_s: How long it stays down after its next end.
        stored: First outcomes that the present process' commits kept (memory store).
        fsck: What an operator does to the data before the next start: `check`, `repair` or nothing.
        backup: The memory store's snapshot before it was damaged.
        damaged: The same afterwards.
        at_ease: Whether everything is configured to be taken.
    """

    def __init__(
        self, machine: Machine, scenario: Scenario, store: StoreServer | None, model: Model, dice: random.Random,
        awake: asyncio.Event, logs: Logs,
    ) -> None:  # fmt: skip
        self.machine = machine
        self._awake = awake
        self._logs = logs
        self._scenario = scenario
        self._store = store
        self._model = model
        self._dice = dice
        self._stop = asyncio.Event()
        self._client: CountingClient | None = None
        self._onlooker = Onlooker()
        self._lives = 0
        self.over = False
        self.fsck = ""
        self.backup = self.damaged = b""
        self.service: Service | None = None
        self.pause_s = 0.0
        self.stored = 0
        self.at_ease = False

    async def operate(self) -> None:
        """Keep the service running until `over`."""
        while not self.over:
            await self._run_once()
            pause_s, self.pause_s = self.pause_s or self._dice.uniform(0.05, 5.0), 0.0
            await asyncio.sleep(pause_s)
            await self._awake.wait()
            if self.fsck:
                kind, self.fsck = self.fsck, ""
                await self._look_over(repair=kind == "repair")

    def stop(self) -> None:
        """SIGTERM."""
        self.machine.trace.note("stop", self.machine.name)
        self._stop.set()

    def snapshot(self) -> bytes:
        """Return the bytes of the memory store's snapshot; none if there is none."""
        try:
            return bytes(self.machine.disk.find_file(SNAPSHOT_PATH).cached)
        except FileNotFoundError:
            return b""

    def check_counters(self) -> None:
        """Compare the counters of the present process with the outcomes it stored."""
        if self.service is None or self.machine.process is None:
            return
        metrics = self.service._engine.metrics
        counted = sum(
            metrics.registry.get_sample_value(f"flk_{name}_total") or 0.0
            for name in ("accepted", "escalated")
        )
        stored = self.stored if self._client is None else self._client.firsts
        exact = not self.machine.process.killed and not self.machine.process.had_trouble
        self._model.check_counters(self.machine.name, counted, stored, exact=exact)
        if self._onlooker.firsts > counted:
            self._model.violate("doubled: shown", self._onlooker.firsts, "first outcomes, counted", counted)

    async def _run_once(self) -> None:
        process = self.machine.start("serve")
        self._stop = asyncio.Event()
        self._client, self.stored = None, 0
        self.service = Service(self._config(), self._ports(process))
        self._onlooker = Onlooker()
        self._lives += 1
        if self._lives % 2:
            self.service._engine.tap.listeners += (self._onlooker,)
        process.spawn(read_beside(process, LOG_PATH, self._model), "records")
        main = process.spawn(self.service.run(self._stop, lambda url: None), "service")
        main.add_done_callback(lambda task: process.end())
        watch = asyncio.create_task(self._watch(process))
        try:
            await process.ended.wait()
        finally:
            watch.cancel()
        if not process.killed:
            self._note_end(process, main)
        self.check_counters()

    def _note_end(self, process: Process, main: asyncio.Task[None]) -> None:
        error = None if main.cancelled() else main.exception()
        self.machine.trace.note("ended", self.machine.name, "" if error is None else type(error).__name__)
        if isinstance(error, DataError) and self.backup and self.snapshot() == self.damaged:
            self._restore_snapshot()
        elif error is not None and not process.had_trouble:
            self._model.violate(
                "the service ended by itself:", self.machine.name, type(error).__name__, error
            )

    def _restore_snapshot(self) -> None:
        """Put back what stood there before it was damaged; a start that is refused has not changed it."""
        self.machine.trace.note("restored", self.machine.name)
        inode = self.machine.disk.find_file(SNAPSHOT_PATH)
        inode.cached, inode.durable = bytearray(self.backup), bytearray(self.backup)

    async def _look_over(self, *, repair: bool) -> None:
        """`pcs-backend fsck`, while nothing serves."""
        process = self.machine.start("fsck --repair" if repair else "fsck")
        main = process.spawn(self._check_data(process, repair=repair), "fsck")
        main.add_done_callback(lambda task: process.end())
        await process.ended.wait()
        if not process.killed:
            self._note_end(process, main)

    async def _check_data(self, process: Process, *, repair: bool) -> None:
        files, needs_snapshot = process.files, self._store is None
        for folder in (DATA_DIR, LOG_PATH):
            if not files.list_names(folder):
                return  # it never ran
            files.lock(folder)
        data = DataFolder(files, SNAPSHOT_PATH, {FIRST_WORKER: LOG_PATH})
        report = data.check(needs_snapshot=needs_snapshot)
        self._check_report(report)
        if not repair:
            return
        self._logs.begin_repair(self.machine)
        repairs = data.repair(report)
        self.machine.trace.note("repaired", self.machine.name, len(repairs))
        refused = self.machine.weather.refused
        after = data.check(needs_snapshot=needs_snapshot)
        was_read = self.machine.weather.refused == refused
        if after.is_damaged and was_read and all(each.done for each in repairs):
            self._model.violate("damaged after a repair that left nothing:", self.machine.name)

    def _check_report(self, report: DataReport) -> None:
        log = report.logs[FIRST_WORKER]
        names = [segment.name for segment in log.segments]
        self._logs.check_report(self.machine, self._logs.log(self.machine, LOG_PATH), log.all_damages, names)

    async def _watch(self, process: Process) -> None:
        """Restart a service whose log has failed, as a person or a probe would."""
        while True:
            await asyncio.sleep(5.0)
            if not self._log_has_failed():
                continue
            await asyncio.sleep(self._dice.uniform(0.0, UNREADY_S_MAX))
            if self._log_has_failed() and process.alive:
                if self._dice.random() < 0.5:
                    self.stop()
                else:
                    self.machine.kill()

    def _log_has_failed(self) -> bool:
        return self.service is not None and (self.service.not_ready() or "").startswith(_LOG_FAILED)

    def _config(self) -> Config:
        scenario, dice = self._scenario, self._dice
        keys = (
            [KEY, OTHER_KEY] if self.at_ease else dice.choice([[KEY], [KEY], [KEY, OTHER_KEY], [OTHER_KEY]])
        )
        config = load_config(
            {
                "DATA_DIR": DATA_DIR,
                "PCS_SIGN_ALG": "hmac",
                "PCS_HMAC_KEYS": ",".join(key.decode() for key in keys),
                "DEDUP_BACKEND": "memory" if self._store is None else "postgres",
                "POSTGRES_DSN": "postgresql://simulated",
                "DEDUP_TTL_DAYS": repr(scenario.ttl_s / DAY_S),
                "WAL_RETENTION_DAYS": repr(scenario.retention_s / DAY_S),
                "DISK_FREE_MIN_BYTES": str(DISK_FREE_MIN_BYTES),
                "TOKEN_RATE": "0" if self.at_ease else repr(scenario.token_rate),
                "MEMORY_STORE_MAX_RECORDS": "100000" if self.at_ease else str(scenario.records_max),
            }
        )
        tol_d = dice.choice([0.15, 0.15, 0.5])
        return msgspec.structs.replace(
            config, params=msgspec.structs.replace(config.params, tol_d=tol_d, version=f"tol-{tol_d}")
        )

    def _ports(self, process: Process) -> Ports:
        return Ports(
            files=process.files,
            now=self.machine.now,
            monotonic=self.machine.loop.time,
            sleep=process.sleep,
            random_bytes=process.random_bytes,
            free_bytes=self.machine.free_bytes,
            new_offload=process.new_offload,
            new_store=self._new_store,
        )

    def _new_store(self, settings: Settings, now: WallClock) -> Any:
        del settings
        if self._store is not None:
            self._client = CountingClient(self._store, now)
        return self._client
