"""Thresholds where records to come are other than those that were labelled, in a way that is known.

Where the density ratio of the two is given for each record (how much more often such a one comes now), conformal
prediction still holds with each score weighted by it (Tibshirani and others, 2019, theorem 2). The threshold then is
another one for each record, because its own weight counts. The service gives no ratio and uses `conformal.thresholds`;
this is for who computes verdicts on stored scores and has one. A wrong ratio breaks the promise without a sign.

Pure. Sums are exact, some milliseconds for a thousand scores; equal weights give the thresholds of `conformal.thresholds`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction

from pcs_backend.conformal.thresholds import check_scores, exact_level


def weighted_benign_threshold(
    scores_ascending: Sequence[float], weights: Sequence[float], weight: float, alpha: float
) -> float:
    """Return the score above which a record of a given weight is refused.

    It is the least score at or below which lies a share 1−alpha of all weight, the record's own counted as above all.

    Args:
        scores_ascending: Of n benign records: finite, ascending.
        weights: As many density ratios, each finite and 0 or more.
        weight: The record's own, as above.
        alpha: Share of benign records that may be refused, above 0 and below 1.

    Returns:
        A score, or +inf where the scores' weight does not support one.

    Raises:
        ValueError: Scores, weights or level are not of that kind.

    >>> weighted_benign_threshold([0.1, 0.2, 0.3, 0.4], [1.0, 1.0, 1.0, 1.0], 1.0, 0.2)
    0.4
    >>> weighted_benign_threshold([0.1, 0.2, 0.3, 0.4], [4.0, 4.0, 1.0, 1.0], 1.0, 0.2)
    0.3
    """
    check_scores(scores_ascending, alpha)
    place = _place_of_share(weights, weight, alpha, len(scores_ascending), backwards=False)
    return math.inf if place is None else float(scores_ascending[place])


def weighted_bad_threshold(
    scores_ascending: Sequence[float], weights: Sequence[float], weight: float, delta: float
) -> float:
    """Return the score below which a record of a given weight is accepted.

    It is the greatest score at or above which lies a share 1−delta of all weight, the record's own counted as below all.

    Args:
        scores_ascending: Of m bad records: finite, ascending.
        weights: As many density ratios, each finite and 0 or more.
        weight: The record's own, as above.
        delta: Share of bad records that may be accepted, above 0 and below 1.

    Returns:
        A score, or −inf where the scores' weight does not support one.

    Raises:
        ValueError: Scores, weights or level are not of that kind.
    """
    check_scores(scores_ascending, delta)
    place = _place_of_share(weights, weight, delta, len(scores_ascending), backwards=True)
    return -math.inf if place is None else float(scores_ascending[place])


def _place_of_share(
    weights: Sequence[float], weight: float, level: float, count: int, *, backwards: bool
) -> int | None:
    """Return the place at which the weights, added up from an end, reach the share 1−level of all with the record's."""
    if len(weights) != count:
        raise ValueError("each score needs one weight")
    if not all(math.isfinite(each) and each >= 0 for each in (*weights, weight)):
        raise ValueError("a weight must be finite and 0 or more")
    exact = [Fraction(each) for each in weights]
    needed = (1 - exact_level(level)) * (sum(exact) + Fraction(weight))
    places: Iterable[int] = range(count - 1, -1, -1) if backwards else range(count)
    reached = Fraction(0)
    for place in places:
        reached += exact[place]
        # Without any weight nothing is known: 0 of 0 is no share.
        if reached >= needed and reached > 0:
            return place
    return None
