"""Whether recent scores come from where a set's scores came from: the two-sample Kolmogorov–Smirnov test.

SciPy's, which knows ties (L26 of the lessons: equal constants are no drift). It answers for one look; whoever looks again
and again is alarmed more often than the p-value says. `conformal.martingale` is the one that may be looked at always.

Pure. SciPy is imported with the first test: it takes longer to load than the rest of the backend.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

RECENT_SCORES = 100
"""Scores that are compared with the set's, unless set otherwise."""

DISTANCE_MIN = 0.10
"""Distance that counts as drift, unless set otherwise, where it is also unlikely by chance."""

P_VALUE_MAX = 0.05
"""Chance below which a distance is unlikely, unless set otherwise."""


class Drift(NamedTuple):
    """What a comparison found.

    Attributes:
        distance: Greatest difference of the two empirical distribution functions, 0 to 1.
        p_value: Chance of such a distance or a greater one between samples of one distribution, at one look.
    """

    distance: float
    p_value: float

    def is_drift(self, distance_min: float = DISTANCE_MIN, p_value_max: float = P_VALUE_MAX) -> bool:
        """Return whether the distance is above its bound and its chance below its own."""
        return self.distance > distance_min and self.p_value < p_value_max


def compare_scores(recent: Sequence[float], reference: Sequence[float]) -> Drift:
    """Compare two samples, two-sided.

    Args:
        recent: One score or more, in any order. With up to 10,000 in each the p-value is exact, above it is asymptotic.
        reference: As above.

    Raises:
        ValueError: One of them is empty.

    >>> compare_scores([0.5] * 100, [0.5] * 1000)
    Drift(distance=0.0, p_value=1.0)
    """
    from scipy.stats import ks_2samp  # noqa: PLC0415

    if len(recent) == 0 or len(reference) == 0:
        raise ValueError("both samples need a score")
    with warnings.catch_warnings():
        # Where a chance is a rounding above 1 (samples of 5 or 7 that hardly differ), SciPy warns and takes the
        # asymptotic one, which is 1 there to four places.
        warnings.simplefilter("ignore", RuntimeWarning)
        result = ks_2samp(recent, reference, alternative="two-sided", method="auto")
    return Drift(float(result.statistic), float(result.pvalue))
