"""What the project must show, from the figures of one run: a ratio, its target, whether it is met, and absolute figures.

A ratio is the median of the ratios of the rounds: what is compared ran a moment apart.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from bench.items import F1, F2, F4, NOMINAL, bare, batch, driver, gated, single
from bench.rig import Figures

P99, P95 = 2, 1
Results = Mapping[str, Sequence[Figures]]

OVERLOAD = "overload"
MILLION = "million"

VERIFY_P95_MS_MAX = 200.0
SYNCS_MAX = 4
BEYOND_SYNCS_MS = 15.0
REPLAY_S_MAX = 60.0
GROWTH_MIB_MAX = 1.0
P99_TIMES_MAX = 3.0
GATE_RATIO_MIN = 0.9

UNEXPLAINED_MAX = 1.25
"""Memory a record may take while serving, as a share of what it takes in a new process that holds the same outcomes."""


class Must(NamedTuple):
    """One line.

    Attributes:
        number: Of the item.
        what: Is compared with what.
        ratio: Found.
        target: Wanted.
        met: Whether it is.
        figures: Absolute ones.
    """

    number: int
    what: str
    ratio: str
    target: str
    met: str
    figures: str


def judge(results: Results) -> list[Must]:
    """Return a line for everything that was measured."""
    lines: list[Must] = []
    for make in (_durable, _single, _batches, _signatures, _stores, _overload, _services, _million, _gate):
        lines += make(results)
    return lines


def _durable(results: Results) -> list[Must]:
    served = [
        figures
        for name, runs in results.items()
        if name[:2] not in {"F1", "F2", "F3", "F4"}
        for figures in runs
    ]
    wrong = sum(bool(figures.wrong) for figures in served)
    lines = [
        Must(
            0,
            "runs whose every answer is right and found after a kill",
            f"{len(served) - wrong}/{len(served)}",
            "all",
            _met(wrong == 0),
            "",
        )
    ]
    if runs := results.get(NOMINAL):
        p95_ms = _median(runs, lambda each: each.latency_ms[P95])
        lines.append(
            Must(0, f"p95, {NOMINAL}", f"{p95_ms:.1f} ms", "≤ 200 ms", _met(p95_ms <= VERIFY_P95_MS_MAX), "")
        )
    return lines


def _single(results: Results) -> list[Must]:
    name = single("hmac", "memory", 1)
    lines = _compare(results, 1, "single, HMAC, memory / F1", name, [F1], 0.75)
    if results.get(name) and results.get(F4):
        sync_ms = _median(results[F4], lambda each: each.more["p99_ms"])
        p99_ms = _median(results[name], lambda each: each.latency_ms[P99])
        bound_ms = SYNCS_MAX * sync_ms + BEYOND_SYNCS_MS
        lines.append(
            Must(
                1,
                "its p99 against 4 disk syncs + 15 ms",
                f"{p99_ms / bound_ms:.2f}",
                "< 1",
                _met(p99_ms < bound_ms),
                f"{p99_ms:.1f} ms; bound {bound_ms:.1f} ms, F4's p99 {sync_ms:.2f} ms",
            )
        )
    return lines


def _batches(results: Results) -> list[Must]:
    return [
        line
        for size, target in ((100, 0.5), (1_000, 0.6))
        for line in _compare(
            results,
            2,
            f"batches of {size}, HMAC, memory / F2",
            batch(size, "hmac", "memory", 1),
            [F2],
            target,
        )
    ]


def _signatures(results: Results) -> list[Must]:
    return [
        line
        for size in (100, 1_000)
        for line in _compare(
            results,
            3,
            f"batches of {size}, Ed25519, PostgreSQL, two workers / two bare processes",
            batch(size, "ed25519", "postgres", 2),
            [bare(size, 2)],
            0.8,
        )
    ]


def _stores(results: Results) -> list[Must]:
    return [
        line
        for store, target in (("postgres", 0.6), ("redis", 0.7))
        for size in (100, 1_000)
        for line in _compare(
            results,
            4,
            f"batches of {size}, {store} / memory or the driver alone",
            batch(size, "hmac", store, 1),
            [batch(size, "hmac", "memory", 1), driver(size, store)],
            target,
        )
    ]


def _overload(results: Results) -> list[Must]:
    runs = results.get(OVERLOAD)
    if not runs:
        return []
    times = statistics.median(each.more["double_p99_ms"] / each.more["half_p99_ms"] for each in runs)
    half_ms = _median(runs, lambda each: each.more["half_p99_ms"])
    double_ms = _median(runs, lambda each: each.more["double_p99_ms"])
    refused = _median(runs, lambda each: each.more["refused_share"])
    growth = runs[0].more["rss_growth_mib_a_minute"]
    steady = runs[0].more["steady_rate"]
    return [
        Must(
            5,
            "p99 of what is admitted at twice the steady rate / at half of it",
            f"{times:.2f}",
            f"≤ {P99_TIMES_MAX:g}",
            _met(times <= P99_TIMES_MAX),
            f"steady {steady:,.0f}/s; {double_ms:.1f} ms, {half_ms:.1f} ms; {refused:.0%} answered 503; the client was up "
            f"to {_more(runs, 'behind_ms'):.0f} ms behind",
        ),
        Must(
            5,
            "growth of memory meanwhile",
            f"{growth:.2f} MiB/min",
            f"< {GROWTH_MIB_MAX:g}",
            _met(growth < GROWTH_MIB_MAX),
            "",
        ),
    ]


def _services(results: Results) -> list[Must]:
    two, one = batch(100, "ed25519", "postgres", 1, 2), batch(100, "ed25519", "postgres", 1)
    lines = _compare(results, 6, "two services / one, Ed25519, PostgreSQL, batches of 100", two, [one], 1.6)
    if lines and results.get(bare(100, 1)) and results.get(bare(100, 2)):
        allowed = _ratio(results[bare(100, 2)], [results[bare(100, 1)]])
        line = lines[0]
        met = line.met
        if met == "no" and allowed < 1.6:
            met = "the cores do not allow it"
        lines[0] = line._replace(met=met, figures=f"{line.figures}; two bare processes / one: {allowed:.2f}")
    return lines


def _million(results: Results) -> list[Must]:
    runs = results.get(MILLION)
    if not runs:
        return []
    serving, replayed, replay_s, count, log = (
        _more(runs, name)
        for name in ("bytes_a_record", "bytes_a_record_replayed", "replay_s", "records", "log_bytes_a_record")
    )
    return [
        Must(
            7,
            "memory a record while serving / in a new process with the same outcomes",
            f"{serving / replayed:.2f}",
            f"≤ {UNEXPLAINED_MAX:g}",
            _met(serving / replayed <= UNEXPLAINED_MAX),
            f"{serving:,.0f} and {replayed:,.0f} bytes a record",
        ),
        Must(
            7,
            f"replay of {count:,.0f} records at start",
            f"{replay_s:.1f} s",
            f"< {REPLAY_S_MAX:g} s",
            _met(replay_s < REPLAY_S_MAX),
            f"log of {log:,.0f} bytes a record",
        ),
    ]


def _gate(results: Results) -> list[Must]:
    lines = []
    names = {"single": single("hmac", "memory", 1)}
    names |= {f"batches of {size}": batch(size, "hmac", "memory", 1) for size in (100, 1_000)}
    for what, name in names.items():
        if not (runs := results.get(gated(name))):
            continue
        ratio = _more(runs, "ratio")
        rates = f"{_median(runs, lambda each: each.rate):,.0f}/s against {_more(runs, 'beside_rate'):,.0f}/s"
        by_cpu = statistics.median(each.more["beside_cpu_us"] / each.cpu_us for each in runs)
        lines.append(
            Must(
                8,
                f"{what}, HMAC, memory, gate on / off, in turn",
                f"{ratio:.2f}",
                f"≥ {GATE_RATIO_MIN:g}",
                _met(ratio >= GATE_RATIO_MIN),
                f"{rates}; by CPU time {by_cpu:.2f}",
            )
        )
    return lines


def _compare(
    results: Results, number: int, what: str, name: str, floors: Sequence[str], target: float
) -> list[Must]:
    """Compare rates with the lowest of the floors' in each round."""
    if not results.get(name) or not all(results.get(floor) for floor in floors):
        return []
    ratio = _ratio(results[name], [results[floor] for floor in floors])
    rates = [_median(results[each], lambda figures: figures.rate) for each in (name, *floors)]
    cpus = [_median(results[each], lambda figures: figures.cpu_us) for each in (name, *floors[:1])]
    by_cpu = (
        f"; by CPU time {cpus[1] / cpus[0]:.2f}" if len(floors) == 1 and number != 6 and all(cpus) else ""
    )
    figures = " against ".join(f"{rate:,.0f}/s" for rate in rates) + by_cpu
    return [Must(number, what, f"{ratio:.2f}", f"≥ {target:g}", _met(ratio >= target), figures)]


def _ratio(runs: Sequence[Figures], floors: Sequence[Sequence[Figures]]) -> float:
    rounds = zip(runs, *floors, strict=True)
    ratios: list[float] = [each.rate / min(floor.rate for floor in beside) for each, *beside in rounds]
    return statistics.median(ratios)


def _median(runs: Sequence[Figures], of: Callable[[Figures], float]) -> float:
    return statistics.median(of(figures) for figures in runs)


def _more(runs: Sequence[Figures], name: str) -> float:
    return _median(runs, lambda each: each.more[name])


def _met(is_met: bool) -> str:
    return "yes" if is_met else "no"
