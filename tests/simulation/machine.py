"""Machines and the processes on them: what the shipped code gets as its world, and how both end.

A machine has a disk and a clock and runs one process at a time. A process has a context of its own, so that every task and
timer it makes is known to be its. When it is killed its tasks are cancelled, but nothing they do on their way out reaches
the world: disk, network, store and threads of a dead process do nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from pcs_core.wal import Files
from simulation.disk import Disk
from simulation.loop import VirtualLoop
from simulation.system import Gone, System, shipped_files
from simulation.trace import Dice, Trace

T = TypeVar("T")

EPOCH_S = 1_750_000_000.0
"""Wall-clock time at the start of every run, seconds since 1970."""

SYNC_S_MAX = 0.004
"""Longest time a sync takes on a healthy disk."""

current_process: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


def machine_here() -> Machine:
    """The machine of the process that is running."""
    process = current_process.get()
    assert process is not None
    return process.machine


class Weather:
    """What a machine's disk does to system calls.

    Attributes:
        crash_in: System calls until `crash`, 0 for never.
        crash_at: Name of the calls that are counted; empty for all.
        crash_after: Name of the call after which they are counted; empty for now.
        crash: What happens then.
        refusals: Error number by name of the call.
        share: Share of those calls that is refused.
        refused: Calls that were refused since the start.
    """

    def __init__(self, dice: random.Random, trace: Trace, name: str) -> None:
        self._dice = dice
        self._trace = trace
        self._name = name
        self.refused = 0
        self.crash_in = 0
        self.crash_at = ""
        self.crash_after = ""
        self.crash: Callable[[], None] = lambda: None
        self.refusals: dict[str, int] = {}
        self.share = 1.0

    def clear(self) -> None:
        """Fine weather from now on."""
        self.crash_in, self.crash_at, self.crash_after, self.refusals = 0, "", "", {}

    def __call__(self, call: str, path: str) -> int:
        """Tell the fate of a system call; see `simulation.system.Fault`."""
        if self.crash_after == call:
            self.crash_after = ""
        elif self.crash_in and not self.crash_after and self.crash_at in {"", call}:
            self.crash_in -= 1
            if not self.crash_in:
                self.crash()
                return 0
        code = self.refusals.get(call, 0)
        if code and self._dice.random() < self.share:
            self.refused += 1
            self._trace.fault(f"disk: {call} fails", self._name, path, code)
            return code
        return 0


class Machine:
    """One machine.

    Attributes:
        name: Its address in the network.
        disk: Its disk.
        weather: What the disk does to system calls.
        process: What runs on it, or ran last.
        skew_s: What its wall clock is off.
        jumped_s: Virtual time of the last jump of its clock.
        is_damaged: Whether bytes at rest were ever damaged.
        sync_s_max: Longest time a sync takes.
        new_files: Makes a process' files of its system; a test may put something else here.
    """

    def __init__(self, name: str, loop: VirtualLoop, dice: Dice, trace: Trace) -> None:
        self.name = name
        self.loop = loop
        self.dice = dice(f"machine {name}")
        self.trace = trace
        self.disk = Disk(dice(f"disk {name}"))
        self.weather = Weather(dice(f"weather {name}"), trace, name)
        self.process: Process | None = None
        self.skew_s = 0.0
        self.jumped_s = float("-inf")
        self.is_damaged = False
        self.sync_s_max = SYNC_S_MAX
        self.new_files: Callable[[System], Files] = shipped_files

    def now(self) -> float:
        """The wall clock."""
        return EPOCH_S + self.loop.time() + self.skew_s

    def free_bytes(self, path: str) -> int:
        """Free space; counted only where there is an end of it."""
        del path
        return self.disk.free_bytes if self.disk.is_bounded else self.disk.capacity_bytes

    def jump(self, seconds: float) -> None:
        """Move the wall clock."""
        self.skew_s += seconds
        self.jumped_s = self.loop.time()

    def start(self, purpose: str) -> Process:
        """Begin a process."""
        assert self.process is None or not self.process.alive
        self.process = Process(self)
        self.trace.note("start", self.name, purpose)
        return self.process

    def kill(self) -> None:
        """SIGKILL: the process is gone, what it wrote stays."""
        if self.process is not None and self.process.alive:
            self.trace.note("killed", self.name)
            self.process.end(killed=True)

    def cut_power(self) -> None:
        """The power is gone: so is the process, and what was not synced."""
        self.kill()
        self.trace.note("power cut", self.name)
        self.disk.cut()


class Process:
    """One process.

    Attributes:
        machine: Where it runs.
        alive: Whether it may still do anything.
        killed: Whether it was ended from outside.
        ended: Set when it is over.
        system: Its system calls.
        files: Its disk.
        ends: Called when it is over.
        was_slow: Whether its disk took long for anything.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.alive = True
        self.killed = False
        self.was_slow = False
        self.ended = asyncio.Event()
        self.system = System(machine.disk, machine.weather, machine.dice)
        self.files = machine.new_files(self.system)
        self._refused_before = machine.weather.refused
        self.context = contextvars.copy_context()
        self.context.run(current_process.set, self)
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.ends: list[Callable[[], None]] = []

    @property
    def had_trouble(self) -> bool:
        """Whether the disk refused it anything, took long, or had lost what it should have kept."""
        refused = self.machine.weather.refused > self._refused_before or self.system.full > 0
        return refused or self.was_slow or self.machine.is_damaged

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run something as a part of this process."""
        return self.machine.loop.create_task(coroutine, name=name, context=self.context)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Take a task that runs in this process' context."""
        if not self.alive:
            self.machine.loop.call_soon(task.cancel)
        self.tasks[task] = None
        task.add_done_callback(lambda done: self.tasks.pop(done, None))

    def end(self, *, killed: bool = False) -> None:
        """Be over. Handles, locks and connections are gone, tasks are cancelled."""
        if not self.alive:
            return
        self.alive, self.killed = False, killed
        self.system.die()
        for end in self.ends:
            end()
        for task in list(self.tasks):
            task.cancel()
        self.ended.set()

    async def sleep(self, seconds: float) -> None:
        """The port: wait, or vanish with the process."""
        await asyncio.sleep(seconds)
        if not self.alive:
            raise asyncio.CancelledError

    def random_bytes(self, count: int) -> bytes:
        """The port."""
        return self.machine.dice.randbytes(count)

    def new_offload(self, name: str) -> SimulatedOffload:
        """The backend's port: one thread."""
        del name
        return SimulatedOffload(self)


class SimulatedOffload:
    """Stands for a thread: calls run one after the other, each at one moment, some time after it was asked for.

    What the process does meanwhile it does on the event loop, as beside a real thread; a process that dies takes with it the
    calls that have not run, and nobody learns the result of one that has.
    """

    def __init__(self, process: Process, *, threads: int = 1) -> None:
        self._process = process
        self._free_s = [0.0] * threads
        self._closed = False

    async def run(self, call: Callable[[], T]) -> T:
        """As `pcs_core.ports.Offload.run`."""
        if not self._process.alive:
            raise asyncio.CancelledError
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        machine = self._process.machine
        self._process.was_slow |= machine.sync_s_max > SYNC_S_MAX
        loop = machine.loop
        future: asyncio.Future[T] = loop.create_future()
        thread = self._free_s.index(min(self._free_s))
        start_s = max(loop.time(), self._free_s[thread]) + machine.dice.uniform(0, 0.000_2)
        done_s = start_s + machine.dice.uniform(0.000_1, machine.sync_s_max)
        self._free_s[thread] = done_s
        loop.call_at(start_s, self._execute, call, future, done_s, context=self._process.context)
        return await future

    def close(self) -> None:
        """Take no more calls."""
        self._closed = True

    def _execute(self, call: Callable[[], T], future: asyncio.Future[T], done_s: float) -> None:
        if not self._process.alive or future.cancelled():
            return
        result: T | None = None
        failure: BaseException | None = None
        try:
            result = call()
        except Gone:
            return
        except BaseException as error:  # noqa: BLE001  # raised again where it is awaited
            failure = error
        self._process.machine.loop.call_at(done_s, self._settle, future, result, failure)

    def _settle(self, future: asyncio.Future[T], result: T | None, failure: BaseException | None) -> None:
        if not self._process.alive or future.done():
            return
        if failure is not None:
            future.set_exception(failure)
        else:
            future.set_result(result)
