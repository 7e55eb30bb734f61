"""How often a gate was wrong on records whose labels came later, beside how often it may be.

The interval is Clopper and Pearson's: exact, so that a few labels or no error at all prove nothing (L27 of the lessons).
It holds for one look. Pure; SciPy is imported with the first interval.
"""

from __future__ import annotations

from typing import NamedTuple

CONFIDENCE = 0.95
"""Of the intervals, two-sided."""

OFF_TARGET_SHARE = 0.5
"""Part of the target by which a rate may miss it, unless set otherwise."""


class Coverage(NamedTuple):
    """Errors of one kind among labelled records of one class, and what they say of the rate behind them.

    Attributes:
        errors: Benign records that the gate refused, or bad ones that it accepted.
        trials: Records of that class on which it decided.
        target: Share of errors that was promised as the most: alpha or delta.
        low: Lower end of the interval of the rate behind them, 0 with no error.
        high: Its upper end, 1 where every trial was an error, or there was none.
    """

    errors: int
    trials: int
    target: float
    low: float
    high: float

    @property
    def rate(self) -> float | None:
        """Errors a trial; `None` before the first trial."""
        return self.errors / self.trials if self.trials else None

    def is_broken(self, off_target_share: float = OFF_TARGET_SHARE) -> bool:
        """Return whether more errors came than promised: by that part of the target, and beyond the interval."""
        return (
            self.rate is not None
            and self.low > self.target
            and self.rate - self.target > off_target_share * self.target
        )

    def is_wasteful(self, off_target_share: float = OFF_TARGET_SHARE) -> bool:
        """Return whether so few errors came that the threshold gives away decisions. No promise is broken by that."""
        return (
            self.rate is not None
            and self.high < self.target
            and self.target - self.rate > off_target_share * self.target
        )

    def is_off_target(self, off_target_share: float = OFF_TARGET_SHARE) -> bool:
        """Return whether a new calibration is due, on either side of the target."""
        return self.is_broken(off_target_share) or self.is_wasteful(off_target_share)


def measure_coverage(errors: int, trials: int, target: float, confidence: float = CONFIDENCE) -> Coverage:
    """Count errors against a target.

    Args:
        errors: 0 to `trials`.
        trials: 0 or more.
        target: Above 0 and below 1.
        confidence: Of the interval, above 0 and below 1.

    Raises:
        ValueError: A number is not in its range.

    >>> found = measure_coverage(0, 20, 0.05)
    >>> found.low, round(found.high, 3), found.is_off_target()
    (0.0, 0.168, False)
    """
    from scipy.special import betaincinv  # noqa: PLC0415

    if not 0 <= errors <= trials:
        raise ValueError("errors must be 0 or more, and no more than trials")
    if not (0 < target < 1 and 0 < confidence < 1):
        raise ValueError("target and confidence lie above 0 and below 1")
    tail = (1 - confidence) / 2
    low = float(betaincinv(errors, trials - errors + 1, tail)) if errors else 0.0
    high = float(betaincinv(errors + 1, trials - errors, 1 - tail)) if errors < trials else 1.0
    return Coverage(errors, trials, target, low, high)
