"""Figures of a serving process from two looks at its metrics: rates and latencies of the time between them. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec
from prometheus_client.parser import text_string_to_metric_families

_BUCKET = "le"

Labels = tuple[tuple[str, str], ...]


class Look(NamedTuple):
    """All metrics at one moment.

    Attributes:
        at_s: When, by any clock that goes on.
        samples: Values by name, then by labels.
    """

    at_s: float
    samples: Mapping[str, Mapping[Labels, float]]

    def value(self, name: str) -> float:
        """Return a metric without labels; 0 if it is not there."""
        return self.samples.get(name, {}).get((), 0.0)


class Latency(msgspec.Struct, frozen=True):
    """Quantiles in seconds, as histogram buckets give them; `None` where nothing was timed.

    Attributes:
        count: How many were timed.
        p50: Median.
        p95: 95 of 100 took less.
        p99: 99 of 100 took less.
    """

    count: int
    p50: float | None
    p95: float | None
    p99: float | None


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What `pcs-backend top` shows. Rates are a second, of the time between two looks; so are latencies.

    Attributes:
        interval_s: The time between the two looks.
        ready: Whether requests may be sent here.
        store_up: Whether the store answers.
        rates: Submitted, accepted, escalated, replayed, refused.
        totals: The same since the process started.
        refused: Rates by kind of problem, where there is one.
        escalated: Rates by reason, where there is one.
        tenants: Rates of first outcomes by tenant, where there is one.
        verify: From a complete body to its outcome.
        wal_sync: One write and sync of the log.
        wal_size_bytes: All inboxes.
        open_requests: On disk without an outcome.
        backlog_requests: Of these, waiting to be judged again.
        unreadable_requests: Open ones whose frames are damaged.
        too_old_requests: Open ones left for `replay --force`.
        disk_free_bytes: Below DATA_DIR.
        disk_free_min_bytes: Under which intake stops.
        connections: That hold a place.
        connections_refused: Since the process started.
        conflicts: Since the process started.
        keys: In force.
        keys_stale: Whether the last key file could not be used.
    """

    interval_s: float
    ready: bool
    store_up: bool
    rates: dict[str, float]
    totals: dict[str, int]
    refused: dict[str, float]
    escalated: dict[str, float]
    tenants: dict[str, float]
    verify: Latency
    wal_sync: Latency
    wal_size_bytes: int
    open_requests: int
    backlog_requests: int
    unreadable_requests: int
    too_old_requests: int
    disk_free_bytes: int
    disk_free_min_bytes: int
    connections: int
    connections_refused: int
    conflicts: int
    keys: int
    keys_stale: bool


_COUNTERS = {
    "submitted": "flk_ingest_total",
    "accepted": "flk_accepted_total",
    "escalated": "flk_escalated_total",
    "replayed": "flk_dedup_hits_total",
    "refused": "flk_refused_total",
}


def read_look(exposition: str, at_s: float) -> Look:
    """Read Prometheus text.

    Args:
        exposition: As `/metrics` gives it.
        at_s: When it was asked for.
    """
    samples: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return Look(at_s, samples)


def compare(before: Look, after: Look) -> Figures:
    """Return the figures of the time between two looks at one process; counters that fell began anew in between."""
    interval_s = max(after.at_s - before.at_s, 1e-9)

    def whole(name: str) -> int:
        return int(after.value(name))

    def by_label(name: str) -> dict[str, float]:
        grown = _growth(before, after, name)
        rates = {labels[0][1]: value / interval_s for labels, value in grown.items() if labels and value}
        return dict(sorted(rates.items(), key=lambda item: -item[1]))

    tenants = by_label("flk_tenant_accepted_total")
    for tenant, rate in by_label("flk_tenant_escalated_total").items():
        tenants[tenant] = tenants.get(tenant, 0.0) + rate
    return Figures(
        interval_s=interval_s,
        ready=after.value("flk_ready") == 1,
        store_up=after.value("flk_store_up") == 1,
        rates={
            name: sum(_growth(before, after, metric).values()) / interval_s
            for name, metric in _COUNTERS.items()
        },
        totals={name: int(sum(after.samples.get(metric, {}).values())) for name, metric in _COUNTERS.items()},
        refused=by_label("flk_refused_total"),
        escalated=by_label("flk_escalated_reason_total"),
        tenants=tenants,
        verify=_latency(before, after, "flk_verify_seconds"),
        wal_sync=_latency(before, after, "flk_wal_sync_seconds"),
        wal_size_bytes=whole("flk_wal_size_bytes"),
        open_requests=whole("flk_open_requests"),
        backlog_requests=whole("flk_backlog_requests"),
        unreadable_requests=whole("flk_unreadable_requests"),
        too_old_requests=whole("flk_too_old_requests"),
        disk_free_bytes=whole("flk_disk_free_bytes"),
        disk_free_min_bytes=whole("flk_disk_free_min_bytes"),
        connections=whole("flk_connections"),
        connections_refused=whole("flk_connections_refused_total"),
        conflicts=whole("flk_conflicts_total"),
        keys=whole("flk_keys"),
        keys_stale=after.value("flk_keys_stale") == 1,
    )


def quantile(buckets: Sequence[tuple[float, float]], share: float) -> float | None:
    """Return a quantile as Prometheus' `histogram_quantile` does: evenly spread within its bucket.

    Args:
        buckets: Upper bound and cumulative count of each, by bound, the last bound being infinite.
        share: In (0, 1).

    >>> quantile([(0.1, 0.0), (0.2, 10.0), (math.inf, 10.0)], 0.5)
    0.15000000000000002
    >>> quantile([(0.1, 0.0), (math.inf, 0.0)], 0.5) is None
    True
    """
    if not buckets or buckets[-1][1] <= 0:
        return None
    wanted = share * buckets[-1][1]
    for (below, fewer), (bound, count) in pairwise([(0.0, 0.0), *buckets]):
        if count >= wanted and count > fewer:
            return (
                below if math.isinf(bound) else below + (bound - below) * (wanted - fewer) / (count - fewer)
            )
    return None


def _latency(before: Look, after: Look, name: str) -> Latency:
    grown = _growth(before, after, f"{name}_bucket")
    buckets = sorted((float(dict(labels)[_BUCKET]), value) for labels, value in grown.items())
    count = int(buckets[-1][1]) if buckets else 0
    return Latency(count, *(quantile(buckets, share) for share in (0.5, 0.95, 0.99)))


def _growth(before: Look, after: Look, name: str) -> dict[Labels, float]:
    earlier = before.samples.get(name, {})
    return {
        labels: value - (earlier.get(labels, 0.0) if earlier.get(labels, 0.0) <= value else 0.0)
        for labels, value in after.samples.get(name, {}).items()
    }
