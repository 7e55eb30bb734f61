"""Clients without an outbox, and the person at the escalation queue."""

from __future__ import annotations

import asyncio
import json
import random

import msgspec

from pcs_backend.dedup.store import Escalation
from pcs_backend.http.admin import ACKS_PATH, ESCALATIONS_PATH, SOCKET_NAME, Acks
from simulation.backend import DATA_DIR
from simulation.http import NoAnswerError, ask
from simulation.machine import Machine, Process
from simulation.model import Model
from simulation.records import Sample, pool

SUBMIT_PATH, BATCH_PATH = "/v1/pcs/submit", "/v1/pcs/batch"
TENANT = "default"
SENDING_RATE = 0.4
"""Bursts a second of one client."""

BATCHES_SHARE = 0.2
"""Share of them that go as one request."""

ALWAYS_POSSIBLE = frozenset({408, 429, 503})


class _Listing(msgspec.Struct):
    escalations: list[Escalation] = []


class Client:
    """Sends records, often the same ones, often several times at once."""

    def __init__(self, machine: Machine, model: Model, dice: random.Random, awake: asyncio.Event) -> None:
        self._awake = awake
        self.process: Process = machine.start("client")
        self._model = model
        self._dice = dice
        self._attempts = 0
        self.sent: list[Sample] = []

    async def send_for_ever(self) -> None:
        """Send one record, or one record many times, after the other."""
        samples = list(pool())
        self._dice.shuffle(samples)
        while True:
            await asyncio.sleep(self._dice.expovariate(SENDING_RATE))
            await self._awake.wait()
            if samples and (not self.sent or self._dice.random() < 0.5):
                self.sent.append(samples.pop())
            if self._dice.random() < BATCHES_SHARE:
                await self.send_batch([self._draw_sent() for _ in range(self._dice.choice([1, 3, 9]))])
                continue
            sample = self._draw_sent()
            copies = self._dice.choice([1, 1, 1, 1, 2, 4])
            await asyncio.gather(*[self.send(sample) for _ in range(copies)])

    def _draw_sent(self) -> Sample:
        return self.sent[-1 - int(self._dice.expovariate(0.4)) % len(self.sent)]

    async def send_batch(self, samples: list[Sample]) -> None:
        """Send records once, in one request; some perhaps several times."""
        self._attempts += 1
        body = b"\n".join(each.attempt(self._attempts) for each in samples)
        try:
            response = await ask("backends", "POST", BATCH_PATH, body, "application/x-ndjson")
        except NoAnswerError:
            return
        if response.status != 200:
            if response.status not in ALWAYS_POSSIBLE:
                self._model.violate("a wrong answer to a batch:", response.status)
            return
        entries = [json.loads(line) for line in response.body.splitlines()]
        for sample, entry in zip(samples, entries, strict=True):
            if entry["status"] not in sample.statuses | ALWAYS_POSSIBLE | {400, 401}:
                self._model.violate("a wrong answer in a batch:", entry["status"], sample.pcs_id[:8])
            elif entry["body"].get("pcs_id", sample.pcs_id) != sample.pcs_id:
                self._model.violate("another record's answer in a batch:", sample.pcs_id[:8])

    async def send(self, sample: Sample) -> int:
        """Send a record once; returns the status, 0 if no answer came."""
        self._attempts += 1
        try:
            response = await ask("backends", "POST", SUBMIT_PATH, sample.attempt(self._attempts))
        except NoAnswerError:
            return 0
        # A request that was cut short on its way is malformed, whatever it was.
        if response.status not in sample.statuses | ALWAYS_POSSIBLE | {400, 401}:
            self._model.violate("a wrong answer:", response.status, sample.pcs_id[:8])
        return response.status

    async def resend(self, sample: Sample) -> None:
        """Send a record to a healthy service, which must answer as it did first."""
        self._attempts += 1
        try:
            response = await ask("backends", "POST", SUBMIT_PATH, sample.attempt(self._attempts))
        except NoAnswerError as error:
            self._model.violate("no answer at the end:", error, sample.pcs_id[:8])
            return
        if response.status not in sample.statuses:
            self._model.violate("a wrong answer at the end:", response.status, sample.pcs_id[:8])
        if response.status in {200, 202}:
            self._model.check_resent(sample.pcs_id, response.status, response.body)


class QueueKeeper:
    """Lists the queue and acknowledges some of it."""

    def __init__(
        self, backend: Machine, process: Process, model: Model, dice: random.Random, awake: asyncio.Event
    ) -> None:
        self._awake = awake
        self.process = process
        self._socket = f"{backend.name}{DATA_DIR}/{SOCKET_NAME}"
        self._model = model
        self._dice = dice

    async def keep(self) -> None:
        """List and acknowledge, for ever."""
        while True:
            await asyncio.sleep(self._dice.expovariate(0.05))
            await self._awake.wait()
            try:
                await self.look(acknowledge=self._dice.random() < 0.4)
            except NoAnswerError:
                continue

    async def look(self, *, acknowledge: bool) -> int:
        """List the queue, and perhaps take an entry off it. Returns how many there were."""
        clock = asyncio.get_running_loop().time
        asked_s = clock()
        response = await ask(self._socket, "GET", f"{ESCALATIONS_PATH}?tenant={TENANT}&limit=1000")
        if response.status != 200:
            raise NoAnswerError(str(response.status))
        listing = msgspec.json.decode(response.body, type=_Listing).escalations
        self._model.check_queue(listing, asked_s, clock())
        if listing and acknowledge:
            await self._acknowledge([self._dice.choice(listing).pcs_id])
        return len(listing)

    async def _acknowledge(self, pcs_ids: list[str]) -> None:
        clock = asyncio.get_running_loop().time
        self._model.note_ack(pcs_ids, clock(), None)
        body = msgspec.json.encode(Acks(tenant=TENANT, pcs_ids=pcs_ids))
        response = await ask(self._socket, "POST", ACKS_PATH, body)
        if response.status == 200:
            self._model.note_ack(pcs_ids, clock(), msgspec.json.decode(response.body, type=Acks).done)
