"""One run of one seed: machines, what runs on them, what goes wrong, and what is checked in the end.

A run is busy first: streams, clients and faults. Then it heals: nothing fails any more, everything is restarted, and what was
promised is asked for — every record again, the queue, the backlog, the outbox. In the end the power is cut on every machine
at rest, and asked once more.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any
from unittest import mock

import aiohttp
import structlog

from pcs_agent.outbox import State
from pcs_backend.outcome import Outcome
from simulation.agent import AgentOperator
from simulation.backend import BackendOperator
from simulation.boxes import Boxes
from simulation.client import Client, QueueKeeper
from simulation.disk import PLENTY_BYTES
from simulation.faults import Chaos
from simulation.logs import Logs
from simulation.loop import StuckError, VirtualLoop
from simulation.machine import SYNC_S_MAX, Machine, Process, current_process, machine_here
from simulation.model import Model
from simulation.network import Address, Network
from simulation.observers import observing
from simulation.scenario import bounded, draw, lift_bounds
from simulation.store import StoreServer
from simulation.system import Gone
from simulation.trace import Dice, Trace

HEALING_S_MAX = 1_200.0
"""Longest time until a healed system has settled everything."""


@dataclass(frozen=True)
class Result:
    """What one seed showed.

    Attributes:
        seed: The seed.
        violations: Broken promises.
        digest: Hash of all events.
        events: How many there were.
        simulated_s: Virtual time.
        faults: Injected faults by kind.
        figures: What was done.
        tail: The last events.
    """

    seed: int
    violations: tuple[str, ...]
    digest: str
    events: int
    simulated_s: float
    faults: Counter[str]
    figures: Counter[str]
    tail: tuple[str, ...]


class World:
    """See the module.

    Attributes:
        awake: Clear at night, when everything is off.
    """

    def __init__(self, seed: int, *, echo: bool = False) -> None:
        self.seed = seed
        self.loop = VirtualLoop()
        self.dice = Dice(seed)
        self.trace = Trace(self.loop.time, echo=echo)
        self.scenario = draw(self.dice("scenario"))
        self.network = Network(self.loop, self.dice("network"), self.trace)
        self.loop.network = self.network
        self.loop.on_task = self._on_task
        self.loop.set_exception_handler(self._on_error)
        machines = [self._machine(f"backend-{index}") for index in range(self.scenario.replicas)]
        self.model = Model(self.trace, machines, self.scenario.ttl_s)
        self.logs = Logs(self.model)
        self.boxes = Boxes(self.model, self.scenario.outbox_retention_s)
        self.awake = asyncio.Event()
        self.awake.set()
        self.store = None if self.scenario.store == "memory" else StoreServer(self.dice("store"), self.trace)
        self.backends = [
            BackendOperator(
                each,
                self.scenario,
                self.store,
                self.model,
                self.dice(f"operator {each.name}"),
                self.awake,
                self.logs,
            )
            for each in machines
        ]
        self.agent = AgentOperator(
            self._machine("agent"), self.scenario, self.model, self.dice("agent"), self.awake
        )
        self.client = Client(self._machine("client"), self.model, self.dice("client"), self.awake)
        self.keepers = [
            QueueKeeper(
                each,
                self._machine(f"keeper-{each.name}").start("keeper"),
                self.model,
                self.dice("keeper"),
                self.awake,
            )
            for each in machines
        ]
        self.network.services["backends"] = [each.name for each in machines]
        self._connect_checker()

    @property
    def operators(self) -> list[BackendOperator | AgentOperator]:
        """Who keeps something running on a machine that may fail."""
        return [*self.backends, self.agent]

    def operator_of(self, machine: Machine) -> BackendOperator | AgentOperator:
        """Return who keeps something running there."""
        (operator,) = [each for each in self.operators if each.machine is machine]
        return operator

    def backend_of(self, machine: Machine) -> BackendOperator | None:
        """Return who keeps a service running there; `None` if there is none."""
        return next((each for each in self.backends if each.machine is machine), None)

    def jump(self, machine: Machine, seconds: float) -> None:
        """Move a wall clock; the checker looks at it before and after."""
        for _ in range(2):
            self.model.latest_ms()
            self.boxes.note_clock(machine)
            machine.jump(seconds)
            seconds = 0.0
        self.model.latest_ms()
        self.boxes.note_clock(machine)

    def empty_store(self) -> None:
        """Let the shared store forget everything."""
        assert self.store is not None
        self.store.forget_all()
        self.model.excuse([pcs_id for pcs_id, known in self.model.records.items() if known.generations])

    def run(self) -> Result:
        """Run the seed."""
        with self._surroundings():
            try:
                self.loop.run_until_complete(self._live())
            except StuckError as error:
                self.model.violate("stuck:", error)
            finally:
                simulated_s = self.loop.time()
                self._bury()
        figures = Counter(self.model.summary()) + Counter(
            {"frames": self.logs.frames, "damages reported": self.logs.damages_found}
        )
        return Result(
            self.seed,
            tuple(self.model.violations),
            self.trace.digest,
            self.trace.events,
            simulated_s,
            self.trace.faults,
            figures,
            tuple(self.trace.tail),
        )

    async def _live(self) -> None:
        life = asyncio.create_task(self._run_and_check(), name="world")
        alarm = asyncio.create_task(self.model.is_broken.wait(), name="alarm")
        await asyncio.wait([life, alarm], return_when=asyncio.FIRST_COMPLETED)
        for task in (life, alarm):
            task.cancel()
        for result in await asyncio.gather(life, alarm, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    async def _run_and_check(self) -> None:
        self.network.faults_share = self.scenario.network_share
        if self.store is not None:
            self.store.faults_share = self.scenario.store_share
        operating = [asyncio.create_task(each.operate()) for each in self.backends]
        feeding = asyncio.create_task(self.agent.operate())
        sending = [self.client.process.spawn(self.client.send_for_ever(), f"client-{n}") for n in range(2)]
        keeping = [each.process.spawn(each.keep(), "keeper") for each in self.keepers]
        await Chaos(self, self.dice("chaos")).rage(self.scenario.busy_s)
        for task in (*sending, *keeping):
            task.cancel()
        await self._heal(feeding)
        await self._settle()
        await self._check_all()
        await self._rest(operating)
        await self._check_after_the_last_cut()

    async def _heal(self, feeding: asyncio.Task[None]) -> None:
        """Nothing fails any more; everything is started again, with every key."""
        self.trace.note("heal")
        lift_bounds()
        self.network.faults_share = 0.0
        self.network.unreachable.clear()
        for operator in self.operators:
            operator.machine.weather.clear()
            operator.machine.disk.capacity_bytes = PLENTY_BYTES
            operator.machine.sync_s_max = SYNC_S_MAX
        if self.store is not None:
            self.store.is_down, self.store.faults_share = False, 0.0
        self.agent.over = True
        await feeding
        for operator in self.backends:
            operator.at_ease, operator.pause_s = True, 0.5
            operator.machine.kill()

    async def _settle(self) -> None:
        """Wait until the backlog is judged and the outbox is delivered."""
        until_s = self.loop.time() + HEALING_S_MAX
        while not all(self._is_at_rest(each) for each in self.backends):
            await asyncio.sleep(1.0)
            if self.loop.time() > until_s:
                self.model.violate("not settled: a backlog is left")
                return
        for attempt in range(3):
            await self.agent.redrive()
            if await self.agent.flush() and not self._undelivered():
                return
            await asyncio.sleep(1.0 + attempt)
        self.model.violate("not settled: undelivered", *self._undelivered())

    def _undelivered(self) -> list[str]:
        promises = self.boxes.of(self.agent.machine)
        return [each[:8] for each, promise in promises.items() if promise.state is not State.ACKED]

    def _is_at_rest(self, operator: BackendOperator) -> bool:
        service = operator.service
        if service is None or not operator.machine.process.alive or service.not_ready() is not None:
            return False
        engine = service._engine
        left = sum(each.open_requests - each.unreadable_requests for each in engine.inboxes)
        return engine.store_is_up and left == sum(each.too_old for each in engine.settlers)

    async def _check_all(self) -> None:
        """Ask for what was promised."""
        for sample in self.client.sent:
            await self.client.process.spawn(self.client.resend(sample), "resend")
        for keeper in self.keepers:
            await keeper.process.spawn(keeper.look(acknowledge=False), "look")
        for operator in self.backends:
            operator.check_counters()

    async def _rest(self, operating: list[asyncio.Task[None]]) -> None:
        """Stop everything in good order, then cut the power everywhere."""
        for operator in self.backends:
            operator.over = True
            operator.stop()
        await asyncio.gather(*operating)
        for operator in self.operators:
            operator.machine.cut_power()

    async def _check_after_the_last_cut(self) -> None:
        operating = []
        for operator in self.backends:
            operator.over = False
            operating.append(asyncio.create_task(operator.operate()))
        await self._settle()
        await self._check_all()
        for operator in self.backends:
            operator.over = True
            operator.stop()
        await asyncio.gather(*operating)

    def _bury(self) -> None:
        """End every process and task, so that nothing is left for the next run."""
        for operator in self.operators:
            operator.machine.kill()
        for process in (self.client.process, *(each.process for each in self.keepers)):
            process.end(killed=True)
        with contextlib.suppress(StuckError):
            for _ in range(100):
                left = asyncio.all_tasks(self.loop)
                if not left:
                    break
                for task in left:
                    task.cancel()
                self.loop.run_until_complete(asyncio.wait(left, timeout=30.0))
        self.loop.close()

    def _machine(self, name: str) -> Machine:
        return Machine(name, self.loop, self.dice, self.trace)

    def _connect_checker(self) -> None:
        def stored(outcome: Outcome) -> None:
            self.model.note_outcome(machine_here(), outcome)

        if self.store is not None:
            self.store.stored = stored
            return

        def kept(machine: Machine, outcome: Outcome, returned: bool) -> None:
            self.model.note_outcome(machine, outcome)
            if returned and (operator := self.backend_of(machine)):
                operator.stored += 1

        self.logs.stored = kept

    def _on_task(self, task: asyncio.Task[Any], context: Any) -> None:
        process: Process | None = context.get(current_process)
        if process is not None:
            process.adopt(task)

    def _on_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        del loop
        error = context.get("exception")
        process = current_process.get()
        if not isinstance(error, Gone) and (process is None or process.alive):
            self.model.violate("an error that nobody owns:", context.get("message"), repr(error))

    @contextlib.contextmanager
    def _surroundings(self) -> Iterator[None]:
        """Stand for what the shipped code finds around it: bounds, sockets, dates, a quiet log."""
        patches: list[AbstractContextManager[Any]] = [
            bounded(self.scenario),
            observing(self.model, self.logs, self.boxes, self.trace),
            mock.patch("pcs_backend.app.raise_file_limit", lambda wanted: wanted),
            mock.patch(
                "pcs_backend.app.bound_unix", lambda path: contextlib.nullcontext(Address(path, family=1))
            ),
            mock.patch("aiohttp.web_response.rfc822_formatted_time", _date),
            mock.patch.object(aiohttp, "TCPConnector", _connector),
        ]
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        collecting = gc.isenabled()
        gc.disable()  # a finaliser that runs at another moment in each run would make another history
        try:
            with contextlib.ExitStack() as stack:
                for patch in patches:
                    stack.enter_context(patch)
                yield
        finally:
            structlog.reset_defaults()
            if collecting:
                gc.enable()


def _date() -> str:
    """The `Date` header, by the clock of the machine that answers."""
    return formatdate(machine_here().now(), usegmt=True)


def _connector(limit: int, **tls: Any) -> aiohttp.BaseConnector:
    """The shipped transport's connections, over the simulated network, which needs no TLS."""
    del tls
    return aiohttp.UnixConnector(path="backends", limit=limit)


def run_seed(
    seed: int, *, echo: bool = False, changed: Callable[[World], AbstractContextManager[Any]] | None = None
) -> Result:
    """Run one seed.

    Args:
        seed: The seed.
        echo: Whether to print every event.
        changed: What is put in place of something shipped while the seed runs.
    """
    world = World(seed, echo=echo)
    with contextlib.nullcontext() if changed is None else changed(world):
        return world.run()
