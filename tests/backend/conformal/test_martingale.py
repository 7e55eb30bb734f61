"""The martingale's book-keeping: seeds, ties, bounds and restarts. What it promises is in tests/statistical."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcs_backend.conformal.martingale import (
    FALSE_ALARM_SHARE,
    SCORES_MAX,
    ExchangeabilityMartingale,
    _Jumper,
)


def shifted(seed: int, before: int, after: int) -> list[float]:
    """Return standard normal scores, then such around 3."""
    rng = random.Random(seed)
    return [rng.gauss(0, 1) for _ in range(before)] + [rng.gauss(3, 1) for _ in range(after)]


def test_the_limit_is_what_ville_needs_for_one_in_a_hundred() -> None:
    assert (FALSE_ALARM_SHARE, SCORES_MAX) == (0.01, 10_000)
    watched = ExchangeabilityMartingale(1)
    capital_at_alarm = next(watched.log10_capital for score in shifted(1, 200, 200) if watched.observe(score))
    assert 2.0 <= capital_at_alarm < 2.0 + math.log10(2)  # no bet more than doubles a capital


def test_the_same_seed_and_scores_give_the_same_capital_and_another_seed_another() -> None:
    scores = [round(score, 1) for score in shifted(2, 300, 0)]
    capitals = []
    for seed in (5, 5, 6):
        watched = ExchangeabilityMartingale(seed)
        for score in scores:
            watched.observe(score)
        capitals.append(watched.log10_capital)
    assert capitals[0] == capitals[1] != capitals[2]


def test_an_alarm_is_told_once_a_start() -> None:
    watched = ExchangeabilityMartingale(3)
    told = [watched.observe(score) for score in shifted(3, 200, 400)]
    assert told.count(True) == 1
    assert 200 < told.index(True) < 230
    assert (watched.alarmed, watched.alarms, watched.restarts, watched.size) == (True, 1, 0, 600)


def test_at_the_size_bound_it_starts_again_and_says_so() -> None:
    watched = ExchangeabilityMartingale(4, scores_max=250)
    for score in shifted(4, 200, 50):
        watched.observe(score)
    assert (watched.alarmed, watched.alarms, watched.restarts, watched.size) == (True, 1, 0, 250)
    assert watched.observe(3.0) is False
    assert (watched.alarmed, watched.alarms, watched.restarts, watched.size) == (False, 1, 1, 1)
    told = [watched.observe(score) for score in shifted(5, 200, 49)]
    assert told.count(True) == 1
    assert (watched.alarms, watched.restarts, watched.size) == (2, 1, 250)


def test_a_start_forgets_what_was_before() -> None:
    watched = ExchangeabilityMartingale(5)
    for score in shifted(5, 100, 100):
        watched.observe(score)
    watched.restart()
    assert (watched.log10_capital, watched.size, watched.alarmed) == (0.0, 0, False)
    # The first score has no other beside it: its rank says nothing of it.
    first = [ExchangeabilityMartingale(6), ExchangeabilityMartingale(6)]
    assert [each.observe(score) for each, score in zip(first, (-7.0, 1e9), strict=True)] == [False, False]
    assert first[0].log10_capital == first[1].log10_capital


def test_equal_scores_are_no_shift() -> None:
    """L26: their ranks are random, not all the same."""
    for seed in range(20):
        watched = ExchangeabilityMartingale(seed)
        assert not any(watched.observe(0.25) for _ in range(500))


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=300), st.sampled_from([0.001, 0.5]))
def test_every_bet_is_fair_and_none_makes_debts(ranks: list[float], jump_share: float) -> None:
    """The mean of what a capital becomes, over ranks spread evenly, is what it was."""
    jumper = _Jumper(jump_share)
    for rank in ranks:
        jumper.bet(rank)
    assert min(jumper._stakes) > 0
    assert sum(jumper._stakes) == pytest.approx(1, abs=1e-9)
    stakes, before = jumper._stakes, jumper.log_capital
    becomes = []
    # Gauss and Legendre's two points integrate the square exactly.
    for rank in (0.5 - math.sqrt(1 / 12), 0.5 + math.sqrt(1 / 12)):
        jumper._stakes, jumper.log_capital = stakes, before
        jumper.bet(rank)
        becomes.append(math.exp(jumper.log_capital - before))
    assert sum(becomes) / 2 == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_refused_and_leaves_no_trace(score: float) -> None:
    watched = ExchangeabilityMartingale(7)
    with pytest.raises(ValueError, match="a score must be finite"):
        watched.observe(score)
    assert (watched.size, watched.log10_capital) == (0, 0.0)


def test_a_size_bound_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="scores_max must be 1 or more"):
        ExchangeabilityMartingale(8, scores_max=0)
