"""Sets of scores from labels: which labels count, which part fits the score, and what thresholds come of it. Pure.

A label counts if it came within the time window and if its record was not picked by its verdict: such a record is not
exchangeable with those that will be judged. Of a score that is fitted, one part of the labels fits it and the other
calibrates: a record that shaped a score has a score that no new record will have. Which part a record is of follows from
a hash of whose and which it is, so it stays there for ever, whatever else is labelled. Of what is left the newest count,
a bounded number a class.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import get_args

import msgspec
from msgspec import UNSET

from pcs_backend.conformal.calibration import (
    CLASS_SCORES_MIN,
    GLOBAL_SCOPE,
    SET_SCORES_MAX,
    CalibrationSet,
    Label,
    Labelled,
    ThresholdMethod,
    Trigger,
    Weighting,
)
from pcs_backend.conformal.density_ratio import DensityRatio
from pcs_backend.conformal.scores import DEFAULT_SCORE, FITTED_SCORES, Score, fit, score_from
from pcs_backend.conformal.scores.mahalanobis import MahalanobisScore
from pcs_backend.conformal.set_thresholds import thresholds_of
from pcs_backend.errors import ScoreError
from pcs_core.params import Params

FIT_SHARE = 0.3
"""Part of the labels that fits a score, where it is fitted."""

FIT_SEED = 0
"""Seeds whatever a fit draws, so that the same labels give the same set."""

HOUR_MS = 3_600_000

_UNSUPPORTED: Mapping[Label, str] = MappingProxyType(
    {
        "benign": "alpha this small: nothing would be refused",
        "bad": "delta this small: nothing would be accepted",
    }
)
"""What so few scores do not support, and what comes of it."""


class BuildSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How sets are made.

    Attributes:
        alpha: Share of benign records that may be refused, above 0 and below 1.
        delta: Share of bad records that may be accepted, above 0 and below 1.
        score: Name of the score.
        method: How thresholds are taken.
        set_scores_max: Scores of a class in a set.
        window_h: Hours from the coming of a label for which it counts.
    """

    alpha: float = 0.05
    delta: float = 0.05
    score: str = DEFAULT_SCORE
    method: ThresholdMethod = "order_statistic"
    set_scores_max: int = SET_SCORES_MAX
    window_h: float = 24.0


class ClassPart(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the labels of a class. Each is counted once: as outdated, picked, fitting, dropped or a score.

    Attributes:
        outdated: Came before the time window.
        picked: Left out, because their verdicts were the reason to label them.
        fitting: Fitted the score.
        dropped: The oldest, beyond the size bound.
        scores: Are in the set: n of the benign, m of the bad.
        threshold: What comes of them; `None` where none does, which leaves the class without its guarantee, and where a
            density ratio gives several.
        why_none: Why there is no threshold; empty if there is one.
        thresholds: One a piece of the density ratio, each as `threshold`; empty without a ratio.
    """

    outdated: int
    picked: int
    fitting: int
    dropped: int
    scores: int
    threshold: float | None
    why_none: str
    thresholds: tuple[float | None, ...] = ()


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """A set, or why there is none.

    Attributes:
        calibration_set: The set; `None` where no class has a threshold.
        why_none: Why there is none; empty if there is one.
        benign: What became of the labels of benign records.
        bad: Of bad ones.
    """

    calibration_set: CalibrationSet | None
    why_none: str
    benign: ClassPart
    bad: ClassPart


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What labels would come to, and what the marked ones among them would do.

    Attributes:
        scope: A tenant, or `GLOBAL_SCOPE`.
        built: As a set is made: without marked records.
        with_picked: As it would be if records picked by their verdicts counted like others.
    """

    scope: str
    built: Built
    with_picked: Built


def build_set(
    labels: Sequence[Labelled],
    *,
    scope: str,
    settings: BuildSettings,
    params: Params,
    now_ms: int,
    trigger: Trigger,
    density_ratio: DensityRatio | None = None,
) -> Built:
    """Make a set of the labels of a scope.

    Args:
        labels: In any order, one a (tenant, pcs_id); those of other tenants are passed over.
        scope: A tenant, or `GLOBAL_SCOPE` for all.
        settings: How.
        params: The parameters that scores are made with.
        now_ms: Milliseconds since 1970; the window ends here.
        trigger: Why it is made.
        density_ratio: Of the records to come over those that were labelled; `None` where they are one mixture.
    """
    return _build(labels, scope, settings, params, now_ms, trigger, density_ratio, count_picked=False)


def report(
    labels: Sequence[Labelled], *, scope: str, settings: BuildSettings, params: Params, now_ms: int
) -> Report:
    """Say what would come of the labels of a scope, with and without records that were picked by their verdicts.

    Args:
        labels: As `build_set` takes them.
        scope: A tenant, or `GLOBAL_SCOPE` for all.
        settings: How.
        params: The parameters that scores are made with.
        now_ms: Milliseconds since 1970.
    """
    both = [
        _build(labels, scope, settings, params, now_ms, "by_hand", count_picked=each)
        for each in (False, True)
    ]
    return Report(scope=scope, built=both[0], with_picked=both[1])


def lost_classes(current: CalibrationSet, new: CalibrationSet) -> tuple[Label, ...]:
    """Return the classes that a set in force has a threshold from, and a new one would not have.

    Raises:
        ValueError: A set is not one that `build_set` makes.
    """

    def promises(found: CalibrationSet, label: Label) -> bool:
        return has_threshold(found, label) and any(map(math.isfinite, thresholds_of(found, label)))

    return tuple(label for label in get_args(Label) if promises(current, label) and not promises(new, label))


def has_threshold(calibration_set: CalibrationSet, label: Label) -> bool:
    """Whether a set has scores enough of a class for a threshold."""
    scores = calibration_set.benign if label == "benign" else calibration_set.bad
    return len(scores) >= CLASS_SCORES_MIN


def fits(score: str, label: Label) -> bool:
    """Whether a score is fitted to records of a class, so that a part of their labels goes there."""
    return score in FITTED_SCORES and (label == "benign" or score != MahalanobisScore.name)


def is_fitting(label: Labelled) -> bool:
    """Whether a record is of the part that fits a score. It is for ever, or never."""
    digest = hashlib.sha256(f"fit|{label.tenant}|{label.pcs_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < FIT_SHARE * 2**64


class _Sorted(msgspec.Struct):
    """Labels of a class, by what becomes of them; those that count newest first."""

    outdated: int
    picked: int
    fitting: list[Labelled]
    counted: list[Labelled]
    dropped: int


def _build(
    labels: Sequence[Labelled],
    scope: str,
    settings: BuildSettings,
    params: Params,
    now_ms: int,
    trigger: Trigger,
    density_ratio: DensityRatio | None = None,
    *,
    count_picked: bool,
) -> Built:
    own = [each for each in labels if scope in (GLOBAL_SCOPE, each.tenant)]
    benign, bad = (
        _sort([each for each in own if each.label == label], settings, now_ms, count_picked=count_picked)
        for label in get_args(Label)
    )
    score, why_none = _score(settings.score, params, benign, bad)
    if density_ratio is not None and settings.method != "order_statistic":
        score, why_none = None, "a density ratio goes with order statistics alone"
    if score is None:
        return Built(
            calibration_set=None,
            why_none=why_none,
            benign=_part("benign", benign, None, why_none),
            bad=_part("bad", bad, None, why_none),
        )
    found, weights = zip(
        *(_scored(each.counted, score, density_ratio) for each in (benign, bad)), strict=True
    )
    made = CalibrationSet(
        scope=scope,
        score=score.name,
        score_parameters=score.parameters,
        alpha=settings.alpha,
        delta=settings.delta,
        method=settings.method,
        benign=found[0],
        bad=found[1],
        trigger=trigger,
        made_at_ms=now_ms,
        weighting=UNSET if density_ratio is None else Weighting(density_ratio, *weights),
    )
    has_one = any(has_threshold(made, label) for label in get_args(Label))
    return Built(
        calibration_set=made if has_one else None,
        why_none="" if has_one else f"no class has {CLASS_SCORES_MIN} scores",
        benign=_part("benign", benign, made, ""),
        bad=_part("bad", bad, made, ""),
    )


def _scored(
    labels: Sequence[Labelled], score: Score, ratio: DensityRatio | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the scores of a class, ascending, and what each weighs; no weights without a ratio."""
    scored = sorted(
        (score.of(each.signals), 1.0 if ratio is None else ratio.ratios[ratio.piece_of(each.signals)])
        for each in labels
    )
    weights = () if ratio is None else tuple(weight for _, weight in scored)
    return tuple(found for found, _ in scored), weights


def _sort(labels: Sequence[Labelled], settings: BuildSettings, now_ms: int, *, count_picked: bool) -> _Sorted:
    begins_ms = now_ms - settings.window_h * HOUR_MS
    recent = [each for each in labels if each.labelled_at_ms >= begins_ms]
    fair = [each for each in recent if count_picked or not each.picked_by_verdict]
    fair.sort(key=lambda each: (-each.labelled_at_ms, each.tenant, each.pcs_id))
    fitting = [each for each in fair if fits(settings.score, each.label) and is_fitting(each)]
    counted = [each for each in fair if not fits(settings.score, each.label) or not is_fitting(each)]
    return _Sorted(
        outdated=len(labels) - len(recent),
        picked=len(recent) - len(fair),
        fitting=fitting,
        counted=counted[: settings.set_scores_max],
        dropped=max(0, len(counted) - settings.set_scores_max),
    )


def _score(name: str, params: Params, benign: _Sorted, bad: _Sorted) -> tuple[Score | None, str]:
    """Return a score, or why it cannot be fitted."""
    if name not in FITTED_SCORES:
        return score_from(name, "{}", params), ""
    of_benign = [each.signals for each in benign.fitting]
    of_bad = [each.signals for each in bad.fitting]
    try:
        return fit(name, of_benign, of_bad, FIT_SEED, params), ""
    except ScoreError as error:
        return None, str(error)


def _part(label: Label, labels: _Sorted, made: CalibrationSet | None, why_none: str) -> ClassPart:
    thresholds: list[float | None] = []
    is_weighted = made is not None and made.weighting is not UNSET
    if made is not None and not has_threshold(made, label):
        why_none = f"{len(labels.counted)} scores; needed: {CLASS_SCORES_MIN}"
    elif made is not None:
        thresholds = [each if math.isfinite(each) else None for each in thresholds_of(made, label)]
        if set(thresholds) == {None}:
            of_what = "scores so weighed" if is_weighted else "scores"
            why_none = f"{len(labels.counted)} {of_what} support no {_UNSUPPORTED[label]}"
    return ClassPart(
        outdated=labels.outdated,
        picked=labels.picked,
        fitting=len(labels.fitting),
        dropped=labels.dropped,
        scores=len(labels.counted),
        threshold=None if is_weighted or not thresholds else thresholds[0],
        why_none=why_none,
        thresholds=tuple(thresholds) if is_weighted else (),
    )
