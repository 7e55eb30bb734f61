"""Rates and quantiles of `pcs-backend top`, against what two looks hold."""

from __future__ import annotations

import math

import pytest

from pcs_backend.cli.figures import compare, quantile, read_look
from pcs_backend.effects.metrics import Metrics


def test_figures_are_of_the_time_between_two_looks() -> None:
    metrics = Metrics()
    metrics.watch("flk_ready", "…", lambda: 1.0)
    metrics.watch("flk_store_up", "…", lambda: 0.0)
    metrics.watch("flk_wal_size_bytes", "…", lambda: 4096.0)
    metrics.count_firsts(["plants"], [()])
    metrics.verify_seconds.observe(9.0)
    before = read_look(metrics.exposition().decode(), 10.0)
    for _ in range(6):
        metrics.ingest.inc()
    metrics.count_firsts(["plants"], [()])
    metrics.count_firsts(["plants"], [("degraded",)])
    metrics.refused.labels("malformed").inc(4)
    for _ in range(10):
        metrics.verify_seconds.observe(0.15)
    figures = compare(before, read_look(metrics.exposition().decode(), 12.0))
    assert figures.interval_s == 2.0
    assert (figures.ready, figures.store_up, figures.wal_size_bytes) == (True, False, 4096)
    assert figures.rates == {
        "submitted": 3.0,
        "accepted": 0.5,
        "escalated": 0.5,
        "replayed": 0.0,
        "refused": 2.0,
    }
    assert figures.totals == {"submitted": 6, "accepted": 2, "escalated": 1, "replayed": 0, "refused": 4}
    assert (figures.refused, figures.escalated) == ({"malformed": 2.0}, {"degraded": 0.5})
    assert figures.tenants == {"plants": 1.0}
    assert figures.verify.count == 10, "what was timed before the first look does not count"
    assert figures.verify.p50 == pytest.approx(0.15)
    assert figures.verify.p99 == pytest.approx(0.199)
    assert (figures.wal_sync.count, figures.wal_sync.p95) == (0, None)


def test_a_restart_between_two_looks_gives_no_negative_rates() -> None:
    old, new = Metrics(), Metrics()
    old.ingest.inc(1_000)
    new.ingest.inc(4)
    before = read_look(old.exposition().decode(), 0.0)
    figures = compare(before, read_look(new.exposition().decode(), 1.0))
    assert figures.rates["submitted"] == 4.0


@pytest.mark.parametrize(
    ("share", "expected"), [(0.05, 0.05), (0.1, 0.1), (0.5, 0.5), (0.9, 0.9), (0.99, 1.0)]
)
def test_quantiles_are_those_of_prometheus(share: float, expected: float) -> None:
    buckets = [(0.1, 10.0), (0.5, 50.0), (1.0, 100.0), (math.inf, 100.0)]
    assert quantile(buckets, share) == pytest.approx(expected, abs=0.011)
    beyond = [(0.1, 1.0), (math.inf, 100.0)]
    assert quantile(beyond, 0.95) == 0.1, "beyond the last bound only that bound is known"
