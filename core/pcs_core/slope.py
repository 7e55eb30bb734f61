"""The Theil–Sen slope of log2(occupied cells) on log2(scale): D̂ (contract §1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations

_CACHED_SCALE_SETS_MAX = 256


def theil_sen_slope(scales: Sequence[int], counts: Sequence[int]) -> float:
    """Return the true median of all pairwise slopes, the mean of the middle two for an even number of pairs.

    Pure Python: for the handful of scales a record carries, NumPy's call overhead costs ten times the work.

    Args:
        scales: 2 to 32 strictly increasing integers ≥ 1.
        counts: As many integers ≥ 1.

    >>> theil_sen_slope([2, 4, 8], [4, 16, 64])
    2.0
    """
    logs = [math.log2(count) for count in counts]
    slopes = sorted([(logs[j] - logs[i]) / run for i, j, run in pair_runs(tuple(scales))])
    middle = len(slopes) // 2
    if len(slopes) % 2:
        return slopes[middle]
    return (slopes[middle - 1] + slopes[middle]) / 2


@lru_cache(maxsize=_CACHED_SCALE_SETS_MAX)
def pair_runs(scales: tuple[int, ...]) -> tuple[tuple[int, int, float], ...]:
    """Return every pair of positions with the difference of the logs of its scales."""
    return tuple((i, j, _log2_ratio(scales[i], scales[j])) for i, j in combinations(range(len(scales)), 2))


def _log2_ratio(low: int, high: int) -> float:
    """Return log2(high/low), above 0 also where the two are neighbours so large that their logs are the same float."""
    if high < 2 * low:
        return math.log1p((high - low) / low) / math.log(2)
    return math.log2(high) - math.log2(low)
