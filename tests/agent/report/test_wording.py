"""What is said of numbers is what they are, and of every picture what each kind of stream looks like there."""

from __future__ import annotations

import pytest
from scipy.stats import theilslopes

from pcs_agent.report.portrait import Lag
from pcs_agent.report.streams import Judgement, Stream
from pcs_agent.report.wording import (
    MEANINGS,
    fit_line,
    percent,
    read_counts,
    read_judgement,
    read_lag,
    read_slope,
    warn_of,
)
from window_views import view


@pytest.mark.parametrize(
    ("slope", "expected"),
    [
        (0.0, "has 1 times as many occupied cells, about what a few single places would have"),
        (1.2, "about what a line or curve would have"),
        (1.3, "between a line or curve and a filled surface"),
        (1.75, "about what a filled surface would have"),
        (2.5, "between a filled surface and a filled volume"),
        (3.2, "has 9.19 times as many occupied cells, about what a filled volume would have"),
        (3.4, "between a filled volume and more"),
        (4.0, "more than a filled volume"),
        (-0.1, "no cloud of points does that"),
    ],
)
def test_a_slope_is_read_as_the_shape_it_would_be(slope: float, expected: str) -> None:
    assert expected in read_slope(slope)


def test_the_line_is_theil_sens() -> None:
    scales, counts = [2, 4, 8, 16, 32], [3, 9, 20, 70, 90]
    logs = (
        [1, 2, 3, 4, 5],
        [1.5849625007211562, 3.169925001442312, 4.321928094887363, 6.129283016944966, 6.491853096329675],
    )
    slope, intercept, residual = fit_line(scales, counts)
    expected = theilslopes(logs[1], logs[0], method="joint")
    assert (slope, intercept) == pytest.approx((expected.slope, expected.intercept))
    assert residual == pytest.approx(max(abs(y - slope * x - intercept) for x, y in zip(*logs, strict=True)))


def test_counts_that_stop_at_the_events_are_told_with_the_first_such_scale() -> None:
    notes = read_counts(view(1, events=9, scales=(2, 4, 8, 16), counts=(4, 8, 9, 9)))
    assert notes == [
        (
            "From scale 8 on every event has a cell of its own: the counts stop at 9, and the slope is less than with more "
            "events."
        )
    ]
    assert read_counts(view(1, events=10, counts=(4, 8))) == []
    assert read_counts(view(1, events=None, counts=(4, 8))) == []


def test_a_single_cell_and_falling_counts_are_told() -> None:
    assert [note[:36] for note in read_counts(view(1, counts=(1, 1)))] == [
        "One cell is occupied at every scale:"
    ]
    assert [note[:13] for note in read_counts(view(1, scales=(2, 3, 4), counts=(4, 6, 3)))] == [
        "A finer grid "
    ]


def test_the_lag_is_told_only_where_something_repeats() -> None:
    assert read_lag(Lag(events=40, share=0.985, longest=120)) == (
        "98.5 % of events are the same as the one 40 events on; up to 120 events on, no other distance does clearly better."
    )
    assert (
        read_lag(Lag(events=1, share=0.0, longest=120)) == "No event is the same as any of the 120 after it."
    )
    assert read_lag(Lag(events=7, share=0.021, longest=120)).startswith("Little repeats: 2.1 % of events")
    assert read_lag(None) == "Too few events to look for repetition."


def test_shares_next_to_nothing_and_everything_are_not_rounded_to_it() -> None:
    assert [percent(share) for share in (0.0, 0.00001, 0.05, 0.9999, 1.0)] == [
        "0 %",
        "under 0.1 %",
        "5 %",
        "over 99.9 %",
        "100 %",
    ]


def test_answers_of_the_backend_and_local_checks_are_told_apart() -> None:
    answered = Judgement(word="escalated", by_backend=True, reasons=("degraded",))
    assert read_judgement(answered) == "escalated by the backend: degraded"
    assert read_judgement(Judgement(word="checks hold", by_backend=False)) == "checks hold"


def test_warnings_name_fallbacks_answers_and_what_keeps_a_slope_from_meaning() -> None:
    stream = Stream("s")
    for epoch in range(3):
        stream.add(view(epoch, fallbacks=("input_empty",), counts=(1, 1)))
    stream.add(view(9, judgement=Judgement(word="dead", by_backend=False, reasons=("deadline",))))
    stream.problem = "row 3: found text"
    assert warn_of(stream, stream.windows()) == [
        "not read to its end: row 3: found text",
        "fallback input_empty in 3 windows",
        "dead: 1 window: deadline",
        "counts that stop short in 3 windows of those shown: see the slope",
    ]


@pytest.mark.parametrize("name", MEANINGS)
def test_every_picture_says_in_one_sentence_what_each_kind_looks_like(name: str) -> None:
    meaning = MEANINGS[name]
    kinds = [meaning.index(kind) for kind in ("healthy", "looping", "drifting", "broken")]
    assert kinds == sorted(kinds)
    assert meaning.count(".") == 1
