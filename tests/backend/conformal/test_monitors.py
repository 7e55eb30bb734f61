"""Drift is seen where there is some, not where there is none, and a new set begins a new watch."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from pcs_backend.conformal.martingale import SCORES_MAX
from pcs_backend.conformal.monitors import COMPARISONS_MAX, Alarm, DriftSettings, Monitors, Readings
from pcs_backend.conformal.watch import Batch

SET, OTHER_SET = "a" * 64, "b" * 64


def stream(count: int, seed: int, shift: float = 0.0) -> list[float]:
    chosen = random.Random(seed)
    return [chosen.random() + shift for _ in range(count)]


BENIGN = sorted(stream(1_000, seed=7))
SETS = {SET: BENIGN, OTHER_SET: [each + 0.5 for each in BENIGN]}


def feed(monitors: Monitors, *batches: Batch) -> Readings:
    return monitors.feed(batches, SETS.get)


def test_scores_of_the_sets_own_place_set_off_nothing() -> None:
    monitors = Monitors(DriftSettings())
    readings = feed(monitors, Batch("plants", SET, stream(2_000, seed=1)))
    figures = readings.figures["plants"]
    assert (readings.alarms, figures.ks_alarm, figures.martingale_alarm) == ([], False, False)
    assert 0 < figures.ks_distance < 0.15
    assert 0.05 < figures.ks_p < 1
    assert figures.martingale_log10 < 2


def test_a_shift_sets_off_both_monitors_once() -> None:
    monitors = Monitors(DriftSettings())
    feed(monitors, Batch("plants", SET, stream(1_000, seed=1)))
    readings = feed(monitors, Batch("plants", SET, stream(500, seed=2, shift=0.4)))
    assert set(readings.alarms) == {Alarm("plants", "ks"), Alarm("plants", "martingale")}
    figures = readings.figures["plants"]
    assert figures.ks_distance > 0.3
    assert figures.ks_p < 1e-6
    assert figures.martingale_log10 >= 2
    again = feed(monitors, Batch("plants", SET, stream(500, seed=3, shift=0.4)))
    assert again.alarms == []
    assert again.figures["plants"].ks_alarm


def test_alarm_of_last_scores_ends_with_the_drift_and_that_of_the_martingale_stays() -> None:
    monitors = Monitors(DriftSettings())
    feed(
        monitors, Batch("plants", SET, stream(1_000, seed=1)), Batch("plants", SET, stream(500, 2, shift=0.4))
    )
    figures = feed(monitors, Batch("plants", SET, stream(100, seed=1))).figures["plants"]
    assert (figures.ks_alarm, figures.martingale_alarm) == (False, True)


def test_nothing_is_compared_before_there_are_enough_scores() -> None:
    monitors = Monitors(DriftSettings(recent_scores=100))
    readings = feed(monitors, Batch("plants", SET, stream(99, seed=1, shift=5.0)))
    assert (readings.alarms, readings.figures["plants"].ks_p) == ([], 1.0)
    readings = feed(monitors, Batch("plants", SET, [5.0]))
    assert readings.alarms == [Alarm("plants", "ks")]


def test_small_distance_is_no_drift_however_unlikely() -> None:
    monitors = Monitors(DriftSettings(distance_min=0.9))
    readings = feed(monitors, Batch("plants", SET, stream(100, seed=1, shift=0.5)))
    assert (readings.alarms, readings.figures["plants"].ks_alarm) == ([], False)
    assert readings.figures["plants"].ks_p < 1e-6


def test_constant_scores_are_no_drift() -> None:
    """L26 and L27: ties are no evidence."""
    monitors = Monitors(DriftSettings())
    readings = monitors.feed([Batch("plants", SET, [0.25] * 5_000)], {SET: [0.25] * 1_000}.get)
    figures = readings.figures["plants"]
    assert (readings.alarms, figures.ks_distance, figures.ks_p) == ([], 0.0, 1.0)


def test_another_set_begins_anew() -> None:
    monitors = Monitors(DriftSettings())
    feed(
        monitors, Batch("plants", SET, stream(1_000, seed=1)), Batch("plants", SET, stream(500, 2, shift=0.5))
    )
    readings = feed(monitors, Batch("plants", OTHER_SET, stream(300, seed=3, shift=0.5)))
    figures = readings.figures["plants"]
    assert (figures.ks_alarm, figures.martingale_alarm) == (False, False)
    assert figures.martingale_log10 < 2
    assert readings.restarts == Counter({"set": 1})
    assert readings.judged_by == {"plants": OTHER_SET}


def test_martingale_starts_again_at_its_bound_and_that_is_counted() -> None:
    monitors = Monitors(DriftSettings())
    first = feed(monitors, Batch("plants", SET, stream(SCORES_MAX, seed=1)))
    assert first.restarts["size"] == 0
    assert feed(monitors, Batch("plants", SET, [0.5])).restarts == Counter({"size": 1})


def test_set_that_is_gone_leaves_the_last_comparison_and_feeds_the_martingale() -> None:
    monitors = Monitors(DriftSettings())
    readings = monitors.feed([Batch("plants", "c" * 64, stream(500, seed=1))], SETS.get)
    assert readings.figures["plants"].ks_p == 1.0
    assert readings.figures["plants"].martingale_log10 != 0.0


def test_tenants_are_watched_apart_and_compared_in_turn() -> None:
    monitors = Monitors(DriftSettings())
    tenants = [str(number) for number in range(COMPARISONS_MAX + 3)]
    first = feed(monitors, *(Batch(each, SET, stream(100, 1, shift=0.5)) for each in tenants))
    assert [each.tenant for each in first.alarms if each.monitor == "ks"] == tenants[:COMPARISONS_MAX]
    busy = Batch(tenants[0], SET, stream(10, 2, shift=0.5))
    second = feed(monitors, busy)
    assert [each.tenant for each in second.alarms if each.monitor == "ks"] == tenants[COMPARISONS_MAX:]


@pytest.mark.parametrize("size", [1, 7, 100])
def test_how_scores_are_cut_into_batches_changes_nothing(size: int) -> None:
    scores = stream(700, seed=5, shift=0.1)
    whole, parts = Monitors(DriftSettings()), Monitors(DriftSettings())
    expected = feed(whole, Batch("plants", SET, scores)).figures
    for at in range(0, len(scores), size):
        found = feed(parts, Batch("plants", SET, scores[at : at + size])).figures
    assert found == expected
