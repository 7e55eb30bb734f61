"""What the gate did, put by for the monitors: cheap and bounded on the way of a submit.

`observe` counts every decision. Of the scores it keeps so many a turn, those that came first: which ones does not
depend on what they are, so those that are looked at are as exchangeable as all. The others are counted.

`Watch` belongs to the event loop's thread and waits for nothing; `oversight` takes what it has, once a turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from pcs_backend.effects.calibration_metrics import CalibrationMetrics

if TYPE_CHECKING:
    from pcs_backend.conformal.gate import Gate
    from pcs_core.verify import Verdict

WATCH_INTERVAL_S = 1.0
"""A turn: how often the monitors take what was put by."""

WATCH_SCORES_MAX = 1_000
"""Scores that are looked at a turn."""

WATCH_TENANT_SCORES_MAX = 200
"""Of these those of one tenant, so that a busy one leaves room for others."""

WATCH_TENANTS_MAX = 200
"""Tenants with monitors; the scores of further ones are only counted."""


class Batch(NamedTuple):
    """Scores of one tenant that one set judged, in the order they came.

    Attributes:
        tenant: Whose.
        digest: Of the set that gave the threshold of benign records.
        scores: What was held against it.
    """

    tenant: str
    digest: str
    scores: list[float]


class Watch:
    """Counts what the gate did, and keeps some scores until the next turn."""

    def __init__(self, metrics: CalibrationMetrics) -> None:
        """Start empty.

        Args:
            metrics: Where it is counted.
        """
        self._metrics = metrics
        self._tenants: set[str] = set()
        self._batches: dict[tuple[str, str], Batch] = {}
        self._kept: dict[str, int] = {}
        self._room = WATCH_SCORES_MAX
        self._decisions: dict[str, int] = {}

    def note(self, tenants: Sequence[str], gates: Sequence[Gate | None], verdicts: Sequence[Verdict]) -> None:
        """Note first outcomes of any tenants, in order. As `observe`; a gate that only keeps signals is passed over.

        Args:
            tenants: Whose each is. A tenant has one gate among them.
            gates: What decided each.
            verdicts: Of each.
        """
        by_tenant: dict[str, tuple[Gate | None, Sequence[Verdict]]] = {}
        if len(set(tenants)) == 1:
            by_tenant[tenants[0]] = gates[0], verdicts
        else:
            grouped: dict[str, list[Verdict]] = {tenant: [] for tenant in tenants}
            for tenant, gate, verdict in zip(tenants, gates, verdicts, strict=True):
                grouped[tenant].append(verdict)
                by_tenant[tenant] = gate, grouped[tenant]
        for tenant, (gate, own) in by_tenant.items():
            if gate is not None and gate.decides:
                self.observe(tenant, gate, own)

    def observe(self, tenant: str, gate: Gate, verdicts: Sequence[Verdict]) -> None:
        """Note first outcomes of one tenant that one gate decided. Never raises, and never waits.

        Args:
            tenant: Whose records.
            gate: What decided.
            verdicts: With `decided`, in order.
        """
        metrics, count = self._metrics, len(verdicts)
        others = [each.decision for each in verdicts if each.reasons]
        metrics.decisions["ACCEPT"] += count - len(others)  # what has no reason against it is accepted
        for decision in others:
            metrics.decisions[decision] += 1
        benign, bad = gate.benign, gate.bad
        if benign is None or benign.scope == "global":
            metrics.fallbacks["benign", "none" if benign is None else "global"] += count
        if bad is None or bad.scope == "global":
            metrics.fallbacks["bad", "none" if bad is None else "global"] += count
        names = {each.set_name.digest for each in (benign, bad) if each is not None}
        for digest in names:
            self._decisions[digest] = self._decisions.get(digest, 0) + count
        if benign is None:
            return
        looked_at = min(count, self._room_of(tenant))
        metrics.scores_skipped += count - looked_at
        if not looked_at:
            return
        self._room -= looked_at
        self._kept[tenant] = self._kept.get(tenant, 0) + looked_at
        key = (tenant, benign.set_name.digest)
        if (batch := self._batches.get(key)) is None:
            batch = self._batches[key] = Batch(*key, [])
        for verdict in verdicts[:looked_at]:
            if verdict.decided is not None and verdict.decided.benign_score is not None:
                batch.scores.append(verdict.decided.benign_score)

    def take(self) -> list[Batch]:
        """Return what was put by since the last call, and make room."""
        batches = list(self._batches.values())
        self._batches, self._kept, self._room = {}, {}, WATCH_SCORES_MAX
        return batches

    def take_decisions(self) -> dict[str, int]:
        """Return how many decisions each set had a part in since the last call, by its digest."""
        decisions, self._decisions = self._decisions, {}
        return decisions

    def _room_of(self, tenant: str) -> int:
        if tenant not in self._tenants:
            if len(self._tenants) >= WATCH_TENANTS_MAX:
                return 0
            self._tenants.add(tenant)
        return min(self._room, WATCH_TENANT_SCORES_MAX - self._kept.get(tenant, 0))
