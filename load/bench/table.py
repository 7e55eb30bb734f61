"""Tables, for people."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from bench.musts import Must
from bench.rig import Figures

_HEADINGS = (
    "item",
    "records/s",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "p99.9 ms",
    "CPU µs/record",
    "records/sync",
    "client CPU",
    "rounds",
)


def show_items(results: Mapping[str, Sequence[Figures]], *, markdown: bool) -> str:
    """Return the table of all items, each figure the median of its rounds."""
    rows = [_HEADINGS, *(_row(name, runs) for name, runs in results.items() if runs)]
    return show_table(rows, markdown=markdown)


def show_musts(lines: Sequence[Must], *, markdown: bool) -> str:
    """Return the table of what must be shown."""
    headings = ("no.", "what", "found", "target", "met", "absolute")
    return show_table([headings, *((str(line[0]), *line[1:]) for line in lines)], markdown=markdown)


def show_table(rows: Sequence[Sequence[str]], *, markdown: bool) -> str:
    """Return lines of cells, the first line being the headings."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    if markdown:
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        lines.insert(1, "|---" * len(widths) + "|")
    else:
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
        ]
    return "\n".join(line.rstrip() for line in lines)


def median(runs: Sequence[Figures], of: Callable[[Figures], float]) -> float:
    """Return the median of one figure."""
    return statistics.median(of(figures) for figures in runs)


def _row(name: str, runs: Sequence[Figures]) -> tuple[str, ...]:
    latency = [""] * 4
    if runs[0].latency_ms:
        times = zip(*(figures.latency_ms[:4] for figures in runs), strict=True)
        latency = [f"{statistics.median(each):.1f}" for each in times]
    elif "p50_ms" in runs[0].more:
        p50_ms, p99_ms = (statistics.median(each.more[key] for each in runs) for key in ("p50_ms", "p99_ms"))
        latency = [f"{p50_ms:.2f}", "", f"{p99_ms:.2f}", ""]
    return (
        name,
        f"{median(runs, lambda each: each.rate):,.0f}",
        *latency,
        _or_none(median(runs, lambda each: each.cpu_us), ".1f"),
        _or_none(median(runs, lambda each: each.records_a_sync), ".1f"),
        _or_none(median(runs, lambda each: each.client_cpu), ".2f"),
        str(len(runs)),
    )


def _or_none(value: float, form: str) -> str:
    return f"{value:{form}}" if value else ""
