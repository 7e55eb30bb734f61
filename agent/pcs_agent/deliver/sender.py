"""One request for what the courier hands over, single or batch, and what its answer means for each record of it."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from pcs_agent.deliver.batch import read_entries
from pcs_agent.deliver.batch_size import BatchSize
from pcs_agent.deliver.dispatch import Dispatcher, Outgoing
from pcs_agent.deliver.policy import Again, Decision, Meaning, Refused, classify, decide, parse_retry_after
from pcs_agent.deliver.transport import Answer
from pcs_agent.errors import TransportError

_log = structlog.get_logger("pcs_agent.deliver")


class Sender:
    """Sends records and reads what became of each. It never raises for an answer that did not come: that is an `Again`."""

    def __init__(self, dispatcher: Dispatcher, size: BatchSize) -> None:
        """Take the collaborators.

        Args:
            dispatcher: Makes and sends requests.
            size: How many records one may hold.
        """
        self._dispatcher = dispatcher
        self._size = size

    @property
    def knows_batches(self) -> bool:
        """Whether the backend is known to take batches, or not to. Until then one request at a time is enough."""
        return self._size.is_known

    def records(self) -> int:
        """Return how many records the next request may hold, ≥ 1."""
        return self._size.records()

    async def send(self, outgoing: Sequence[Outgoing]) -> list[Decision]:
        """Send records in one request; returns what to do with each, in order.

        Args:
            outgoing: One or more, up to `records`.
        """
        if len(outgoing) == 1:
            return [await self._send_single(outgoing[0])]
        return await self._send_batch(outgoing)

    async def _send_single(self, outgoing: Outgoing) -> Decision:
        try:
            answer = await self._dispatcher.send(outgoing)
        except TransportError as error:
            return Again(str(error))
        decision = decide(answer, outgoing.record.pcs_id, self._dispatcher.backend_time_s())
        if not isinstance(decision, Again):
            self._size.note_answered(1)
        return decision

    async def _send_batch(self, outgoing: Sequence[Outgoing]) -> list[Decision]:
        count = len(outgoing)
        try:
            whole = await self._dispatcher.send_batch(outgoing)
        except TransportError as error:
            self._size.note_failed(count)
            return [Again(str(error))] * count
        pcs_ids = [each.record.pcs_id for each in outgoing]
        answers = read_entries(whole, pcs_ids) if whole.status == 200 else None
        if answers is None:
            return [self._take_whole(whole, count)] * count
        self._size.note_answered(count)
        now_s = self._dispatcher.backend_time_s()
        return [decide(answer, pcs_id, now_s) for answer, pcs_id in zip(answers, pcs_ids, strict=True)]

    def _take_whole(self, whole: Answer, count: int) -> Decision:
        """Return what an answer means that is not one for each record: never that one of them is at fault."""
        status, meaning = whole.status, classify(whole.status)
        if status == 413:
            self._size.note_too_large(count)
            return Again(f"status 413 for {count} records at once", at_once=True)
        if status == 415 and self._dispatcher.compresses_batches:
            self._dispatcher.compresses_batches = False
            return Again("status 415 for a compressed batch", at_once=True)
        if meaning in {Meaning.REJECTED, Meaning.MISDIRECTED}:
            self._size.note_refused()
            _log.warning("batches_refused", status=status, records=count)
            return Again(f"status {status} for a batch", at_once=True)
        self._size.note_failed(count)
        if meaning is Meaning.TAKEN:
            return Again(f"status {status} without an answer for each of {count} records")
        if meaning is Meaning.RETRY:
            wait_s = parse_retry_after(whole.retry_after, self._dispatcher.backend_time_s())
            return Again(f"status {status}", wait_s)
        return (
            Again(f"status {status}, signed by a clock that was off") if whole.mistimed else Refused(status)
        )
