"""The thresholds that a calibration set gives a class: one, or one a piece where it has a density ratio. Pure."""

from __future__ import annotations

from msgspec import UNSET

from pcs_backend.conformal.calibration import CalibrationSet, Label
from pcs_backend.conformal.thresholds import bad_threshold, benign_threshold
from pcs_backend.conformal.weighted import weighted_bad_thresholds, weighted_benign_thresholds


def thresholds_of(found: CalibrationSet, label: Label) -> list[float]:
    """Return the thresholds of a class, infinite where its scores support none.

    Raises:
        ValueError: Scores or weights are not as `conformal.thresholds` and `conformal.weighted` want them.
    """
    weighting = found.weighting
    if label == "benign":
        if weighting is UNSET:
            return [benign_threshold(found.benign, found.alpha, found.method)]
        return weighted_benign_thresholds(found.benign, weighting.benign, weighting.ratio.ratios, found.alpha)
    if weighting is UNSET:
        return [bad_threshold(found.bad, found.delta, found.method)]
    return weighted_bad_thresholds(found.bad, weighting.bad, weighting.ratio.ratios, found.delta)
