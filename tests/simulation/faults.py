"""What goes wrong, drawn one after the other while the run is busy. Each fault is one method, counted by its name."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from simulation.damage import Damager
from simulation.machine import SYNC_S_MAX, Machine

if TYPE_CHECKING:
    from simulation.world import World

REFUSABLE = ("write", "fdatasync", "fsync", "rename", "open", "mkdir", "ftruncate", "unlink")
RARE = ("rename", "rename", "unlink", "mkdir", "ftruncate", "fsync")
CRASH_CALLS_MAX = 80
"""A crash that waits for a system call waits for one of so many; most commits take two, a rotation ten."""

SYNCS_MAX = 8
"""A crash that waits for a sync waits for one of so many."""

CLIMATES = (0.0, 1.0, 1.0, 5.0)
"""How often a fault comes in a run, compared with its weight."""

START_CALLS_MAX = 25
"""A first start takes about so many: folders, locks, the first segment."""

NIGHT_CALLS_MAX = 10
"""So soon into what it does a machine goes off."""


class Chaos:
    """Draws faults and lets them happen."""

    def __init__(self, world: World, dice: random.Random) -> None:
        self._world = world
        self._dice = dice
        self._damager = Damager(world, dice)
        self._recoveries: list[tuple[asyncio.TimerHandle, Callable[[], object]]] = []
        weights = {
            self.power_cut: 16,
            self.kill: 8,
            self.stop: 4,
            self.disk_refuses: 8,
            self.failed_sync: 6,
            self.disk_full: 4,
            self.disk_slow: 2,
            self.damage_at_rest: 12,
            self.fsck: 4,
            self.clock_jump: 4,
            self.store_outage: 4,
            self.store_emptied: 2,
            self.partition: 3,
            self.bad_network: 4,
            self.night: 2,
        }

        # Each run has its own climate: some faults not at all, some far more often.
        self._faults = {fault: weight * dice.choice(CLIMATES) for fault, weight in weights.items()}

    async def rage(self, until_s: float) -> None:
        """Let faults happen until then; then what lasts a while is over."""
        world = self._world
        for operator in world.operators:  # some do not get through their first start
            if self._dice.random() < 0.3:
                self._crash(operator.machine, *self._any_end(operator.machine), calls_max=START_CALLS_MAX)
        while world.loop.time() < until_s:
            await asyncio.sleep(self._dice.expovariate(1 / world.scenario.fault_gap_s))
            (fault,) = self._dice.choices(list(self._faults), list(self._faults.values()))
            await fault()
        for timer, recover in self._recoveries:
            if not timer.cancelled():
                timer.cancel()
                recover()

    async def power_cut(self) -> None:
        """Everything of a machine that is not synced may be gone; mostly in the middle of a write."""
        machine = self._any_machine()
        self._world.operator_of(machine).pause_s = self._dice.uniform(0.05, 30.0)
        self._crash(machine, "power cut", machine.cut_power)

    async def kill(self) -> None:
        """SIGKILL; sometimes memory runs short afterwards, and what a failed sync left in the cache goes too."""
        machine = self._any_machine()
        self._crash(machine, "kill", lambda: self._kill(machine))

    async def stop(self) -> None:
        """SIGTERM, in the middle of things."""
        operator = self._world.operator_of(self._any_machine())
        self._world.trace.fault("stop", operator.machine.name)
        operator.stop()

    async def disk_refuses(self) -> None:
        """Some system calls fail for a while."""
        machine = self._any_machine()
        calls = self._dice.sample(REFUSABLE, self._dice.choice([1, 1, 2, len(REFUSABLE)]))
        code = self._dice.choice([errno.EIO, errno.ENOSPC])
        machine.weather.share = self._dice.choice([0.1, 0.5, 1.0])
        machine.weather.refusals = dict.fromkeys(calls, code)
        self._world.trace.note("disk refuses", machine.name, *calls, code)
        self._later(self._dice.uniform(0.1, 15.0), machine.weather.refusals.clear)

    async def failed_sync(self) -> None:
        """Some syncs fail, then the process or the power ends; what they dropped stays in the cache, or is gone for good."""
        machine = self._any_machine()
        machine.weather.share = self._dice.choice([0.3, 1.0])
        machine.weather.refusals = {"fdatasync": errno.EIO}
        refused = machine.weather.refused
        await asyncio.sleep(self._dice.uniform(0.5, 5.0))
        machine.weather.refusals = {}
        if machine.weather.refused > refused:
            kind, end = self._any_end(machine)
            self._world.trace.fault(f"{kind} after a failed sync", machine.name)
            end()

    async def disk_full(self) -> None:
        """Little or nothing is free for a while."""
        machine = self._any_machine()
        disk = machine.disk
        capacity_bytes = disk.capacity_bytes
        disk.capacity_bytes -= max(0, disk.free_bytes - self._dice.randint(0, 6_000))
        self._world.trace.fault("disk full", machine.name, disk.free_bytes)

        def relieve() -> None:
            disk.capacity_bytes = capacity_bytes

        self._later(self._dice.uniform(1.0, 20.0), relieve)

    async def disk_slow(self) -> None:
        """Syncs take seconds for a while."""
        machine = self._any_machine()
        machine.sync_s_max = self._dice.choice([0.5, 4.0, 12.0])
        self._world.trace.fault("disk slow", machine.name, machine.sync_s_max)

        def recover() -> None:
            machine.sync_s_max = SYNC_S_MAX

        self._later(self._dice.uniform(2.0, 30.0), recover)

    async def damage_at_rest(self) -> None:
        """Bytes change that nobody writes; now and then an operator looks for it afterwards."""
        machine = self._any_machine()
        self._damager.strike(machine)
        if self._dice.random() < 0.4:
            self._look_over(machine)

    async def fsck(self) -> None:
        """A service is stopped, looked over, perhaps repaired, and started again."""
        self._look_over(self._dice.choice(self._world.backends).machine)

    def _look_over(self, machine: Machine) -> None:
        if operator := self._world.backend_of(machine):
            operator.fsck = self._dice.choice(["check", "repair", "repair"])
            operator.stop()

    async def clock_jump(self) -> None:
        """A wall clock moves, forwards or back."""
        machine = self._any_machine()
        ttl_s = self._world.scenario.ttl_s
        seconds = self._dice.choice([1.0, 30.0, 600.0, ttl_s, 3 * ttl_s]) * self._dice.uniform(-1.0, 1.0)
        self._world.trace.fault("clock jump", machine.name, f"{seconds:.3f}")
        self._world.jump(machine, seconds)

    async def store_outage(self) -> None:
        """The shared store answers nothing for a while."""
        server = self._world.store
        if server is None or server.is_down:
            return
        self._world.trace.fault("store outage")
        server.is_down = True

        def recover() -> None:
            server.is_down = False

        self._later(self._dice.uniform(0.5, 30.0), recover)

    async def store_emptied(self) -> None:
        """The shared store has forgotten everything, where nothing is promised about it."""
        if self._world.store is not None and self._world.scenario.store == "forgetful":
            self._world.trace.fault("store emptied")
            self._world.empty_store()

    async def partition(self) -> None:
        """A backend cannot be reached for a while."""
        name = self._dice.choice(self._world.backends).machine.name
        self._world.trace.fault("partition", name)
        self._world.network.unreachable.add(name)
        self._later(self._dice.uniform(0.5, 40.0), lambda: self._world.network.unreachable.discard(name))

    async def bad_network(self) -> None:
        """Most exchanges come to harm for a while."""
        network = self._world.network
        network.faults_share = 0.7
        self._world.trace.note("bad network")

        def recover() -> None:
            network.faults_share = self._world.scenario.network_share

        self._later(self._dice.uniform(2.0, 20.0), recover)

    async def night(self) -> None:
        """All machines are off for hours, or for longer than an outcome lives."""
        hours = self._dice.choice([0.5, 8.0, 1.5 * self._world.scenario.ttl_s / 3_600])
        self._world.trace.fault("night", f"{hours:.3f} h")
        machines = [operator.machine for operator in self._world.operators]
        for machine in machines:
            self._crash(machine, *self._any_end(machine), calls_max=NIGHT_CALLS_MAX)
        await asyncio.sleep(2.0)
        self._world.awake.clear()
        for machine in machines:
            machine.weather.clear()
            machine.kill()
        await asyncio.sleep(hours * 3_600)
        self._world.awake.set()

    def _any_machine(self) -> Machine:
        agent, backends = self._world.agent, self._world.backends
        return (agent if self._dice.random() < 0.3 else self._dice.choice(backends)).machine

    def _any_end(self, machine: Machine) -> tuple[str, Callable[[], None]]:
        if self._dice.random() < 0.5:
            return "power cut", machine.cut_power
        return "kill", lambda: self._kill(machine)

    def _kill(self, machine: Machine) -> None:
        machine.kill()
        if self._dice.random() < 0.3:
            machine.disk.evict()

    def _crash(
        self, machine: Machine, kind: str, end: Callable[[], None], *, calls_max: int = CRASH_CALLS_MAX
    ) -> None:
        """End a machine's process now, or between two of its next system calls."""

        def happen() -> None:
            self._world.trace.fault(kind, machine.name)
            end()
            if self._dice.random() < 0.2:
                self._look_over(machine)

        weather = machine.weather
        weather.crash, weather.crash_in = happen, self._dice.randint(1, calls_max)
        weather.crash_at = weather.crash_after = ""
        match self._dice.choices(("now", "anywhere", "unsynced", "rare"), (2, 3, 3, 2))[0]:
            case "now":
                weather.crash_in = 0
                happen()
            case "unsynced":  # bytes are written, and their sync begins
                weather.crash_in, weather.crash_at = self._dice.randint(1, SYNCS_MAX), "fdatasync"
            case "rare":  # it would hardly ever be hit otherwise
                weather.crash_in, weather.crash_after = self._dice.randint(1, 3), self._dice.choice(RARE)

    def _later(self, seconds: float, recover: Callable[[], object]) -> None:
        self._recoveries.append((self._world.loop.call_later(seconds, recover), recover))
