"""What was promised, and whether it is kept: the checker.

It learns only what the product says to others — a call that returned, an answer that left, a frame that was shown when a log
was opened — and holds the product to it. It shares no state with the product and reads no disk.

Promises, and where they are checked:

===========================================================  =============================================================
a frame that a commit returned or an opening showed          every later opening shows it, with its bytes, until its segment
                                                             is removed
a sequence number                                            rises, for ever: no commit gets one that was used
a segment with a request                                     is removed only when the request has its outcome or refusal
a first outcome                                              is one within its lifetime, over all processes
an answered record                                           gets the same bytes again; as the first answer at most once
a refused request                                            gets no outcome without being sent again
a request older than the lifetime                            gets no outcome by itself
an escalated record                                          stands in the queue once, until acknowledged or expired
counters                                                     have grown by one for each first outcome the process stored
a record in the outbox                                       is pending, delivered as the backend said, or dead with a reason
===========================================================  =============================================================

Damage at rest takes promises back: what stood in the damaged bytes is excused, and must be reported.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from pcs_backend.batch import BATCH_PATH
from pcs_backend.dedup.store import Escalation
from pcs_backend.exchange import Reply, Request
from pcs_backend.outcome import Outcome
from simulation.machine import Machine
from simulation.trace import Trace

CLOCK_SLACK_S = 60.0
"""A clock that jumped this recently may have been read before and after."""

QUEUE_SLACK_S = 30.0
"""An outcome younger than this may not be in a listing yet."""

_PCS_ID = re.compile(rb'"pcs_id": ?"([0-9a-f]{64})"')


def pcs_ids_of(body: bytes) -> list[str]:
    """Return the pcs_ids that the records of a body claim; an empty one if it claims none."""
    return [found.decode() for found in _PCS_ID.findall(body)] or [""]


@dataclass
class Generation:
    """A first outcome of a record; a record has another one after its lifetime."""

    outcome: Outcome
    since_s: float
    excused: bool = False
    answered_as_first: bool = False


@dataclass
class Delivery:
    """A record that a backend took in."""

    pcs_id: str
    received_ms: int
    refused: bool = False


@dataclass
class Known:
    """What is known of one record."""

    generations: list[Generation] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    acked_s: float | None = None
    perhaps_acked: bool = False
    may_be_judged_again: bool = False


class Model:
    """What backends promised about records.

    Attributes:
        violations: Promises that were broken, one line each.
        is_broken: Set by the first of them.
        acknowledged: Answers 200 and 202 that left, to each record.
        batches: Requests that held several records.
        ttl_ms: Lifetime of an outcome.
    """

    def __init__(self, trace: Trace, backends: Sequence[Machine], ttl_s: float) -> None:
        self._trace = trace
        self._backends = backends
        self._latest_ms = 0.0
        self.ttl_ms = ttl_s * 1_000
        self.records: defaultdict[str, Known] = defaultdict(Known)
        self.violations: list[str] = []
        self.is_broken = asyncio.Event()
        self.acknowledged = self.batches = 0

    def violate(self, what: str, *more: object) -> None:
        """Note a broken promise."""
        text = " ".join([what, *map(str, more)])
        self.violations.append(text)
        self.is_broken.set()
        self._trace.note("VIOLATION", text)

    def latest_ms(self) -> float:
        """The latest time any backend's clock has ever shown; call it before and after a clock is moved."""
        self._latest_ms = max(self._latest_ms, *(each.now() * 1_000 for each in self._backends))
        return self._latest_ms

    def note_outcome(self, machine: Machine, outcome: Outcome) -> None:
        """An outcome was stored as the first."""
        known = self.records[outcome.pcs_id]
        now_s = machine.loop.time()
        self._trace.note("first", machine.name, outcome.pcs_id[:8], outcome.status)
        if known.generations:
            last = known.generations[-1]
            if not last.excused and last.outcome.expires_at_ms > self.latest_ms():
                self.violate("doubled: a second first outcome of", outcome.pcs_id[:8], "on", machine.name)
        if now_s - machine.jumped_s > CLOCK_SLACK_S:
            oldest_ms = outcome.stored_at_ms - self.ttl_ms - CLOCK_SLACK_S * 1_000
            alive = [each for each in known.deliveries if not each.refused or known.may_be_judged_again]
            if not alive:
                self.violate(
                    "doubled: an outcome of a request that was refused, or never sent:", outcome.pcs_id[:8]
                )
            elif all(each.received_ms <= oldest_ms for each in alive):
                self.violate("doubled: an outcome of a request past the lifetime:", outcome.pcs_id[:8])
        known.generations.append(Generation(outcome, now_s))
        known.acked_s = None  # but an acknowledgement on its way may still reach the new entry

    def note_delivery(self, request: Request) -> list[Delivery]:
        """A request reached a pipeline. Returns a delivery for each record of it, in order."""
        is_batch = request.envelope.path == BATCH_PATH
        bodies = request.body.splitlines() if is_batch else [request.body]
        deliveries = [Delivery(pcs_ids_of(body)[0], request.envelope.received_at_ms) for body in bodies]
        for delivery in deliveries:
            self.records[delivery.pcs_id].deliveries.append(delivery)
        self.batches += is_batch
        return deliveries

    def note_reply(self, delivery: Delivery, reply: Reply, asked_s: float) -> None:
        """An answer is about to leave. What it says must be on disk by now.

        Args:
            delivery: A record that was taken in.
            reply: The answer to it.
            asked_s: Virtual time when it was asked.
        """
        pcs_id = delivery.pcs_id
        known = self.records[pcs_id]
        if reply.status in {400, 401, 429}:
            delivery.refused = True
        if reply.status not in {200, 202}:
            return
        self.acknowledged += 1
        alive = [  # those that stood at some moment since it was asked
            each
            for each, following in zip_longest(known.generations, known.generations[1:])
            if following is None or following.since_s >= asked_s
        ]
        said = (reply.status, bytes(reply.body))
        told = [each for each in alive if (each.outcome.status, each.outcome.body) == said]
        if not told:
            self.violate("lost: an answer that is not the first outcome of", pcs_id[:8])
            return
        if "Idempotent-Replayed" not in reply.headers:
            fresh = [each for each in told if not each.answered_as_first or each.excused]
            if not fresh:
                self.violate("doubled: answered twice as the first:", pcs_id[:8])
                return
            fresh[0].answered_as_first = True

    def check_resent(self, pcs_id: str, status: int, body: bytes) -> None:
        """A record that has an unexpired outcome was sent again to a healthy service."""
        generation = self.standing(pcs_id)
        if generation is None:
            return
        if (status, body) != (generation.outcome.status, generation.outcome.body):
            self.violate("lost: sent again, an acknowledged record is answered", status, pcs_id[:8])

    def standing(self, pcs_id: str) -> Generation | None:
        """The outcome a record must be answered with, if there is one."""
        known = self.records.get(pcs_id)
        if known is None or not known.generations:
            return None
        last = known.generations[-1]
        return None if last.excused or last.outcome.expires_at_ms <= self.latest_ms() else last

    def check_queue(self, listing: Sequence[Escalation], asked_s: float, now_s: float) -> None:
        """The escalation queue was listed: asked for and answered at these virtual times."""
        listed = [each.pcs_id for each in listing]
        for pcs_id in {each: None for each in listed if listed.count(each) > 1}:
            self.violate("doubled: stands twice in the queue:", pcs_id[:8])
        for pcs_id in listed:
            known = self.records[pcs_id]
            escalated = [each for each in known.generations if each.outcome.status == 202]
            if not escalated:
                self.violate("doubled: in the queue without having been escalated:", pcs_id[:8])
            elif known.acked_s is not None and known.acked_s < asked_s and not known.perhaps_acked:
                self.violate("doubled: back in the queue after it was acknowledged:", pcs_id[:8])
        for pcs_id, known in self.records.items():
            generation = self.standing(pcs_id)
            if (
                generation is not None
                and generation.outcome.status == 202
                and known.acked_s is None
                and not known.perhaps_acked
                and now_s - generation.since_s > QUEUE_SLACK_S
                and pcs_id not in listed
            ):
                self.violate("lost: an escalated record is not in the queue:", pcs_id[:8])

    def note_ack(self, pcs_ids: Iterable[str], now_s: float, done: Sequence[bool] | None) -> None:
        """Entries were taken off the queue; `None` while that is not known."""
        for index, pcs_id in enumerate(pcs_ids):
            known = self.records[pcs_id]
            if done is None:
                known.perhaps_acked = True
            elif done[index]:
                known.acked_s, known.perhaps_acked = now_s, False

    def excuse(self, pcs_ids: Iterable[str]) -> None:
        """Take back what was promised about the outcomes of records, whose bytes were damaged or forgotten."""
        for pcs_id in pcs_ids:
            known = self.records[pcs_id]
            known.perhaps_acked = known.may_be_judged_again = True
            for generation in known.generations:
                generation.excused = True

    def check_counters(self, name: str, counted: float, stored: int, *, exact: bool) -> None:
        """A process is over, or at rest: its counters against the first outcomes it knew it had stored."""
        if counted > stored or (exact and counted != stored):
            self.violate("doubled: counted", counted, "first outcomes, stored", stored, "on", name)

    def summary(self) -> Mapping[str, int]:
        """Figures of the run."""
        firsts = sum(len(each.generations) for each in self.records.values())
        return {"acknowledged": self.acknowledged, "batches": self.batches, "first outcomes": firsts}
