"""When a set in force should be replaced by a new one: by time, count, drift or miscoverage. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pcs_backend.conformal.calibration import (
    CLASS_SCORES_MIN,
    CalibrationSet,
    Label,
    Labelled,
    Trigger,
)
from pcs_backend.conformal.coverage import OFF_TARGET_SHARE, Coverage, measure_coverage
from pcs_backend.conformal.scores import Score
from pcs_backend.conformal.thresholds import bad_threshold, benign_threshold

RECALIBRATE_DAYS = 7.0
"""Age of a set from which on it is due, unless set otherwise."""

RECALIBRATE_DECISIONS = 10_000
"""Decisions of a set after which it is due, unless set otherwise."""

_DAY_MS = 86_400_000


class TriggerSettings(NamedTuple):
    """When a set is due.

    Attributes:
        days: Age from which on it is.
        decisions: Decisions after which it is.
        off_target_share: Part of the promised share by which an observed one may miss it.
    """

    days: float = RECALIBRATE_DAYS
    decisions: int = RECALIBRATE_DECISIONS
    off_target_share: float = OFF_TARGET_SHARE


class Standing(NamedTuple):
    """How a set in force does.

    Attributes:
        age_ms: Since it came into force.
        decisions: That it had a part in, as far as this process made or counts them.
        drifts: Whether the scores of a tenant that it judges drift.
        coverages: What labels say of each class that it has a threshold from.
    """

    age_ms: int
    decisions: int
    drifts: bool
    coverages: Sequence[Coverage]


class InForce(NamedTuple):
    """A set in force, with what follows from it.

    Attributes:
        digest: Its name.
        calibration_set: Itself.
        score: The one that it names.
    """

    digest: str
    calibration_set: CalibrationSet
    score: Score


def triggers_of(standing: Standing, settings: TriggerSettings) -> list[Trigger]:
    """Return why a set is due, the gravest reason first; empty if it is not.

    >>> triggers_of(Standing(8 * 86_400_000, 500, True, []), TriggerSettings())
    ['drift', 'time']
    """
    found: list[tuple[Trigger, bool]] = [
        ("miscoverage", any(each.is_off_target(settings.off_target_share) for each in standing.coverages)),
        ("drift", standing.drifts),
        ("count", standing.decisions >= settings.decisions),
        ("time", standing.age_ms >= settings.days * _DAY_MS),
    ]
    return [trigger for trigger, is_due in found if is_due]


def coverages_of(judging: InForce, labels: Sequence[Labelled]) -> dict[Label, Coverage]:
    """Count how often a set was wrong on records that were labelled after it judged them.

    A record that was picked by its verdict does not count: errors are found among such more often, or never.

    Args:
        judging: The set.
        labels: Of any records.

    Returns:
        What was found, by each class that the set has a threshold from.
    """
    found: dict[Label, Coverage] = {}
    fair = [each for each in labels if not each.picked_by_verdict]
    its, score = judging.calibration_set, judging.score
    if len(its.benign) >= CLASS_SCORES_MIN:
        threshold = benign_threshold(its.benign, its.alpha, its.method)
        judged = [each for each in fair if each.label == "benign" and each.sets[0] == judging.digest]
        wrong = sum(score.of(each.signals) > threshold for each in judged)
        found["benign"] = measure_coverage(wrong, len(judged), its.alpha)
    if len(its.bad) >= CLASS_SCORES_MIN:
        threshold = bad_threshold(its.bad, its.delta, its.method)
        judged = [each for each in fair if each.label == "bad" and each.sets[1] == judging.digest]
        wrong = sum(score.of(each.signals) < threshold for each in judged)
        found["bad"] = measure_coverage(wrong, len(judged), its.delta)
    return found
