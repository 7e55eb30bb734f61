"""When a set in force should be replaced by a new one: by time, count, drift or miscoverage. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pcs_backend.conformal.calibration import Label, Labelled, Trigger
from pcs_backend.conformal.coverage import OFF_TARGET_SHARE, Coverage, measure_coverage
from pcs_backend.conformal.in_force import SetInForce

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
        age_ms: Since it was made.
        decisions: That it had a part in, in this process.
        drifts: Whether the scores of a tenant that it judges drift.
        coverages: What labels say of each class that it has a threshold from.
    """

    age_ms: int
    decisions: int
    drifts: bool
    coverages: Sequence[Coverage]


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


def coverages_of(judging: SetInForce, labels: Sequence[Labelled]) -> dict[Label, Coverage]:
    """Count how often a set was wrong on records that it had judged before they were labelled.

    A record that was picked by its verdict does not count: among such, errors are found more often than elsewhere, or
    never. A record whose two sides were judged by two sets counts for the side that this one gave.

    Args:
        judging: The set.
        labels: Of any records.

    Returns:
        What was found, by each class that the set has a threshold from.
    """
    fair = [each for each in labels if not each.picked_by_verdict]
    score = judging.score
    found: dict[Label, Coverage] = {}
    if (benign := judging.benign) is not None:
        judged = [each for each in fair if each.label == "benign" and each.sets[0] == judging.digest]
        wrong = sum(score.of(each.signals) > benign.threshold_of(each.signals) for each in judged)
        found["benign"] = measure_coverage(wrong, len(judged), benign.level)
    if (bad := judging.bad) is not None:
        judged = [each for each in fair if each.label == "bad" and each.sets[1] == judging.digest]
        wrong = sum(score.of(each.signals) < bad.threshold_of(each.signals) for each in judged)
        found["bad"] = measure_coverage(wrong, len(judged), bad.level)
    return found
