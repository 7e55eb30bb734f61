"""What the pictures show is what the definitions say, on shapes whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pcs_agent.report.portrait import (
    BARS_MAX,
    CLOSE_SHARE,
    NEAR_SHARE,
    RECURRENCE_EVENTS_MAX,
    SAME_SHARE,
    Portrait,
    compare_events,
    count_along,
    find_lag,
)
from pcs_agent.report.portrait import portray as portray_blocks
from pcs_agent.signals import SignalSettings, compute_signals


def portray(events: np.ndarray, v_star: list[float], bins: int) -> Portrait:
    return portray_blocks([events], len(events), v_star, bins)


GENERATOR = np.random.Generator(np.random.PCG64(11))


@pytest.mark.parametrize(
    "events",
    [
        GENERATOR.random((700, 2)),
        GENERATOR.standard_normal((90, 8)),
        np.repeat([[0.0, 1.0], [2.0, 1.0]], 20, axis=0),
    ],
    ids=["square", "noise", "two places"],
)
def test_the_fullest_bin_holds_the_share_that_is_coh_star(events: np.ndarray) -> None:
    settings = SignalSettings()
    signals = compute_signals(events, settings)
    histogram = portray(events, signals.v_star, settings.bins).histogram
    assert histogram is not None
    assert histogram.fullest / histogram.events == pytest.approx(signals.coh_star, abs=1e-12)
    assert sum(histogram.bars) == len(events)
    assert histogram.empty_bins == histogram.bars.count(0)


def test_more_bins_than_bars_share_them_and_the_fullest_is_kept() -> None:
    histogram = count_along(np.array([*np.linspace(0, 1, 3_000), *[0.5] * 400]), 1_000)
    assert len(histogram.bars) == math.ceil(1_000 / histogram.bins_per_bar) <= BARS_MAX
    assert max(histogram.bars) == histogram.fullest == 403


def test_a_direction_of_another_space_is_not_drawn() -> None:
    assert portray(GENERATOR.random((10, 3)), [1.0, 0.0], 20).histogram is None
    assert portray(GENERATOR.random((10, 3)), [], 20).histogram is None


def test_levels_are_shares_of_the_largest_distance() -> None:
    rows = GENERATOR.random((40, 3))
    levels = compare_events(rows, first=0, step=1).levels
    distances = [[math.dist(a, b) for b in rows] for a in rows]
    largest = max(map(max, distances))
    for i in range(40):
        for j in range(40):
            share = distances[i][j] / largest
            expected = sum(share <= bound for bound in (SAME_SHARE, NEAR_SHARE, CLOSE_SHARE))
            assert levels[i, j] == expected, (i, j)


def test_the_share_of_near_pairs_leaves_out_each_event_with_itself() -> None:
    corners = np.array([[0.0], [0.05], [1.0], [0.6]])
    assert compare_events(corners, first=0, step=1).near_share == pytest.approx(2 / 12)
    assert compare_events(np.zeros((5, 2)), first=0, step=1).near_share == 1.0


@pytest.mark.parametrize("period", [1, 2, 7, 40, 119])
def test_a_loop_repeats_after_its_period(period: int) -> None:
    events = np.tile(GENERATOR.random((period, 3)), (500 // period + 1, 1))[:500]
    lag = portray(events, [1.0, 0.0, 0.0], 20).lag
    assert lag is not None
    assert (lag.events, lag.share, lag.longest) == (period, 1.0, RECURRENCE_EVENTS_MAX // 2)


def test_a_loop_that_is_a_little_truer_after_two_rounds_still_has_its_period() -> None:
    rounds = [[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]] * 10
    for number in range(1, 10, 2):
        rounds[number] = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0 if number > 1 else 0.9]
    levels = compare_events(
        np.array([value for each in rounds for value in each])[:, None], first=0, step=1
    ).levels
    lag = find_lag(levels)
    assert lag is not None
    assert lag.events == 6
    assert 0.9 < lag.share < 1.0


def test_noise_does_not_repeat() -> None:
    lag = portray(GENERATOR.random((500, 8)), [1.0, *[0.0] * 7], 20).lag
    assert lag is not None
    assert lag.share == 0.0


@pytest.mark.parametrize("events", [2, 3, 239, 240, 241, 479, 480, 481, 5_000])
def test_a_picture_has_a_bounded_number_of_events_and_says_which(events: int) -> None:
    portrait = portray(np.arange(float(events))[:, None], [1.0], 20)
    assert portrait.whole is not None
    whole = portrait.whole
    assert len(whole.levels) == math.ceil(events / whole.step) <= RECURRENCE_EVENTS_MAX
    assert (portrait.run is None) == (events <= RECURRENCE_EVENTS_MAX)
    if portrait.run is not None:
        assert (portrait.run.step, len(portrait.run.levels)) == (1, RECURRENCE_EVENTS_MAX)
        assert portrait.run.first + RECURRENCE_EVENTS_MAX <= events
        assert abs(2 * portrait.run.first + RECURRENCE_EVENTS_MAX - events) <= 1


def test_one_event_has_nothing_to_draw() -> None:
    portrait = portray(np.ones((1, 2)), [], 20)
    assert (portrait.histogram, portrait.whole, portrait.run, portrait.lag) == (None, None, None, None)
    two = portray(np.array([[0.0], [1.0]]), [1.0], 20)
    assert two.lag is None
    assert two.whole is not None
    assert two.whole.levels.tolist() == [[3, 0], [0, 3]]


def test_extents_beyond_a_double_are_drawn_too() -> None:
    portrait = portray(np.array([[-1.7e308], [1.7e308], [0.0], [1.7e308]]), [1.0], 20)
    assert portrait.histogram is not None
    assert portrait.whole is not None
    assert portrait.histogram.fullest == 2
    assert portrait.whole.levels.tolist()[1] == [0, 3, 0, 3]


@pytest.mark.parametrize("size", [1, 7, 240, 1_000])
def test_blocks_of_any_size_give_the_same_picture(size: int) -> None:
    events = GENERATOR.standard_normal((1_000, 3))
    blocks = [events[first : first + size] for first in range(0, 1_000, size)]
    expected, found = portray(events, [0.6, 0.8, 0.0], 20), portray_blocks(blocks, 1_000, [0.6, 0.8, 0.0], 20)
    assert found.histogram == expected.histogram
    assert found.lag == expected.lag
    for one, other in ((found.whole, expected.whole), (found.run, expected.run)):
        assert one is not None
        assert other is not None
        assert np.array_equal(one.levels, other.levels)
        assert (one.first, one.step) == (other.first, other.step)
