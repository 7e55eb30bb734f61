"""The gate as shipped, calibrated many times on signals of both classes, and how it decides on records it has not seen."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from pcs_backend.conformal.calibration import CalibrationSet, Label, Weighting
from pcs_backend.conformal.density_ratio import DensityRatio
from pcs_backend.conformal.gate import Gate, side_of
from pcs_backend.conformal.provenance import SetName
from pcs_backend.conformal.scores import Score, score_from
from pcs_core.params import Params

FRESH = 100
"""Records of each class that a calibration is tried on."""

_MEANS: dict[Label, tuple[float, float, float]] = {"benign": (2.4, 0.75, 0.62), "bad": (1.9, 0.6, 0.45)}
_SPREAD = (0.4, 0.15, 0.12)
_SHIFTED_BELOW = 0.3
_BAD_SHARE = 0.05
"""Of the traffic when records were labelled; of the labels it is half."""

_LOW_THEN: dict[Label, float] = {"benign": 0.08, "bad": 0.48}
_ALL_LOW_THEN = (1 - _BAD_SHARE) * _LOW_THEN["benign"] + _BAD_SHARE * _LOW_THEN["bad"]
_ALL_LOW_NOW = 0.5
"""Share of records with an r below that: of each class then, of all then, and of all now."""


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


def count_decisions_after_a_shift(
    calibrations: int, scores: int, alpha: float, delta: float, *, is_told: bool
) -> dict[Label, Counter[str | None]]:
    """As `count_decisions`, of records of which half have a low r, where a tenth had it when they were labelled.

    Bad records have it more often, and half of the labels are bad where the traffic has a twentieth. How often a record of
    low or high r is bad stays what it was, and all else about its class too.

    Args:
        calibrations: How many.
        scores: Of each class.
        alpha: Promised of benign records.
        delta: Promised of bad ones.
        is_told: Whether the sets have the density ratio of that.
    """
    score = score_from("weighted", "{}", Params())
    low, high = _ALL_LOW_NOW / _ALL_LOW_THEN, (1 - _ALL_LOW_NOW) / (1 - _ALL_LOW_THEN)
    ratio = DensityRatio("r", (_SHIFTED_BELOW,), (low, high))
    now = {label: share * low / (share * low + (1 - share) * high) for label, share in _LOW_THEN.items()}
    labels: tuple[Label, ...] = get_args(Label)
    counted: dict[Label, Counter[str | None]] = {label: Counter() for label in labels}
    for seed in range(calibrations):
        rng = np.random.default_rng((86, seed))
        known = {label: _mixed_signals(rng, label, scores, _LOW_THEN[label]) for label in labels}
        gate = _gate(known, score, alpha, delta, ratio if is_told else None)
        for label, counter in counted.items():
            fresh = _mixed_signals(rng, label, FRESH, now[label])
            counter.update(gate.decide(*row).gate for row in fresh.tolist())
    return counted


def _calibrated(rng: np.random.Generator, score: Score, scores: int, alpha: float, delta: float) -> Gate:
    return _gate({label: _signals(rng, label, scores) for label in _MEANS}, score, alpha, delta, None)


def _gate(
    known: dict[Label, NDArray[np.float64]],
    score: Score,
    alpha: float,
    delta: float,
    ratio: DensityRatio | None,
) -> Gate:
    scored = {
        label: sorted(
            (each, 1.0 if ratio is None else ratio.ratios[ratio.piece_of(row)])
            for each, row in zip(score.of_many(signals).tolist(), signals.tolist(), strict=True)
        )
        for label, signals in known.items()
    }
    weights = {label: tuple(weight for _, weight in each) for label, each in scored.items()}
    found = CalibrationSet(
        scope="tenant",
        score=score.name,
        score_parameters=score.parameters,
        alpha=alpha,
        delta=delta,
        benign=tuple(each for each, _ in scored["benign"]),
        bad=tuple(each for each, _ in scored["bad"]),
        made_at_ms=0,
        weighting=UNSET if ratio is None else Weighting(ratio, weights["benign"], weights["bad"]),
    )
    name = SetName(found.digest, 1)
    return Gate(side_of(found, name, score, "benign"), side_of(found, name, score, "bad"), "0" * 64)


def _signals(rng: np.random.Generator, label: Label, count: int) -> NDArray[np.float64]:
    return np.round(rng.normal(_MEANS[label], _SPREAD, (count, 3)).clip(0, (3.5, 1.0, 1.0)), 9)


def _mixed_signals(
    rng: np.random.Generator, label: Label, count: int, low_share: float
) -> NDArray[np.float64]:
    """Return signals of which a share has its r moved below `_SHIFTED_BELOW`, and all others above it."""
    signals = _signals(rng, label, count)
    is_low = rng.random(count) < low_share
    within = signals[:, 2].clip(0, 0.999)
    signals[:, 2] = np.round(
        np.where(is_low, _SHIFTED_BELOW * within, _SHIFTED_BELOW + (1 - _SHIFTED_BELOW) * within), 9
    )
    return signals
