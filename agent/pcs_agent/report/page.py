"""The page: everything a report shows, in one HTML document that asks nothing of anyone.

No script, no font, no picture from elsewhere: a Content-Security-Policy in the page forbids it. Whatever a user chose, the
names of streams above all, goes through jinja2's escaping. The same input gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from pcs_agent.report.panels import Panel, WindowPanels, draw_over_time, draw_window
from pcs_agent.report.streams import SECTIONS_MAX, WINDOWS_MAX, Stream, Streams, WindowView
from pcs_agent.report.wording import count_words, read_judgement, warn_of
from pcs_agent.wording import count_of

PAGE_WINDOWS_MAX = 5_000
"""Windows of all sections of a page together; each section shows its newest ones."""

PAGE_PICTURED_MAX = 60
"""Windows of a page with pictures of their own; the more sections, the fewer each has, and one at least."""


class Section(NamedTuple):
    """One stream.

    Attributes:
        anchor: Identity in the page.
        name: As the user has it; escaped by the template.
        facts: Name and value of what is known of the stream.
        warnings: What to know first.
        omitted: What is not shown, in words; empty if everything is.
        over_time: Pictures of all windows.
        pictured: Windows with pictures.
        headings: Of the table of windows.
        rows: That table.
    """

    anchor: str
    name: str
    facts: Sequence[tuple[str, str]]
    warnings: Sequence[str]
    omitted: str
    over_time: Sequence[Panel]
    pictured: Sequence[WindowPanels]
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


class Row(NamedTuple):
    """A stream's row in the overview; `places` is its place in each of the orders."""

    anchor: str
    name: str
    cells: Sequence[str]
    has_doubts: bool
    places: Sequence[int]


ORDERS: Sequence[tuple[str, Callable[[Stream], tuple[object, ...]]]] = (
    ("as given", lambda _: ()),
    ("name", lambda stream: (stream.name,)),
    ("r, least first", lambda stream: (min((view.r for view in stream.windows()), default=2.0),)),
    ("D̂, least first", lambda stream: (min((view.d_hat for view in stream.windows()), default=9e9),)),
    ("doubtful first", lambda stream: (-_count_doubts(stream),)),
)
"""How the overview can be sorted."""

OVERVIEW_HEADINGS = ("stream", "windows", "events", "D̂", "coh★", "r", "regimes", "answers", "doubtful")
WINDOW_HEADINGS = ("epoch", "events", "D̂", "coh★", "r", "regime", "budget", "answer", "fallbacks")


def render_page(streams: Streams) -> str:
    """Return the page.

    Args:
        streams: What was gathered; at least one stream.
    """
    everything = list(streams)
    with_section = everything[:SECTIONS_MAX]
    windows_each = max(1, min(WINDOWS_MAX, PAGE_WINDOWS_MAX // len(with_section)))
    pictured_each = max(1, min(3, PAGE_PICTURED_MAX // len(with_section)))
    environment = Environment(
        loader=PackageLoader("pcs_agent.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        title=f"PCS report: {count_of(len(everything), 'stream')}",
        total=_say_total(streams, everything),
        omitted=_say_omitted(streams, everything),
        orders=[name for name, _ in ORDERS],
        headings=OVERVIEW_HEADINGS,
        overview=_overview(everything) if len(everything) > 1 else [],
        sections=[
            _section(stream, number, windows_each, pictured_each)
            for number, stream in enumerate(with_section, start=1)
        ],
    )


def _say_total(streams: Streams, everything: Sequence[Stream]) -> str:
    windows = sum(stream.windows_seen for stream in everything) + streams.left_out_windows
    events = sum(stream.events_seen for stream in everything)
    read = f", {events:,} events" if events else ""
    return f"{count_of(len(everything), 'stream')}, {count_of(windows, 'window')}{read}"


def _say_omitted(streams: Streams, everything: Sequence[Stream]) -> list[str]:
    omitted = []
    if len(everything) > SECTIONS_MAX:
        omitted.append(
            f"Pictures and windows are shown of the first {SECTIONS_MAX} streams; of {len(everything) - SECTIONS_MAX} more "
            "only the row in the overview."
        )
    if streams.left_out_windows:
        omitted.append(
            f"{count_of(streams.left_out_windows, 'window')} of further streams were read and are not shown: a report has "
            f"{len(everything)} streams at most."
        )
    return omitted


def _overview(everything: Sequence[Stream]) -> list[Row]:
    places = []
    for _, key in ORDERS:
        by_key = sorted(range(len(everything)), key=lambda number: (*key(everything[number]), number))
        places.append({number: place for place, number in enumerate(by_key, start=1)})
    rows = []
    for number, stream in enumerate(everything):
        views = stream.windows()
        cells = [
            f"{stream.windows_seen:,}",
            f"{stream.events_seen:,}" if stream.events_seen else "unknown",
            _span([view.d_hat for view in views]),
            _span([view.coh_star for view in views]),
            _span([view.r for view in views]),
            count_words(stream.regimes) or "none",
            count_words(stream.words) or "none",
            str(_count_doubts(stream)),
        ]
        anchor = f"s{number + 1}" if number < SECTIONS_MAX else ""
        rows.append(
            Row(anchor, stream.name, cells, _count_doubts(stream) > 0, [each[number] for each in places])
        )
    return rows


def _count_doubts(stream: Stream) -> int:
    doubtful = stream.windows_seen - stream.words["accepted"] - stream.words["checks hold"]
    return doubtful + bool(stream.problem)


def _span(values: Sequence[float]) -> str:
    if not values:
        return "none"
    least, most = f"{min(values):.3f}", f"{max(values):.3f}"
    return least if least == most else f"{least} – {most}"


def _section(stream: Stream, number: int, windows_each: int, pictured_each: int) -> Section:
    anchor = f"s{number}"
    views = stream.windows(windows_each)
    earlier = stream.windows_seen - len(views)
    omitted = ""
    if earlier:
        omitted = f"The newest {count_of(len(views), 'window')} of {stream.windows_seen} are shown; the sums above count all of them."
    pictured = [
        draw_window(why, view, f"{anchor}-w{place}")
        for place, (why, view) in enumerate(stream.pictured(pictured_each), start=1)
    ]
    return Section(
        anchor=anchor,
        name=stream.name,
        facts=[
            ("windows", f"{stream.windows_seen:,}"),
            (
                "events",
                f"{stream.events_seen:,}" if stream.events_seen else "unknown: only records were read",
            ),
            ("D̂", _span([view.d_hat for view in views])),
            ("coh★", _span([view.coh_star for view in views])),
            ("r", _span([view.r for view in views])),
            ("regimes", count_words(stream.regimes) or "none"),
            ("answers", count_words(stream.words) or "none"),
        ],
        warnings=warn_of(stream, views),
        omitted=omitted,
        over_time=draw_over_time(views, anchor) if len(views) > 1 else [],
        pictured=pictured,
        headings=WINDOW_HEADINGS,
        rows=[_window_cells(view) for view in views],
    )


def _window_cells(view: WindowView) -> list[str]:
    return [
        str(view.epoch),
        "unknown" if view.events is None else f"{view.events:,}",
        f"{view.d_hat:.3f}",
        f"{view.coh_star:.3f}",
        f"{view.r:.3f}",
        view.regime,
        f"{view.budget:.3f}",
        read_judgement(view.judgement),
        ", ".join(view.fallbacks),
    ]
