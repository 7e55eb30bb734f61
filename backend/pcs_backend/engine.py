"""Inboxes, store and pipelines over one data folder: what serves, and what the command line opens while nothing serves.

The data folder:

    DATA_DIR/lock                   held by the process that owns the folder, or by all the workers of one service
    DATA_DIR/wal/<worker>/          one inbox a worker, worker 0 by default
    DATA_DIR/memory/outcomes.snap   snapshot of the memory store
    DATA_DIR/admin.sock             administration socket of the serving process

Folders of workers that no longer exist are recovered by worker 0: their requests are judged like its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from pcs_backend.config import Config, Settings
from pcs_backend.conformal.in_force import Gates
from pcs_backend.conformal.monitors import DriftSettings
from pcs_backend.conformal.oversight import Oversight, OversightSettings
from pcs_backend.conformal.store import ARTIFACT_RENEWED_MS, CalibrationStore
from pcs_backend.conformal.triggers import TriggerSettings
from pcs_backend.conformal.watch import Watch
from pcs_backend.dedup.guarded_store import GuardedStore
from pcs_backend.dedup.memory_store import MemoryStore
from pcs_backend.dedup.store import DedupStore
from pcs_backend.effects.metrics import Metrics
from pcs_backend.effects.tap import Tap
from pcs_backend.errors import AbandonedError, BackendError, ConfigError, DataError
from pcs_backend.inbox.inbox import Inbox
from pcs_backend.offload import OwnedOffload
from pcs_backend.pipeline import Pipeline
from pcs_backend.recovery import Settler
from pcs_backend.trust.accounts import Accounts
from pcs_backend.trust.limits import TenantLimiter
from pcs_backend.trust.token_bucket import TokenBucket
from pcs_core.errors import WalError
from pcs_core.ports import MonotonicClock, RandomBytes, Sleep, WallClock
from pcs_core.wal import Files, Frame, Wal, name_of

if TYPE_CHECKING:
    from pcs_backend.effects.tracing import Spans

FIRST_WORKER = "0"
"""The only worker of a service of one; of several, the one that adopts the folders of workers that are gone."""

WAL_FOLDER = "wal"
SNAPSHOT = os.path.join("memory", "outcomes.snap")

DAMAGES_LOGGED_MAX = 100
"""Damaged places of one log that a start names in its own log."""

WORKER_NAME = re.compile(r"\d{1,4}", re.ASCII)

_log = structlog.get_logger(__name__)


class Ports(NamedTuple):
    """What the engine takes from the world.

    Attributes:
        files: The disk.
        now: Wall clock, seconds since 1970.
        monotonic: Monotonic clock, seconds.
        sleep: Waits seconds.
        random_bytes: Unpredictable bytes.
        free_bytes: Free space of the disk that holds a path.
        new_offload: Makes a thread of that name, or what stands for one.
        new_store: Makes the store of a server, not open yet; `None` where the settings name none.
    """

    files: Files
    now: WallClock
    monotonic: MonotonicClock
    sleep: Sleep
    random_bytes: RandomBytes
    free_bytes: Callable[[str], int]
    new_offload: Callable[[str], OwnedOffload]
    new_store: Callable[[Settings, WallClock], DedupStore | None]


def server_store(settings: Settings, now: WallClock) -> DedupStore | None:
    """Return the store of the configured server; `None` for memory, which needs an inbox."""
    match settings.dedup_backend:
        case "redis":  # each driver takes its time to import, and a command line has little
            from pcs_backend.dedup.redis_store import RedisStore  # noqa: PLC0415

            return RedisStore(settings.redis_addr, now=now)
        case "postgres":
            from pcs_backend.dedup.postgres_store import PostgresStore  # noqa: PLC0415

            return PostgresStore(settings.postgres_dsn, now=now)
        case "memory":
            return None


def build_store(config: Config, ports: Ports) -> GuardedStore | None:
    """Return the configured store behind its time limit, not open yet; `None` for memory."""
    store = ports.new_store(config.settings, ports.now)
    return None if store is None else GuardedStore(store, ports.sleep)


class Engine:
    """Everything below HTTP.

    Attributes:
        metrics: Counters.
        tap: Where verdicts are shown.
        watch: Told what the gate did.
        token_bucket: What all may send together.
        inbox: This worker's inbox.
        store: The dedup store.
        gates: What calibrated thresholds say; `None` where neither they nor labels are wanted.
        pipeline: Over this worker's inbox.
        settlers: One an inbox, this worker's first.
        is_open: Whether the log was read and work can be taken.
    """

    def __init__(
        self,
        config: Config,
        ports: Ports,
        *,
        worker: int = 0,
        workers: int = 1,
        accounts: Accounts | None = None,
        force_replay: bool = False,
        spans: Spans | None = None,
    ) -> None:
        """Wire it; nothing is touched before `open`.

        Args:
            config: Settings.
            ports: The world.
            worker: Which of the workers this is.
            workers: How many share the data folder now.
            accounts: Where it is kept what tenants have spent; of its own by default.
            force_replay: Whether requests older than the dedup lifetime are judged too.
            spans: What traces submits, if anything does.
        """
        self._worker = str(worker)
        self._workers = workers
        self._owned = {str(each) for each in range(workers)}
        self._spans = spans
        self._config = config
        self._ports = ports
        self._force_replay = force_replay
        self._data_dir = os.path.abspath(config.settings.data_dir)
        self._snapshot_path = os.path.join(self._data_dir, SNAPSHOT)
        self.token_bucket = TokenBucket(config.settings.token_rate, ports.monotonic, accounts)
        self._limiter = TenantLimiter(
            lambda: config.trust.current.limits, ports.now, ports.monotonic, accounts
        )
        self._offloads: list[OwnedOffload] = []
        self._lock: int | None = None
        self._inflating = self._new_offload("inflate")
        self.metrics = Metrics()
        self.tap = Tap()
        self.watch = Watch(self.metrics.calibration)
        self.inbox = self._new_inbox(self._worker)
        self._orphans: list[Inbox] = []
        self._guarded = build_store(config, ports)
        self._memory = None
        if self._guarded is None:
            records_max = config.settings.memory_store_max_records
            self._memory = MemoryStore(now=ports.now, journal=self.inbox, records_max=records_max)
            self._bulk = self._new_offload("snapshot")
        self.gates = self._new_gates()
        self._oversight = self._new_oversight()
        self.pipeline = self._new_pipeline(self.inbox)
        self.settlers = [self._new_settler(self.inbox, self.pipeline)]
        self._snapshot_at_sequence = 0
        self._abandoned = False
        self.is_open = False

    @property
    def store(self) -> DedupStore:
        """The dedup store."""
        store = self._guarded or self._memory
        assert store is not None
        return store

    @property
    def calibrations(self) -> CalibrationStore:
        """Where labels, calibration sets and promotions are: beside the outcomes."""
        return self.store.calibrations

    @property
    def store_is_up(self) -> bool:
        """Whether the store answered last time it was asked."""
        return self._guarded is None or self._guarded.is_up

    @property
    def _sets_kept_s(self) -> float:
        """How long a set is kept that is in force no more.

        Outcomes may name it for as long as they live. A day more, because it is not said more often that one is needed.
        """
        return self._config.dedup_ttl_s + ARTIFACT_RENEWED_MS / 1_000

    @property
    def inboxes(self) -> list[Inbox]:
        """This worker's inbox, then those of workers that are gone."""
        return [self.inbox, *self._orphans]

    def claim(self, *, must_exist: bool = False) -> None:
        """Lock the data folder, and make it if it is missing.

        Args:
            must_exist: Refuse a missing one instead: where it is to be read, its name was mistyped.

        Raises:
            WalLockedError: Another process owns the folder.
            ConfigError: The folder cannot be used.
        """
        if must_exist and not os.path.isdir(os.path.join(self._data_dir, WAL_FOLDER)):
            raise ConfigError("DATA_DIR: found no folder with a WAL; allowed: the folder that `serve` uses")
        self._lock = lock_folder(self._ports.files, self._data_dir)

    async def open(self) -> None:
        """Read the logs of the claimed folder. On return work can be taken.

        Raises:
            WalError: Another process owns a log.
            DataError: Starting would forget what was answered, or the disk refused.
            AbandonedError: `abandon` was called.
        """
        try:
            await self._open_logs()
        except OSError as error:
            raise DataError(f"the disk refused while the logs were opened: {name_of(error)}") from None
        for inbox in self.inboxes:
            _report_damage(inbox)
        self.is_open = True

    def abandon(self) -> None:
        """Give up what takes long: reading the logs, or writing a snapshot. Nothing is lost, and both end soon."""
        self._abandoned = True

    async def _open_logs(self) -> None:
        files = self._ports.files
        problem = None
        if (memory := self._memory) is not None:
            files.make_folder(os.path.dirname(self._snapshot_path))
            problem = await self._bulk.run(
                lambda: memory.restore_snapshot(files, self._snapshot_path, self._check_wanted)
            )
            self._snapshot_at_sequence = memory.covered_sequence
        await self.inbox.open(self._visit)
        if self._memory is not None:
            self._memory.check_restored(problem, log_begins_at=self.inbox.first_sequence)
        if self._worker != FIRST_WORKER:
            return
        for worker in files.list_names(os.path.join(self._data_dir, WAL_FOLDER)):
            if worker not in self._owned and WORKER_NAME.fullmatch(worker):
                await self._adopt(worker)

    def tasks(
        self,
    ) -> list[tuple[str, Coroutine[Any, Any, None]]]:  # Any: what a coroutine yields is asyncio's own
        """Return the tasks the engine lives by, named. Each runs until `stop`, or for ever."""
        tasks: list[tuple[str, Coroutine[Any, Any, None]]] = []
        for index, (inbox, settler) in enumerate(zip(self.inboxes, self.settlers, strict=True)):
            tasks.append((f"inbox-{index}", inbox.run()))
            tasks.append((f"settler-{index}", settler.run()))
        tasks.append(("keys", self._config.trust.watch(self._ports.sleep)))
        if self._guarded is not None:
            tasks.append(("store-monitor", self._guarded.monitor()))
        if self.gates is not None:
            tasks.append(("calibration-sets", self.gates.keep_fresh(self._ports.sleep)))
        if self._oversight is not None:
            tasks.append(("oversight", self._oversight.run()))
        return tasks

    async def prepare(self) -> None:
        """Do before work is taken what would take long beside it."""
        if self._oversight is not None:
            await self._oversight.prepare()

    async def connect_store(self) -> None:
        """Open the store now, for a command that cannot wait for the monitor."""
        await self.store.open()

    async def save_snapshot(self) -> None:
        """Write the memory store's snapshot if anything came since the last. On return it is on disk."""
        if self._memory is None or self.inbox.synced_sequence == self._snapshot_at_sequence:
            return
        at_sequence = self.inbox.synced_sequence
        try:
            await self._memory.save_snapshot(
                self._ports.files,
                self._ports.random_bytes,
                self._bulk,
                self._snapshot_path,
                self._check_wanted,
            )
        except OSError as error:  # the old snapshot and the log still have everything
            _log.error("the snapshot was not written", error=name_of(error))
        else:
            self._snapshot_at_sequence = at_sequence

    async def purge(self) -> None:
        """Remove from the store what has expired, and calibration sets that no outcome can name any more."""
        while await self.store.purge_expired():  # as many go as came, however many these are
            await self._ports.sleep(0)
        if self.gates is not None:
            await self.gates.keep_params()
        await self.calibrations.purge(int((self._ports.now() - self._sets_kept_s) * 1_000))

    async def retire(self) -> None:
        """Remove old settled segments. With the memory store, only what a snapshot on disk covers."""
        before_s = self._ports.now() - self._config.wal_retention_s
        if self._memory is not None:
            removed = await self.inbox.retire(before_s, self._memory.covered_sequence)
        else:
            removed = sum([await inbox.retire(before_s) for inbox in self.inboxes])
        if removed:
            _log.info("old segments were removed", count=removed)

    async def finish_writing(self) -> None:
        """Close the logs to new frames, and wait until what was given to them is on disk.

        Raises:
            BackendError: It was not within the time of a stop.
        """
        for inbox in self.inboxes:
            inbox.stop()
        try:
            async with asyncio.timeout(self._config.settings.drain_timeout_s):
                for inbox in self.inboxes:
                    await inbox.finished.wait()
        except TimeoutError:
            raise BackendError("the disk did not take the last frames of the log in time") from None

    async def close(self) -> None:
        """Give everything back, after the tasks ended. Safe after a failed `open`."""
        if self.is_open:
            await self._save_last_snapshot()
        await self.store.close()
        for inbox in self.inboxes:
            await inbox.close()
        for offload in self._offloads:
            offload.close()
        if self._lock is not None:
            self._ports.files.close(self._lock)

    async def _adopt(self, worker: str) -> None:
        inbox = self._new_inbox(worker)
        try:
            # The memory store never had another worker, so such a folder holds none of its frames.
            await inbox.open(lambda _sequence, _frame: self._check_wanted())
        except WalError as error:
            raise DataError(f"the inbox of worker {worker}: {error}") from None
        self._orphans.append(inbox)
        self.settlers.append(self._new_settler(inbox, self._new_pipeline(inbox)))

    async def _save_last_snapshot(self) -> None:
        """Write the snapshot if that is done within the time of a stop; else the next start reads more of the log."""
        giving_up = asyncio.get_running_loop().call_later(self._config.settings.drain_timeout_s, self.abandon)
        try:
            await self.save_snapshot()
        except AbandonedError:
            _log.warning("the last snapshot took too long and was left out; the log has everything")
        finally:
            giving_up.cancel()

    def _check_wanted(self) -> None:
        if self._abandoned:
            raise AbandonedError("the work was given up")

    def _visit(self, sequence: int, frame: Frame) -> None:
        self._check_wanted()
        if self._memory is not None:
            self._memory.replay(sequence, frame)

    def _new_offload(self, name: str) -> OwnedOffload:
        offload = self._ports.new_offload(name)
        self._offloads.append(offload)
        return offload

    def _new_inbox(self, worker: str) -> Inbox:
        folder = os.path.join(self._data_dir, WAL_FOLDER, worker)
        new_inbox = Inbox if self._spans is None else self._spans.inbox
        return new_inbox(
            Wal(folder, self._ports.files, self._ports.random_bytes),
            self._new_offload(f"wal-{worker}"),
            lambda: self.metrics.time_sync(self._ports.monotonic),
        )

    def _new_pipeline(self, inbox: Inbox) -> Pipeline:
        return Pipeline(
            inbox=inbox,
            store=self.store if self._spans is None else self._spans.store(self.store),
            trust=self._config.trust.get,
            limiter=self._limiter,
            token_bucket=self.token_bucket,
            params=self._config.params,
            gates=self.gates,
            watch=self.watch,
            metrics=self.metrics,
            tap=self.tap,
            now=self._ports.now,
            monotonic=self._ports.monotonic,
            dedup_ttl_s=self._config.dedup_ttl_s,
            record_bytes_max=self._config.settings.max_body_bytes,
            batch_bytes_max=self._config.batch_bytes_max,
            offload=self._inflating,
            inbox_is_own=inbox is self.inbox,
            outcomes_in_inbox=self._memory is not None,
        )

    def _new_gates(self) -> Gates | None:
        settings = self._config.settings
        if not (settings.enable_conformal_gate or settings.enable_calibration_logging):
            return None
        return Gates(self.calibrations, self._config.params, decides=settings.enable_conformal_gate)

    def _new_oversight(self) -> Oversight | None:
        """Return what looks after the sets in force. Each of several workers sees its share of the decisions."""
        settings = self._config.settings
        if self.gates is None or not self.gates.decides:
            return None
        return Oversight(
            watch=self.watch,
            gates=self.gates,
            store=self.calibrations,
            metrics=self.metrics.calibration,
            settings=OversightSettings(
                drift=DriftSettings(
                    settings.calibration_drift_scores,
                    settings.calibration_drift_distance,
                    settings.calibration_drift_p,
                ),
                triggers=TriggerSettings(
                    settings.calibration_recalibrate_days,
                    max(1, settings.calibration_recalibrate_decisions // self._workers),
                    settings.calibration_off_target_share,
                ),
                build=self._config.build_settings,
                automatic=settings.calibration_recalibrate == "auto",
                sets_kept_s=self._sets_kept_s,
                reads_labels=self._worker == FIRST_WORKER,
            ),
            params=self._config.params,
            offload=self._new_offload("oversight"),
            now=self._ports.now,
            sleep=self._ports.sleep,
        )

    def _new_settler(self, inbox: Inbox, pipeline: Pipeline) -> Settler:
        return Settler(
            inbox,
            pipeline,
            now=self._ports.now,
            sleep=self._ports.sleep,
            dedup_ttl_s=self._config.dedup_ttl_s,
            force=self._force_replay,
        )


def lock_folder(files: Files, data_dir: str) -> int:
    """Lock a data folder, and make it if it is missing. Returns the handle of the lock.

    Raises:
        WalLockedError: Another process owns the folder.
        ConfigError: The folder cannot be used.
    """
    try:
        files.make_folder(data_dir)
        return files.lock(data_dir)
    except OSError as error:
        raise ConfigError(
            f"DATA_DIR: found a path that cannot be used ({name_of(error)}); allowed: a folder"
        ) from None


def _report_damage(inbox: Inbox) -> None:
    for damage in inbox.damages[:DAMAGES_LOGGED_MAX]:
        _log.error(
            "the log is damaged; frames around it were recovered",
            segment=damage.segment,
            offset=damage.offset,
            size_bytes=damage.size_bytes,
            what=damage.what,
        )
    if (count := len(inbox.damages) - DAMAGES_LOGGED_MAX) > 0:
        _log.error("the log is damaged in more places", count=count)
    if inbox.torn_bytes:
        _log.warning("a torn tail was cut off and kept aside", size_bytes=inbox.torn_bytes)


@contextlib.asynccontextmanager
async def offline(engine: Engine, *, must_exist: bool = True) -> AsyncIterator[None]:
    """Open an engine without serving; on leaving, everything is on disk and closed.

    Args:
        engine: Not opened yet.
        must_exist: Whether a data folder that is missing is refused instead of made.

    Raises:
        WalLockedError: A process serves from the folder.
        ConfigError: There is no such folder, or it cannot be used.
        DataError: Its data cannot be started from.
    """
    try:
        engine.claim(must_exist=must_exist)
        await engine.open()
    except BaseException:
        await engine.close()
        raise
    tasks = [
        asyncio.create_task(inbox.run(), name=f"inbox-{index}") for index, inbox in enumerate(engine.inboxes)
    ]
    try:
        yield
    finally:
        await engine.finish_writing()
        await asyncio.gather(*tasks)
        await engine.close()
