"""The gate as shipped, calibrated many times on signals of both classes, and how it decides on records it has not seen."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from pcs_backend.conformal.calibration import CalibrationSet, Label
from pcs_backend.conformal.gate import Gate, side_of
from pcs_backend.conformal.provenance import SetName
from pcs_backend.conformal.scores import Score, score_from
from pcs_core.params import Params

FRESH = 100
"""Records of each class that a calibration is tried on."""

_MEANS: dict[Label, tuple[float, float, float]] = {"benign": (2.4, 0.75, 0.62), "bad": (1.9, 0.6, 0.45)}
_SPREAD = (0.4, 0.15, 0.12)


def count_decisions(
    calibrations: int, scores: int, alpha: float, delta: float
) -> dict[Label, Counter[str | None]]:
    """Calibrate the weighted score so many times and count the gate's decisions on fresh records of each class."""
    score = score_from("weighted", "{}", Params())
    counted: dict[Label, Counter[str | None]] = {"benign": Counter(), "bad": Counter()}
    for seed in range(calibrations):
        rng = np.random.default_rng((85, seed))
        gate = _calibrated(rng, score, scores, alpha, delta)
        for label, counter in counted.items():
            counter.update(gate.decide(*row).gate for row in _signals(rng, label, FRESH).tolist())
    return counted


def _calibrated(rng: np.random.Generator, score: Score, scores: int, alpha: float, delta: float) -> Gate:
    known = {label: sorted(score.of_many(_signals(rng, label, scores)).tolist()) for label in _MEANS}
    found = CalibrationSet(
        scope="tenant",
        score=score.name,
        score_parameters=score.parameters,
        alpha=alpha,
        delta=delta,
        benign=tuple(known["benign"]),
        bad=tuple(known["bad"]),
        made_at_ms=0,
    )
    name = SetName(found.digest, 1)
    return Gate(side_of(found, name, score, "benign"), side_of(found, name, score, "bad"), "0" * 64)


def _signals(rng: np.random.Generator, label: Label, count: int) -> NDArray[np.float64]:
    return np.round(rng.normal(_MEANS[label], _SPREAD, (count, 3)).clip(0, (3.5, 1.0, 1.0)), 9)
