"""The supervisor: starts the workers, passes on what it is told, and ends with them.

It holds the lock of the data folder, the public port until every worker has its socket, and the administration socket.
It judges nothing, reads no key for use and touches no log. What it guarantees:

- No second service gets the folder or the port; the lock is free only when every worker is gone, also where the
  supervisor itself was killed: workers inherit it, and stop when the connection to the supervisor ends.
- A worker that ends, ends the service: the others stop in good order. Its folder is read back at the next start.
- Every wait is bounded: a worker that does not stop in time is killed, which loses nothing that was answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import structlog

from pcs_backend.config import ALLOWED, Config
from pcs_backend.engine import lock_folder
from pcs_backend.errors import BackendError, ConfigError
from pcs_backend.http.admin import ADMIN_BACKLOG_MAX, SOCKET_NAME, bound_unix
from pcs_backend.trust.accounts import new_shared_accounts
from pcs_backend.workers.seat import LISTENING, READY, RELOAD, SIGNALS, STOP, Seat, hear, say
from pcs_backend.workers.sockets import SharedPort
from pcs_core.wal import Files

STOP_DRAINS = 4
"""A stop has DRAIN_TIMEOUT_S so many times before workers are killed: for requests, for the last frames, and to spare."""

STOP_SPARE_S = 5.0

_log = structlog.get_logger(__name__)


class _Worker(NamedTuple):
    process: asyncio.subprocess.Process
    control: socket.socket


class _Shared(NamedTuple):
    """Handles that every worker inherits."""

    lock: int
    admin: int
    accounts: int


class Supervisor:
    """The workers of one service."""

    def __init__(self, config: Config, files: Files) -> None:
        """Take the settings; nothing is touched before `run`.

        Args:
            config: Settings, WORKERS among them.
            files: The disk.
        """
        self._settings = config.settings
        self._config = config
        self._files = files
        self._data_dir = os.path.abspath(config.settings.data_dir)
        self._stop = asyncio.Event()
        self._said: dict[bytes, int] = {LISTENING: 0, READY: 0}
        self._workers: list[_Worker] = []

    async def run(self, announce: Callable[[str], None]) -> None:
        """Serve until SIGTERM, SIGINT, or the end of a worker.

        Args:
            announce: Called with the URL once every worker takes connections.

        Raises:
            BackendError: The service cannot start, or a worker ended with an error.
            WalLockedError: Another process owns the folder.
        """
        settings = self._settings
        for warning in self._config.warnings:
            _log.warning(warning)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._tell(RELOAD))
        with contextlib.ExitStack() as stack:
            lock = lock_folder(self._files, self._data_dir)
            stack.callback(self._files.close, lock)
            port = SharedPort(
                settings.host,
                settings.port,
                settings.workers,
                tls=self._config.tls is not None,
                allowed=ALLOWED.__getitem__,
            )
            stack.callback(port.close)
            admin = stack.enter_context(bound_unix(os.path.join(self._data_dir, SOCKET_NAME)))
            admin.listen(ADMIN_BACKLOG_MAX)
            accounts = new_shared_accounts()
            stack.callback(os.close, accounts)
            shared = _Shared(lock=lock, admin=admin.fileno(), accounts=accounts)
            try:
                for worker, share in enumerate(port.shares):
                    await self._start(worker, [each.fileno() for each in share], shared)
                port.close()  # what a worker closes is closed
                await self._watch(lambda: announce(port.url))
            finally:
                codes = await self._end()
        _log.info("stopped")
        _raise_for(codes)

    async def _start(self, worker: int, listening: Sequence[int], shared: _Shared) -> None:
        own, others = socket.socketpair()
        own.setblocking(False)
        with others:
            seat = Seat(
                worker=worker,
                workers=self._settings.workers,
                listening=tuple(listening),
                admin=shared.admin,
                accounts=shared.accounts,
                control=others.fileno(),
            )
            # It begins with its signals held back, and takes them when it can: Ctrl-C reaches the whole terminal at once.
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            # A clean process, and not a fork of this one; `-P`, so that nothing is imported from where it is started.
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",
                    "-m",
                    "pcs_backend.workers",
                    msgspec.json.encode(seat).decode(),
                    stdin=asyncio.subprocess.DEVNULL,
                    env=os.environ | {"WORKERS": str(self._settings.workers)},
                    pass_fds=(*seat.handles, shared.lock),
                )
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self._workers.append(_Worker(process, own))

    async def _watch(self, announce: Callable[[], None]) -> None:
        """Return when the service is to stop."""
        loop = asyncio.get_running_loop()
        ends = [
            asyncio.create_task(each.process.wait(), name=f"worker-{index}")
            for index, each in enumerate(self._workers)
        ]
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        for each in self._workers:
            loop.add_reader(each.control, self._hear, each.control, announce)
        try:
            await asyncio.wait([stopping, *ends], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in self._workers:
                loop.remove_reader(each.control)
            for task in (stopping, *ends):
                task.cancel()
            await asyncio.gather(stopping, *ends, return_exceptions=True)

    def _hear(self, control: socket.socket, announce: Callable[[], None]) -> None:
        messages = hear(control)
        if messages is None:  # it is ending, and its process says how
            asyncio.get_running_loop().remove_reader(control)
            return
        for message in (bytes([each]) for each in messages):
            self._said[message] += 1
            if self._said[message] < len(self._workers):
                continue
            if message == LISTENING:
                announce()
            else:
                _log.info("ready", workers=len(self._workers))

    def _tell(self, message: bytes) -> None:
        for each in self._workers:
            say(each.control, message)

    async def _end(self) -> list[int]:
        """Stop every worker. Returns their exit codes."""
        _log.info("stopping")
        self._tell(STOP)
        waiting = [each.process.wait() for each in self._workers]
        try:
            async with asyncio.timeout(STOP_DRAINS * self._settings.drain_timeout_s + STOP_SPARE_S):
                codes = await asyncio.gather(*waiting)
        except TimeoutError:
            for each in self._workers:
                with contextlib.suppress(ProcessLookupError):
                    each.process.kill()
            codes = await asyncio.gather(*(each.process.wait() for each in self._workers))
        for each in self._workers:
            each.control.close()
        return codes


def _raise_for(codes: Sequence[int]) -> None:
    """Raise for the first worker that did not end in good order."""
    for worker, code in enumerate(codes):
        if code == 0:
            continue
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        message = f"worker {worker} ended {how}"
        raise ConfigError(message) if code == 2 else BackendError(message)
