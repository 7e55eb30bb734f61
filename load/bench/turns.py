"""`python -m bench.turns`: two services beside each other, one request a connection to the one, then to the other, and so on.

What slows the machine for longer than a turn slows both, so the ratio of two turns that follow each other tells two services
apart that differ by a few hundredths, where whole runs one after the other differ by more than that. Two `Job`s of the same
records on standard input; `Turns` on standard output.
"""

from __future__ import annotations

import gc
import socket
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from bench.job import Job, Turn, Turns
from bench.pool import Pool
from bench.wire import HOST, check_answer, cpu_s, family, quantiles_ms, requests_of

ANSWER_TIMEOUT_S = 60.0


class _Side:
    """One of the services: its connections, and what came over them."""

    def __init__(self, job: Job, requests: Sequence[bytes]) -> None:
        self.job = job
        self._requests = requests
        self._pids = family(job.pids)
        self._sockets = [
            socket.create_connection((HOST, job.ports[0]), ANSWER_TIMEOUT_S) for _ in range(job.connections)
        ]
        self._files: list[BinaryIO] = [each.makefile("rb") for each in self._sockets]
        self.answers: list[bytes] = []
        self.took_s: list[float] = []
        self.turns_s: list[float] = []
        self.cpu_s = 0.0

    def turn(self, first: int) -> None:
        """Send a request over each connection, and read the answers."""
        requests = self._requests[first : first + len(self._sockets)]
        began_s = time.perf_counter()
        for each, request in zip(self._sockets, requests, strict=False):
            each.sendall(request)
        for file in self._files[: len(requests)]:
            self.answers.append(_read_answer(file))
            self.took_s.append(time.perf_counter() - began_s)
        self.turns_s.append(time.perf_counter() - began_s)

    def mark(self) -> None:
        """Measure from here on; called again, up to here."""
        self.cpu_s = cpu_s(self._pids) - self.cpu_s


def _read_answer(file: BinaryIO) -> bytes:
    head = bytearray()
    length = 0
    while not head.endswith(b"\r\n\r\n"):
        line = file.readline()
        if not line:
            raise ConnectionError("a service closed the connection")
        if line.startswith(b"Content-Length: "):
            length = int(line[16:])
        head += line
    return bytes(head) + file.read(length)


def main() -> None:
    """Run two jobs in turn."""
    jobs = msgspec.json.decode(sys.stdin.buffer.read(), type=tuple[Job, Job])
    job = jobs[0]
    bodies, ids = Pool(Path(job.bodies), Path(job.ids), job.pool_count).read(job.first, job.count)
    sides = []
    for each in jobs:
        requests, groups = requests_of(each, bodies, ids)
        sides.append(_Side(each, requests))
    gc.freeze()
    gc.disable()
    firsts = list(range(0, len(groups), job.connections))
    warmup = max(1, int(len(firsts) * job.warmup))
    for number, first in enumerate(firsts):
        if number == warmup:
            for side in sides:
                side.mark()
        for side in sides if number % 2 else reversed(sides):
            side.turn(first)
    for side in sides:
        side.mark()
    warm_requests = warmup * job.connections
    pairs = zip(sides[0].turns_s[warmup:], sides[1].turns_s[warmup:], strict=True)
    found = Turns(
        ratio=statistics.median(other / one for one, other in pairs),
        sides=[_turn(side, groups, warmup, warm_requests) for side in sides],
    )
    sys.stdout.buffer.write(msgspec.json.encode(found))


def _turn(side: _Side, groups: Sequence[Sequence[bytes]], warmup: int, warm_requests: int) -> Turn:
    wrong: Counter[str] = Counter()
    lines: list[bytes] = []
    answered = 0
    for data, ids in zip(side.answers, groups, strict=True):
        answered += check_answer(data, ids, lines, wrong, batch=side.job.batch > 0)
    if side.job.answers:
        Path(side.job.answers).write_bytes(b"".join(lines))
    measured = sum(map(len, groups[warm_requests:]))
    return Turn(
        rate=measured / sum(side.turns_s[warmup:]),
        records=answered,
        latency_ms=quantiles_ms(side.took_s[warm_requests:]),
        cpu_us=side.cpu_s / measured * 1e6,
        wrong=dict(wrong),
    )


if __name__ == "__main__":
    main()
