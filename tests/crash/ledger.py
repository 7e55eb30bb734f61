"""What was promised, and the count of promises that did not hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from processes import Answer

TAKEN = frozenset({200, 202})


@dataclass
class Tally:
    """The counts of a whole run.

    Attributes:
        acknowledged: Records whose outcome somebody was told: by an answer 200 or 202, or by the agent's report.
        lost: Of these, and of requests in the log, how many were forgotten or answered otherwise after a restart.
        doubled: First outcomes beyond the first, and escalations beyond their one.
        last_cut: Where the last cut fell, in words.
        complaints: What exactly, in words, and how often.
    """

    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    last_cut: str = "no cut"
    complaints: Counter[str] = field(default_factory=Counter)

    def lose(self, count: int, what: str) -> None:
        """Count what was lost."""
        self.lost += count
        self._complain(count, f"lost: {what}")

    def double(self, count: int, what: str) -> None:
        """Count what was doubled."""
        self.doubled += count
        self._complain(count, f"doubled: {what}")

    def _complain(self, count: int, what: str) -> None:
        if count:
            self.complaints[f"{what} (after {self.last_cut})"] += count


@dataclass(frozen=True)
class Promise:
    """What a record's sender was told.

    Attributes:
        status: 200 or 202.
        body: The exact bytes; `None` where only the agent's report is known.
    """

    status: int
    body: bytes | None


class Ledger:
    """The promises made over one data folder.

    Attributes:
        bodies: Request bodies by `pcs_id`.
        promises: What was acknowledged.
        fresh: What was acknowledged since the last check.
        unanswered: What was sent, or lies in the log, and nobody was told about.
        dequeued: Escalations that were taken off the queue.
    """

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.bodies: dict[str, bytes] = {}
        self.promises: dict[str, Promise] = {}
        self.fresh: dict[str, None] = {}
        self.unanswered: set[str] = set()
        self.dequeued: set[str] = set()
        self._firsts: set[str] = set()

    def send(self, pcs_id: str, body: bytes) -> None:
        """Note what is about to be sent."""
        self.bodies[pcs_id] = body
        if pcs_id not in self.promises:
            self.unanswered.add(pcs_id)

    def note_answer(self, pcs_id: str, answer: Answer) -> bool:
        """Take an answer of a running service. Returns whether the record was acknowledged by it for the first time.

        Raises:
            AssertionError: A good record was refused: the harness or the service is broken.
        """
        if answer.status == 503:
            return False
        assert answer.status in TAKEN, f"status {answer.status}: {answer.body.decode(errors='replace')}"
        if not answer.replayed:
            self.tally.double(pcs_id in self._firsts, "a first outcome twice in one life")
            self._firsts.add(pcs_id)
        known = self.promises.get(pcs_id)
        if known is None or known.body is None:
            self._promise(pcs_id, Promise(answer.status, answer.body))
        else:
            self.tally.double((answer.status, answer.body) != (known.status, known.body), "a second outcome")
        return known is None

    def note_report(self, pcs_id: str, status: int) -> None:
        """Take what the agent reported of a record."""
        if pcs_id not in self.promises:
            self._promise(pcs_id, Promise(status, None))

    def check_answer(self, pcs_id: str, answer: Answer | None) -> None:
        """Hold the answer after a restart against the promise before it; `None` if there was no answer."""
        known = self.promises[pcs_id]
        if answer is None or answer.status not in TAKEN:
            self._lose(pcs_id, "acknowledged, and not answered after the restart")
        elif not answer.replayed:
            self._lose(pcs_id, "acknowledged, and judged anew after the restart")
        elif answer.status != known.status or known.body not in {None, answer.body}:
            self._lose(pcs_id, "acknowledged, and answered with another outcome after the restart")
        else:
            self.promises[pcs_id] = Promise(answer.status, answer.body)

    def checked(self) -> None:
        """Begin anew after a check: what comes now is fresh."""
        self.fresh.clear()
        self._firsts.clear()

    def lose_all(self, why: str) -> None:
        """Count everything as lost: the service does not come back."""
        self.tally.lose(len(self.promises), why)

    @property
    def queue(self) -> set[str]:
        """What must stand in the escalation queue."""
        return {pcs_id for pcs_id, promise in self.promises.items() if promise.status == 202} - self.dequeued

    def check_queue(self, found: Iterable[str]) -> None:
        """Hold the escalation queue against what was escalated and not taken off."""
        listed = list(found)
        expected = self.queue
        self.tally.lose(len(expected - set(listed)), "escalated, and not in the queue")
        self.tally.double(len(listed) - len(set(listed)), "in the queue twice")
        self.tally.double(len(set(listed) & self.dequeued), "in the queue again after they were taken off")
        unknown = set(listed) - expected - self.dequeued
        self.tally.double(len(unknown), "in the queue, and not escalated")

    def _promise(self, pcs_id: str, promise: Promise) -> None:
        self.tally.acknowledged += pcs_id not in self.promises
        self.promises[pcs_id] = promise
        self.fresh[pcs_id] = None
        self.unanswered.discard(pcs_id)

    def _lose(self, pcs_id: str, what: str) -> None:
        self.tally.lose(1, what)
        del self.promises[pcs_id]  # counted once
        self.dequeued.discard(pcs_id)
