"""A histogram that costs a fraction of the Prometheus client's: no lock, no labels, one count an observation.

It belongs to the event loop's thread; `collect` may run there too, and nowhere else.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


class Histogram(Collector):
    """Counts values by bucket."""

    def __init__(self, name: str, documentation: str, buckets: Sequence[float]) -> None:
        """Start empty.

        Args:
            name: Of the metric.
            documentation: Its help text.
            buckets: Upper bounds, inclusive and increasing; one without bound is added.
        """
        self._name = name
        self._documentation = documentation
        self._bounds = tuple(map(float, buckets))
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def observe_many(self, value: float, count: int) -> None:
        """Count a value that came several times."""
        self._counts[bisect_left(self._bounds, value)] += count
        self._sum += value * count

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """Name the metric, so that no other takes its name."""
        return [HistogramMetricFamily(self._name, self._documentation)]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Return what was counted, as the Prometheus client wants it."""
        family = HistogramMetricFamily(self._name, self._documentation)
        total = 0
        for bound, count in zip((*map(repr, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            family.add_sample(f"{self._name}_bucket", {"le": bound}, total)
        family.add_sample(f"{self._name}_count", {}, total)
        if self._bounds[0] >= 0:  # a sum that can fall is no counter, and the client leaves it out too
            family.add_sample(f"{self._name}_sum", {}, self._sum)
        return [family]
