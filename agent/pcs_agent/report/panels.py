"""The panels of a page: each a picture, what was measured in words, what kinds of stream look like there, and its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from pcs_agent.report import pictures
from pcs_agent.report.portrait import RECURRENCE_EVENTS_MAX, Histogram, Lag, Recurrence
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


class Picture(NamedTuple):
    """A picture and what stands below it.

    Attributes:
        title: Its heading.
        svg: The drawing.
        reading: What was measured, in words.
        meaning: What kinds of stream look like in such a picture.
        headings: Of the table of its numbers.
        rows: That table.
        is_wide: Whether it takes the whole width.
    """

    title: str
    svg: Markup
    reading: str
    meaning: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    is_wide: bool = False


class Pictured(NamedTuple):
    """A window with its pictures."""

    title: str
    reading: str
    notes: Sequence[str]
    pictures: Sequence[Picture]


def draw_over_time(views: Sequence[WindowView], anchor: str) -> list[Picture]:
    """Return the panels of all windows of a stream.

    Args:
        views: Two windows or more, by epoch.
        anchor: Begins the names of its pictures.
    """
    values = [view.r for view in views]
    reading = (
        f"from {min(values):.3f} to {max(values):.3f} over {len(views)} windows; the last {values[-1]:.3f}"
    )
    regimes = {
        regime: sum(view.regime == regime for view in views) for regime in {view.regime for view in views}
    }
    words = [view.judgement.word for view in views]
    answers = count_words({word: words.count(word) for word in words})
    judged = f"{count_words(regimes)}; {answers}"
    # Their numbers are the table of windows below.
    return [
        Picture(
            "r over the windows",
            Markup(pictures.draw_r(views, f"{anchor}-r", f"r {reading}")),  # noqa: S704
            reading,
            MEANINGS["r"],
            (),
            (),
            is_wide=True,
        ),
        Picture(
            "Regimes and answers over time",
            Markup(pictures.draw_regimes(views, f"{anchor}-g", judged)),  # noqa: S704
            judged,
            MEANINGS["regimes"],
            (),
            (),
            is_wide=True,
        ),
    ]


def draw_window(why: str, view: WindowView, name: str) -> Pictured:
    """Return the panels of one window.

    Args:
        why: Why it is this one.
        view: The window; with a portrait, the pictures of its events come too.
        name: Begins the names of its pictures.
    """
    drawn = [_slope(view, name)]
    portrait = view.portrait
    if portrait is not None and portrait.histogram is not None:
        drawn.append(_histogram(portrait.histogram, view, name))
    if portrait is not None and portrait.whole is not None:
        count = "" if portrait.run is None else ", the whole window"
        drawn.append(_recurrence(portrait.whole, portrait.lag, count, f"{name}-whole"))
    if portrait is not None and portrait.run is not None:
        count = f", {len(portrait.run.levels)} in a row"
        drawn.append(_recurrence(portrait.run, portrait.lag, count, f"{name}-run"))
    reading = f"D̂ {view.d_hat:.3f}, coh★ {view.coh_star:.3f}, r {view.r:.3f}, {view.regime}, {read_judgement(view.judgement)}"
    notes = read_counts(view)
    if portrait is None:
        notes.append("only the record is known, so what needs its events is not drawn")
    return Pictured(f"Epoch {view.epoch} ({why})", reading, notes, drawn)


def _slope(view: WindowView, name: str) -> Picture:
    slope, _, residual = fit_line(view.scales, view.counts)
    reading = f"Theil–Sen slope D̂ = {slope:.3f}: {read_slope(slope)}; no point is further than {residual:.2f} from the line"
    if round(slope, 3) != round(view.d_hat, 3):
        reading += f"; the record claims {view.d_hat:.3f}"
    return Picture(
        "Occupied cells over scale",
        Markup(pictures.draw_slope(view, f"{name}-slope", reading)),  # noqa: S704
        reading,
        MEANINGS["slope"],
        ("scale", "occupied cells"),
        [[str(scale), str(count)] for scale, count in zip(view.scales, view.counts, strict=True)],
    )


def _histogram(histogram: Histogram, view: WindowView, name: str) -> Picture:
    reading = read_histogram(histogram)
    return Picture(
        "Events along the best direction",
        Markup(pictures.draw_histogram(histogram, f"{name}-histogram", reading)),  # noqa: S704
        f"coh★ {view.coh_star:.3f}: {reading}",
        MEANINGS["histogram"],
        ("bin" if histogram.bins_per_bar == 1 else "first bin of the bar", "events"),
        [[str(place * histogram.bins_per_bar), str(bar)] for place, bar in enumerate(histogram.bars)],
    )


def _recurrence(recurrence: Recurrence, lag: Lag | None, which: str, name: str) -> Picture:
    near = f"{percent(recurrence.near_share)} of pairs are near or the same"
    rows = [
        ["first event", str(recurrence.first)],
        ["events along a side", str(len(recurrence.levels))],
        ["from one to the next", str(recurrence.step)],
        ["pairs near or the same", percent(recurrence.near_share)],
    ]
    if recurrence.step == 1:
        reading = f"{near}; {read_lag(lag)}"
    else:
        reading = f"one of every {recurrence.step} events, because a picture has {RECURRENCE_EVENTS_MAX} at most; {near}"
    if lag is not None and recurrence.step == 1:
        rows += [["best repetition after", str(lag.events)], ["share the same then", percent(lag.share)]]
    return Picture(
        f"Events against events{which}",
        Markup(pictures.draw_recurrence(recurrence, name, reading)),  # noqa: S704
        reading,
        MEANINGS["recurrence"],
        ("measure", "value"),
        rows,
    )
