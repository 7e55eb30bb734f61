"""Whether the scores of each tenant still come from where the set that judges them came from.

Two monitors a tenant. Kolmogorov and Smirnov's test compares its last scores with the set's benign ones; it sees a new
place soon, and is wrong at some looks even without drift. The martingale asks whether the scores since its start are
exchangeable, and is wrong in at most 1 % of its starts, however long one looks. Both begin anew with another set.

It computes, so it runs off the event loop, one call after the other. No clock, no store.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pcs_backend.conformal.drift import DISTANCE_MIN, P_VALUE_MAX, RECENT_SCORES, Drift, compare_scores
from pcs_backend.conformal.martingale import ExchangeabilityMartingale
from pcs_backend.conformal.watch import Batch
from pcs_backend.effects.calibration_metrics import DriftFigures, Monitor, Restart

COMPARISONS_MAX = 10
"""Tenants whose last scores are compared a turn; those whose comparison is oldest go first. One takes some milliseconds."""


class DriftSettings(NamedTuple):
    """When late scores count as drift.

    Attributes:
        recent_scores: How many are compared.
        distance_min: Distance from which on they drift, if it is unlikely besides.
        p_value_max: Chance below which it is unlikely.
    """

    recent_scores: int = RECENT_SCORES
    distance_min: float = DISTANCE_MIN
    p_value_max: float = P_VALUE_MAX


class Alarm(NamedTuple):
    """A monitor of a tenant that began to raise an alarm."""

    tenant: str
    monitor: Monitor


class Readings(NamedTuple):
    """What a turn found.

    Attributes:
        figures: Of every tenant.
        judged_by: The set that judged each tenant last.
        alarms: Those that began.
        restarts: Martingales that started again, by why.
    """

    figures: dict[str, DriftFigures]
    judged_by: dict[str, str]
    alarms: list[Alarm]
    restarts: Counter[Restart]


class Monitors:
    """The monitors of all tenants."""

    def __init__(self, settings: DriftSettings) -> None:
        """Start without any.

        Args:
            settings: When scores drift.
        """
        self._settings = settings
        self._tenants: dict[str, _TenantMonitor] = {}
        self._waiting: dict[str, None] = {}  # in the order of their last comparison

    def feed(self, batches: Sequence[Batch], benign_of: Callable[[str], Sequence[float] | None]) -> Readings:
        """Take the scores of a turn.

        Args:
            batches: In the order they came.
            benign_of: Returns the benign scores of a set by its digest; `None` for one that is not in force any more.
        """
        alarms: list[Alarm] = []
        restarts: Counter[Restart] = Counter()
        for tenant, digest, scores in batches:
            monitor = self._tenants.get(tenant)
            if monitor is None:
                monitor = self._tenants[tenant] = _TenantMonitor(tenant, self._settings.recent_scores)
            if monitor.feed(digest, scores, restarts):
                alarms.append(Alarm(tenant, "martingale"))
            if monitor.is_full:
                self._waiting.setdefault(tenant)
        for tenant in list(self._waiting)[:COMPARISONS_MAX]:
            del self._waiting[tenant]
            monitor = self._tenants[tenant]
            benign = benign_of(monitor.digest)
            if benign and monitor.is_full and monitor.compare(benign, self._settings):
                alarms.append(Alarm(tenant, "ks"))
        return Readings(
            {tenant: monitor.figures for tenant, monitor in self._tenants.items()},
            {tenant: monitor.digest for tenant, monitor in self._tenants.items()},
            alarms,
            restarts,
        )


class _TenantMonitor:
    """Both monitors of one tenant."""

    def __init__(self, tenant: str, recent_scores: int) -> None:
        seed = hashlib.sha256(tenant.encode()).digest()[:8]
        self.digest = ""
        self._recent: deque[float] = deque(maxlen=recent_scores)
        self._martingale = ExchangeabilityMartingale(int.from_bytes(seed, "big"))
        self._drift = Drift(0.0, 1.0)
        self._ks_alarm = False

    @property
    def is_full(self) -> bool:
        return len(self._recent) == self._recent.maxlen

    @property
    def figures(self) -> DriftFigures:
        return DriftFigures(
            self._drift.distance,
            self._drift.p_value,
            self._martingale.log10_capital,
            self._ks_alarm,
            self._martingale.alarmed,
        )

    def feed(self, digest: str, scores: Sequence[float], restarts: Counter[Restart]) -> bool:
        """Take scores. Returns whether one of them brought the martingale's alarm."""
        if digest != self.digest:
            if self.digest:
                self._recent.clear()
                self._martingale.restart()
                self._drift, self._ks_alarm = Drift(0.0, 1.0), False
                restarts["set"] += 1
            self.digest = digest
        before = self._martingale.restarts
        alarmed = False
        for score in scores:
            alarmed |= self._martingale.observe(score)
        restarts["size"] += self._martingale.restarts - before
        self._recent.extend(scores)
        return alarmed

    def compare(self, benign: Sequence[float], settings: DriftSettings) -> bool:
        """Compare the last scores with a set's. Returns whether the alarm begins."""
        was, self._drift = self._ks_alarm, compare_scores(list(self._recent), benign)
        self._ks_alarm = self._drift.is_drift(settings.distance_min, settings.p_value_max)
        return self._ks_alarm and not was
