"""The courier: takes pending records from the outbox to the backend, again and again, until each is settled.

A record is settled when the backend has it (acknowledged), when it never will (dead letter), or stays pending when
delivery pauses. The rules:

- Up to `FLIGHTS_MAX` requests at once, oldest record first; a record that waits for its next attempt holds no place.
- What waits together goes together: a request holds all that is due, up to what the sender and `BATCH_BYTES_MAX` allow.
  Each record has its own answer, and the rules below hold for each.
- Retries wait by `next_delay`; a `Retry-After` holds all sending for as long, because it speaks of the backend.
- A record whose next attempt would come later than the deadline after its first one becomes a dead letter.
- Three requests refused (401, or a status of a wrong endpoint) with no record taken in between pause delivery: key or endpoint are
  wrong, and the records are not. While paused, each newly added record is tried once; if it is taken, all go on.
- A record that was refused three times while others were taken meanwhile becomes a dead letter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from pcs_agent.deliver.agenda import Agenda, Due
from pcs_agent.deliver.batch import BATCH_BYTES_MAX
from pcs_agent.deliver.dispatch import Outgoing
from pcs_agent.deliver.policy import (
    REFUSALS_MAX,
    WARNING_INTERVAL_S,
    Again,
    Decision,
    Refused,
    Rejected,
    Taken,
    advise,
    next_delay,
)
from pcs_agent.deliver.sender import Sender
from pcs_agent.outbox import Outbox, Verdict
from pcs_core.errors import MalformedError, WalError, WalFailedError
from pcs_core.identity import PcsId
from pcs_core.ports import MonotonicClock, Offload, Sleep
from pcs_core.record import Record, decode_record

FLIGHTS_MAX = 8
"""Requests at once."""

_Cargo = tuple[int, Record]
_Dead = tuple[int, Record | None, str]

_log = structlog.get_logger("pcs_agent.deliver")


class Settlement(NamedTuple):
    """What became of one record.

    Attributes:
        seq: Its `outbox_seq`.
        pcs_id: Its identity.
        record: The record as appended; `None` if its bytes are damaged.
        verdict: Accepted, escalated or dead.
        attempts: Attempts of this process.
        reason: Why it is dead; the backend's reason codes, comma-separated, where it escalated.
        conflict: Whether the backend holds another record under this pcs_id.
    """

    seq: int
    pcs_id: PcsId
    record: Record | None
    verdict: Verdict
    attempts: int
    reason: str = ""
    conflict: bool = False


@dataclass(slots=True)
class _Progress:
    """What this process knows of a record on its way."""

    attempts: int = 0
    first_s: float = 0.0
    refusals: int = 0
    taken_before: int = 0
    failure: str = ""


class Courier:
    """Delivers what is added until it is told that no more comes, and everything is settled or paused.

    Attributes:
        paused: Why delivery pauses, `None` while it does not.
        advice: What to look at then.
    """

    def __init__(
        self,
        outbox: Outbox,
        sender: Sender,
        *,
        offload: Offload,
        monotonic: MonotonicClock,
        sleep: Sleep,
        random: Callable[[], float],
        deadline_s: float,
        settled: Callable[[Settlement], None],
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Take the collaborators.

        Args:
            outbox: Where records are read and settled.
            sender: Sends records once.
            offload: Runs what blocks.
            monotonic: For waits and the deadline.
            sleep: Waits.
            random: Uniform in [0, 1).
            deadline_s: From a record's first attempt in this process.
            settled: Told of every settlement, after it is on disk.
            warn: Told what the user should know.
        """
        self._outbox = outbox
        self._sender = sender
        self._offload = offload
        self._monotonic = monotonic
        self._sleep = sleep
        self._random = random
        self._deadline_s = deadline_s
        self._settled = settled
        self._warn = warn
        self._agenda = Agenda(monotonic)
        self._known: set[int] = set()
        self._progress: dict[int, _Progress] = {}
        self._warned_s = float("-inf")
        self._refusals = 0
        self._taken = 0
        self._complete = False
        self._changed = asyncio.Event()
        self.advice = ""

    @property
    def paused(self) -> str | None:
        """Why delivery pauses, `None` while it does not."""
        return self._agenda.paused

    def add(self, seq: int) -> None:
        """Deliver this pending record; one that is on its way already is not added twice."""
        if seq in self._known:
            return
        self._known.add(seq)
        self._agenda.add(seq)
        self._changed.set()

    def is_delivering(self, seq: int) -> bool:
        """Whether this record was added and its settlement was not told yet."""
        return seq in self._known

    def finish(self) -> None:
        """Tell that nothing more will be added."""
        self._complete = True
        self._changed.set()

    def stop(self) -> None:
        """Begin no more attempts; what is not settled stays pending."""
        self._agenda.stop()
        self.finish()

    def attempts(self, seq: int) -> int:
        """Return how often this process has tried a record that is not settled."""
        return self._progress[seq].attempts if seq in self._progress else 0

    def why_pending(self, seq: int) -> str:
        """Return why a record that is not settled is not, for people."""
        if self.paused is not None:
            return f"delivery paused: {self.paused}"
        if seq not in self._progress:
            return "not sent yet"
        return f"last attempt: {self._progress[seq].failure or 'no answer yet'}"

    async def run(self) -> None:
        """Deliver until told to finish and nothing is left to try.

        Raises:
            WalFailedError: The outbox cannot be written.
        """
        flights: set[asyncio.Task[None]] = set()
        try:
            while True:
                self._launch(flights)
                if self._complete and not flights and self._agenda.is_empty:
                    return
                await self._wait(flights)
        finally:
            for flight in flights:
                flight.cancel()
            await asyncio.gather(*flights, return_exceptions=True)

    def _launch(self, flights: set[asyncio.Task[None]]) -> None:
        while len(flights) < self._flights_max() and (
            due := self._agenda.take(self._sender.records(), in_flight=bool(flights))
        ):
            flights.add(asyncio.create_task(self._fly(due), name=f"deliver {due[0][1]}"))

    def _flights_max(self) -> int:
        """How many requests may be on their way: one while it is not known whether batches are taken, so that one tells."""
        return FLIGHTS_MAX if self._sender.knows_batches else 1

    async def _wait(self, flights: set[asyncio.Task[None]]) -> None:
        """Wait until an attempt ends, something changes or the next attempt is due."""
        self._changed.clear()
        wakers: set[asyncio.Task[object]] = {
            asyncio.create_task(self._changed.wait(), name="courier changed")
        }
        delay_s = self._agenda.wait_s()
        if delay_s is not None and len(flights) < self._flights_max():
            wakers.add(asyncio.create_task(self._pause_for(delay_s), name="courier due"))
        try:
            done, _ = await asyncio.wait({*flights, *wakers}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waker in wakers:
                waker.cancel()
            await asyncio.gather(*wakers, return_exceptions=True)
        for flight in flights & done:
            flights.discard(flight)
            flight.result()

    async def _pause_for(self, delay_s: float) -> object:
        return await self._sleep(delay_s)

    async def _fly(self, due: Sequence[Due]) -> None:
        """Take records to the backend once, in one request, and do with each what its answer says."""
        cargo, damaged, left = await self._offload.run(lambda: self._load(due))
        self._agenda.put(left)
        self._changed.set()  # so that what is left does not wait for this answer
        await self._bury([(seq, None, "damaged in the outbox") for seq in damaged])
        if not cargo:
            return
        now_s = self._monotonic()
        for seq, _ in cargo:
            progress = self._progress.setdefault(seq, _Progress(first_s=now_s))
            progress.attempts += 1
            progress.failure = ""
        decisions = await self._sender.send(
            [Outgoing(record, self._progress[seq].attempts) for seq, record in cargo]
        )
        await self._settle(
            [(seq, record, decision) for (seq, record), decision in zip(cargo, decisions, strict=True)]
        )

    def _load(self, due: Sequence[Due]) -> tuple[list[_Cargo], list[int], Sequence[Due]]:
        """Read what goes into one request, up to `BATCH_BYTES_MAX`; returns it, what is damaged, and what is left over."""
        cargo: list[_Cargo] = []
        damaged: list[int] = []
        size_bytes = 0
        for index, (_, seq) in enumerate(due):
            try:
                data = self._outbox.read(seq)
                size_bytes += len(data)
                if cargo and size_bytes > BATCH_BYTES_MAX:
                    return cargo, damaged, due[index:]
                cargo.append((seq, decode_record(data)))
            except WalFailedError:
                raise
            except (WalError, MalformedError):
                damaged.append(seq)
        return cargo, damaged, ()

    async def _settle(self, answered: Sequence[tuple[int, Record, Decision]]) -> None:
        taken_before, random = self._taken, self._random()
        taken = [(seq, record, each) for seq, record, each in answered if isinstance(each, Taken)]
        await self._acknowledge(taken)
        dead: list[_Dead] = []
        again: list[tuple[int, Record, Again]] = []
        refused: list[tuple[int, Record, int]] = []
        for seq, record, decision in answered:
            match decision:
                case Rejected(reason):
                    dead.append((seq, record, reason))
                case Refused(status):
                    refused.append((seq, record, status))
                case Again():
                    again.append((seq, record, decision))
        dead += self._retry(again, random)
        dead += self._note_refusals(refused, taken_before, random, alone=not taken)
        await self._bury(dead)

    async def _acknowledge(self, taken: Sequence[tuple[int, Record, Taken]]) -> None:
        """Note on disk, with one sync, that the backend has these records; then tell it."""
        if not taken:
            return
        await self._offload.run(lambda: self._outbox.ack([(seq, each.verdict) for seq, _, each in taken]))
        self._taken += len(taken)
        self._refusals = 0
        if self.paused is not None:
            self._agenda.resume()
            _log.warning("resumed", pending=len(self._known))
        for seq, record, (verdict, reasons, conflict) in taken:
            if conflict:
                _log.warning("conflict", pcs_id=record.pcs_id)
            progress = self._forget(seq)
            _log.info("delivered", pcs_id=record.pcs_id, verdict=str(verdict), attempts=progress.attempts)
            self._settled(
                Settlement(seq, record.pcs_id, record, verdict, progress.attempts, reasons, conflict)
            )

    async def _bury(self, dead: Sequence[_Dead]) -> None:
        """Make dead letters of these records, with one sync; then tell it."""
        if not dead:
            return
        # Now: once one is dead, a new one may take its place at any time.
        pcs_ids = [self._outbox.entry(seq).pcs_id for seq, _, _ in dead]
        await self._offload.run(lambda: self._outbox.bury([(seq, reason) for seq, _, reason in dead]))
        for (seq, record, reason), pcs_id in zip(dead, pcs_ids, strict=True):
            progress = self._forget(seq)
            _log.error("dead_letter", pcs_id=pcs_id, reason=reason, attempts=progress.attempts)
            self._settled(Settlement(seq, pcs_id, record, Verdict.DEAD, progress.attempts, reason))

    def _retry(self, again: Sequence[tuple[int, Record, Again]], random: float) -> list[_Dead]:
        """Queue the next attempts; returns what is past its deadline. One draw for all, so that a batch stays one."""
        dead: list[_Dead] = []
        now_s = self._monotonic()
        for seq, record, (why, retry_after_s, at_once) in again:
            progress = self._progress[seq]
            progress.failure = why
            delay_s = 0.0 if at_once else next_delay(progress.attempts, random)
            if retry_after_s is not None:
                delay_s = max(delay_s, retry_after_s)
                self._agenda.hold_until(now_s + retry_after_s)
            if now_s + delay_s > progress.first_s + self._deadline_s:
                dead.append((seq, record, f"deadline of {self._deadline_s:g} s passed; last: {why}"))
                continue
            _log.info(
                "retry",
                pcs_id=record.pcs_id,
                why=why,
                attempt=progress.attempts,
                delay_s=round(delay_s, 3),
            )
            if not at_once:
                self._tell_failure(now_s, why)
            self._agenda.put([(now_s + delay_s, seq)])
        return dead

    def _note_refusals(
        self, refused: Sequence[tuple[int, Record, int]], taken_before: int, random: float, *, alone: bool
    ) -> list[_Dead]:
        """Count an answer's refusals, queue the next attempts; returns what was refused too often while others were taken.

        Args:
            refused: Number, record and status of each.
            taken_before: How many records had been taken before this answer.
            random: Uniform in [0, 1).
            alone: Whether the answer took no record: then it is one more refusal in a row, whatever it holds.
        """
        dead: list[_Dead] = []
        left: list[tuple[int, Record, int]] = []
        if refused and alone:
            self._refusals += 1
        for seq, record, status in refused:
            progress = self._progress[seq]
            progress.refusals += 1
            progress.failure = f"status {status}"
            if progress.refusals == 1:
                progress.taken_before = taken_before
            if progress.refusals >= REFUSALS_MAX and self._taken > progress.taken_before:
                why = f"refused {progress.refusals} times while others were taken: status {status}"
                dead.append((seq, record, why))
            else:
                left.append((seq, record, status))
        if left and self._refusals >= REFUSALS_MAX and self.paused is None:
            self._pause(left[0][2])
        for seq, record, status in left:
            progress = self._progress[seq]
            _log.warning("refused", pcs_id=record.pcs_id, status=status, attempt=progress.attempts)
            self._agenda.put([(self._monotonic() + next_delay(progress.attempts, random), seq)])
        return dead

    def _tell_failure(self, now_s: float, what: str) -> None:
        if now_s - self._warned_s < WARNING_INTERVAL_S:
            return
        self._warned_s = now_s
        self._warn(
            f"not delivered: {what}. Each record is tried again for up to {self._deadline_s:g} s and stays in the "
            f"outbox; now waiting: {len(self._known)}"
        )

    def _forget(self, seq: int) -> _Progress:
        self._known.discard(seq)
        return self._progress.pop(seq, _Progress())

    def _pause(self, status: int) -> None:
        self.advice = advise(status)
        self._agenda.pause(f"status {status}, {self._refusals} times in a row")
        _log.error("paused", status=status, refusals=self._refusals, pending=len(self._known))
