"""Metrics of several workers added up: what Prometheus' own parser reads of the sum."""

from __future__ import annotations

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from pcs_backend.effects.metrics import Metrics
from pcs_backend.effects.totals import Family, add_up, exposition_of


def look(text: bytes) -> dict[str, float]:
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def worker(accepted: int, ready: float, verify_s: float, tenant: str) -> Metrics:
    metrics = Metrics()
    metrics.watch("flk_ready", "Ready", lambda: ready, min)
    metrics.watch("flk_keys", "Keys", lambda: 3.0, max)
    metrics.watch("flk_connections", "Connections", lambda: 2.0)
    for _ in range(accepted):
        metrics.count_firsts([tenant], [()])
        metrics.verify_seconds.observe(verify_s)
    metrics.refused.labels("malformed").inc()
    return metrics


def sent(metrics: Metrics) -> list[Family]:
    """What another worker gets."""
    return msgspec.json.decode(msgspec.json.encode(metrics.families()), type=list[Family])


def test_one_worker_alone_reads_as_it_does_without_adding() -> None:
    alone = worker(3, 1.0, 0.003, "a")
    assert exposition_of(add_up([sent(alone)], alone.across)) == alone.exposition()


def test_counters_and_histograms_are_sums_and_gauges_what_they_mean() -> None:
    first, second = worker(3, 1.0, 0.003, "a"), worker(2, 0.0, 0.3, "b")
    total = look(exposition_of(add_up([sent(first), sent(second)], first.across)))
    each = [look(first.exposition()), look(second.exposition())]
    assert total["flk_accepted_total[]"] == 5
    assert total["flk_tenant_accepted_total[('tenant', 'a')]"] == 3
    assert total["flk_tenant_accepted_total[('tenant', 'b')]"] == 2
    assert total["flk_refused_total[('problem', 'malformed')]"] == 2
    assert total["flk_verify_seconds_bucket[('le', '0.005')]"] == 3
    assert total["flk_verify_seconds_bucket[('le', '+Inf')]"] == total["flk_verify_seconds_count[]"] == 5
    assert round(total["flk_verify_seconds_sum[]"], 9) == 0.609
    assert (total["flk_ready[]"], total["flk_keys[]"], total["flk_connections[]"]) == (0, 3, 4)
    assert set(total) == set(each[0]) | set(each[1])
