"""How much of all directions lies near a given one: closed forms of caps of the sphere.

A direction and its opposite are one line here, for both put the events into the same slabs. The lines within an angle θ
of a given one make up the share I(sin²θ; (d − 1)/2, 1/2) of all lines through the origin of d dimensions, where I is the
regularised incomplete beta function (S. Li, 2011). Shares are kept as logarithms: in 768 dimensions they fall below the
smallest double.
"""

from __future__ import annotations

import math

CHORD_MAX = math.sqrt(2)
"""Distance of the ends of two unit vectors at a right angle: no two lines are further apart."""

_TERMS_MAX = 10_000
_PRECISION = 1e-15
_TINY = 1e-300
_HALVINGS = 200


def angle_of_chord(chord: float) -> float:
    """Return the angle between unit vectors whose ends are so far apart.

    Args:
        chord: 0 … √2.
    """
    return 2 * math.asin(min(chord, CHORD_MAX) / 2)


def chord_of_angle(angle: float) -> float:
    """Return how far apart the ends of unit vectors are.

    Args:
        angle: 0 … π/2.
    """
    return 2 * math.sin(angle / 2)


def log_share(dimensions: int, angle: float) -> float:
    """Return the natural logarithm of the share of lines within an angle of a given one, −∞ for none.

    Args:
        dimensions: ≥ 1; in one dimension there is one line.
        angle: 0 … π/2.
    """
    if dimensions == 1 or angle >= math.pi / 2:
        return 0.0
    if angle <= 0:
        return -math.inf
    sine, cosine = math.sin(angle), math.cos(angle)
    return _log_beta_share(2 * math.log(sine), 2 * math.log(cosine), (dimensions - 1) / 2, 0.5)


def angle_of_share(dimensions: int, share: float) -> float:
    """Return the smallest angle within which at least such a share of all lines lies.

    Args:
        dimensions: ≥ 1.
        share: Above 0, up to 1.
    """
    if dimensions == 1:
        return 0.0
    wanted = math.log(share)
    least, greatest = 0.0, math.pi / 2
    for _ in range(_HALVINGS):
        middle = (least + greatest) / 2
        if middle in {least, greatest}:
            break
        if log_share(dimensions, middle) < wanted:
            least = middle
        else:
            greatest = middle
    return greatest


def _log_beta_share(log_x: float, log_rest: float, a: float, b: float) -> float:
    """Return ln I(x; a, b), given the logarithms of x and 1 − x."""
    log_front = a * log_x + b * log_rest - (math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b))
    if math.exp(log_x) < (a + 1) / (a + b + 2):
        return log_front + math.log(_continued_fraction(math.exp(log_x), a, b) / a)
    rest = math.exp(log_front) * _continued_fraction(math.exp(log_rest), b, a) / b
    return math.log1p(-min(rest, 1.0))


def _continued_fraction(x: float, a: float, b: float) -> float:
    """Return the continued fraction of the incomplete beta function by Lentz's method; quick for x < (a + 1)/(a + b + 2)."""
    c, d = 1.0, 1.0 / _away_from_zero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _TERMS_MAX):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        change = 1.0
        for term in (even, odd):
            d = 1.0 / _away_from_zero(1 + term * d)
            c = _away_from_zero(1 + term / c)
            change = c * d
            value *= change
        if abs(change - 1) < _PRECISION:
            break
    return value


def _away_from_zero(number: float) -> float:
    return number if abs(number) > _TINY else _TINY
