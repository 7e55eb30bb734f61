"""Prometheus metrics (contract §5), in a registry of their own.

No label ever holds a client's string. Names of tenants are the operator's; beyond `TENANT_SERIES_MAX` of them the others
are counted together.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from pcs_backend.effects.calibration_metrics import CalibrationMetrics
from pcs_backend.effects.histogram import Histogram
from pcs_backend.effects.totals import Across, Family, families_of
from pcs_backend.problems import Problem
from pcs_backend.trust.policy import REFUSAL_REASONS
from pcs_core.keyring import DEFAULT_TENANT
from pcs_core.ports import MonotonicClock
from pcs_core.verify import Reason

TENANT_SERIES_MAX = 200
"""Tenants with series of their own."""

OTHER_TENANTS = "_other"
"""Label of all further tenants; no tenant can be named so."""

_SKEW_BUCKETS_S = (-3600.0, -300.0, -60.0, -10.0, -1.0, 0.0, 1.0, 10.0, 60.0, 300.0, 3600.0)
_VERIFY_BUCKETS_S = (
    *(0.0005, 0.001, 0.0015, 0.002, 0.0025, 0.003, 0.004, 0.005, 0.006, 0.008),
    *(0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06, 0.08),
    *(0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4),
)
"""0.2 is the objective: 95 % of outcomes within it. The store's time limit of 5 s lies below the last. Neighbours lie so
close, below it, that percentiles up to p99.9 are told from each other."""

_STEP_BUCKETS_S = (
    *(0.00005, 0.0001, 0.00015, 0.0002, 0.00025, 0.0003, 0.0004, 0.0005, 0.0006, 0.0008),
    *(0.001, 0.0015, 0.002, 0.0025, 0.003, 0.004, 0.005, 0.006, 0.008),
    *(0.01, 0.015, 0.02, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
"""Of one step of a request: a sync, or a call of the store."""


class Metrics:
    """Every metric of the backend. Counters restart at 0 with the process; the stored outcomes are the truth.

    Attributes:
        across: What each gauge is for several workers together.
        ingest: Submitted records that pass step 1 of the contract.
        dedup_hits: Replays answered.
        accepted: First outcomes stored by this process with 200.
        escalated: First outcomes stored by this process with 202.
        escalated_by_reason: The same by reason; a record may have several.
        refused: Answers that are no outcome, by problem code.
        signature_refused: Signatures that were refused, by reason.
        conflicts: Known ids that came with other contents.
        connections_refused: Connections for which there was no place.
        requests_shed: Submits refused because too many were under way.
        request_seconds: Time from a submit's header to its answer, whatever that is.
        verify_seconds: Time from a complete body to its outcome.
        wal_sync_seconds: Time of a write and sync of the log.
        store_seconds: Time of a call that asks the store to keep outcomes.
        sent_at_skew: Seconds between `sent_at` and the time received, exported and never judged.
        calibration: What the gate and its monitors count and see.
    """

    def __init__(self) -> None:
        """Register everything, at 0."""
        self.registry = CollectorRegistry()
        self.calibration = CalibrationMetrics()
        self.registry.register(self.calibration)
        self.across: dict[str, Across] = dict(self.calibration.across)
        self.ingest = self._counter("flk_ingest", "Submitted records that pass the HTTP checks")
        self.dedup_hits = self._counter("flk_dedup_hits", "Answers that replay a first outcome")
        self.accepted = self._counter("flk_accepted", "First outcomes stored by this process: accepted")
        self.escalated = self._counter("flk_escalated", "First outcomes stored by this process: escalated")
        self.conflicts = self._counter("flk_conflicts", "Known pcs_ids that came with other contents")
        self.connections_refused = self._counter(
            "flk_connections_refused", "Connections refused because CONNECTIONS_MAX were open"
        )
        self.requests_shed = self._counter(
            "flk_requests_shed",
            "Submits refused because more were under way than the service can answer in time",
        )
        self.escalated_by_reason = Counter(
            "flk_escalated_reason", "Escalated first outcomes by reason", ["reason"], registry=self.registry
        )
        for reason in get_args(Reason):
            self.escalated_by_reason.labels(reason)
        self.refused = Counter(
            "flk_refused",
            "Answers that are no outcome, by kind of problem",
            ["problem"],
            registry=self.registry,
        )
        self._refused = {problem.code: self.refused.labels(problem.code) for problem in Problem}
        self.signature_refused = Counter(
            "flk_signature_refused", "Refused signatures by reason", ["reason"], registry=self.registry
        )
        for refusal in REFUSAL_REASONS:
            self.signature_refused.labels(refusal)
        self._tenants: set[str] = set()
        self._tenant_accepted = self._tenant_counter("accepted", "First outcomes: accepted")
        self._tenant_escalated = self._tenant_counter("escalated", "First outcomes: escalated")
        self._tenant_dedup_hits = self._tenant_counter("dedup_hits", "Answers that replay a first outcome")
        self._tenant_limited = self._tenant_counter("limited", "Records beyond the limits of their tenant")
        for by_tenant in (
            self._tenant_accepted,
            self._tenant_escalated,
            self._tenant_dedup_hits,
            self._tenant_limited,
        ):
            by_tenant.labels(self._label(DEFAULT_TENANT))
        self.request_seconds = self._histogram(
            "flk_request_seconds", "Time from a submit's header to its answer", _VERIFY_BUCKETS_S
        )
        self.verify_seconds = self._histogram(
            "flk_verify_seconds", "Time from a complete body to its outcome, 200 or 202", _VERIFY_BUCKETS_S
        )
        self.wal_sync_seconds = self._histogram(
            "flk_wal_sync_seconds", "Time of a write and sync of the log", _STEP_BUCKETS_S
        )
        self.store_seconds = self._histogram(
            "flk_store_seconds", "Time of a call that asks the store to keep outcomes", _STEP_BUCKETS_S
        )
        self.sent_at_skew = self._histogram(
            "flk_sent_at_skew_seconds", "Time received minus sent_at", _SKEW_BUCKETS_S
        )

    def watch(self, name: str, documentation: str, read: Callable[[], float], across: Across = sum) -> None:
        """Add a gauge that is read when metrics are asked for.

        Args:
            name: Its name.
            documentation: What it is.
            read: Returns its value in this process.
            across: What it is for several workers together.
        """
        self.across[name] = across
        Gauge(name, documentation, registry=self.registry).set_function(read)

    def count_refused(self, problem: str) -> None:
        """Count an answer that is no outcome, by the code of its problem."""
        self._refused[problem].inc()

    def count_firsts(self, tenants: Sequence[str], reasons: Sequence[Sequence[str]]) -> None:
        """Count first outcomes that this process stored (contract §4 step 10).

        Args:
            tenants: Whose each is.
            reasons: Why each is escalated; none for what is accepted.
        """
        totals = collections.Counter(tenants)
        escalated = collections.Counter(itertools.compress(tenants, reasons))
        by_reason = collections.Counter(itertools.chain.from_iterable(reasons))
        for tenant, total in totals.items():
            label = self._label(tenant)
            if accepted := total - escalated[tenant]:
                self.accepted.inc(accepted)
                self._tenant_accepted.labels(label).inc(accepted)
            if escalated[tenant]:
                self.escalated.inc(escalated[tenant])
                self._tenant_escalated.labels(label).inc(escalated[tenant])
        for reason, count in by_reason.items():
            self.escalated_by_reason.labels(reason).inc(count)

    def count_replay(self, tenant: str) -> None:
        """Count an answer that repeats a first outcome."""
        self.dedup_hits.inc()
        self._tenant_dedup_hits.labels(self._label(tenant)).inc()

    def count_limited(self, tenant: str) -> None:
        """Count a record refused for its tenant's limits."""
        self._tenant_limited.labels(self._label(tenant)).inc()

    def observe_verify(self, taken_s: float, outcomes: int) -> None:
        """Time a submit with as many outcomes."""
        self.verify_seconds.observe_many(taken_s, outcomes)

    def observe_skews(self, skews_s: Sequence[float]) -> None:
        """Note how far `sent_at` lay from the time received, for some records."""
        for skew_s in skews_s:
            self.sent_at_skew.observe(skew_s)

    @contextlib.contextmanager
    def time_sync(self, monotonic: MonotonicClock) -> Iterator[None]:
        """Time a write and sync of the log; one that fails is not counted."""
        began_s = monotonic()
        yield
        self.wal_sync_seconds.observe(monotonic() - began_s)

    @contextlib.contextmanager
    def time_store(self, monotonic: MonotonicClock) -> Iterator[None]:
        """Time a call that asks the store to keep outcomes; one that fails is not counted."""
        began_s = monotonic()
        yield
        self.store_seconds.observe(monotonic() - began_s)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus text format."""
        return generate_latest(self.registry)

    def families(self) -> list[Family]:
        """Return all metrics as another worker adds them up."""
        return families_of(self.registry)

    def _label(self, tenant: str) -> str:
        if tenant not in self._tenants:
            if len(self._tenants) >= TENANT_SERIES_MAX:
                return OTHER_TENANTS
            self._tenants.add(tenant)
        return tenant

    def _tenant_counter(self, name: str, documentation: str) -> Counter:
        return Counter(f"flk_tenant_{name}", documentation, ["tenant"], registry=self.registry)

    def _counter(self, name: str, documentation: str) -> Counter:
        return Counter(name, documentation, registry=self.registry)

    def _histogram(self, name: str, documentation: str, buckets: tuple[float, ...]) -> Histogram:
        histogram = Histogram(name, documentation, buckets)
        self.registry.register(histogram)
        return histogram
