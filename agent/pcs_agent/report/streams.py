"""The streams of a report and their windows, in bounded room: what does not fit is counted instead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from pcs_agent.report.portrait import Portrait
from pcs_agent.wording import display_name
from pcs_core.record import Record

STREAMS_MAX = 1_000
"""Streams with a row of their own; of further ones only the number is told."""

SECTIONS_MAX = 40
"""Streams of a page with pictures and a section of their own; the others have their row in the overview."""

WINDOWS_MAX = 500
"""Windows of one stream that are kept, the newest; of earlier ones only sums."""

FALLBACKS_TOLD_MAX = 32
"""Fallback codes told of a stream; they come from records and may be anything."""


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a record's acceptance.

    Attributes:
        word: `accepted`, `escalated`, `pending`, `dead` from the outbox; `checks hold` or `checks fail` from the local checks.
        by_backend: Whether the backend has answered.
        reasons: Why it is what it is: failed local checks, or why it is dead.
    """

    word: str
    by_backend: bool
    reasons: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        """Whether nothing speaks against the record."""
        return self.word in {"accepted", "checks hold"}


class WindowView(msgspec.Struct, frozen=True, kw_only=True):
    """What a report knows of one window. Numbers are the record's.

    Attributes:
        pcs_id: The record's identity.
        epoch: Its epoch.
        events: How many events; `None` where only the record is known.
        d_hat: Theil–Sen slope.
        coh_star: Directional coherence.
        r: Compressibility.
        regime: As the record claims it.
        budget: As the record claims it.
        scales: Cells per axis.
        counts: Occupied cells, in the order of the scales.
        fallbacks: Codes in `ft`, fit for a terminal.
        judgement: What became of the record, or what the local checks say.
        portrait: What is drawn of its events; `None` where they are not known or the window is not pictured.
    """

    pcs_id: str
    epoch: int
    events: int | None
    d_hat: float
    coh_star: float
    r: float
    regime: str
    budget: float
    scales: tuple[int, ...]
    counts: tuple[int, ...]
    fallbacks: tuple[str, ...]
    judgement: Judgement
    portrait: Portrait | None = None


def view_record(
    record: Record, judgement: Judgement, *, events: int | None = None, portrait: Portrait | None = None
) -> WindowView:
    """Return the view of a record."""
    return WindowView(
        pcs_id=record.pcs_id,
        epoch=record.epoch,
        events=events,
        d_hat=record.d_hat,
        coh_star=record.coh_star,
        r=record.r,
        regime=record.regime,
        budget=record.budget,
        scales=tuple(record.scales),
        counts=tuple(record.counts),
        fallbacks=tuple(display_name(code) for code in record.ft.fallbacks),
        judgement=judgement,
        portrait=portrait,
    )


class Stream:
    """One stream: its newest windows, and sums over all of them.

    Attributes:
        name: What it is called, redacted; anything may stand in it.
        windows_seen: How many windows were added.
        events_seen: Events of those whose number is known.
        words: Windows by the word of their judgement.
        regimes: Windows by regime.
        fallbacks: Windows by fallback code, `FALLBACKS_TOLD_MAX` codes at most.
        problem: Why it could not be read to its end; empty if it was.
    """

    def __init__(self, name: str) -> None:
        """Begin without a window."""
        self.name = name
        self.problem = ""
        self.windows_seen = self.events_seen = 0
        self.words: Counter[str] = Counter()
        self.regimes: Counter[str] = Counter()
        self.fallbacks: Counter[str] = Counter()
        self._views: dict[str, WindowView] = {}
        self._pictured: dict[str, WindowView] = {}

    def add(self, view: WindowView) -> None:
        """Take one window. Its pictures are kept while it is the first, the last or the one of least r."""
        self.windows_seen += 1
        self.events_seen += view.events or 0
        self.words[view.judgement.word] += 1
        self.regimes[view.regime] += 1
        for code in view.fallbacks:
            if code in self.fallbacks or len(self.fallbacks) < FALLBACKS_TOLD_MAX:
                self.fallbacks[code] += 1
        if view.portrait is not None:
            self._pictured.setdefault("first", view)
            self._pictured["last"] = view
            if "least r" not in self._pictured or view.r < self._pictured["least r"].r:
                self._pictured["least r"] = view
        self._views[view.pcs_id] = msgspec.structs.replace(view, portrait=None)
        if len(self._views) >= 2 * WINDOWS_MAX:
            self._trim()

    def windows(self, most: int = WINDOWS_MAX) -> list[WindowView]:
        """Return the newest windows, by epoch."""
        self._trim()
        return list(self._views.values())[-most:]

    def pictured(self, most: int = 3) -> list[tuple[str, WindowView]]:
        """Return windows to be looked at closely and why these, by epoch: the last, the first and that of least r.

        Where no window has a portrait, it is the last one, without.
        """
        if not self._pictured:
            return [("last" if self.windows_seen > 1 else "", view) for view in self.windows()[-1:]]
        chosen: dict[str, list[str]] = {}
        for why in ("last", "first", "least r"):
            if why in self._pictured:
                pcs_id = self._pictured[why].pcs_id
                if pcs_id in chosen or len(chosen) < most:
                    chosen.setdefault(pcs_id, []).append(why)
        order = ("first", "least r", "last")
        found = []
        for reasons in chosen.values():
            because = ", ".join(sorted(reasons, key=order.index)) if self.windows_seen > 1 else ""
            found.append((because, self._pictured[reasons[0]]))
        return sorted(found, key=lambda pair: pair[1].epoch)

    def _trim(self) -> None:
        by_epoch = sorted(self._views.values(), key=lambda view: view.epoch)
        self._views = {view.pcs_id: view for view in by_epoch[-WINDOWS_MAX:]}


class Streams:
    """The streams of a report, in the order in which they came.

    Attributes:
        left_out_windows: Windows of streams beyond `STREAMS_MAX`.
    """

    def __init__(self) -> None:
        """Begin without a stream."""
        self._streams: dict[str, Stream] = {}
        self.left_out_windows = 0

    def __iter__(self) -> Iterator[Stream]:
        return iter(self._streams.values())

    def __len__(self) -> int:
        return len(self._streams)

    def get(self, key: str, name: str) -> Stream | None:
        """Return the stream of that key, new if there is none; `None` if no further one is taken."""
        stream = self._streams.get(key)
        if stream is None and len(self._streams) < STREAMS_MAX:
            stream = self._streams[key] = Stream(name)
        return stream

    def add(self, key: str, name: str, views: Iterable[WindowView]) -> None:
        """Add windows to a stream; those of streams beyond the bound are counted."""
        for view in views:
            stream = self.get(key, name)
            if stream is None:
                self.left_out_windows += 1
            else:
                stream.add(view)

    def note_problem(self, key: str, name: str, problem: str) -> None:
        """Note why a stream could not be read to its end."""
        stream = self.get(key, name)
        if stream is not None:
            stream.problem = problem

    @property
    def has_problems(self) -> bool:
        """Whether a stream could not be read to its end."""
        return any(stream.problem for stream in self)
