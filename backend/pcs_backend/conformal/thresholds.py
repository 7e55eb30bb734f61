"""From which score on records are refused, and below which they are accepted.

Pure. What is promised, and of what: docs/statistics.md. Why the order statistic: ADR 32.

A level is taken as the decimal its operator wrote, not as the binary float beside it: ranks are exact, so that 29 % of
100 is 29, and no rounding moves a threshold by a score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from pcs_backend.conformal.calibration import ThresholdMethod


def benign_threshold(
    scores_ascending: Sequence[float], alpha: float, method: ThresholdMethod = "order_statistic"
) -> float:
    """Return the score above which a record is refused.

    With the order statistic, the ⌈(n+1)(1−α)⌉-th smallest: at most a share alpha of records that are exchangeable with
    those of `scores_ascending` scores higher. The interpolated quantile does not hold that (docs/statistics.md).

    Args:
        scores_ascending: Of n benign records: finite, ascending, equal ones included.
        alpha: Share of benign records that may be refused, above 0 and below 1.
        method: How it is taken.

    Returns:
        A score, or +inf where n is too small for any, whatever the method.

    Raises:
        ValueError: Scores or level are not of that kind.

    >>> benign_threshold([0.1] * 94 + [0.5, 0.6, 0.7, 0.8, 0.9, 1.0], 0.05)
    0.6
    >>> benign_threshold([0.1, 0.2, 0.3], 0.05)
    inf
    """
    check_scores(scores_ascending, alpha)
    beyond = rank_at(len(scores_ascending), alpha)
    if beyond == 0:
        return math.inf
    if method == "interpolated":
        return _quantile(scores_ascending, 1 - exact_level(alpha))
    return float(scores_ascending[-beyond])


def bad_threshold(
    scores_ascending: Sequence[float], delta: float, method: ThresholdMethod = "order_statistic"
) -> float:
    """Return the score below which a record is accepted.

    With the order statistic, the ⌊(m+1)δ⌋-th smallest: at most a share delta of records that are exchangeable with
    those of `scores_ascending` scores lower. The interpolated quantile does not hold that (docs/statistics.md).

    Args:
        scores_ascending: Of m bad records: finite, ascending, equal ones included.
        delta: Share of bad records that may be accepted, above 0 and below 1.
        method: How it is taken.

    Returns:
        A score, or −inf where m is too small for any, whatever the method.

    Raises:
        ValueError: Scores or level are not of that kind.

    >>> bad_threshold([0.1, 0.2, 0.3, 0.4, 0.5] + [0.9] * 95, 0.05)
    0.5
    >>> bad_threshold([0.1, 0.2, 0.3], 0.05)
    -inf
    """
    check_scores(scores_ascending, delta)
    rank = rank_at(len(scores_ascending), delta)
    if rank == 0:
        return -math.inf
    if method == "interpolated":
        return _quantile(scores_ascending, exact_level(delta))
    return float(scores_ascending[rank - 1])


def rank_at(count: int, level: float) -> int:
    """Return ⌊(count+1)·level⌋, exactly: how many of `count` scores stand at or beyond a threshold of that level.

    ⌈(n+1)(1−α)⌉ is n+1 less this, so one count serves both sides.

    >>> rank_at(99, 0.29), rank_at(100, 0.05), rank_at(18, 0.05)
    (29, 5, 0)
    """
    return math.floor((count + 1) * exact_level(level))


def exact_level(level: float) -> Fraction:
    """Return the decimal that was written: 0.05 is a twentieth."""
    return Fraction(repr(float(level)))


def check_scores(scores: Sequence[float], level: float) -> None:
    """Refuse scores and levels of which nothing is promised.

    Raises:
        ValueError: Scores are not finite or do not ascend, or the level is not above 0 and below 1.
    """
    if not 0 < level < 1:
        raise ValueError("a level lies above 0 and below 1")
    # A NaN is not at most its neighbour, so what ascends holds none; the ends show an infinity.
    if not all(low <= high for low, high in pairwise(scores)) or not all(
        math.isfinite(end) for end in (*scores[:1], *scores[-1:])
    ):
        raise ValueError("scores must be finite and ascend")


def _quantile(scores: Sequence[float], share: Fraction) -> float:
    """Return the quantile interpolated linearly between neighbours: number 7 of Hyndman and Fan, NumPy's default."""
    position = (len(scores) - 1) * share
    below = math.floor(position)
    low = scores[below]
    high = scores[min(below + 1, len(scores) - 1)]
    return float(Fraction(low) + (Fraction(high) - Fraction(low)) * (position - below))
