"""The lines of what must be shown: which figures are compared, and when a target counts as met."""

from __future__ import annotations

import pytest

from bench.items import F1, F2, F4, NOMINAL, bare, batch, driver, gated, single
from bench.musts import MILLION, OVERLOAD, Must, judge
from bench.rig import Figures

SINGLE = single("hmac", "memory", 1)


def figures(*rates: float, **others: object) -> list[Figures]:
    return [Figures(rate=rate, **others) for rate in rates]


def line(results: dict[str, list[Figures]], number: int, position: int = 0) -> Must:
    return [each for each in judge(results) if each.number == number][position]


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    # The medians, 80 and 100, would give 0.8.
    results = {SINGLE: figures(40, 80, 90), F1: figures(50, 400, 100)}
    assert line(results, 1)[2:5] == ("0.80", "≥ 0.75", "yes")
    results[F1] = figures(60, 400, 160)
    assert line(results, 1)[2:5] == ("0.56", "≥ 0.75", "no")


@pytest.mark.parametrize(("ratios", "met"), [((0.91, 0.7, 0.92), "yes"), ((0.89, 0.95, 0.88), "no")])
def test_the_gate_is_held_against_the_service_beside_it(ratios: tuple[float, ...], met: str) -> None:
    runs = [
        Figures(rate=95, cpu_us=11, more={"ratio": each, "beside_rate": 100, "beside_cpu_us": 10})
        for each in ratios
    ]
    found = line({gated(SINGLE): runs}, 8)
    assert (found.met, found.figures) == (met, "95/s against 100/s; by CPU time 0.91")


@pytest.mark.parametrize(("p99_ms", "met"), [(22.9, "yes"), (23.1, "no")])
def test_the_latency_of_single_submits_is_held_against_the_disk(p99_ms: float, met: str) -> None:
    results = {
        SINGLE: figures(1, latency_ms=[1.0, 2.0, p99_ms, 90.0, 99.0]),
        F4: figures(1, more={"p50_ms": 1.0, "p99_ms": 2.0}),
    }
    assert line(results, 1).met == met


@pytest.mark.parametrize(("size", "rate", "met"), [(100, 51, "yes"), (100, 49, "no"), (1_000, 59, "no")])
def test_batches_are_held_against_bare_checks(size: int, rate: float, met: str) -> None:
    results = {batch(size, "hmac", "memory", 1): figures(rate), F2: figures(100)}
    assert line(results, 2).met == met


@pytest.mark.parametrize(
    ("store", "rate", "memory", "alone", "met"),
    [
        ("postgres", 61, 100, 1_000, "yes"),
        ("postgres", 59, 100, 1_000, "no"),
        ("postgres", 61, 1_000, 100, "yes"),
        ("redis", 69, 100, 1_000, "no"),
        ("redis", 71, 1_000, 100, "yes"),
    ],
)
def test_a_store_is_held_against_the_lower_of_memory_and_driver(
    store: str, rate: float, memory: float, alone: float, met: str
) -> None:
    results = {
        batch(100, "hmac", store, 1): figures(rate),
        batch(100, "hmac", "memory", 1): figures(memory),
        driver(100, store): figures(alone),
    }
    assert line(results, 4).met == met


def test_signatures_are_held_against_two_bare_processes() -> None:
    results = {batch(100, "ed25519", "postgres", 2): figures(79), bare(100, 2): figures(100)}
    assert line(results, 3)[2:5] == ("0.79", "≥ 0.8", "no")


@pytest.mark.parametrize(
    ("two", "bare_two", "met"),
    [(160, 200, "yes"), (150, 200, "no"), (150, 155, "the cores do not allow it"), (165, 155, "yes")],
)
def test_two_services_need_cores(two: float, bare_two: float, met: str) -> None:
    results = {
        batch(100, "ed25519", "postgres", 1): figures(100),
        batch(100, "ed25519", "postgres", 1, 2): figures(two),
        bare(100, 1): figures(100),
        bare(100, 2): figures(bare_two),
    }
    assert line(results, 6).met == met


def test_one_wrong_run_is_told() -> None:
    results = {
        SINGLE: [*figures(1), *figures(1, wrong={"no_outcome": 1})],
        F1: figures(1, 1, wrong={"no answer": 1}),  # a floor is not the service
    }
    assert line(results, 0)[2:5] == ("1/2", "all", "no")


@pytest.mark.parametrize(("p95_ms", "met"), [(199.0, "yes"), (201.0, "no")])
def test_the_nominal_rate_has_an_objective(p95_ms: float, met: str) -> None:
    assert line({NOMINAL: figures(100, latency_ms=[1.0, p95_ms, 300.0, 300.0, 300.0])}, 0, 1).met == met


@pytest.mark.parametrize(
    ("double_ms", "growth", "met"), [(29.0, 0.9, ["yes", "yes"]), (31.0, 1.1, ["no", "no"])]
)
def test_overload_keeps_latency_and_memory(double_ms: float, growth: float, met: list[str]) -> None:
    more = {
        "half_p99_ms": 10.0,
        "double_p99_ms": double_ms,
        "refused_share": 0.5,
        "steady_rate": 100.0,
        "behind_ms": 1.0,
        "rss_growth_mib_a_minute": growth,
    }
    results = {OVERLOAD: figures(1, more=more)}
    assert [line(results, 5, position).met for position in (0, 1)] == met


@pytest.mark.parametrize(
    ("serving", "replay_s", "met"), [(1_200, 59, ["yes", "yes"]), (1_300, 61, ["no", "no"])]
)
def test_a_million_records_are_explained_and_replayed(
    serving: float, replay_s: float, met: list[str]
) -> None:
    more = {
        "records": 1e6,
        "bytes_a_record": serving,
        "bytes_a_record_replayed": 1_000.0,
        "log_bytes_a_record": 1_100.0,
        "replay_s": replay_s,
    }
    results = {MILLION: figures(1, more=more)}
    assert [line(results, 7, position).met for position in (0, 1)] == met
