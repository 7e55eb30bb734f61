"""Thresholds where records to come are other than those that were labelled, in a way that is known.

Where the density ratio of the two is given for each record (how much more often such a one comes now), conformal
prediction still holds with each score weighted by it (Tibshirani and others, 2019, theorem 2). The threshold then is
another one for each weight that a record may have, because its own counts. A wrong ratio breaks the promise without a sign.

Pure. Sums are exact, some milliseconds for a thousand scores; equal weights give the thresholds of `conformal.thresholds`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import accumulate

from pcs_backend.conformal.thresholds import check_scores, exact_level


def weighted_benign_thresholds(
    scores_ascending: Sequence[float], weights: Sequence[float], own_weights: Sequence[float], alpha: float
) -> list[float]:
    """Return the score above which a record is refused, for each weight that a record may have.

    It is the least score at or below which lies a share 1−alpha of all weight, the record's own counted as above all.

    Args:
        scores_ascending: Of n benign records: finite, ascending.
        weights: As many density ratios, each finite and 0 or more.
        own_weights: Those of records to come, as above.
        alpha: Share of benign records that may be refused, above 0 and below 1.

    Returns:
        A score for each own weight, or +inf where the scores' weight does not support one.

    Raises:
        ValueError: Scores, weights or level are not of that kind.

    >>> weighted_benign_thresholds([0.1, 0.2, 0.3, 0.4], [1.0, 1.0, 1.0, 1.0], [1.0], 0.2)
    [0.4]
    >>> weighted_benign_thresholds([0.1, 0.2, 0.3, 0.4], [4.0, 4.0, 1.0, 1.0], [1.0, 4.0], 0.2)
    [0.3, inf]
    """
    check_scores(scores_ascending, alpha)
    return [
        math.inf if place is None else float(scores_ascending[place])
        for place in _places_of_share(weights, own_weights, alpha, len(scores_ascending))
    ]


def weighted_bad_thresholds(
    scores_ascending: Sequence[float], weights: Sequence[float], own_weights: Sequence[float], delta: float
) -> list[float]:
    """Return the score below which a record is accepted, for each weight that a record may have.

    It is the greatest score at or above which lies a share 1−delta of all weight, the record's own counted as below all.

    Args:
        scores_ascending: Of m bad records: finite, ascending.
        weights: As many density ratios, each finite and 0 or more.
        own_weights: Those of records to come, as above.
        delta: Share of bad records that may be accepted, above 0 and below 1.

    Returns:
        A score for each own weight, or −inf where the scores' weight does not support one.

    Raises:
        ValueError: Scores, weights or level are not of that kind.
    """
    check_scores(scores_ascending, delta)
    return [
        -math.inf if place is None else float(scores_ascending[-1 - place])
        for place in _places_of_share(weights[::-1], own_weights, delta, len(scores_ascending))
    ]


def _places_of_share(
    weights: Sequence[float], own_weights: Sequence[float], level: float, count: int
) -> Iterable[int | None]:
    """Return the place at which the weights, added up, reach the share 1−level of all with each of a record's own."""
    if len(weights) != count:
        raise ValueError("each score needs one weight")
    if not all(math.isfinite(each) and each >= 0 for each in (*weights, *own_weights)):
        raise ValueError("a weight must be finite and 0 or more")
    reached = list(accumulate(map(Fraction, weights)))
    total = reached[-1] if reached else Fraction(0)
    share = 1 - exact_level(level)
    for own in own_weights:
        needed = share * (total + Fraction(own))
        place = bisect_left(reached, needed)
        # Without any weight nothing is known: 0 of 0 is no share.
        yield place if total > 0 and place < count else None
