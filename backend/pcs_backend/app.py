"""The service: HTTP over an engine, from start to stop. With `engine`, the only place that builds things.

Start: listen first, so that probes are answered, then read the logs, then take work. Stop: readiness turns red, no new
connection is taken, what is being judged is answered, the logs are closed, exit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from pcs_backend.batch import BATCH_PATH
from pcs_backend.config import ALLOWED, Config, is_loopback
from pcs_backend.conformal.labelling import Labelling
from pcs_backend.engine import Engine, Ports, server_store
from pcs_backend.errors import BackendError, ConfigError, StoreUnavailableError
from pcs_backend.exchange import JSON_TYPE, NDJSON_TYPE
from pcs_backend.http.admin import ADMIN_CONNECTIONS_MAX, SOCKET_NAME, AdminRoutes, bound_unix
from pcs_backend.http.arrivals import Arrivals
from pcs_backend.http.body import BodyReader
from pcs_backend.http.express import ExpressServer
from pcs_backend.http.intake import Intake
from pcs_backend.http.labels import LABELS_REALM, Admission, Labels
from pcs_backend.http.listener import Listener
from pcs_backend.http.login import Login
from pcs_backend.http.openapi import build_openapi
from pcs_backend.http.overload import REQUESTS_MIN, BusyClock, Overload
from pcs_backend.http.peers import Peers
from pcs_backend.http.protocol import ProblemServer
from pcs_backend.http.routes import Routes
from pcs_backend.http.submits import SUBMIT_PATH, Effects, Submits
from pcs_backend.http.whole import SIBLING_CONNECTIONS_MAX, Alone, SiblingRoutes, Workers
from pcs_backend.inflate import ENCODINGS
from pcs_backend.offload import ThreadOffload
from pcs_backend.running import run_unless, run_until
from pcs_backend.trace_context import RequestIds
from pcs_backend.trust.accounts import SharedAccounts
from pcs_backend.workers.seat import Seat
from pcs_core.errors import WalError
from pcs_core.wal import PosixFiles

DISK_CHECK_INTERVAL_S = 0.1
HOUSEKEEPING_INTERVAL_S = 60.0

FILES_RESERVED = 256
"""Open files that connections must leave: logs, stores, the administration socket, connections that are being refused.
A log that cannot open its next segment takes nothing any more."""

if TYPE_CHECKING:
    from pcs_backend.effects.tracing import Spans

_log = structlog.get_logger(__name__)


def real_ports() -> Ports:
    """Return the world as it is."""
    return Ports(
        files=PosixFiles(),
        now=time.time,
        monotonic=time.monotonic,
        sleep=asyncio.sleep,
        random_bytes=os.urandom,
        free_bytes=lambda path: shutil.disk_usage(path).free,
        new_offload=ThreadOffload,
        new_store=server_store,
    )


class Service:
    """One serving process."""

    def __init__(self, config: Config, ports: Ports, seat: Seat | None = None) -> None:
        """Wire it; nothing is touched before `run`.

        Args:
            config: Settings.
            ports: The world.
            seat: Its place among several workers; `None` for a service of one process.
        """
        self._config = config
        self._ports = ports
        self._seat = seat
        self._spans = _new_spans() if config.exports_spans else None
        worker, workers = (0, 1) if seat is None else (seat.worker, seat.workers)
        self._engine = Engine(
            config,
            ports,
            worker=worker,
            workers=workers,
            accounts=None if seat is None else SharedAccounts(seat.accounts),
            spans=self._spans,
        )
        settings = config.settings
        self._intake = Intake(
            connections_max=max(1, settings.connections_max // workers),
            shared_bytes_max=max(
                settings.bodies_max_bytes // workers,
                min(settings.max_batch_bytes, settings.bodies_max_bytes),  # the largest body must find room
            ),
        )
        self._overload = Overload(max(REQUESTS_MIN, settings.requests_max // workers))
        self._arrivals = Arrivals(self._engine.pipeline)
        if self._spans is not None:  # a span is one request's, so each is submitted by itself
            self._arrivals = Arrivals(self._spans.submitter(self._engine.pipeline), requests_max=1)
        self._peers = Peers(lambda: config.trust.current.peers, settings.tls_proxy_name)
        metrics = self._engine.metrics
        self._whole: Alone | Workers = (
            Alone(metrics, self)
            if seat is None
            else Workers(settings.data_dir, worker, workers, metrics, self)
        )
        self._busy_clock = BusyClock()
        self._stopping = False
        self._free_bytes: int | None = None
        self._appended_bytes = 0  # by the inbox, when the free space was last looked at
        self._watch_gauges()

    def not_started(self) -> str | None:
        """Why the start is not over."""
        return None if self._engine.is_open else "starting: the log is being read"

    def not_ready(self) -> str | None:
        """Why no request should be sent here. A store outage is no reason: bodies still reach the WAL."""
        if not self._engine.is_open:
            return self.not_started()
        if self._stopping:
            return "the service is stopping"
        if (failure := self._engine.inbox.failure) is not None:
            return f"the log takes nothing: {failure}"
        if (free := self._free_now()) is not None and free < self._config.settings.disk_free_min_bytes:
            return "the disk is nearly full"
        return None

    async def run(
        self,
        stop: asyncio.Event,
        announce: Callable[[str], None],
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        """Serve until `stop` is set.

        Args:
            stop: Ends the service in good order.
            announce: Called with the URL once the port is bound.
            ready: Called once requests are taken.

        Raises:
            BackendError, WalError, OSError: The service cannot start, or a task of it died.
        """
        if self._seat is None:  # else the supervisor has said so
            for warning in self._config.warnings:
                _log.warning(warning)
        self._make_room_for_connections()
        engine = self._engine
        async with contextlib.AsyncExitStack() as stack:
            if self._spans is not None:
                self._spans.open()
                stack.push_async_callback(self._spans.close)
            stack.push_async_callback(engine.close)
            stack.callback(self._busy_clock.close)
            if self._seat is None:  # else the supervisor holds the folder
                engine.claim()
            self._measure_disk()  # the metrics are asked for while the logs are read
            if isinstance(self._whole, Workers):
                await stack.enter_async_context(self._answer_siblings(self._whole))
            runner, listener = await self._listen(announce)
            stack.push_async_callback(runner.cleanup)
            # Nothing was taken yet, so a stop need not wait for what takes long.
            if not await run_unless(stop, "opening", engine.open(), self._give_up_opening):
                _log.info("stopped while the log was read")
                return
            self._measure_disk()  # now, so that not even the first request is taken on a full disk
            end_administration = await stack.enter_async_context(self._administer())
            await run_unless(stop, "preparing", engine.prepare(), asyncio.Task.cancel)
            await run_unless(stop, "first-contact", self._first_contact(), asyncio.Task.cancel)
            _log.info(
                "ready" if self._seat is None else "worker ready",
                backlog=engine.inbox.open_requests,
                wal_bytes=engine.inbox.size_bytes,
            )
            ready()

            async def drain() -> None:
                self._stopping = True
                _log.info("stopping")
                await asyncio.gather(  # no new connections; waits for requests being judged
                    runner.cleanup(), self._arrivals.finish(self._config.settings.drain_timeout_s)
                )
                await end_administration()
                await engine.finish_writing()

            tasks = [
                *engine.tasks(),
                ("disk-watch", self._watch_disk()),
                ("housekeeping", self._keep_house()),
            ]
            if self._config.tls is not None:
                tasks.append(("certificate", listener.watch(self._ports.sleep)))
            await run_until(stop, tasks, drain)
        _log.info("stopped")

    def _give_up_opening(self, opening: asyncio.Task[None]) -> None:
        del opening  # it ends by itself, between two frames
        _log.info("stopping")
        self._engine.abandon()

    async def _listen(self, announce: Callable[[str], None]) -> tuple[web.ServerRunner, Listener]:
        settings = self._config.settings
        engine = self._engine
        metrics_login = _login(settings.metrics_user, settings.metrics_pass, "metrics")
        labels_login = _login(settings.calibration_user, settings.calibration_pass, LABELS_REALM)
        body_readers = {
            SUBMIT_PATH: BodyReader(
                size_bytes_max=settings.max_body_bytes, timeout_s=settings.body_timeout_s
            ),
            BATCH_PATH: BodyReader(
                size_bytes_max=self._config.batch_bytes_max,
                timeout_s=settings.body_timeout_s,
                types=(NDJSON_TYPE, JSON_TYPE),
                encodings=ENCODINGS,
            ),
        }
        submits = Submits(
            arrivals=self._arrivals,
            health=self,
            effects=Effects(
                metrics=engine.metrics,
                tap=engine.tap,
                request_ids=RequestIds(self._ports.random_bytes),
                logs_submits=settings.log_level == "DEBUG",
            ),
            overload=self._overload,
            body_readers=body_readers,
            token_bucket=engine.token_bucket,
            peer_of=self._peers.name if settings.tls_client_ca else None,
            now=self._ports.now,
            monotonic=self._ports.monotonic,
            busy_s=self._busy_clock,
        )
        routes = Routes(
            submits=submits,
            whole=self._whole,
            metrics=engine.metrics,
            openapi=build_openapi(
                size_bytes_max=settings.max_body_bytes,
                batch_bytes_max=body_readers[BATCH_PATH].size_bytes_max,
                metrics_need_login=metrics_login is not None,
                labels_have_login=labels_login is not None,
            ),
            metrics_login=metrics_login,
            labels=self._labels(labels_login),
            sleep=self._ports.sleep,
        )
        server = ExpressServer(routes.handle, submits, self._intake, engine.metrics.connections_refused.inc)
        runner = web.ServerRunner(server, shutdown_timeout=settings.drain_timeout_s)
        await runner.setup()
        listener = Listener(runner, self._config.tls)
        if self._seat is None:
            announce(await listener.open(settings.host, settings.port, ALLOWED.__getitem__))
        else:
            await listener.adopt([socket.socket(fileno=each) for each in self._seat.listening])
            announce("")  # the supervisor knows it
        return runner, listener

    def _labels(self, login: Login | None) -> Labels:
        settings, engine = self._config.settings, self._engine
        return Labels(
            labelling=Labelling(engine.store.get, engine.calibrations, self._ports.now),
            admission=Admission(
                trust=self._config.trust.get,
                peers=self._peers if settings.tls_client_ca else None,
                login=login,
                is_local=is_loopback(settings.host),
            ),
            health=self,
            now=self._ports.now,
            body_timeout_s=settings.body_timeout_s,
        )

    @contextlib.asynccontextmanager
    async def _answer_siblings(self, whole: Workers) -> AsyncIterator[None]:
        """Answer the other workers, and be able to ask them."""
        engine = self._engine
        routes = SiblingRoutes(engine.metrics, self, engine.tap)
        intake = Intake(connections_max=SIBLING_CONNECTIONS_MAX, shared_bytes_max=0)
        runner = web.ServerRunner(ProblemServer(routes.handle, intake))
        await runner.setup()
        with bound_unix(whole.own_socket) as listener:
            await web.SockSite(runner, listener).start()
            await whole.open()
            try:
                yield
            finally:
                await whole.close()
                routes.close()
                await runner.cleanup()

    @contextlib.asynccontextmanager
    async def _administer(self) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Serve the administration socket. Yields what ends it earlier."""
        intake = Intake(
            connections_max=ADMIN_CONNECTIONS_MAX, shared_bytes_max=self._config.settings.bodies_max_bytes
        )
        engine = self._engine
        routes = AdminRoutes(engine.store, engine.calibrations, engine.tap, self._whole)
        runner = web.ServerRunner(ProblemServer(routes.handle, intake))
        await runner.setup()

        async def end() -> None:
            routes.close()
            await runner.cleanup()

        path = os.path.join(self._config.settings.data_dir, SOCKET_NAME)
        with contextlib.ExitStack() as stack:
            if self._seat is None:
                listener = stack.enter_context(bound_unix(path))
            else:
                listener = socket.socket(fileno=self._seat.admin)
            await web.SockSite(runner, listener).start()
            try:
                yield end
            finally:
                await end()

    def _make_room_for_connections(self) -> None:
        wanted = self._config.settings.connections_max + FILES_RESERVED
        allowed = raise_file_limit(wanted)
        if allowed <= FILES_RESERVED:
            raise ConfigError(
                f"CONNECTIONS_MAX: found a limit of {allowed} open files; allowed: a limit above {FILES_RESERVED} "
                "(ulimit -n)"
            )
        if allowed < wanted:
            self._intake.connections_max = allowed - FILES_RESERVED
            _log.warning(
                "the limit of open files allows fewer connections than CONNECTIONS_MAX",
                connections_max=self._intake.connections_max,
            )

    async def _first_contact(self) -> None:
        """Ask the store once before the first request; a store that is down does not stop the start."""
        try:
            await self._engine.connect_store()
            for warning in await self._engine.store.durability_warnings():
                _log.warning(warning)
        except StoreUnavailableError as error:
            _log.warning("the dedup store is down: requests are kept and answered 503", error=str(error))

    async def _watch_disk(self) -> None:
        while True:
            await self._ports.sleep(DISK_CHECK_INTERVAL_S)
            self._measure_disk()

    def _measure_disk(self) -> None:
        self._free_bytes = self._ports.free_bytes(self._config.settings.data_dir)
        self._appended_bytes = self._engine.inbox.appended_bytes

    def _free_now(self) -> int | None:
        """The free space last seen less what was written since: a fast disk passes no watermark between two looks."""
        if self._free_bytes is None:
            return None
        return self._free_bytes - (self._engine.inbox.appended_bytes - self._appended_bytes)

    async def _keep_house(self) -> None:
        while True:
            await self._ports.sleep(HOUSEKEEPING_INTERVAL_S)
            try:
                await self._engine.purge()
                await self._engine.save_snapshot()
                await self._engine.retire()
            except (BackendError, WalError, OSError) as error:
                _log.warning("housekeeping failed; it is tried again", error=type(error).__name__)

    def _watch_gauges(self) -> None:
        engine = self._engine
        watch = engine.metrics.watch
        watch("flk_store_up", "Whether the dedup store answers", lambda: float(engine.store_is_up), min)
        watch(
            "flk_keys",
            "Keys in force, revoked and outdated ones included",
            lambda: float(len(self._config.trust.current.keyring.entries)),
            max,
        )
        watch(
            "flk_keys_stale",
            "Whether the last key file could not be used",
            lambda: float(self._config.trust.is_stale),
            max,
        )
        watch("flk_ready", "Whether requests may be sent here", lambda: float(self.not_ready() is None), min)
        watch(
            "flk_wal_size_bytes",
            "Bytes of the WAL",
            lambda: float(sum(each.size_bytes for each in engine.inboxes)),
        )
        watch(
            "flk_open_requests",
            "Requests on disk without an outcome",
            lambda: float(sum(each.open_requests for each in engine.inboxes)),
        )
        watch(
            "flk_backlog_requests",
            "Open requests that wait to be judged again",
            lambda: float(sum(each.backlog_requests for each in engine.inboxes)),
        )
        watch(
            "flk_unreadable_requests",
            "Open requests whose frames are damaged",
            lambda: float(sum(each.unreadable_requests for each in engine.inboxes)),
        )
        watch(
            "flk_too_old_requests",
            "Open requests older than the dedup lifetime, left for replay --force",
            lambda: float(sum(each.too_old for each in engine.settlers)),
        )
        watch("flk_requests", "Submits under way", lambda: float(self._overload.requests))
        watch(
            "flk_requests_limit",
            "Submits that may be under way now",
            lambda: float(self._overload.limit),
        )
        watch("flk_connections", "Connections that hold a place", lambda: float(self._intake.connections))
        watch(
            "flk_bodies_bytes",
            "Bytes taken from BODIES_MAX_BYTES",
            lambda: float(self._intake.shared_bytes),
        )
        watch("flk_disk_free_bytes", "Free space below DATA_DIR", lambda: float(self._free_now() or 0), min)
        watch(
            "flk_disk_free_min_bytes",
            "Free space below which intake stops",
            lambda: float(self._config.settings.disk_free_min_bytes),
            max,
        )


def _login(user: str, password: str, realm: str) -> Login | None:
    return Login(user, password, realm) if user else None


def _new_spans() -> Spans:
    """Import what makes spans, which takes its time and need not be installed."""
    from pcs_backend.effects.tracing import Spans  # noqa: PLC0415

    return Spans()


def raise_file_limit(wanted: int) -> int:
    """Raise this process's limit of open files to what is wanted, as far as it may.

    Returns:
        How many files may be open, at most `wanted`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed


def handle_signals(stop: asyncio.Event, reload: Callable[[], object]) -> None:
    """Set the event on SIGTERM and SIGINT, and reload on SIGHUP. Call it in the event loop."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reload)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
