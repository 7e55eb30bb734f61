"""The courier: takes pending records from the outbox to the backend, again and again, until each is settled.

A record is settled when the backend has it (acknowledged), when it never will (dead letter), or stays pending when
delivery pauses. The rules:

- Up to `FLIGHTS_MAX` requests at once, oldest record first; a record that waits for its next attempt holds no place.
- Retries wait by `next_delay`; a `Retry-After` holds all sending for as long, because it speaks of the backend.
- A record whose next attempt would come later than the deadline after its first one becomes a dead letter.
- Three refusals (401, or a status of a wrong endpoint) with none taken in between pause delivery: key or endpoint are
  wrong, and the records are not. While paused, each newly added record is tried once; if it is taken, all go on.
- A record that was refused three times while others were taken meanwhile becomes a dead letter.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from pcs_agent.deliver.dispatch import Dispatcher
from pcs_agent.deliver.policy import (
    REFUSALS_MAX,
    WARNING_INTERVAL_S,
    Meaning,
    advise,
    classify,
    next_delay,
    parse_retry_after,
    read_receipt,
    reasons_of,
    verdict_of,
)
from pcs_agent.deliver.transport import Answer
from pcs_agent.errors import TransportError
from pcs_agent.outbox import Outbox, Verdict
from pcs_core.errors import MalformedError, WalError, WalFailedError
from pcs_core.identity import PcsId
from pcs_core.ports import MonotonicClock, Offload, Sleep
from pcs_core.record import Record, decode_record

FLIGHTS_MAX = 8
"""Requests at once."""

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
        dispatcher: Dispatcher,
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
            dispatcher: Sends one record once.
            offload: Runs what blocks.
            monotonic: For waits and the deadline.
            sleep: Waits.
            random: Uniform in [0, 1).
            deadline_s: From a record's first attempt in this process.
            settled: Told of every settlement, after it is on disk.
            warn: Told what the user should know.
        """
        self._outbox = outbox
        self._dispatcher = dispatcher
        self._offload = offload
        self._monotonic = monotonic
        self._sleep = sleep
        self._random = random
        self._deadline_s = deadline_s
        self._settled = settled
        self._warn = warn
        self._queue: list[tuple[float, int]] = []
        self._known: set[int] = set()
        self._held: list[int] = []
        self._probe: int | None = None
        self._progress: dict[int, _Progress] = {}
        self._not_before_s = float("-inf")
        self._warned_s = float("-inf")
        self._refusals = 0
        self._taken = 0
        self._complete = False
        self._stopped = False
        self._changed = asyncio.Event()
        self.paused: str | None = None
        self.advice = ""

    def add(self, seq: int) -> None:
        """Deliver this pending record; one that is on its way already is not added twice."""
        if seq in self._known:
            return
        self._known.add(seq)
        if self.paused is None:
            heapq.heappush(self._queue, (self._monotonic(), seq))
        else:
            self._held.append(seq)
            self._probe = seq
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
        self._stopped = True
        self._held += [seq for _, seq in self._queue]
        self._queue.clear()
        self._probe = None
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
                if self._complete and not flights and not self._queue and self._probe is None:
                    return
                await self._wait(flights)
        finally:
            for flight in flights:
                flight.cancel()
            await asyncio.gather(*flights, return_exceptions=True)

    def _launch(self, flights: set[asyncio.Task[None]]) -> None:
        now_s = self._monotonic()
        if self.paused is not None:
            if self._probe is not None and not flights:
                seq, self._probe = self._probe, None
                self._held.remove(seq)
                flights.add(asyncio.create_task(self._attempt(seq), name=f"probe {seq}"))
            return
        while (
            self._queue and len(flights) < FLIGHTS_MAX and max(self._queue[0][0], self._not_before_s) <= now_s
        ):
            _, seq = heapq.heappop(self._queue)
            flights.add(asyncio.create_task(self._attempt(seq), name=f"deliver {seq}"))

    async def _wait(self, flights: set[asyncio.Task[None]]) -> None:
        """Wait until an attempt ends, something changes or the next attempt is due."""
        self._changed.clear()
        wakers: set[asyncio.Task[object]] = {
            asyncio.create_task(self._changed.wait(), name="courier changed")
        }
        if self.paused is None and self._queue and len(flights) < FLIGHTS_MAX:
            delay_s = max(self._queue[0][0], self._not_before_s) - self._monotonic()
            wakers.add(asyncio.create_task(self._pause_for(max(0.0, delay_s)), name="courier due"))
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

    async def _attempt(self, seq: int) -> None:
        try:
            record = decode_record(await self._offload.run(lambda: self._outbox.read(seq)))
        except WalFailedError:
            raise
        except (WalError, MalformedError):
            await self._bury(seq, None, "damaged in the outbox")
            return
        progress = self._progress.setdefault(seq, _Progress())
        if progress.attempts == 0:
            progress.first_s = self._monotonic()
        progress.attempts += 1
        progress.failure = ""
        try:
            answer = await self._dispatcher.send(record, progress.attempts)
        except TransportError as error:
            await self._retry(seq, record, str(error), None)
            return
        await self._settle(seq, record, answer)

    async def _settle(self, seq: int, record: Record, answer: Answer) -> None:
        meaning = classify(answer.status)
        if meaning is Meaning.TAKEN:
            receipt = read_receipt(answer, record.pcs_id)
            if receipt is None:
                await self._retry(seq, record, f"status {answer.status} without this record's receipt", None)
                return
            await self._acknowledge(
                seq, record, verdict_of(receipt), reasons_of(receipt), conflict=answer.conflict
            )
        elif meaning is Meaning.RETRY:
            wait_s = parse_retry_after(answer.retry_after, self._dispatcher.backend_time_s())
            await self._retry(seq, record, f"status {answer.status}", wait_s)
        elif meaning is Meaning.REJECTED:
            await self._bury(seq, record, f"rejected: status {answer.status}")
        elif answer.mistimed:  # says nothing of the key; by now the clock is known
            await self._retry(seq, record, f"status {answer.status}, signed by a clock that was off", None)
        else:
            await self._note_refusal(seq, record, answer.status)

    async def _acknowledge(
        self, seq: int, record: Record, verdict: Verdict, reason: str, *, conflict: bool
    ) -> None:
        await self._offload.run(lambda: self._outbox.ack(seq, verdict))
        self._taken += 1
        self._refusals = 0
        if self.paused is not None:
            self._resume()
        if conflict:
            _log.warning("conflict", pcs_id=record.pcs_id)
        progress = self._forget(seq)
        _log.info("delivered", pcs_id=record.pcs_id, verdict=str(verdict), attempts=progress.attempts)
        self._settled(Settlement(seq, record.pcs_id, record, verdict, progress.attempts, reason, conflict))

    async def _bury(self, seq: int, record: Record | None, reason: str) -> None:
        pcs_id = self._outbox.entry(
            seq
        ).pcs_id  # now: once it is dead, a new one may take its place at any time
        await self._offload.run(lambda: self._outbox.bury(seq, reason))
        progress = self._forget(seq)
        _log.error("dead_letter", pcs_id=pcs_id, reason=reason, attempts=progress.attempts)
        self._settled(Settlement(seq, pcs_id, record, Verdict.DEAD, progress.attempts, reason))

    async def _retry(self, seq: int, record: Record, what: str, retry_after_s: float | None) -> None:
        progress = self._progress[seq]
        progress.failure = what
        now_s = self._monotonic()
        delay_s = next_delay(progress.attempts, self._random())
        if retry_after_s is not None:
            delay_s = max(delay_s, retry_after_s)
            self._not_before_s = max(self._not_before_s, now_s + retry_after_s)
        if now_s + delay_s > progress.first_s + self._deadline_s:
            await self._bury(seq, record, f"deadline of {self._deadline_s:g} s passed; last: {what}")
            return
        _log.info(
            "retry", pcs_id=record.pcs_id, why=what, attempt=progress.attempts, delay_s=round(delay_s, 3)
        )
        self._tell_failure(now_s, what)
        self._push(seq, now_s + delay_s)

    def _tell_failure(self, now_s: float, what: str) -> None:
        if now_s - self._warned_s < WARNING_INTERVAL_S:
            return
        self._warned_s = now_s
        self._warn(
            f"not delivered: {what}. Each record is tried again for up to {self._deadline_s:g} s and stays in the "
            f"outbox; now waiting: {len(self._known)}"
        )

    async def _note_refusal(self, seq: int, record: Record, status: int) -> None:
        progress = self._progress[seq]
        self._refusals += 1
        progress.refusals += 1
        progress.failure = f"status {status}"
        if progress.refusals == 1:
            progress.taken_before = self._taken
        elif progress.refusals >= REFUSALS_MAX and self._taken > progress.taken_before:
            await self._bury(
                seq, record, f"refused {progress.refusals} times while others were taken: status {status}"
            )
            return
        if self._refusals >= REFUSALS_MAX:
            self._pause(status)
        _log.warning("refused", pcs_id=record.pcs_id, status=status, attempt=progress.attempts)
        self._push(seq, self._monotonic() + next_delay(progress.attempts, self._random()))

    def _forget(self, seq: int) -> _Progress:
        self._known.discard(seq)
        return self._progress.pop(seq, _Progress())

    def _push(self, seq: int, due_s: float) -> None:
        """Queue the next attempt; while paused or stopped, hold the record."""
        if self.paused is not None or self._stopped:
            self._held.append(seq)
        else:
            heapq.heappush(self._queue, (due_s, seq))

    def _pause(self, status: int) -> None:
        if self.paused is None:
            self.advice = advise(status)
            self.paused = f"status {status}, {self._refusals} times in a row"
            self._held += [seq for _, seq in self._queue]
            self._queue.clear()
            _log.error("paused", status=status, refusals=self._refusals, pending=len(self._known))

    def _resume(self) -> None:
        self.paused = None
        if self._stopped:
            return
        now_s = self._monotonic()
        for seq in self._held:
            heapq.heappush(self._queue, (now_s, seq))
        self._held.clear()
        self._probe = None
        _log.warning("resumed", pending=len(self._queue))
