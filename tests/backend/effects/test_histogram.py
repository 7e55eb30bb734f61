"""The histogram of our own shows what the Prometheus client's shows."""

from __future__ import annotations

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from pcs_backend.effects.histogram import Histogram

BUCKETS = (0.00005, 0.5, 1.0, 6.4)
MARKS = (*BUCKETS, -1.0, -2.0, 0.0, 7.0, 0.1)


def exposed(registry: CollectorRegistry) -> dict[str, str]:
    lines = generate_latest(registry).decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if "_created" not in line)


@pytest.mark.parametrize("buckets", [BUCKETS, (-1.0, 0.0, *BUCKETS)])
@given(observed=st.lists(st.tuples(st.sampled_from(MARKS), st.integers(min_value=1, max_value=3))))
def test_it_is_exposed_as_the_clients_is(
    buckets: tuple[float, ...], observed: list[tuple[float, int]]
) -> None:
    theirs_registry, ours_registry = CollectorRegistry(), CollectorRegistry()
    theirs = prometheus_client.Histogram("flk_x", "Some values", buckets=buckets, registry=theirs_registry)
    ours = Histogram("flk_x", "Some values", buckets)
    ours_registry.register(ours)
    for value, count in observed:
        for _ in range(count):
            theirs.observe(value)
        if count == 1:
            ours.observe(value)
        else:
            ours.observe_many(value, count)

    found, expected = exposed(ours_registry), exposed(theirs_registry)
    assert found.keys() == expected.keys()
    values = {name: float(value) for name, value in found.items() if not name.startswith("#")}
    assert values == pytest.approx({name: float(expected[name]) for name in values})


def test_two_of_one_name_are_refused() -> None:
    registry = CollectorRegistry()
    registry.register(Histogram("flk_x", "Some values", BUCKETS))
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(Histogram("flk_x", "Others", BUCKETS))
