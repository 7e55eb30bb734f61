"""One process under test, from its start to its death, seen from the harness."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import pickle
import signal
import socket
from multiprocessing.context import ForkServerProcess
from typing import NamedTuple

from crash.plan import Moment, Orders, Place, Plan

START_TIMEOUT_S = 30.0
CUT_TIMEOUT_S = 5.0
_LINE_BYTES_MAX = 1 << 20


class Cut(NamedTuple):
    """A cut as it was made.

    Attributes:
        place: Where it was.
        call: The system call.
        moment: Before, during or after it.
        at_s: When, by the monotonic clock; the machine still had power.
    """

    place: Place
    call: str
    moment: Moment
    at_s: float


class LifeError(Exception):
    """The process did not do what was waited for: the run has no result."""


def context() -> multiprocessing.context.ForkServerContext:
    """Return the server that processes are forked from. It imports the product once, when it is first used."""
    # A library with threads of its own does not belong into a process that forks.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["crash.launcher", "crash.life"])
    return found


class Life:
    """A process. Its output is read as it comes.

    Attributes:
        url: Where a backend listens.
        stdout: What an agent reports: one JSON document a line.
        stderr: Everything else it said.
    """

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.url = ""
        self.stdout: list[dict[str, object]] = []
        self.stderr = b""
        self.listening = asyncio.Event()
        self.ready = asyncio.Event()
        self.dead = asyncio.Event()
        self._reported = asyncio.Event()
        self._cut: Cut | None = None
        self._process: ForkServerProcess | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        """Fork it; `listening`, `ready` and `dead` tell how far it is."""
        pairs = [socket.socketpair() for _ in range(4)]
        process = context().Process(
            target=_run, args=(self.orders, *(theirs for _, theirs in pairs)), daemon=True
        )
        await asyncio.get_running_loop().run_in_executor(None, process.start)
        self._process = process
        for _, theirs in pairs:
            theirs.close()
        streams = [await asyncio.open_connection(sock=mine, limit=_LINE_BYTES_MAX) for mine, _ in pairs]
        self._writers = [writer for _, writer in streams]
        readers = [reader for reader, _ in streams]
        for index, take in ((0, self._take_control), (2, self._take_stdout), (3, self._take_stderr)):
            self._tasks.append(asyncio.create_task(self._read(readers[index], take), name=f"stream {index}"))
        asyncio.get_running_loop().add_reader(process.sentinel, self._note_death)

    @property
    def pid(self) -> int:
        """Its number."""
        assert self._process is not None
        assert self._process.pid is not None
        return self._process.pid

    def arm(self, plan: Plan, *others: Life) -> None:
        """Let it cut as planned, these other processes along; if it is gated it opens its log now."""
        order = pickle.dumps((plan, [other.pid for other in others]))
        self._writers[0].write(order.hex().encode() + b"\n")

    async def feed(self, data: bytes) -> None:
        """Write to its standard input; returns when there is room for more."""
        self._writers[1].write(data)
        await self._writers[1].drain()

    def end_input(self) -> None:
        """Close its standard input."""
        self._writers[1].write_eof()

    async def wait_ready(self) -> bool:
        """Wait until the backend takes work. Returns whether it does; one that does not is gone afterwards."""
        with contextlib.suppress(LifeError):
            await self.either(self.ready, START_TIMEOUT_S)
        if self.ready.is_set() and not self.dead.is_set():
            return True
        await self.kill()
        return False

    async def wait_reports(self, count: int) -> None:
        """Wait until an agent has reported so many records, or is dead.

        Raises:
            LifeError: It did not in time.
        """
        while len(self.stdout) < count and not self.dead.is_set():
            self._reported.clear()
            await self.either(self._reported, START_TIMEOUT_S)

    async def either(self, event: asyncio.Event, timeout_s: float) -> None:
        """Wait until something happens or the process is dead.

        Raises:
            LifeError: Neither came in time.
        """
        waits = [asyncio.create_task(each.wait()) for each in (event, self.dead)]
        done, _ = await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if not done:
            raise LifeError(f"{self.orders.program} hangs; it said:\n{self.said}")

    async def wait_cut(self) -> Cut | None:
        """Wait for the planned cut and the death that follows it; `None` if it never came, then it is gone all the same.

        Raises:
            LifeError: It died of something else.
        """
        try:
            async with asyncio.timeout(CUT_TIMEOUT_S):
                await self.dead.wait()
        except TimeoutError:
            await self.kill()
            return None
        code = await self.finish()
        if self._cut is None:
            raise LifeError(f"the {self.orders.program} ended with {code} before its cut:\n{self.said}")
        return self._cut

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        await self._signal(signal.SIGKILL)

    async def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        return await self._signal(signal.SIGTERM)

    async def finish(self) -> int:
        """Wait until it is gone and everything it said was read; returns the exit code."""
        await self.dead.wait()
        await asyncio.gather(*self._tasks)
        for writer in self._writers:
            writer.close()
        assert self._process is not None
        self._process.join()
        return self._process.exitcode or 0

    @property
    def said(self) -> str:
        """The end of its standard error."""
        return self.stderr[-2_000:].decode(errors="replace")

    async def _signal(self, number: signal.Signals) -> int:
        assert self._process is not None
        if not self.dead.is_set():
            with contextlib.suppress(ProcessLookupError):  # it is just dying
                os.kill(self.pid, number)
        return await self.finish()

    def _note_death(self) -> None:
        assert self._process is not None
        asyncio.get_running_loop().remove_reader(self._process.sentinel)
        self.dead.set()

    async def _read(self, reader: asyncio.StreamReader, take: object) -> None:
        assert callable(take)
        try:
            while line := await reader.readline():
                take(line)
        except ConnectionError:
            pass  # it was killed while something lay unread on its side

    def _take_control(self, line: bytes) -> None:
        told = json.loads(line)
        self._cut = Cut(Place(told["place"]), told["call"], Moment(told["moment"]), told["at_s"])

    def _take_stdout(self, line: bytes) -> None:
        if line.endswith(b"\n"):  # otherwise it died within the line: that was reported to nobody
            self.stdout.append(json.loads(line))
            self._reported.set()

    def _take_stderr(self, line: bytes) -> None:
        self.stderr += line
        if line.startswith(b"listening on "):
            self.url = line.split()[-1].decode()
            self.listening.set()
        elif b'"event": "ready"' in line:
            self.ready.set()


def _run(orders: Orders, *streams: socket.socket) -> None:
    # Imported here: the harness itself need not load the product.
    from crash.launcher import run

    run(orders, *streams)
