"""What a report says in words: each number's reading, and of each picture what kinds of stream look like there.

Readings are arithmetic on what was measured. What a kind of stream looks like is said of the kind, never of the stream shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import median

from pcs_agent.report.portrait import Histogram, Lag
from pcs_agent.report.streams import Judgement, Stream, WindowView
from pcs_agent.wording import count_of
from pcs_core.slope import theil_sen_slope

SLOPE_NAMED_WITHIN = 0.25
"""So close to a whole number a slope is read as that dimension."""

LITTLE_SHARE = 0.05
"""Repetition of fewer events is called little."""

_SHAPES = ("a few single places", "a line or curve", "a filled surface", "a filled volume")

MEANINGS: Mapping[str, str] = {
    "slope": (
        "A healthy stream keeps the slope of its own earlier windows, its points close to the line; a looping one goes flat "
        "once every place of its loop has a cell of its own; a drifting one tends to the slope of the path it moves along; a "
        "broken one has every count at 1, or goes flat at its number of events because there are too few."
    ),
    "histogram": (
        "A healthy stream has the shape of its earlier windows again; a looping one has few tall bars with gaps between them "
        "if its loop has few places; a drifting one is spread wide, flat or with several humps; a broken one is one bar, or a "
        "few events with nothing between."
    ),
    "recurrence": (
        "A healthy stream has the main diagonal and scattered specks; a looping one has long lines beside the diagonal, one "
        "loop apart; a drifting one is dark along the diagonal and pale far from it; a broken one is filled blocks where it is "
        "stuck, or has only a few rows where it was cut short."
    ),
    "r": (
        "A healthy stream stays at its own level; a looping one falls as far as its rounds repeat each other exactly; a "
        "drifting one may leave its level slowly or not at all; a broken one jumps, and a window without events is written "
        "as 1."
    ),
    "regimes": (
        "A healthy stream stays in its row; a looping one has fewer places, so a lower slope, and may move to sticky; a "
        "drifting one may pass from row to row; a broken one may have windows that are degraded, and so escalated."
    ),
}
"""Of each picture, what a healthy, a looping, a drifting and a broken stream look like there."""


def read_slope(d_hat: float) -> str:
    """Return a slope's reading.

    >>> read_slope(1.04)
    'a grid twice as fine has 2.06 times as many occupied cells, about what a line or curve would have'
    >>> read_slope(1.5)
    'a grid twice as fine has 2.83 times as many occupied cells, between a line or curve and a filled surface'
    """
    factor = f"a grid twice as fine has {2**d_hat:.3g} times as many occupied cells"
    nearest = round(d_hat)
    if d_hat < 0:
        return f"{factor}, fewer than the coarse one: no cloud of points does that"
    if d_hat >= len(_SHAPES) - 0.5:
        return f"{factor}, more than a filled volume"
    if abs(d_hat - nearest) <= SLOPE_NAMED_WITHIN:
        return f"{factor}, about what {_SHAPES[nearest]} would have"
    below = math.floor(d_hat)
    above = _SHAPES[below + 1] if below + 1 < len(_SHAPES) else "more"
    return f"{factor}, between {_SHAPES[below]} and {above}"


def fit_line(scales: Sequence[int], counts: Sequence[int]) -> tuple[float, float, float]:
    """Return the Theil–Sen slope, its intercept, and the largest distance of a point from that line, all in log2.

    Args:
        scales: Two or more, increasing.
        counts: Occupied cells at each.
    """
    slope = theil_sen_slope(scales, counts)
    points = [(math.log2(scale), math.log2(count)) for scale, count in zip(scales, counts, strict=True)]
    intercept = median(y - slope * x for x, y in points)
    return slope, intercept, max(abs(y - slope * x - intercept) for x, y in points)


def read_counts(view: WindowView) -> list[str]:
    """Return what keeps the counts from telling a dimension; empty if nothing does."""
    notes = []
    if view.events is not None and view.events > 1 and view.counts[-1] == view.events:
        first = next(s for s, n in zip(view.scales, view.counts, strict=True) if n == view.events)
        notes.append(
            f"From scale {first} on every event has a cell of its own: the counts stop at {view.events}, and the slope is "
            "less than with more events."
        )
    if max(view.counts) == 1:
        notes.append("One cell is occupied at every scale: the slope is 0 for lack of anything to count.")
    pairs = combinations(zip(view.scales, view.counts, strict=True), 2)
    if any(b % a == 0 and m < n for (a, n), (b, m) in pairs):
        notes.append(
            "A finer grid has fewer occupied cells than a coarse one that it divides, which no cloud of points can have."
        )
    return notes


def read_histogram(histogram: Histogram) -> str:
    """Return the histogram's reading."""
    reading = (
        f"The fullest of {count_of(histogram.bins, 'bin')} holds {histogram.fullest} of "
        f"{count_of(histogram.events, 'event')} ({percent(histogram.fullest / histogram.events)}); "
        f"{count_of(histogram.empty_bins, 'bin') if histogram.empty_bins else 'none'} empty."
    )
    if histogram.bins_per_bar > 1:
        reading += f" A bar is the fullest of {histogram.bins_per_bar} neighbouring bins."
    return reading


def read_lag(lag: Lag | None) -> str:
    """Return the recurrence's reading: after how many events the same ones come."""
    if lag is None:
        return "Too few events to look for repetition."
    if lag.share == 0:
        return f"No event is the same as any of the {lag.longest} after it."
    little = "Little repeats: " if lag.share < LITTLE_SHARE else ""
    return (
        f"{little}{percent(lag.share)} of events are the same as the one {count_of(lag.events, 'event')} on; up to "
        f"{lag.longest} events on, no other distance does clearly better."
    )


def read_judgement(judgement: Judgement) -> str:
    """Return a verdict with its reasons."""
    by = " by the backend" if judgement.by_backend else ""
    reasons = f": {', '.join(judgement.reasons)}" if judgement.reasons else ""
    return f"{judgement.word}{by}{reasons}"


def count_words(words: Mapping[str, int]) -> str:
    """Return counted words, the most frequent first.

    >>> count_words({"mixed": 1, "sticky": 3})
    'sticky 3, mixed 1'
    """
    return ", ".join(
        f"{word} {count}" for word, count in sorted(words.items(), key=lambda pair: (-pair[1], pair[0]))
    )


def warn_of(stream: Stream, views: Sequence[WindowView]) -> list[str]:
    """Return what a reader should know of a stream before its numbers.

    Args:
        stream: The stream.
        views: Its windows that are shown.
    """
    warnings = []
    if stream.problem:
        warnings.append(f"not read to its end: {stream.problem}")
    for code, count in sorted(stream.fallbacks.items()):
        warnings.append(f"fallback {code} in {count_of(count, 'window')}")
    for word in ("checks fail", "escalated", "dead", "pending"):
        doubtful = [view for view in views if view.judgement.word == word]
        reasons = sorted({reason for view in doubtful for reason in view.judgement.reasons})
        if stream.words[word]:
            why = f": {', '.join(reasons)}" if reasons else ""
            warnings.append(f"{word}: {count_of(stream.words[word], 'window')}{why}")
    saturated = sum(bool(read_counts(view)) for view in views)
    if saturated:
        warnings.append(
            f"counts that stop short in {count_of(saturated, 'window')} of those shown: see the slope"
        )
    return warnings


def percent(share: float) -> str:
    """Return a share in per cent.

    >>> percent(0.0345), percent(0.01), percent(1.0), percent(0.0004)
    ('3.5 %', '1 %', '100 %', 'under 0.1 %')
    """
    if 0 < share < 0.001:
        return "under 0.1 %"
    if 0.999 < share < 1:
        return "over 99.9 %"
    return f"{100 * share:.3g} %" if share >= 0.1 else f"{100 * share:.2g} %"
