"""Streams of scores that stay as they are or shift, and what martingale and Kolmogorov and Smirnov's test say of them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

import numpy as np

from pcs_backend.conformal.drift import RECENT_SCORES, compare_scores
from pcs_backend.conformal.martingale import ExchangeabilityMartingale

SHIFTS = {
    "up by one standard deviation": (1.0, 1.0),
    "up by half a standard deviation": (0.5, 1.0),
    "spread doubled, the middle where it was": (0.0, 2.0),
}
"""Mean and standard deviation of normal scores after the shift; 0 and 1 before."""

BEFORE_SHIFT = 1_000
AFTER_SHIFT_MAX = 3_000
LOOK_EVERY = 10
"""Scores between two looks of Kolmogorov and Smirnov's test."""


class Delays(NamedTuple):
    """Scores after the shift until each said so; AFTER_SHIFT_MAX where it never did."""

    martingale: int
    test: int


class FixedSetMartingale(ExchangeabilityMartingale):
    """What must not be done: ranks among a set that stays."""

    def __init__(self, seed: int, known: list[float]) -> None:
        super().__init__(seed)
        self._known = sorted(known)

    def _smoothed_rank(self, score: float) -> float:
        low, high = bisect_left(self._known, score), bisect_right(self._known, score)
        count = len(self._known)
        return (count - high + self._random.random() * (high - low + 1)) / (count + 1)


def count_false_alarms(first: int, streams: int, length: int) -> int:
    """Return in how many of so many null streams an alarm came. Every other stream has scores of one decimal: ties."""
    alarmed = 0
    for seed in range(first, first + streams):
        scores = np.random.default_rng((81, seed)).normal(size=length)
        watched = ExchangeabilityMartingale(seed)
        alarmed += any(map(watched.observe, np.round(scores, 1 if seed % 2 else 9).tolist()))
    return alarmed


def count_false_alarms_of_a_fixed_set(streams: int, length: int) -> int:
    """Return the same of ranks among 100 scores that stay."""
    alarmed = 0
    for seed in range(streams):
        scores = np.random.default_rng((82, seed)).normal(size=100 + length).tolist()
        watched = FixedSetMartingale(seed, scores[:100])
        alarmed += any(map(watched.observe, scores[100:]))
    return alarmed


def count_false_alarms_of_the_test(streams: int, length: int) -> int:
    """Return in how many null streams Kolmogorov and Smirnov's test ever said drift, at a look every LOOK_EVERY scores."""
    return sum(
        _delay_of_test(np.random.default_rng((83, seed)), (0.0, 1.0), length) < length
        for seed in range(streams)
    )


def measure_delays(shift: str, streams: int) -> list[Delays]:
    """Return the delays of so many streams that shift after BEFORE_SHIFT scores."""
    found = []
    for seed in range(streams):
        rng = np.random.default_rng((84, seed))
        found.append(
            Delays(
                _delay_of_martingale(rng, SHIFTS[shift], seed),
                _delay_of_test(rng, SHIFTS[shift], AFTER_SHIFT_MAX),
            )
        )
    return found


def _delay_of_martingale(rng: np.random.Generator, law: tuple[float, float], seed: int) -> int:
    watched = ExchangeabilityMartingale(seed)
    for score in rng.normal(size=BEFORE_SHIFT).tolist():
        watched.observe(score)
    if watched.alarmed:
        return 0
    for place, score in enumerate(rng.normal(*law, size=AFTER_SHIFT_MAX).tolist(), start=1):
        if watched.observe(score):
            return place
    return AFTER_SHIFT_MAX


def _delay_of_test(rng: np.random.Generator, law: tuple[float, float], length: int) -> int:
    """Compare the last scores with a set of 1,000, from full windows of unshifted ones on."""
    reference = rng.normal(size=1_000).tolist()
    scores = np.concatenate([rng.normal(size=RECENT_SCORES), rng.normal(*law, size=length)]).tolist()
    for place in range(LOOK_EVERY, length, LOOK_EVERY):
        if compare_scores(scores[place : place + RECENT_SCORES], reference).is_drift():
            return place
    return length
