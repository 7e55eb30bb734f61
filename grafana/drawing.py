"""Draws a panel of a dashboard from what Prometheus answered, as SVG. No Grafana: its look is not imitated, its queries are.

It draws lines over time, and for heatmaps the cells of a histogram. Everything about the panel - title, unit, legend, limit -
is taken from `dashboards.py`.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from panels import Panel

WIDTH, HEIGHT = 560, 260
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 34, 26
LEGEND_LINE = 16
LEGEND_PER_LINE = 3
COLORS = ("#1f6fb4", "#d9541e", "#2a8f4b", "#8e44ad", "#b8860b", "#c2185b", "#00838f", "#5d4037", "#607d8b")
LIMIT_COLOR = "#c62828"


class Line(NamedTuple):
    """A series: its name, and times and values in order."""

    name: str
    points: Sequence[tuple[float, float]]


def legend(template: str, labels: dict[str, str]) -> str:
    """Fill in Grafana's template of a series' name."""
    return re.sub(r"{{\s*(\w+)\s*}}", lambda found: labels.get(found[1], ""), template)


def spell(value: float, unit: str) -> str:
    """Return a value with its unit, short."""
    match unit:
        case "s":
            return f"{value * 1_000:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
        case "bytes":
            for suffix in ("B", "kB", "MB"):
                if abs(value) < 1_000:
                    return f"{value:.3g} {suffix}"
                value /= 1_000
            return f"{value:.3g} GB"
        case "percentunit":
            return f"{value * 100:.3g} %"
        case "reqps" | "cps":
            return f"{value:.3g}/s"
        case "bool_yes_no":
            return "yes" if value else "no"
        case _:
            return f"{value:.4g}"


def draw(panel: Panel, lines: Sequence[Line], from_s: float, to_s: float) -> str:
    """Return an SVG of the panel.

    Args:
        panel: Which.
        lines: Its series; those of a heatmap are its buckets, cumulative, the name being the upper bound.
        from_s: The left end.
        to_s: The right end.

    Raises:
        ValueError: There is nothing to draw.
    """
    lines = [Line(line.name, [point for point in line.points if math.isfinite(point[1])]) for line in lines]
    lines = [line for line in lines if line.points]
    if not lines:
        raise ValueError(f"{panel.title}: nothing to draw")
    frame = _Frame(from_s, to_s, 0.0, 1.0)
    body = _cells(panel, frame, lines) if panel.kind == "heatmap" else _curves(panel, frame, lines)
    named = [] if panel.kind == "heatmap" else lines
    height = HEIGHT + LEGEND_LINE * math.ceil(len(named) / LEGEND_PER_LINE)
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
                'font-family="sans-serif" font-size="11">'
            ),
            f"<title>{escape(panel.title)}</title>",
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            f'<text x="{LEFT}" y="20" font-size="14" fill="#222222">{escape(panel.title)}</text>',
            *body,
            *_times(frame),
            *_legend(named),
            "</svg>",
            "",
        ]
    )


class _Frame(NamedTuple):
    """What the corners of the picture stand for."""

    from_s: float
    to_s: float
    low: float
    high: float

    def x(self, time_s: float) -> float:
        share = (time_s - self.from_s) / ((self.to_s - self.from_s) or 1.0)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)


def _curves(panel: Panel, frame: _Frame, lines: Sequence[Line]) -> list[str]:
    values = [value for line in lines for _, value in line.points]
    limits = [panel.limit] if panel.limit is not None else []
    low = min([*values, *limits])
    high = max([*values, *limits])
    if panel.unit == "bool_yes_no":
        ticks = [0.0, 1.0]
    else:
        ticks = _ticks(min(0.0, low) if panel.from_zero or low > 0 else low, high or 1.0)
    frame = frame._replace(low=ticks[0], high=ticks[-1])
    drawn = []
    for tick in ticks:
        y = frame.y(tick)
        drawn.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}" stroke="#e3e3e3"/>')
        drawn.append(_label(LEFT - 6, y + 4, spell(tick, panel.unit), "end"))
    for limit in limits:
        y = frame.y(limit)
        drawn.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}" stroke="{LIMIT_COLOR}" stroke-dasharray="6 3"/>'
        )
    for index, line in enumerate(lines):
        color = COLORS[index % len(COLORS)]
        for piece in _pieces(line.points):
            points = " ".join(f"{frame.x(time_s):g},{frame.y(value):g}" for time_s, value in piece)
            drawn.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>')
    return drawn


def _pieces(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Cut a series where steps are missing: there was no number then."""
    step_s = min((later[0] - earlier[0] for earlier, later in itertools.pairwise(points)), default=0.0)
    pieces: list[list[tuple[float, float]]] = []
    for point in points:
        if not pieces or point[0] - pieces[-1][-1][0] > 1.5 * step_s:
            pieces.append([])
        pieces[-1].append(point)
    return pieces


def _cells(panel: Panel, frame: _Frame, lines: Sequence[Line]) -> list[str]:
    """Draw a histogram over time, a row a bucket; the darker, the more fell into it."""
    buckets = sorted(lines, key=lambda line: float(line.name))
    below: dict[float, float] = {}
    rows = []
    for bucket in buckets:
        cumulative = dict(bucket.points)
        rows.append(
            {time_s: max(0.0, value - below.get(time_s, 0.0)) for time_s, value in cumulative.items()}
        )
        below = cumulative
    used = [index for index, row in enumerate(rows) if max(row.values()) > 0]
    first, last = used[0], used[-1]
    most = max(value for row in rows for value in row.values())
    height = (HEIGHT - TOP - BOTTOM) / (last - first + 1)
    times = sorted(below)
    width = (WIDTH - LEFT - RIGHT) / max(1, len(times) - 1)
    drawn = []
    for index in range(first, last + 1):
        y = HEIGHT - BOTTOM - height * (index - first + 1)
        bound = float(buckets[index].name)
        upper = f"≤ {spell(bound, panel.unit)}" if math.isfinite(bound) else "more"
        drawn.append(_label(LEFT - 6, y + height / 2 + 4, upper, "end"))
        for time_s, value in rows[index].items():
            if value > 0:
                share = math.log1p(value) / math.log1p(most)
                drawn.append(
                    f'<rect x="{frame.x(time_s):g}" y="{y:.1f}" width="{min(width, WIDTH - RIGHT - frame.x(time_s)):.1f}" '
                    f'height="{height - 1:.1f}" fill="#d9541e" fill-opacity="{share:.2f}"/>'
                )
    return drawn


def _times(frame: _Frame) -> list[str]:
    length_s = frame.to_s - frame.from_s
    step_s = next(step for step in (5, 10, 20, 30, 60, 120, 300, 600, 3_600) if length_s / step <= 8)
    return [
        _label(frame.x(frame.from_s + at_s), HEIGHT - 8, f"{at_s} s", "middle")
        for at_s in range(0, int(length_s) + 1, step_s)
    ]


def _legend(lines: Sequence[Line]) -> list[str]:
    drawn = []
    for index, line in enumerate(lines):
        x = LEFT + (index % LEGEND_PER_LINE) * (WIDTH - LEFT) / LEGEND_PER_LINE
        y = HEIGHT + 8 + LEGEND_LINE * (index // LEGEND_PER_LINE)
        color = COLORS[index % len(COLORS)]
        drawn.append(f'<rect x="{x:.0f}" y="{y - 6:.0f}" width="10" height="3" fill="{color}"/>')
        drawn.append(_label(x + 14, y, line.name, "start"))
    return drawn


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers from at most `low` to at least `high`."""
    step = 10 ** math.floor(math.log10((high - low) or 1.0))
    step = next(
        step * factor for factor in (0.2, 0.25, 0.5, 1, 2, 2.5, 5) if (high - low) / (step * factor) <= 5
    )
    return [step * number for number in range(math.floor(low / step), math.ceil(high / step - 1e-9) + 1)]


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="#555555">{escape(text)}</text>'
