"""Metrics of several workers added up. Pure.

Every worker gives what it has as families of samples; whichever is asked adds them up. Counters and histograms are sums;
each gauge says itself what it is across workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

Across = Callable[[Iterable[float]], float]
"""What a gauge is for all workers together: `sum`, `min` or `max` of its values."""


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One value.

    Attributes:
        name: Of the series.
        labels: Of the series.
        value: Finite.
    """

    name: str
    labels: dict[str, str]
    value: float


class Family(msgspec.Struct, frozen=True, array_like=True):
    """One metric of one worker, or of all.

    Attributes:
        name: Of the metric.
        kind: As Prometheus names it.
        documentation: What it is.
        samples: Its values, in the order of the exposition.
    """

    name: str
    kind: str
    documentation: str
    samples: list[Sample]


def families_of(registry: CollectorRegistry) -> list[Family]:
    """Return what a registry has now."""
    return [
        Family(
            metric.name,
            metric.type,
            metric.documentation,
            [Sample(each.name, dict(each.labels), float(each.value)) for each in metric.samples],
        )
        for metric in registry.collect()
    ]


def add_up(workers: Sequence[Sequence[Family]], across: Mapping[str, Across]) -> list[Family]:
    """Return the metrics of all workers together.

    Args:
        workers: What each of them has.
        across: For gauges by name what they are across workers; a sum otherwise.

    >>> one = [Family("flk_ready", "gauge", "Ready", [Sample("flk_ready", {}, 1.0)])]
    >>> other = [Family("flk_ready", "gauge", "Ready", [Sample("flk_ready", {}, 0.0)])]
    >>> add_up([one, other], {"flk_ready": min})[0].samples[0].value
    0.0
    """
    families: dict[str, Family] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], list[float]]] = {}
    for family in (each for worker in workers for each in worker):
        families.setdefault(family.name, family)
        series = values.setdefault(family.name, {})
        for sample in family.samples:
            series.setdefault((sample.name, tuple(sample.labels.items())), []).append(sample.value)
    return [
        msgspec.structs.replace(
            family,
            samples=[
                Sample(series, dict(labels), across.get(name, sum)(each))
                for (series, labels), each in values[name].items()
            ],
        )
        for name, family in families.items()
    ]


def exposition_of(families: Iterable[Family]) -> bytes:
    """Return families in Prometheus text format."""
    return generate_latest(cast("CollectorRegistry", _Collected(families)))  # it only collects


class _Collected:
    """What stands for a registry whose values are known already."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.documentation, family.kind)
            for sample in family.samples:
                metric.add_sample(sample.name, sample.labels, sample.value)
            yield metric
