"""What outboxes promised: every record appended is pending, delivered or dead. Part of the checker."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from pcs_agent.outbox import Entry, Outbox, State, Verdict
from simulation.machine import Machine
from simulation.model import Model

STATUS = {Verdict.ACCEPTED: 200, Verdict.ESCALATED: 202}


@dataclass
class Promise:
    """What is known of one record in an outbox.

    Attributes:
        state: The last state a call that returned put it in; `None` before its append returned.
        perhaps: States that calls which did not return may have put it in.
        changed_s: When, by the machine's clock.
        excused: Whether its bytes were damaged.
        seq: Its `outbox_seq`.
    """

    state: State | None = None
    perhaps: set[State] = field(default_factory=set)
    changed_s: float = 0.0
    excused: bool = False
    seq: int = 0


class Boxes:
    """All outboxes of a run."""

    def __init__(self, model: Model, retention_s: float) -> None:
        self._model = model
        self._retention_s = retention_s
        self._latest_s: dict[str, float] = {}
        self.promises: dict[str, dict[str, Promise]] = {}

    def of(self, machine: Machine) -> dict[str, Promise]:
        """Return what a machine's outbox promised, by pcs_id."""
        return self.promises.setdefault(machine.name, {})

    def note_clock(self, machine: Machine) -> float:
        """Return the latest time the machine's clock has shown."""
        latest_s = max(self._latest_s.get(machine.name, 0.0), machine.now())
        self._latest_s[machine.name] = latest_s
        return latest_s

    def begin(self, machine: Machine, pcs_ids: Iterable[str], state: State) -> None:
        """A call that changes records has begun."""
        for pcs_id in pcs_ids:
            self.of(machine).setdefault(pcs_id, Promise()).perhaps.add(state)

    def finish(self, machine: Machine, seqs: Mapping[str, int], state: State) -> None:
        """It returned; the records are told by pcs_id and `outbox_seq`."""
        self.note_clock(machine)
        for pcs_id, seq in seqs.items():
            promise = self.of(machine)[pcs_id]
            if promise.seq != seq:  # written anew; of a damaged entry nothing but its number is left
                promise.seq, promise.excused = seq, False
            promise.state = state
            promise.perhaps.clear()
            promise.changed_s = machine.now()

    def check_answer(self, machine: Machine, pcs_id: str, verdict: Verdict) -> None:
        """The agent acknowledges a record as answered: some first outcome must say so."""
        known = self._model.records.get(pcs_id)
        statuses = [] if known is None else [each.outcome.status for each in known.generations]
        if STATUS[verdict] not in statuses:
            self._model.violate("lost: acknowledged in", machine.name, "without an outcome:", pcs_id[:8])

    def check(self, machine: Machine, outbox: Outbox) -> None:
        """Compare an open outbox with what was promised, and go on from what it holds."""
        latest_s = self.note_clock(machine)
        held: dict[str, Entry] = {entry.pcs_id: entry for state in State for entry in outbox.entries(state)}
        for pcs_id, promise in list(self.of(machine).items()):
            entry = held.get(pcs_id)
            if entry is None:
                forgotten = promise.changed_s < latest_s - self._retention_s
                acked = promise.state is State.ACKED or State.ACKED in promise.perhaps
                if promise.state is None or promise.excused or (acked and forgotten):
                    del self.of(machine)[pcs_id]
                else:
                    self._model.violate("lost: not in the outbox of", machine.name, pcs_id[:8])
                continue
            if (
                not promise.excused
                and entry.state is not promise.state
                and entry.state not in promise.perhaps
            ):
                self._model.violate("lost: in the outbox", promise.state, "became", entry.state, pcs_id[:8])
            if entry.state is State.DEAD and not entry.reason:
                self._model.violate("dead without a reason:", pcs_id[:8])
            promise.seq, promise.state, promise.changed_s = entry.seq, entry.state, entry.changed_s
            promise.perhaps.clear()

    def excuse(self, machine: Machine, seqs: Collection[int]) -> None:
        """Bytes of these records were damaged."""
        for promise in self.of(machine).values():
            if promise.seq in seqs:
                promise.excused = True
