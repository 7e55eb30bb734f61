"""What the gate and its monitors show: counters as plain numbers, and gauges of what was seen last.

Counting costs an addition, so the gate can do it for every record. It belongs to the event loop's thread. The series by
scope and by tenant are as many as the monitors fill in, and they bound them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pcs_backend.conformal.calibration import GLOBAL_SCOPE, Label, Trigger
from pcs_backend.effects.totals import Across
from pcs_core.keyring import DEFAULT_TENANT

GLOBAL_LABEL = "_global"
"""Label of the set of all tenants; no tenant can be named so."""

Monitor = Literal["ks", "martingale", "miscoverage"]
Restart = Literal["set", "size"]

_DECISIONS = ("ACCEPT", "REJECT", "ESCALATE")
_FALLBACKS = ("global", "none")
_CLASSES: tuple[Label, ...] = get_args(Label)
_MONITORS: tuple[Monitor, ...] = get_args(Monitor)
_TRIGGERS: tuple[Trigger, ...] = tuple(each for each in get_args(Trigger) if each != "by_hand")


class SetFigures(NamedTuple):
    """A set in force, and the time since it was made."""

    version: int = 0
    benign: int = 0
    bad: int = 0
    age_s: float = 0.0


class DriftFigures(NamedTuple):
    """What the monitors of a tenant's scores see."""

    ks_distance: float = 0.0
    ks_p: float = 1.0
    martingale_log10: float = 0.0
    ks_alarm: bool = False
    martingale_alarm: bool = False


class RateFigures(NamedTuple):
    """How often a set was wrong on the labelled records of a class that it judged, and the ends of the exact interval."""

    rate: float = 0.0
    low: float = 0.0
    high: float = 1.0
    labels: int = 0
    alarm: bool = False


class CalibrationMetrics(Collector):
    """Figures of the gate. All public attributes are written by whoever knows them.

    Attributes:
        decisions: First outcomes that the gate decided, by decision.
        fallbacks: Of these, those for which a class of the tenant's own set was missing, by class and what stood in.
        scores_skipped: Scores that the monitors did not look at.
        alarms: Times a monitor began to raise an alarm.
        restarts: Starts of martingales after the first, by why.
        recalibrations: Sets that the service promoted, by why.
        sets: Those in force by scope.
        drift: By tenant.
        rates: By scope and class.
        due: Recalibrations that are due and not done, by why.
    """

    across: Mapping[str, Across] = MappingProxyType(
        {
            "flk_calibration_set_version": max,
            "flk_calibration_set_scores": max,
            "flk_calibration_set_age_seconds": max,
            "flk_calibration_ks_distance": max,
            "flk_calibration_ks_p": min,
            "flk_calibration_martingale_log10": max,
            "flk_calibration_drift": max,
            "flk_calibration_due": max,
        }
    )
    """What each gauge is for several workers together. The rates come from one of them."""

    def __init__(self) -> None:
        """Start at 0, with the series that every service has."""
        self.decisions = dict.fromkeys(_DECISIONS, 0)
        self.fallbacks = dict.fromkeys(itertools.product(_CLASSES, _FALLBACKS), 0)
        self.scores_skipped = 0
        self.alarms = dict.fromkeys(_MONITORS, 0)
        self.restarts: dict[Restart, int] = dict.fromkeys(get_args(Restart), 0)
        self.recalibrations = dict.fromkeys(_TRIGGERS, 0)
        self.sets = {GLOBAL_SCOPE: SetFigures()}
        self.drift = {DEFAULT_TENANT: DriftFigures()}
        self.rates: dict[tuple[str, Label], RateFigures] = {
            (GLOBAL_SCOPE, each): RateFigures() for each in _CLASSES
        }
        self.due = dict.fromkeys(_TRIGGERS, 0)

    def collect(self) -> Iterable[Metric]:
        """Return all of it. The registry calls it."""
        yield from self._counters()
        yield from self._gauges_of_sets()
        yield from self._gauges_of_drift()
        yield from self._gauges_of_rates()
        yield _gauge(
            "flk_calibration_due",
            "Scopes whose recalibration is due and not done, by why",
            ["trigger"],
            (([trigger], count) for trigger, count in self.due.items()),
        )

    def _counters(self) -> Iterator[Metric]:
        yield _counter(
            "flk_decisions",
            "First outcomes that the gate decided, by decision",
            ["decision"],
            (([decision], count) for decision, count in self.decisions.items()),
        )
        yield _counter(
            "flk_calibration_fallbacks",
            "Decisions without a class of the tenant's own set, by what stood in for it",
            ["class", "to"],
            (([label, to], count) for (label, to), count in self.fallbacks.items()),
        )
        yield _counter(
            "flk_calibration_scores_skipped",
            "Scores that the monitors of drift did not look at",
            [],
            [([], self.scores_skipped)],
        )
        yield _counter(
            "flk_calibration_alarms",
            "Times a monitor began to raise an alarm",
            ["monitor"],
            (([monitor], count) for monitor, count in self.alarms.items()),
        )
        yield _counter(
            "flk_calibration_martingale_restarts",
            "Starts of martingales after the first, by why",
            ["reason"],
            (([reason], count) for reason, count in self.restarts.items()),
        )
        yield _counter(
            "flk_calibration_recalibrations",
            "Sets that the service brought into force by itself, by why",
            ["trigger"],
            (([trigger], count) for trigger, count in self.recalibrations.items()),
        )

    def _gauges_of_sets(self) -> Iterator[Metric]:
        sets = [(_label(scope), figures) for scope, figures in self.sets.items()]
        yield _gauge(
            "flk_calibration_set_version",
            "Version of the calibration set in force; 0 for none",
            ["scope"],
            (([scope], figures.version) for scope, figures in sets),
        )
        yield _gauge(
            "flk_calibration_set_scores",
            "Scores of the calibration set in force",
            ["class", "scope"],
            (
                ([label, scope], count)
                for scope, figures in sets
                for label, count in (("benign", figures.benign), ("bad", figures.bad))
            ),
        )
        yield _gauge(
            "flk_calibration_set_age_seconds",
            "Time since the calibration set in force was made",
            ["scope"],
            (([scope], figures.age_s) for scope, figures in sets),
        )

    def _gauges_of_drift(self) -> Iterator[Metric]:
        drift = self.drift.items()
        yield _gauge(
            "flk_calibration_ks_distance",
            "Largest distance between the distributions of late scores and of the set's benign ones",
            ["tenant"],
            (([tenant], figures.ks_distance) for tenant, figures in drift),
        )
        yield _gauge(
            "flk_calibration_ks_p",
            "Chance of such a distance without drift",
            ["tenant"],
            (([tenant], figures.ks_p) for tenant, figures in drift),
        )
        yield _gauge(
            "flk_calibration_martingale_log10",
            "Decimal logarithm of the evidence that scores are no longer exchangeable; 2 raises an alarm",
            ["tenant"],
            (([tenant], figures.martingale_log10) for tenant, figures in drift),
        )
        yield _gauge(
            "flk_calibration_drift",
            "Whether a monitor of a tenant's scores raises an alarm",
            ["monitor", "tenant"],
            (
                ([monitor, tenant], float(alarm))
                for tenant, figures in drift
                for monitor, alarm in (("ks", figures.ks_alarm), ("martingale", figures.martingale_alarm))
            ),
        )

    def _gauges_of_rates(self) -> Iterator[Metric]:
        rates = [([label, _label(scope)], figures) for (scope, label), figures in self.rates.items()]
        yield _gauge(
            "flk_calibration_error_rate",
            "Share of labelled records of a class on whose side the set was wrong",
            ["class", "scope"],
            ((labels, figures.rate) for labels, figures in rates),
        )
        yield _gauge(
            "flk_calibration_error_rate_low",
            "Lower end of the exact interval of that share",
            ["class", "scope"],
            ((labels, figures.low) for labels, figures in rates),
        )
        yield _gauge(
            "flk_calibration_error_rate_high",
            "Upper end of the exact interval of that share",
            ["class", "scope"],
            ((labels, figures.high) for labels, figures in rates),
        )
        yield _gauge(
            "flk_calibration_error_labels",
            "Labelled records that the share is of",
            ["class", "scope"],
            ((labels, figures.labels) for labels, figures in rates),
        )
        yield _gauge(
            "flk_calibration_miscoverage",
            "Whether that share is further above the promised one than chance explains",
            ["class", "scope"],
            ((labels, float(figures.alarm)) for labels, figures in rates),
        )


def _label(scope: str) -> str:
    return GLOBAL_LABEL if scope == GLOBAL_SCOPE else scope


def _counter(
    name: str, documentation: str, labels: list[str], values: Iterable[tuple[list[str], float]]
) -> Metric:
    metric = CounterMetricFamily(name, documentation, labels=labels)
    for each, value in values:
        metric.add_metric(each, value)
    return metric


def _gauge(
    name: str, documentation: str, labels: list[str], values: Iterable[tuple[list[str], float]]
) -> Metric:
    metric = GaugeMetricFamily(name, documentation, labels=labels)
    for each, value in values:
        metric.add_metric(each, value)
    return metric
