"""The agent's side: an operator who runs the shipped stages over streams, again after each crash, until they are through.

The stages are wired as `pcs_agent.app` wires them, over the ports of the simulation; the transport is the shipped one.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import numpy as np

from pcs_agent.deliver import BatchSize, Courier, Dispatcher, Sender
from pcs_agent.deliver.courier import FLIGHTS_MAX
from pcs_agent.deliver.transport import open_transport
from pcs_agent.errors import InputError
from pcs_agent.events import Window
from pcs_agent.outbox import Outbox, State, Verdict
from pcs_agent.pipeline import Job, Outcome, Run, iter_summaries, or_empty
from pcs_agent.signals import SignalSettings
from pcs_core.identity import EPOCH_MAX, ShardId
from pcs_core.params import Params
from pcs_core.signing import HmacKey
from simulation.machine import Machine, Process, SimulatedOffload
from simulation.model import Model
from simulation.records import KEY
from simulation.scenario import DAY_S, Scenario

OUTBOX_DIR = "/simulated/outbox"
SUBMIT_URL = "http://backends/v1/pcs/submit"
SETTINGS = SignalSettings(directions=3, bins=5)
THREADS = 4


class AgentOperator:
    """Runs the agent: streams one after the other, and now and then what a person does with an outbox.

    Attributes:
        machine: Where it runs.
        pause_s: How long it stays down after its next end.
    """

    def __init__(
        self, machine: Machine, scenario: Scenario, model: Model, dice: random.Random, awake: asyncio.Event
    ) -> None:
        self.machine = machine
        self._awake = awake
        self._scenario = scenario
        self._model = model
        self._dice = dice
        self._streams = 0
        self._stop = asyncio.Event()
        self.pause_s = 0.0
        self.over = False

    async def operate(self) -> None:
        """Run streams until `over`."""
        while not self.over:
            self._streams += 1
            await self._run_until_through(self._draw_stream(self._streams))
            await self._pause(self._dice.expovariate(0.3))
            if self._dice.random() < 0.3:
                await self.run_to_end(self._tidy)

    async def _run_until_through(self, stream: Callable[[], tuple[Iterator[Window], Job]]) -> None:
        """Run the same command again after each crash, as an operator would; some give up."""
        for _ in range(4):
            if self.over or await self.run_to_end(lambda process: self._deliver(process, *stream())):
                return
            await self._pause(self._dice.uniform(0.1, 5.0))

    async def _pause(self, seconds: float) -> None:
        pause_s, self.pause_s = self.pause_s or seconds, 0.0
        await asyncio.sleep(pause_s)
        await self._awake.wait()

    def stop(self) -> None:
        """SIGTERM."""
        self.machine.trace.note("stop", self.machine.name)
        self._stop.set()

    async def flush(self) -> bool:
        """Deliver what is pending, as `pcs-agent outbox flush` does. Returns whether it ended by itself."""
        return await self.run_to_end(lambda process: self._deliver(process, None, None))

    async def redrive(self) -> bool:
        """Make dead letters pending again."""
        return await self.run_to_end(self._redrive)

    async def run_to_end(self, work: Callable[[Process], Coroutine[Any, Any, None]]) -> bool:
        """Run one process; returns whether it ended by itself and in good order."""
        process = self.machine.start("agent")
        self._stop = asyncio.Event()
        main = process.spawn(work(process), "agent")
        main.add_done_callback(lambda task: process.end())
        await process.ended.wait()
        if process.killed:
            return False
        error = None if main.cancelled() else main.exception()
        self.machine.trace.note("ended", self.machine.name, "" if error is None else type(error).__name__)
        if isinstance(error, InputError):
            return True
        if error is not None and not process.had_trouble:
            self._model.violate("the agent ended by itself:", type(error).__name__, error)
        return error is None

    def _draw_stream(self, number: int) -> Callable[[], tuple[Iterator[Window], Job]]:
        """Return what makes the same stream each time it is called."""
        kind = self._dice.random()
        windows = self._dice.randint(1, 5)
        seed = self._dice.getrandbits(32)
        key = HmacKey(KEY)

        def stream() -> tuple[Iterator[Window], Job]:
            job = Job(
                shard_id=ShardId(f"shard-{number}"),
                first_epoch=EPOCH_MAX - 1 if kind < 0.04 else 7 * number,
                settings=SETTINGS,
                params=Params(),
                signer=key,
                allow_missing=kind < 0.15,
                inputs=("first.csv", "second.csv")[: int(20 * kind) % 3],
                missing=1 if 0.1 < kind < 0.15 else 0,
            )
            breaks_at = 1 if 0.15 < kind < 0.2 else windows
            empty = 0.05 < kind < 0.25
            return or_empty(_windows(0 if empty else windows, seed, breaks_at), job), job

        return stream

    def _open_outbox(self, process: Process) -> Outbox:
        outbox = Outbox(
            OUTBOX_DIR,
            process.files,
            clock=self.machine.now,
            random_bytes=process.random_bytes,
            retention_days=self._scenario.outbox_retention_s / DAY_S,
            segment_bytes=self._scenario.segment_bytes // 2,
        )
        outbox.open()
        return outbox

    async def _deliver(self, process: Process, windows: Iterator[Window] | None, job: Job | None) -> None:
        outcomes: list[Outcome] = []
        machine, began_s = self.machine, self.machine.loop.time()
        summaries = None if windows is None or job is None else iter_summaries(windows, job, self.machine.now)
        outbox = self._open_outbox(process)
        try:
            offload = SimulatedOffload(process, threads=THREADS)
            run = Run(
                outbox,
                offload=offload,
                report=outcomes.append,
                warn=lambda text: None,
            )
            async with open_transport(SUBMIT_URL, connections_max=FLIGHTS_MAX) as transport:
                courier = Courier(
                    outbox,
                    Sender(
                        Dispatcher(transport, self.machine.now),
                        BatchSize(self._scenario.agent_batch_records, self.machine.loop.time),
                    ),
                    offload=offload,
                    monotonic=self.machine.loop.time,
                    sleep=process.sleep,
                    random=self._dice.random,
                    deadline_s=self._scenario.deadline_s,
                    settled=run.note_settlement,
                )
                await run.deliver(courier, summaries, self._stop)
        finally:
            outbox.close()
        if machine.jumped_s >= began_s or machine.loop.time() - began_s >= self._scenario.outbox_retention_s:
            return  # a window built again after the retention is delivered again
        # A dead letter whose window is built again in the same run is another record of that id.
        reports = Counter(each.pcs_id for each in outcomes if each.verdict is not Verdict.DEAD)
        for pcs_id, count in reports.items():
            if count > 1:
                self._model.violate("doubled: reported", count, "times in one run:", pcs_id[:8])

    async def _tidy(self, process: Process) -> None:
        outbox = self._open_outbox(process)
        try:
            await process.sleep(0)
            outbox.compact(seal=self._dice.random() < 0.7)
        finally:
            outbox.close()
        await self._redrive(process)

    async def _redrive(self, process: Process) -> None:
        outbox = self._open_outbox(process)
        try:
            outbox.redrive([entry.seq for entry in outbox.entries(State.DEAD)])
        finally:
            outbox.close()


def _windows(count: int, seed: int, breaks_at: int) -> Iterator[Window]:
    """Yield the windows of a stream: some lie on a line, some have one event."""
    for number in range(count):
        if number == breaks_at:
            raise InputError("simulated: row 3 cannot be read")
        generator = np.random.Generator(np.random.PCG64([seed, number]))
        rows = int(generator.integers(1, 9))
        events = generator.random((rows, 2))
        if generator.random() < 0.5:
            events[:, 1] = 2 * events[:, 0]
        yield Window(number, events)
