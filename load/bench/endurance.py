"""The long ones: load beyond what the service can take, and a million records through one process."""

from __future__ import annotations

import math
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil

from bench.items import SINGLE_CONNECTIONS
from bench.job import Found
from bench.rig import Figures, Load, Rig, Setup, kill
from processes import Backend

OVERLOAD_CONNECTIONS_MAX = 1_024
"""Connections the client of an open loop opens at most; what is due beyond them waits in the client, and its time runs."""

STEPS_MAX = 12
FIRST_STEP = 0.5
STEP = 0.1
STEP_MIN = 0.05
"""Steps of the search, as shares of the closed loop's rate: up from the first; where that is too much, down by halves and
up again."""

SERVED_MIN = 0.95
"""Share of a step's rate that must be answered in time, or the step counts as refused: a service without a bound refuses
nothing."""

MILLION = 1_000_000
MILLION_PARTS = 10
START_TIMEOUT_S = 600.0

_SAMPLE_S = 0.25
_MIB = 1024 * 1024


class Lengths(msgspec.Struct, frozen=True):
    """How long.

    Attributes:
        step_s: A step of the search.
        phase_s: A phase at half, and one at twice the steady rate.
    """

    step_s: float
    phase_s: float


FULL_LENGTHS = Lengths(step_s=30.0, phase_s=15.0)
QUICK_LENGTHS = Lengths(step_s=1.0, phase_s=1.0)


class Memory:
    """Resident memory of processes, children included, sampled while it is wanted."""

    def __init__(self, services: list[Backend]) -> None:
        self._processes = [psutil.Process(service.pid) for service in services]
        self._stop = threading.Event()
        self.samples: list[tuple[float, float]] = []

    def now_bytes(self) -> int:
        """Return what they hold now."""
        family = [each for one in self._processes for each in (one, *one.children(recursive=True))]
        return sum(each.memory_info().rss for each in family)

    @contextmanager
    def sampled(self) -> Iterator[None]:
        """Sample until the end of the block."""
        thread = threading.Thread(target=self._sample)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def growth_mib_a_minute(self, since_s: float) -> float:
        """Return the slope of all samples since a time of `time.monotonic`."""
        late = [(at_s, size) for at_s, size in self.samples if at_s >= since_s]
        slope, _ = statistics.linear_regression([at_s for at_s, _ in late], [size for _, size in late])
        return slope * 60 / _MIB

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLE_S):
            self.samples.append((time.monotonic(), float(self.now_bytes())))


def overload(rig: Rig, setup: Setup, lengths: Lengths, rounds: int) -> list[Figures]:
    """Find the highest steady rate, then give half and twice of it in turn. One `Figures` a round, of what was admitted.

    Their `more`: `steady_rate`, `half_p99_ms`, `double_p99_ms`, `refused_share`, `rss_growth_mib_a_minute`.
    """
    steady = _steady_rate(rig, setup, lengths)
    pool = rig.pool(setup.algorithm)
    results = []
    cursor = 0
    with rig.scratch() as folder, rig.services(setup, folder) as services:
        memory = Memory(services)
        files: list[Path] = []

        def phase(rate: float, warmup: float) -> Found:
            nonlocal cursor
            count = min(int(rate * lengths.phase_s), pool.count)
            if cursor + count > pool.count:
                cursor = 0  # from here on they are replays
            load = _open(rate, count, first=cursor, warmup=warmup)
            cursor += count
            files.append(folder / f"answers-{len(files)}")
            return rig.drive(services, pool, load, files[-1])

        with memory.sampled():
            phase(2 * steady, 0.1)  # warm-up: what grows once has grown
            since_s = time.monotonic()
            for number in range(rounds):
                _say(f"overload, round {number + 1}: half and twice of {steady:,.0f}/s")
                half, double = phase(steady / 2, 0.1), phase(steady * 2, 0.1)
                wrong = {
                    name: half.wrong.get(name, 0) + double.wrong.get(name, 0)
                    for name in half.wrong | double.wrong
                }
                if half.refused:
                    wrong["503 at half the steady rate"] = half.refused
                more = {
                    "steady_rate": steady,
                    "half_p99_ms": half.latency_ms[2],
                    "double_p99_ms": double.latency_ms[2],
                    "refused_p99_ms": double.refused_ms[2],
                    "refused_share": double.refused / max(1, double.refused + double.records),
                    "behind_ms": double.behind_ms,
                }
                results.append(
                    Figures(
                        rate=double.rate,
                        latency_ms=double.latency_ms,
                        cpu_us=double.cpu_us,
                        client_cpu=double.client_cpu,
                        refused=double.refused,
                        more=more,
                        wrong=wrong,
                    )
                )
        growth = memory.growth_mib_a_minute(since_s)
        kill(services)
        missing = rig.replay(services, *files)
    for figures in results:
        figures.more["rss_growth_mib_a_minute"] = growth
        figures.wrong |= missing
    return results


def _steady_rate(rig: Rig, setup: Setup, lengths: Lengths) -> float:
    """Return the highest rate of a step in which nothing was refused."""
    pool = rig.pool(setup.algorithm)
    with rig.scratch() as folder, rig.services(setup, folder) as services:
        count = min(pool.count, 15_000)
        closed = rig.drive(services, pool, Load(count, connections=SINGLE_CONNECTIONS)).rate

    def is_steady(rate: float) -> bool:
        with rig.scratch() as folder, rig.services(setup, folder) as services:
            found = rig.drive(services, pool, _open(rate, min(pool.count, int(rate * lengths.step_s))))
        _say(
            f"step {rate:,.0f}/s: {found.refused} refused, {found.rate:,.0f}/s answered, "
            f"p99 {found.latency_ms[2]:.1f} ms"
        )
        return not found.refused and found.rate >= SERVED_MIN * rate

    share, refused_share = FIRST_STEP, math.inf
    while not is_steady(closed * share):
        share, refused_share = share / 2, share
        if share < STEP_MIN:
            raise RuntimeError(f"not even {STEP_MIN:g} of the closed loop's rate, {closed:,.0f}/s, is steady")
    for _ in range(STEPS_MAX):
        if share + STEP >= refused_share or not is_steady(closed * (share + STEP)):
            break
        share += STEP
    return closed * share


def _open(rate: float, count: int, *, first: int = 0, warmup: float = 0.1) -> Load:
    return Load(
        count,
        connections=OVERLOAD_CONNECTIONS_MAX,
        rate=rate,
        first=first,
        warmup=warmup,
        may_refuse=True,
    )


def million(rig: Rig, count: int = MILLION) -> Figures:
    """Send a million records in batches of 1,000, then kill the service and start it on its log.

    `more`: `bytes_a_record` while serving, `bytes_a_record_replayed` of a new process that has read the same log,
    `replay_s`, `log_bytes_a_record`.
    """
    setup = Setup("hmac", "memory")
    pool = rig.pool("hmac")
    part = count // MILLION_PARTS
    with (
        rig.scratch() as folder,
        rig.services(setup, folder, MEMORY_STORE_MAX_RECORDS=str(count + 1)) as services,
    ):
        memory = Memory(services)
        empty_bytes = memory.now_bytes()
        sizes: list[tuple[float, float]] = []
        found: list[Found] = []
        files = [folder / f"answers-{number}" for number in range(MILLION_PARTS)]
        for number, path in enumerate(files):
            load = Load(part, batch=1_000, connections=4, first=number * part)
            found.append(rig.drive(services, pool, load, path))
            sizes.append(((number + 1.0) * part, float(memory.now_bytes())))
            _say(
                f"{(number + 1) * part:,} records: {found[-1].rate:,.0f}/s, {memory.now_bytes() / _MIB:,.0f} MiB"
            )
        (service,) = services
        kill(services)
        log_bytes = sum(path.stat().st_size for path in (service.data_dir / "wal").rglob("*.wal"))
        began_s = time.monotonic()
        service.start(timeout_s=START_TIMEOUT_S)
        replay_s = time.monotonic() - began_s
        replayed_bytes = Memory(services).now_bytes()
        kill(services)
        missing = rig.replay(services, *files)
    slope, _ = statistics.linear_regression([at for at, _ in sizes[1:]], [size for _, size in sizes[1:]])
    wrong: dict[str, int] = missing
    for each in found:
        for name, number in each.wrong.items():
            wrong[name] = wrong.get(name, 0) + number
    return Figures(
        rate=statistics.median(each.rate for each in found),
        cpu_us=statistics.median(each.cpu_us for each in found),
        more={
            "records": float(count),
            "bytes_a_record": slope,
            "bytes_a_record_replayed": (replayed_bytes - empty_bytes) / count,
            "log_bytes_a_record": log_bytes / count,
            "replay_s": replay_s,
        },
        wrong=wrong,
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
