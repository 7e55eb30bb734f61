"""The panels of a page: pictures, what was measured in words, what kinds of stream look like there, and the numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from pcs_agent.report import pictures
from pcs_agent.report.portrait import (
    CLOSE_SHARE,
    NEAR_SHARE,
    RECURRENCE_EVENTS_MAX,
    SAME_SHARE,
    Histogram,
    Lag,
    Recurrence,
)
from pcs_agent.report.streams import WindowView
from pcs_agent.report.wording import (
    MEANINGS,
    count_words,
    fit_line,
    percent,
    read_counts,
    read_histogram,
    read_judgement,
    read_lag,
    read_slope,
)


class Panel(NamedTuple):
    """One or two pictures and what stands below them.

    Attributes:
        title: The heading.
        pictures: The drawings.
        legend: What the marks in them are.
        reading: What was measured, in words.
        meaning: What kinds of stream look like there.
        headings: Of the table of its numbers.
        rows: That table.
    """

    title: str
    pictures: Sequence[Markup]
    legend: str
    reading: str
    meaning: str
    headings: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


class WindowPanels(NamedTuple):
    """A window with its panels, and what keeps its numbers from meaning what they seem to."""

    title: str
    reading: str
    notes: Sequence[str]
    panels: Sequence[Panel]


def draw_over_time(views: Sequence[WindowView], name: str) -> list[Panel]:
    """Return the panels of all windows of a stream; their numbers are the table of windows.

    Args:
        views: Two windows or more, by epoch.
        name: Begins the names of the pictures: letters, digits and `-`.
    """
    values = [view.r for view in views]
    level = f"r lies between {min(values):.3f} and {max(values):.3f} in {len(views)} windows; the last has {values[-1]:.3f}."
    regimes = count_words(Counter(view.regime for view in views))
    answers = count_words(Counter(view.judgement.word for view in views))
    judged = f"Regimes: {regimes}. Answers: {answers}."
    return [
        Panel(
            "r over the windows",
            [_safe(pictures.draw_r(views, f"{name}-r", level))],
            "A dot a window, up to 60. 1: the window does not compress at all; near 0: to almost nothing.",
            level,
            MEANINGS["r"],
        ),
        Panel(
            "Regimes and answers over time",
            [_safe(pictures.draw_regimes(views, f"{name}-regimes", judged))],
            "Lowest row: ● accepted, or the checks hold; ▲ escalated or pending; ✖ dead, or the checks fail.",
            judged,
            MEANINGS["regimes"],
        ),
    ]


def draw_window(why: str, view: WindowView, name: str) -> WindowPanels:
    """Return the panels of one window.

    Args:
        why: Why it is this one; may be empty.
        view: The window; with a portrait, the pictures of its events come too.
        name: Begins the names of the pictures.
    """
    panels = [_slope(view, name)]
    notes = read_counts(view)
    portrait = view.portrait
    if portrait is None:
        notes.append("Only the record is known, so what needs the events is not drawn.")
    elif portrait.whole is None:
        notes.append("Two events or more are needed for a direction and for pairs.")
    else:
        if portrait.histogram is not None:
            panels.append(_histogram(portrait.histogram, name))
        both = [each for each in (portrait.whole, portrait.run) if each is not None]
        panels.append(_recurrences(both, portrait.lag, name))
    numbers = f"D̂ {view.d_hat:.3f}, coh★ {view.coh_star:.3f}, r {view.r:.3f}, {view.regime}"
    reading = f"{numbers}; {read_judgement(view.judgement)}."
    return WindowPanels(f"Epoch {view.epoch}{f' ({why})' if why else ''}", reading, notes, panels)


def _slope(view: WindowView, name: str) -> Panel:
    slope, _, residual = fit_line(view.scales, view.counts)
    reading = (
        f"Slope D̂ = {slope:.3f}: {read_slope(slope)}. No point is further than {residual:.2f} from the line."
    )
    if round(slope, 3) != round(view.d_hat, 3):
        reading += f" The record claims {view.d_hat:.3f}."
    return Panel(
        "Occupied cells over scale",
        [_safe(pictures.draw_slope(view, f"{name}-slope", reading))],
        "Dots: counts at each scale. Line: Theil–Sen, the median of all slopes between two of them.",
        reading,
        MEANINGS["slope"],
        ("scale", "occupied cells"),
        [[str(scale), str(count)] for scale, count in zip(view.scales, view.counts, strict=True)],
    )


def _histogram(histogram: Histogram, name: str) -> Panel:
    reading = read_histogram(histogram)
    return Panel(
        "Events along the best direction",
        [_safe(pictures.draw_histogram(histogram, f"{name}-histogram", reading))],
        "Orange: the fullest bin, whose share is coh★.",
        reading,
        MEANINGS["histogram"],
        ("bin" if histogram.bins_per_bar == 1 else "first bin of the bar", "events"),
        [[str(place * histogram.bins_per_bar), str(bar)] for place, bar in enumerate(histogram.bars)],
    )


def _recurrences(found: Sequence[Recurrence], lag: Lag | None, name: str) -> Panel:
    drawn, rows = [], []
    for recurrence in found:
        count = len(recurrence.levels)
        what = (
            f"{count} events in a row" if recurrence.step == 1 else f"one of every {recurrence.step} events"
        )
        about = f"{what}, from event {recurrence.first} on: {percent(recurrence.near_share)} of pairs are near or the same"
        drawn.append(_safe(pictures.draw_recurrence(recurrence, f"{name}-every{recurrence.step}", about)))
        rows.append([what, str(recurrence.first), str(count), percent(recurrence.near_share)])
    reading = read_lag(lag)
    if len(found) > 1:
        reading = (
            f"Left: one of every {found[0].step} events of the whole window, for a side has {RECURRENCE_EVENTS_MAX} at "
            f"most. Right: {len(found[1].levels)} in a row from its middle. {reading}"
        )
    same, near, close = (percent(share) for share in (SAME_SHARE, NEAR_SHARE, CLOSE_SHARE))
    return Panel(
        "Events against events",
        drawn,
        f"Full colour: the same, {same} of the largest distance or less; half: near, {near}; faint: {close}.",
        reading,
        MEANINGS["recurrence"],
        ("events", "first", "along a side", "pairs near or the same"),
        rows,
    )


def _safe(svg: str) -> Markup:
    return Markup(svg)  # noqa: S704  # made here, of numbers; its description is escaped
