"""The picture of docs/evaluation.md: a panel for each kind, the AUROC of the signals over the length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from evaluate.results import Row

LINES = (
    ("r", "#0b6e4f"),
    ("d_hat", "#b5179e"),
    ("coh_star", "#3a0ca3"),
    ("shift", "#d00000"),
    ("weighted", "#f77f00"),
    ("mahalanobis", "#4895ef"),
    ("sentences", "#888888"),
)
_COLUMNS, _WIDTH, _HEIGHT = 3, 250, 170
_LEFT, _TOP, _GAP, _FOOT = 46, 34, 40, 44
_LEAST = 0.2
_STYLE = "text{font:12px sans-serif;fill:#222} .small{font-size:10px;fill:#555} .title{font-weight:bold}"


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Write the picture as SVG."""
    kinds = list(dict.fromkeys(row.kind for row in sorted(rows, key=lambda row: -row.length)))
    lengths = sorted({row.length for row in rows})
    panel_rows = math.ceil(len(kinds) / _COLUMNS)
    width = _LEFT + _COLUMNS * (_WIDTH + _GAP)
    height = _TOP + panel_rows * (_HEIGHT + _GAP) + _FOOT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        "<title>AUROC of each signal against healthy streams, by kind and length in tokens</title>",
        f"<style>{_STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for number, kind in enumerate(kinds):
        x = _LEFT + number % _COLUMNS * (_WIDTH + _GAP)
        y = _TOP + number // _COLUMNS * (_HEIGHT + _GAP)
        parts += _panel(kind, [row for row in rows if row.kind == kind], lengths, x, y)
    for number, (signal, colour) in enumerate(LINES):
        x, y = _LEFT + number * 120, height - 16
        parts.append(
            f'<path d="M{x} {y - 4}h22" stroke="{colour}" stroke-width="2.5"/><text x="{x + 28}" y="{y}">{signal}</text>'
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>", ""]), encoding="utf-8")


def _panel(kind: str, rows: Sequence[Row], lengths: Sequence[int], x: float, y: float) -> list[str]:
    span = math.log(lengths[-1] / lengths[0]) or 1.0

    def place(length: int, value: float) -> tuple[float, float]:
        right = x + math.log(length / lengths[0]) / span * _WIDTH
        return right, y + (1 - max(value, _LEAST)) / (1 - _LEAST) * _HEIGHT

    parts = [
        f'<text class="title" x="{x}" y="{y - 10}">{kind}</text>',
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#ccc"/>',
    ]
    for tick in (0.25, 0.5, 0.75, 0.9, 1.0):
        _, at = place(lengths[0], tick)
        dashes = ' stroke-dasharray="4 3"' if tick == 0.5 else ""
        parts.append(f'<path d="M{x} {at:.1f}h{_WIDTH}" stroke="#e4e4e4"{dashes}/>')
        parts.append(f'<text class="small" x="{x - 6}" y="{at + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for length in lengths:
        right, _ = place(length, 1.0)
        parts.append(
            f'<text class="small" x="{right:.1f}" y="{y + _HEIGHT + 14}" text-anchor="middle">{length}</text>'
        )
    for signal, colour in LINES:
        mine = sorted((row for row in rows if row.signal == signal), key=lambda row: row.length)
        points = [place(row.length, row.auroc) for row in mine]
        line = " ".join(f"{right:.1f},{down:.1f}" for right, down in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for row in mine:
            right, low = place(row.length, row.low)
            _, high = place(row.length, row.high)
            parts.append(
                f'<path d="M{right:.1f} {low:.1f}V{high:.1f}" stroke="{colour}" stroke-opacity=".45"/>'
            )
    return parts
