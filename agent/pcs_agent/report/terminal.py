"""The report as text for a terminal: the same numbers and readings, with pictures made of characters."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from pcs_agent.report.portrait import NEAR, Histogram, Recurrence
from pcs_agent.report.streams import SECTIONS_MAX, Stream, Streams, WindowView
from pcs_agent.report.wording import (
    MEANINGS,
    count_words,
    read_counts,
    read_histogram,
    read_judgement,
    read_lag,
    read_slope,
    warn_of,
)
from pcs_agent.streams import print_text
from pcs_agent.wording import count_of

TERMINAL_WINDOWS_MAX = 20
"""Windows of a stream that the terminal lists, the newest."""

MAP_ROWS_MAX = 24
"""Lines of a recurrence map; each stands for two rows of dots."""

_WIDTH_WITHOUT_TERMINAL = 110
_WIDTH_MAX = 120
_BLOCKS = " ▁▂▃▄▅▆▇█"
_HALVES = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}
_REGIME_LETTERS = {"sticky": "s", "mixed": "m", "non_sticky": "n"}


def print_streams(streams: Streams) -> None:
    """Print the report.

    Raises:
        OutputError: Standard output takes nothing more.
    """
    is_terminal = sys.stdout.isatty()
    console = Console(
        file=sys.stdout, highlight=False, width=None if is_terminal else _WIDTH_WITHOUT_TERMINAL
    )
    console.width = min(console.width, _WIDTH_MAX)
    with console.capture() as captured:  # rich would end the process at a closed pipe
        everything = list(streams)
        if len(everything) > 1:
            console.print(_overview(everything))
        for stream in everything[:SECTIONS_MAX]:
            console.print(_stream(stream))
        if len(everything) > SECTIONS_MAX:
            console.print(f"… and {len(everything) - SECTIONS_MAX} more streams, in the overview alone")
        if streams.left_out_windows:
            console.print(
                f"… and {count_of(streams.left_out_windows, 'window')} of further streams, not shown"
            )
        console.print(Text(_LEGEND, style="dim"))
    print_text(captured.get().removesuffix("\n"))


_LEGEND = "\n".join(
    f"{name}: {MEANINGS[key]}"
    for name, key in (
        ("Slope", "slope"),
        ("Histogram", "histogram"),
        ("Map", "recurrence"),
        ("r", "r"),
        ("Regimes", "regimes"),
    )
)


def _overview(everything: Sequence[Stream]) -> Table:
    table = Table(
        box=None, pad_edge=False, title=f"{count_of(len(everything), 'stream')}", title_justify="left"
    )
    for heading in ("stream", "windows", "events", "regimes", "answers"):
        table.add_column(heading, overflow="fold")
    for stream in everything:
        cells = (
            stream.name,
            str(stream.windows_seen),
            str(stream.events_seen or "unknown"),
            count_words(stream.regimes),
            count_words(stream.words),
        )
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _stream(stream: Stream) -> Panel:
    views = stream.windows()
    parts: list[Text | Table] = [
        Text(
            f"{count_of(stream.windows_seen, 'window')}; {count_words(stream.regimes)}; {count_words(stream.words)}"
        )
    ]
    parts += [Text(f"! {warning}", style="yellow") for warning in warn_of(stream, views)]
    if len(views) > 1:
        shown = views[-_WIDTH_WITHOUT_TERMINAL + 20 :]
        parts += [
            Text(f"r        {draw_line([view.r for view in shown])}"),
            Text(
                f"regimes  {''.join(_REGIME_LETTERS[view.regime] for view in shown)}  (s sticky, m mixed, n non-sticky)"
            ),
            _table(views[-TERMINAL_WINDOWS_MAX:]),
        ]
        if len(views) > TERMINAL_WINDOWS_MAX:
            parts.append(
                Text(f"… the last {TERMINAL_WINDOWS_MAX} of {stream.windows_seen} windows", style="dim")
            )
    for why, view in stream.pictured(1):
        parts += _window(why, view)
    return Panel(Group(*parts), title=Text(stream.name), title_align="left")


def _table(views: Sequence[WindowView]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("epoch", "events", "D̂", "coh★", "r", "regime", "answer"):
        table.add_column(heading, overflow="fold")
    for view in views:
        cells = (
            str(view.epoch),
            "?" if view.events is None else str(view.events),
            f"{view.d_hat:.3f}",
            f"{view.coh_star:.3f}",
            f"{view.r:.3f}",
            view.regime,
            read_judgement(view.judgement),
        )
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _window(why: str, view: WindowView) -> list[Text | Table]:
    lines = [
        Text(
            f"\nEpoch {view.epoch}{f' ({why})' if why else ''}: {view.regime}, {read_judgement(view.judgement)}",
            style="bold",
        ),
        Text(f"D̂ {view.d_hat:.3f}: {read_slope(view.d_hat)}"),
        Text("  ".join(f"{scale}:{count}" for scale, count in zip(view.scales, view.counts, strict=True))),
    ]
    lines += [Text(f"! {note}", style="yellow") for note in read_counts(view)]
    lines.append(Text(f"r {view.r:.3f}: 1 where nothing compresses, near 0 where almost everything does"))
    portrait = view.portrait
    if portrait is None:
        return [*lines, Text(f"coh★ {view.coh_star:.3f}")]
    if portrait.histogram is None:
        lines.append(Text(f"coh★ {view.coh_star:.3f}"))
    else:
        lines.append(Text(f"coh★ {view.coh_star:.3f}: {read_histogram(portrait.histogram)}"))
        lines.append(Text(f"  |{draw_bars(portrait.histogram)}|"))
    recurrence = portrait.run or portrait.whole
    if recurrence is not None:
        lines.append(
            Text(
                f"{len(recurrence.levels)} events against each other, from event {recurrence.first}: {read_lag(portrait.lag)}"
            )
        )
        lines += [Text(f"  {line}", no_wrap=True) for line in draw_map(recurrence)]
    return [*lines]


def draw_line(values: Sequence[float]) -> str:
    """Return a line of blocks, one for each value, the lowest for 0 and below, the whole one for 1 and above.

    >>> draw_line([0.0, 0.5, 1.0])
    '▁▄█'
    """
    return "".join(_BLOCKS[max(1, round(min(1.0, max(0.0, value)) * 8))] for value in values)


def draw_bars(histogram: Histogram) -> str:
    """Return a line of blocks, one for each bar, the fullest a whole one, none but an empty one blank."""
    return "".join(_BLOCKS[-(-bar * 8 // histogram.fullest)] for bar in histogram.bars)


def draw_map(recurrence: Recurrence) -> list[str]:
    """Return lines of half blocks: a dot where events are near, the first event at the top left.

    Where more events than fit share a dot, it is there if as many of their pairs are near as a diagonal through it has.
    """
    near = (recurrence.levels >= NEAR).astype(np.int64)
    side = min(len(near), 2 * MAP_ROWS_MAX)
    starts = np.arange(side + 1) * len(near) // side
    pairs = np.add.reduceat(np.add.reduceat(near, starts[:-1], axis=0), starts[:-1], axis=1)
    dots = pairs >= np.diff(starts)[:, None]
    if side % 2:
        dots = np.vstack([dots, np.zeros(side, dtype=np.bool_)])
    return [
        "".join(
            _HALVES[bool(upper), bool(lower)] for upper, lower in zip(dots[row], dots[row + 1], strict=True)
        )
        for row in range(0, len(dots), 2)
    ]
