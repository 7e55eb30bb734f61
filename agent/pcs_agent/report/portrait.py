"""What the pictures of one window show: its histogram along the best direction, and which of its events lie close together.

Measured once, while the window is in memory. What is kept is bounded and holds no event: counts a bin, and for pairs of
events one of four levels of closeness.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from pcs_agent.signals.scaling import STRETCH, Points

RECURRENCE_EVENTS_MAX = 240
"""Events along each side of a recurrence plot. Of more, every so many is taken, and once so many in a row."""

BARS_MAX = 128
"""Bars of a histogram. Of more bins, neighbours share a bar, which shows the fullest of them."""

SAME_SHARE, NEAR_SHARE, CLOSE_SHARE = 0.01, 0.1, 0.25
"""Two events are the same, near or close when their distance is at most this share of the largest one."""

LAG_SLACK = 0.05
"""A shorter distance in the stream is named if it loses no greater part: a loop also repeats after two rounds."""

SAME, NEAR, CLOSE, APART = 3, 2, 1, 0

_SHRINK = 0.25

Levels = npt.NDArray[np.uint8]


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """Events along the best direction.

    Attributes:
        bars: Events of each bar, or the fullest bin of those a bar stands for.
        bins_per_bar: Bins a bar stands for; the last may stand for fewer.
        empty_bins: Bins without an event.
        bins: All bins.
        fullest: Events of the fullest bin.
        events: All events.
    """

    bars: tuple[int, ...]
    bins_per_bar: int
    empty_bins: int
    bins: int
    fullest: int
    events: int


class Recurrence(msgspec.Struct, frozen=True, kw_only=True):
    """Events against events.

    Attributes:
        levels: Shape (m, m), symmetric, `APART` … `SAME`; m ≤ `RECURRENCE_EVENTS_MAX`.
        first: Number of the first event in it, from 0.
        step: Events from one row to the next.
        near_share: Share of pairs of different rows that are near or the same.
    """

    levels: Levels
    first: int
    step: int
    near_share: float


class Lag(msgspec.Struct, frozen=True, kw_only=True):
    """The distance in the stream after which events are the same most often.

    Attributes:
        events: The distance, ≥ 1.
        share: Share of pairs so far apart that are the same.
        longest: The longest distance that was looked at.
    """

    events: int
    share: float
    longest: int


class Portrait(msgspec.Struct, frozen=True, kw_only=True):
    """What is drawn of one window.

    Attributes:
        histogram: `None` if the record's direction is none of these events' space.
        whole: Over the whole window; `None` with fewer than two events.
        run: Events in a row from its middle, if `whole` does not hold every event.
        lag: Measured on events in a row; `None` with fewer than four.
    """

    histogram: Histogram | None
    whole: Recurrence | None
    run: Recurrence | None
    lag: Lag | None


def portray(rows: Iterable[Points], count: int, v_star: Sequence[float], bins: int) -> Portrait:
    """Measure what is drawn of a window.

    Args:
        rows: The events, finite, in blocks of shape (≥ 1, d); gone through twice.
        count: How many events there are.
        v_star: The best direction, as in the record.
        bins: Equal bins along it, ≥ 1.
    """
    if count < 2:
        return Portrait(histogram=None, whole=None, run=None, lag=None)
    side = min(count, RECURRENCE_EVENTS_MAX)
    step = -(-count // side)
    run_first = (count - side) // 2
    direction = np.asarray(v_star, dtype=np.float64)
    every, in_a_row, projections = [], [], []
    seen = 0
    for block in _scale(rows):
        numbers = np.arange(seen, seen + len(block))
        every.append(block[numbers % step == 0])
        in_a_row.append(block[(numbers >= run_first) & (numbers < run_first + side)])
        if len(direction) == block.shape[1]:
            projections.append(block @ direction)
        seen += len(block)
    whole = compare_events(np.concatenate(every), first=0, step=step)
    run = compare_events(np.concatenate(in_a_row), first=run_first, step=1) if step > 1 else None
    histogram = count_along(np.concatenate(projections), bins) if projections else None
    return Portrait(histogram=histogram, whole=whole, run=run, lag=find_lag((run or whole).levels))


def _scale(rows: Iterable[Points]) -> Iterator[Points]:
    """Yield the rows scaled as for the signals, by one factor for all axes; extents beyond a double are shrunk first."""
    extents = [(block.min(axis=0), block.max(axis=0)) for block in rows]
    least = np.min([lowest for lowest, _ in extents], axis=0)
    greatest = np.max([highest for _, highest in extents], axis=0)
    shrink = 1.0
    with np.errstate(over="ignore"):
        factor = float((greatest - least).max()) * STRETCH
    if not np.isfinite(factor):
        shrink = _SHRINK
        factor = float((greatest * shrink - least * shrink).max()) * STRETCH
    for block in rows:
        yield (block * shrink - least * shrink) / (factor or 1.0)


def count_along(projections: Points, bins: int) -> Histogram:
    """Count events in equal bins between the least and the greatest projection, the last bin closed, as coh★ does.

    Args:
        projections: Shape (n,), n ≥ 1.
        bins: ≥ 1.
    """
    least, width = projections.min(), np.ptp(projections)
    places = np.zeros(len(projections), dtype=np.int64)
    if width > 0:
        places = np.minimum(((projections - least) / width * bins).astype(np.int64), bins - 1)
    counts = np.bincount(places, minlength=bins)
    bins_per_bar = -(-bins // BARS_MAX)
    bars = np.maximum.reduceat(counts, np.arange(0, bins, bins_per_bar))
    return Histogram(
        bars=tuple(bars.tolist()),
        bins_per_bar=bins_per_bar,
        empty_bins=int(np.count_nonzero(counts == 0)),
        bins=bins,
        fullest=int(counts.max()),
        events=len(projections),
    )


def compare_events(rows: Points, *, first: int, step: int) -> Recurrence:
    """Tell of every pair of events how close they are, beside the largest distance of any two of these.

    Args:
        rows: Shape (m, d), 2 ≤ m ≤ `RECURRENCE_EVENTS_MAX`.
        first: Number of the first of them in the window.
        step: Events from one to the next.
    """
    centred = rows - rows.mean(axis=0)
    squares = np.einsum("ij,ij->i", centred, centred)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * (centred @ centred.T), 0.0))
    np.fill_diagonal(distances, 0.0)
    largest = distances.max()
    levels: Levels = np.full(distances.shape, APART, dtype=np.uint8)
    for share, level in ((CLOSE_SHARE, CLOSE), (NEAR_SHARE, NEAR), (SAME_SHARE, SAME)):
        levels[distances <= share * largest] = level  # all are the same where the largest is 0
    pairs = len(rows) * (len(rows) - 1)
    near_share = (int(np.count_nonzero(levels >= NEAR)) - len(rows)) / pairs
    return Recurrence(levels=levels, first=first, step=step, near_share=near_share)


def find_lag(levels: Levels) -> Lag | None:
    """Return after how many events the same ones come most often, looking up to half of them ahead.

    Args:
        levels: Of events in a row, as `Recurrence.levels`.
    """
    longest = len(levels) // 2
    if longest < 2:
        return None
    shares = [float(np.mean(np.diagonal(levels, lag) == SAME)) for lag in range(1, longest + 1)]
    best = max(shares)
    lag = next(lag for lag, share in enumerate(shares, start=1) if share >= best * (1 - LAG_SLACK))
    return Lag(events=lag, share=shares[lag - 1], longest=longest)
