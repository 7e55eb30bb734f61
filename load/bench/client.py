"""`python -m bench.client`: the load, in a process of its own. A `Job` on standard input, a `Found` on standard output.

It is as cheap as can be, so that the service is what limits: requests are whole byte strings made before the clock starts,
an answer is scanned for its length and kept, and what it says is checked after the clock has stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path

import msgspec
import uvloop

from bench.job import Found, Job
from bench.pool import Pool
from bench.wire import HOST, check_answer, cpu_s, family, quantiles_ms, requests_of

ANSWER_TIMEOUT_S = 30.0
"""How long no answer may come; what is missing then is counted as wrong."""

_TICK_S = 0.001
_NEVER = 0.0


class _Connection(asyncio.Protocol):
    """One connection with at most one request under way."""

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._chunks: list[bytes] = []
        self._missing = 0
        self._transport: asyncio.Transport | None = None
        self.number = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a TCP connection's

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost(self)

    def send(self, number: int, request: bytes) -> None:
        self.number = number
        assert self._transport is not None
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._chunks:
            self._chunks.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data = b"".join(self._chunks)
            self._chunks.clear()
        head = data.find(b"\r\n\r\n")
        if head < 0:
            self._missing = 1  # looked at again with whatever comes next
        else:
            at = data.find(b"Content-Length: ", 0, head)
            length = int(data[at + 16 : data.find(b"\r", at)])
            self._missing = head + 4 + length - len(data)
        if self._missing > 0:
            self._chunks.append(data)
        else:
            self._load.answered(self, data)


class _Load:
    """Sends requests and keeps what came back."""

    def __init__(self, job: Job, requests: Sequence[bytes]) -> None:
        count = len(requests)
        self.job = job
        self.requests = requests
        self.due = [_NEVER] * count
        self.done = [_NEVER] * count
        self.answers = [b""] * count
        self.behind_s = 0.0
        self.began_s = self.ended_s = 0.0
        self.cpu_s = self.own_cpu_s = 0.0
        self._pids = family(job.pids)
        self._warmup = int(count * job.warmup)
        self._next = 0
        self._open_answers = count
        self._free: list[_Connection] = []
        self._waiting: deque[int] = deque()
        self._opened = 0
        self._opening: set[asyncio.Task[None]] = set()
        self._finished = asyncio.Event()

    async def run(self) -> None:
        """Send all, and wait for their answers for some time."""
        rate = self.job.rate / max(1, self.job.batch)
        if rate:
            await self._run_open(rate)
        else:
            for _ in range(self.job.connections):
                await self._connect()
            connections, self._free = self._free, []
            self._begin_if(0)
            for connection in connections:
                self._send_next(connection)
        await self._wait_for_answers()

    def answered(self, connection: _Connection, data: bytes) -> None:
        """Take an answer."""
        now_s = time.perf_counter()
        number = connection.number
        connection.number = -1
        self.done[number] = now_s
        self.answers[number] = data
        self._open_answers -= 1
        if not self._open_answers:
            self._end()
            self._finished.set()
        if not self.job.rate:
            self._send_next(connection)
        elif self._waiting:
            self._send(connection, self._waiting.popleft())
        else:
            self._free.append(connection)

    def lost(self, connection: _Connection) -> None:
        """Take note of a connection that is gone; the request under way on it has no answer."""
        self._opened -= 1
        if connection in self._free:
            self._free.remove(connection)
        if connection.number >= 0:
            self._open_answers -= 1
            if not self._open_answers:
                self._finished.set()
        if not self._finished.is_set():
            self._open_one()

    async def _wait_for_answers(self) -> None:
        """Wait until all have come, or none has come for a while."""
        missing = -1
        while not self._finished.is_set() and missing != self._open_answers:
            missing = self._open_answers
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    await self._finished.wait()
        self._end()

    async def _run_open(self, rate: float) -> None:
        loop = asyncio.get_running_loop()
        count = len(self.requests)
        for _ in range(min(16, self.job.connections)):
            await self._connect()
        start_s = time.perf_counter() + _TICK_S
        self.due = [start_s + number / rate for number in range(count)]
        self._begin_if(0)
        everything_sent = loop.create_future()

        def tick() -> None:
            due, free = self.due, self._free
            while self._next < count and due[self._next] <= time.perf_counter():
                number = self._next
                self._next += 1
                self._begin_if(number)
                if free:
                    self._send(free.pop(), number)
                else:
                    self._waiting.append(number)
                    if self._opened < self.job.connections:
                        self._open_one()
            if self._next < count:
                loop.call_later(_TICK_S, tick)
            else:
                self._end()
                everything_sent.set_result(None)

        tick()
        await everything_sent

    def _send_next(self, connection: _Connection) -> None:
        number = self._next
        if number >= len(self.requests):
            self._end()
            return
        self._next = number + 1
        self._begin_if(number)
        self.due[number] = time.perf_counter()
        connection.send(number, self.requests[number])

    def _send(self, connection: _Connection, number: int) -> None:
        self.behind_s = max(self.behind_s, time.perf_counter() - self.due[number])
        connection.send(number, self.requests[number])

    def _open_one(self) -> None:
        self._opened += 1
        task = asyncio.create_task(self._connect(counted=True))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect(self, *, counted: bool = False) -> None:
        if not counted:
            self._opened += 1
        port = self.job.ports[self._opened % len(self.job.ports)]
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(self), HOST, port, family=socket.AF_INET
            )
        except OSError:
            self._opened -= 1
            return
        if self._waiting:
            self._send(connection, self._waiting.popleft())
        elif not self.job.rate and self.began_s:  # in place of one that was lost
            self._send_next(connection)
        else:
            self._free.append(connection)

    def _begin_if(self, number: int) -> None:
        if number == self._warmup:
            self.began_s = time.perf_counter()
            self.cpu_s = -cpu_s(self._pids)
            self.own_cpu_s = -time.process_time()

    def _end(self) -> None:
        if not self.ended_s:
            self.ended_s = time.perf_counter()
            self.cpu_s += cpu_s(self._pids)
            self.own_cpu_s += time.process_time()


def main() -> None:
    """Run one job."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    bodies, ids = Pool(Path(job.bodies), Path(job.ids), job.pool_count).read(job.first, job.count)
    requests, groups = requests_of(job, bodies, ids)
    del bodies
    # What is here is kept to the end; nothing that is made later refers to itself.
    gc.freeze()
    gc.disable()
    load = uvloop.run(_run(job, requests))
    sys.stdout.buffer.write(msgspec.json.encode(_found(load, groups)))


async def _run(job: Job, requests: Sequence[bytes]) -> _Load:
    load = _Load(job, requests)
    await load.run()
    return load


def _found(load: _Load, groups: Sequence[Sequence[bytes]]) -> Found:
    job = load.job
    wrong: Counter[str] = Counter()
    lines: list[bytes] = []
    took: list[float] = []
    took_refused: list[float] = []
    answered = refused = measured = 0
    for due, done, data, ids in zip(load.due, load.done, load.answers, groups, strict=True):
        if not data:
            wrong["no answer"] += len(ids)
            continue
        status = data[9:12]
        if status == b"503" and job.may_refuse:
            refused += len(ids)
            took_refused.append(done - due)
            if b"\r\nRetry-After: " not in data:
                wrong["503 without Retry-After"] += len(ids)
            continue
        good = (
            len(ids)
            if job.constant and status == b"200"
            else check_answer(data, ids, lines, wrong, batch=job.batch > 0)
        )
        answered += good
        if load.began_s <= due:
            took.append(done - due)
        if load.began_s < done <= load.ended_s:
            measured += good
    if job.answers:
        Path(job.answers).write_bytes(b"".join(lines))
    seconds = load.ended_s - load.began_s
    return Found(
        rate=measured / seconds,
        seconds=seconds,
        records=answered,
        refused=refused,
        latency_ms=quantiles_ms(took),
        cpu_us=load.cpu_s / max(1, measured) * 1e6,
        client_cpu=load.own_cpu_s / seconds,
        refused_ms=quantiles_ms(took_refused),
        behind_ms=load.behind_s * 1e3,
        wrong=dict(wrong),
    )


if __name__ == "__main__":
    main()
