"""The windows a report keeps, and the sums over those it does not."""

from __future__ import annotations

import pytest

from pcs_agent.report import streams as module
from pcs_agent.report.streams import Stream, Streams
from window_views import PORTRAIT, view


def test_the_newest_windows_are_kept_and_all_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOWS_MAX", 5)
    stream = Stream("s")
    for epoch in (*range(0, 40, 2), *range(1, 40, 2)):
        stream.add(view(epoch, regime="sticky" if epoch < 4 else "mixed"))
    assert [each.epoch for each in stream.windows()] == [35, 36, 37, 38, 39]
    assert [each.epoch for each in stream.windows(2)] == [38, 39]
    assert (stream.windows_seen, stream.events_seen) == (40, 400)
    assert stream.regimes == {"sticky": 4, "mixed": 36}


def test_pictures_are_of_the_first_the_last_and_the_least_r() -> None:
    stream = Stream("s")
    for epoch, r in enumerate((0.9, 0.8, 0.2, 0.7, 0.2, 0.6)):
        stream.add(view(epoch, r=r))
    assert [(why, each.epoch) for why, each in stream.pictured()] == [
        ("first", 0),
        ("least r", 2),
        ("last", 5),
    ]
    assert [(why, each.epoch) for why, each in stream.pictured(2)] == [("first", 0), ("last", 5)]
    assert [(why, each.epoch) for why, each in stream.pictured(1)] == [("last", 5)]
    assert all(each.portrait is PORTRAIT for _, each in stream.pictured())
    assert {each.portrait for each in stream.windows()} == {None}


def test_a_window_that_is_several_of_them_is_pictured_once() -> None:
    stream = Stream("s")
    stream.add(view(3))
    assert [(why, each.epoch) for why, each in stream.pictured()] == [("", 3)]
    stream.add(view(4))
    assert [(why, each.epoch) for why, each in stream.pictured()] == [("first, least r", 3), ("last", 4)]


def test_further_streams_are_counted_by_their_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STREAMS_MAX", 2)
    streams = Streams()
    for name in ("a", "b", "c", "a", "d"):
        streams.add(name, name, [view(1), view(2)])
    assert [stream.name for stream in streams] == ["a", "b"]
    assert streams.left_out_windows == 4


def test_fallback_codes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FALLBACKS_TOLD_MAX", 3)
    stream = Stream("s")
    for epoch in range(10):
        stream.add(view(epoch, fallbacks=(f"code{epoch}", "code0")))
    assert stream.fallbacks == {"code0": 11, "code1": 1, "code2": 1}
