"""The pictures of a report as SVG to stand inside a page, drawn by matplotlib, which is imported only with this module.

The same numbers give the same bytes: no date, no random identity. Colours are the page's variables, so that a picture is
readable in light, dark and print; every picture has a title and a description of its own. No text of a user's is in them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pcs_agent.report.portrait import CLOSE, NEAR, SAME, Histogram, Recurrence
from pcs_agent.report.streams import WindowView
from pcs_agent.report.wording import fit_line

# What matplotlib draws in these colours is the page's variable of that name.
_INK, _MUTED, _GRID = "#010101", "#020202", "#030303"
_ACCENT, _SECOND, _GOOD, _DOUBT, _BAD = "#040404", "#050505", "#060606", "#070707", "#080808"
_VARIABLES = {
    _INK: "ink",
    _MUTED: "muted",
    _GRID: "grid",
    _ACCENT: "accent",
    _SECOND: "second",
    _GOOD: "good",
    _DOUBT: "doubt",
    _BAD: "bad",
}
_SETTINGS: Any = {  # matplotlib's type for it lists every key there is, and grows
    "svg.hashsalt": "pcs-agent report",
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": _INK,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "grid.color": _GRID,
    "lines.markersize": 5,
    "patch.linewidth": 0,
}
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))

# Half-dark blue: it stands out from white and from the dark page.
_RECURRENCE_RGB = (0x3B, 0x7D, 0xD8)
_RECURRENCE_ALPHA = {CLOSE: 50, NEAR: 130, SAME: 255}

_REGIMES = ("sticky", "mixed", "non_sticky")
_WORD_COLORS = {"accepted": _GOOD, "checks hold": _GOOD, "escalated": _DOUBT, "pending": _DOUBT}

_MARKERS_MAX = 60
"""Up to so many windows each has a mark of its own on a line."""


def draw_slope(view: WindowView, name: str, about: str) -> str:
    """Draw occupied cells over scale, both in log2, with the fitted line.

    Args:
        view: The window.
        name: Identity of the picture in its page: letters, digits and `-`.
        about: The picture's description.
    """
    slope, intercept, _ = fit_line(view.scales, view.counts)
    x = np.log2(np.array(view.scales, dtype=np.float64))

    def draw(axes: Axes) -> None:
        axes.grid(visible=True, linewidth=0.6)
        axes.plot(x, slope * x + intercept, color=_SECOND, linewidth=1.5)
        axes.plot(x, np.log2(np.array(view.counts, dtype=np.float64)), "o", color=_ACCENT)
        axes.set_xlabel("log2 of the scale (cells per axis)")
        axes.set_ylabel("log2 of occupied cells")
        axes.margins(0.08)
        if max(view.counts) == 1:
            axes.set_ylim(-0.5, 1.5)

    return _render(draw, name, "Occupied cells over scale", about)


def draw_histogram(histogram: Histogram, name: str, about: str) -> str:
    """Draw events along the best direction; arguments as `draw_slope`."""

    def draw(axes: Axes) -> None:
        axes.grid(visible=True, axis="y", linewidth=0.6)
        axes.set_axisbelow(True)
        edges = np.minimum(np.arange(len(histogram.bars) + 1) * histogram.bins_per_bar, histogram.bins)
        fullest = histogram.bars.index(histogram.fullest)
        axes.stairs(histogram.bars, edges, fill=True, color=_ACCENT)
        axes.stairs([histogram.fullest], edges[fullest : fullest + 2], fill=True, color=_SECOND)
        axes.set_xlabel("bin along the best direction")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_ylabel("events")
        axes.set_xlim(0, histogram.bins)
        axes.set_ylim(0, histogram.fullest * 1.08)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))

    return _render(draw, name, "Events along the best direction", about)


def draw_recurrence(recurrence: Recurrence, name: str, about: str) -> str:
    """Draw events against events; arguments as `draw_slope`."""
    levels = recurrence.levels
    pixels = np.zeros((*levels.shape, 4), dtype=np.uint8)
    pixels[..., :3] = _RECURRENCE_RGB
    for level, alpha in _RECURRENCE_ALPHA.items():
        pixels[..., 3][levels == level] = alpha
    last = recurrence.first + recurrence.step * len(levels)

    def draw(axes: Axes) -> None:
        axes.imshow(
            pixels,
            interpolation="none",
            origin="lower",
            extent=(recurrence.first, last, recurrence.first, last),
        )
        axes.set_xlabel("event")
        axes.set_ylabel("event")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5, integer=True))

    return _render(draw, name, "Events against events", about, size=(3.5, 3.2))


def draw_r(views: Sequence[WindowView], name: str, about: str) -> str:
    """Draw r over the windows; arguments as `draw_slope`."""

    def draw(axes: Axes) -> None:
        axes.grid(visible=True, linewidth=0.6)
        marker = "o" if len(views) <= _MARKERS_MAX else ""
        epochs, values = [view.epoch for view in views], [view.r for view in views]
        axes.plot(epochs, values, marker=marker, color=_ACCENT, linewidth=1.5, markersize=4)
        axes.set_xlabel("epoch")
        axes.set_ylabel("r", rotation=0, horizontalalignment="right")
        axes.set_ylim(0, 1.05)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        _fit_epochs(axes, epochs)

    return _render(draw, name, "r over the windows", about, size=(5.0, 2.1))


def draw_regimes(views: Sequence[WindowView], name: str, about: str) -> str:
    """Draw each window's regime, and its answer below; arguments as `draw_slope`."""

    def draw(axes: Axes) -> None:
        epochs = np.array([view.epoch for view in views], dtype=np.float64)
        axes.axhline(0.5, color=_GRID, linewidth=0.8)
        size = 36 if len(views) <= _MARKERS_MAX else 10
        rows = np.array([1 + _REGIMES.index(view.regime) for view in views])
        axes.scatter(epochs, rows, marker="s", s=size, color=_ACCENT, linewidths=0)
        for color, shape in ((_GOOD, "o"), (_DOUBT, "^"), (_BAD, "X")):
            of_color = np.array([_WORD_COLORS.get(view.judgement.word, _BAD) == color for view in views])
            axes.scatter(
                epochs[of_color], np.zeros(of_color.sum()), marker=shape, s=size, color=color, linewidths=0
            )
        axes.set_yticks(range(4), ["answer", "sticky", "mixed", "non-sticky"])
        axes.set_ylim(-0.5, 3.5)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        _fit_epochs(axes, epochs.tolist())

    return _render(draw, name, "Regimes and answers over time", about, size=(5.0, 2.1))


def _fit_epochs(axes: Axes, epochs: Sequence[float]) -> None:
    axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    axes.ticklabel_format(axis="x", style="plain", useOffset=False)


def _render(
    draw: Callable[[Axes], None], name: str, title: str, about: str, *, size: tuple[float, float] = (3.5, 2.8)
) -> str:
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        draw(axes)
        target = io.StringIO()
        figure.savefig(target, format="svg", metadata=_NO_METADATA)
    return _embed(target.getvalue(), name, title, about)


def _embed(svg: str, name: str, title: str, about: str) -> str:
    """Return matplotlib's document as an element of a page: its own names, the page's colours, title and description."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*; ?", "", svg)
    svg = re.sub("|".join(_VARIABLES), lambda found: f"var(--{_VARIABLES[found[0]]})", svg)
    # Names that nothing refers to would only stand twice in a page of several pictures.
    named = set(re.findall(r'(?:url\(|href=")#([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in named else "", svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{name}-", svg)
    svg = re.sub(r">\s+<", "><", svg)
    head, rest = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    return (
        f'<svg {box[0]} role="img" aria-labelledby="{name}-t {name}-d" xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink"><title id="{name}-t">{escape(title)}</title>'
        f'<desc id="{name}-d">{escape(about)}</desc>{rest.strip()}'
    )
