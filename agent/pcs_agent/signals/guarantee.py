"""coh★ with what can be said of the directions that were not sampled (docs/signals.md, ADR 28).

The share in the fullest bin jumps as a direction turns: it has no Lipschitz constant. What has one is a projection. Let all
events lie within R of a centre. If unit vectors u and v end at a distance of at most ε, no projection, seen from the
centre's, moves by more than η = ε·R. So whatever lies in a slab across v lies in one across u that is 2·η wider, and the
extents of the events along u and v differ by 2·η at most.

Hence, if one of the sampled directions u ends within ε of the best direction v of all (or of −v),

    coh★(v) ≤ share in the fullest slab across u of width (extent(u) + 2·η)/B + 2·η.

The greatest of these shares over all sampled directions is an upper bound for the coherence along every direction there
is, unless no sampled direction came within ε of the best one. With directions drawn independently of the events, the
chance of that is (1 − p)^M, with p the share of lines within ε of a given one (`pcs_agent.signals.caps`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from pcs_agent.signals.caps import CHORD_MAX, angle_of_chord, angle_of_share, chord_of_angle, log_share
from pcs_agent.signals.coherence import directional_coherence
from pcs_agent.signals.directions import iter_directions
from pcs_agent.signals.scaling import Points, scale_points

EPSILON_DEFAULT = 0.1
DELTA_DEFAULT = 0.05

_BLOCK_DIRECTIONS = 64
_UP = 1e-9  # rounding must not make a number of caps smaller
_SLACK = 1e-9  # of the greatest projection: rounding must not make a bound smaller


class Guarantee(TypedDict):
    """What is known of the directions that were not sampled.

    Attributes:
        approximation_error: With probability 1 − δ, no direction at all has a share above coh★ by more than this; 0 … 1.
        upper_bound: coh★ plus that.
        covering_number: So many caps of radius ε are enough to cover all lines; `inf` above the greatest double.
        required_samples: So many sampled directions come within ε of any given line with probability 1 − δ; or `inf`.
        guarantee_met: Whether as many were sampled.
        confidence: The probability with which those that were sampled come within ε of the best line; 0 … 1.
        epsilon: The radius asked for: distance of the ends of unit vectors.
        reached_epsilon: The radius that as many directions reach with probability 1 − δ, 0 … √2; the error is for this one.
        lipschitz_constant: R, how fast a projection changes with the direction, in units of the scaled events.
        num_sampled: Sampled directions.
    """

    approximation_error: float
    upper_bound: float
    covering_number: float
    required_samples: float
    guarantee_met: bool
    confidence: float
    epsilon: float
    reached_epsilon: float
    lipschitz_constant: float
    num_sampled: int


def compute_coherence_with_guarantees(
    points: npt.ArrayLike,
    num_directions: int = 100,
    num_bins: int = 20,
    seed: int = 42,
    epsilon: float = EPSILON_DEFAULT,
    delta: float = DELTA_DEFAULT,
) -> tuple[float, Points, Guarantee]:
    """Return coh★ and v★ as a record has them, and how far the best of all directions may be above.

    The probability is over seeds drawn independently of the events; who knows the seed can place events so that all
    sampled directions miss.

    Args:
        points: Shape (n, d), finite, n ≥ 1, d ≥ 1; scaled as in a record.
        num_directions: Sampled directions, ≥ 1.
        num_bins: Bins a direction, ≥ 1.
        seed: 0 … 2^63−1.
        epsilon: Radius of the net asked for, above 0, up to √2.
        delta: Chance that the bound does not hold, above 0, below 1.

    Raises:
        ValueError: Something is out of range.

    >>> rows = np.random.default_rng(0).normal(size=(300, 3))
    >>> coh_star, _, known = compute_coherence_with_guarantees(rows, num_directions=1000)
    >>> known["guarantee_met"], known["required_samples"], known["approximation_error"] < 0.4
    (True, 598, True)
    """
    events: Points = np.asarray(points, dtype=np.float64)
    if events.ndim != 2 or 0 in events.shape or not np.isfinite(events).all():
        raise ValueError("points: allowed: finite numbers in rows and columns, one or more of each")
    if num_directions < 1 or num_bins < 1:
        raise ValueError("num_directions, num_bins: allowed: 1 or more")
    if not (0 < epsilon <= CHORD_MAX and 0 < delta < 1):
        raise ValueError("epsilon, delta: allowed: above 0, epsilon up to √2, delta below 1")
    scaled = scale_points(events)
    coh_star, v_star = directional_coherence(scaled, seed, num_directions, num_bins)
    dimensions = scaled.shape[1]
    # Every one of so many directions misses with probability δ^(1/M).
    reached = chord_of_angle(angle_of_share(dimensions, -math.expm1(math.log(delta) / num_directions)))
    centre = (scaled.min(axis=0) + scaled.max(axis=0)) / 2
    radius = math.sqrt(float(((scaled - centre) ** 2).sum(axis=1).max()))
    shares = [
        _widened_share(scaled, direction, num_bins, reached * radius)
        for block in iter_directions(seed, num_directions, dimensions, _BLOCK_DIRECTIONS)
        for direction in block
    ]
    upper = max(coh_star, *shares)
    required = required_samples(dimensions, epsilon, delta)
    return (
        coh_star,
        v_star,
        Guarantee(
            approximation_error=upper - coh_star,
            upper_bound=upper,
            covering_number=covering_number(dimensions, epsilon),
            required_samples=required,
            guarantee_met=num_directions >= required,
            confidence=hit_probability(dimensions, epsilon, num_directions),
            epsilon=epsilon,
            reached_epsilon=reached,
            lipschitz_constant=radius,
            num_sampled=num_directions,
        ),
    )


def covering_number(dimensions: int, epsilon: float) -> float:
    """Return a number of caps of radius ε that is enough to cover all lines; `inf` above the greatest double.

    Lines that are pairwise more than an angle θ apart have disjoint caps of θ/2, so there are no more of them than those
    caps fit in; a greatest such set leaves no line further than θ from all of its own.

    Args:
        dimensions: ≥ 1.
        epsilon: Above 0, up to √2.

    >>> covering_number(2, 0.1), covering_number(3, 0.1), covering_number(768, 0.1)
    (31, 799, inf)
    """
    return _whole(_UP - log_share(dimensions, angle_of_chord(epsilon) / 2), math.floor)


def required_samples(dimensions: int, epsilon: float, delta: float) -> float:
    """Return how many random directions come within ε of a given line with probability 1 − δ; `inf` above the greatest double.

    Args:
        dimensions: ≥ 1.
        epsilon: Above 0, up to √2.
        delta: Above 0, below 1.

    >>> required_samples(2, 0.1, 0.05), required_samples(3, 0.1, 0.05), required_samples(64, 0.1, 0.05) > 1e60
    (46, 598, True)
    """
    log_p = log_share(dimensions, angle_of_chord(epsilon))
    if log_p == 0:
        return 1
    # ln(1 − p) is −p where p is too small for a double
    log_rate = math.log(-math.log1p(-math.exp(log_p))) if log_p > math.log(1e-12) else log_p
    return _whole(math.log(-math.log(delta)) - log_rate, math.ceil)


def hit_probability(dimensions: int, epsilon: float, samples: int) -> float:
    """Return the probability that one of so many random directions comes within ε of a given line.

    Args:
        dimensions: ≥ 1.
        epsilon: Above 0, up to √2.
        samples: ≥ 1.
    """
    share = math.exp(log_share(dimensions, angle_of_chord(epsilon)))
    return 1.0 if share >= 1 else -math.expm1(samples * math.log1p(-share))


def _whole(log_number: float, rounded: Callable[[float], int]) -> float:
    try:
        return rounded(math.exp(log_number))
    except OverflowError:
        return math.inf


def _widened_share(scaled: Points, direction: Points, bins: int, shift: float) -> float:
    """Return the share of events in the fullest slab of the width that the module's bound names, for η = `shift`."""
    places = np.sort(scaled @ direction)
    width = (float(places[-1] - places[0]) + 2 * shift) / bins + 2 * shift + _SLACK
    upto = np.searchsorted(places, places + width, side="right")
    return float((upto - np.arange(len(places))).max()) / len(places)
