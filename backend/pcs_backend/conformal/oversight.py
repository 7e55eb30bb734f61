"""Whether what was promised is kept, and a new set where it may not be: what runs beside the gate.

    turn    every second: the scores that were put by go to the monitors of drift
    review  every few seconds: labels tell how often each set was wrong, and triggers why one is due for another

A scope without a set gets its first one by hand. Of several processes each looks at what it decided itself.

The store is asked on the event loop, everything else happens off it. Nothing here is on the way of a submit.
"""

from __future__ import annotations

from typing import NamedTuple

import structlog
from msgspec import UNSET

from pcs_backend.conformal.build import BuildSettings
from pcs_backend.conformal.calibration import GLOBAL_SCOPE, Label, Trigger
from pcs_backend.conformal.coverage import Coverage
from pcs_backend.conformal.drift import compare_scores
from pcs_backend.conformal.in_force import Gates, SetInForce
from pcs_backend.conformal.monitors import DriftSettings, Monitors
from pcs_backend.conformal.recalibration import Recalibration
from pcs_backend.conformal.store import CalibrationStore
from pcs_backend.conformal.triggers import Standing, TriggerSettings, coverages_of, triggers_of
from pcs_backend.conformal.watch import WATCH_INTERVAL_S, WATCH_TENANTS_MAX, Watch
from pcs_backend.effects.calibration_metrics import CalibrationMetrics, RateFigures, SetFigures
from pcs_backend.errors import UnavailableError
from pcs_core.params import Params
from pcs_core.ports import Offload, Sleep, WallClock

REVIEW_INTERVAL_S = 10.0
"""Between two reviews."""

REVIEW_LABELS_MAX = 2_000
"""Labels of each class that a review reads, the newest: enough for an interval of a percentage point."""

_log = structlog.get_logger(__name__)


class OversightSettings(NamedTuple):
    """What counts as trouble, and what is done about it.

    Attributes:
        drift: When scores drift.
        triggers: When a set is due.
        build: How sets are made.
        automatic: Whether due sets are replaced; else it is only said.
        sets_kept_s: How long the store keeps a set that is in force no more.
        reads_labels: Whether this process counts errors. Of several workers one does.
    """

    drift: DriftSettings
    triggers: TriggerSettings
    build: BuildSettings
    automatic: bool
    sets_kept_s: float
    reads_labels: bool


class Oversight:
    """Looks after the sets in force."""

    def __init__(
        self,
        *,
        watch: Watch,
        gates: Gates,
        store: CalibrationStore,
        metrics: CalibrationMetrics,
        settings: OversightSettings,
        params: Params,
        offload: Offload,
        now: WallClock,
        sleep: Sleep,
    ) -> None:
        """Wire it.

        Args:
            watch: What was put by.
            gates: The sets in force.
            store: Labels and sets.
            metrics: Where it shows what it sees.
            settings: What counts as trouble.
            params: That sets are made with.
            offload: Where it computes.
            now: Wall clock.
            sleep: Waits.
        """
        self._watch = watch
        self._gates = gates
        self._store = store
        self._metrics = metrics
        self._settings = settings
        self._offload = offload
        self._now = now
        self._sleep = sleep
        self._recalibration = Recalibration(
            store=store,
            build=settings.build,
            automatic=settings.automatic,
            sets_kept_s=settings.sets_kept_s,
            params=params,
            offload=offload,
            now=now,
        )
        self._monitors = Monitors(settings.drift)
        self._decisions: dict[str, int] = {}
        self._drifting: set[str] = set()
        self._off_target: set[tuple[str, Label]] = set()
        self._store_was_up = True
        if not settings.reads_labels:
            metrics.rates = {}

    async def prepare(self) -> None:
        """Load what the monitors compute with: a second or two of the processor that no submit should wait for."""
        await self._offload.run(lambda: compare_scores([0.0], [0.0]))

    async def run(self) -> None:
        """Turn and review for ever."""
        turns = 0
        while True:
            await self._sleep(WATCH_INTERVAL_S)
            await self.turn()
            turns += 1
            if turns * WATCH_INTERVAL_S >= REVIEW_INTERVAL_S:
                turns = 0
                await self.review_if_up()

    async def turn(self) -> None:
        """Give the monitors the scores that were put by."""
        for digest, count in self._watch.take_decisions().items():
            self._decisions[digest] = self._decisions.get(digest, 0) + count
        batches = self._watch.take()
        # Against a set with a density ratio scores lie elsewhere, and should: that is what the ratio says.
        benign = {
            each.digest: each.found.benign
            for each in self._gates.sets.values()
            if each.found.weighting is UNSET
        }
        readings = await self._offload.run(lambda: self._monitors.feed(batches, benign.get))
        self._metrics.drift.update(readings.figures)
        for tenant, monitor in readings.alarms:
            self._metrics.alarms[monitor] += 1
            _log.warning("the scores of a tenant drift", tenant=tenant, monitor=monitor)
        for reason, count in readings.restarts.items():
            self._metrics.restarts[reason] += count
        self._drifting = {
            readings.judged_by[tenant]
            for tenant, figures in readings.figures.items()
            if figures.ks_alarm or figures.martingale_alarm
        }

    async def review_if_up(self) -> None:
        """Review, unless the store is down, which is said once."""
        try:
            await self.review()
        except UnavailableError:
            if self._store_was_up:
                _log.warning("calibration cannot be reviewed while the store is down")
            self._store_was_up = False
        else:
            self._store_was_up = True

    async def review(self) -> None:
        """Count errors, see which sets are due, and replace them if that is automatic.

        Raises:
            UnavailableError: The store is down.
        """
        # Who went back to no set at all wants none.
        sets = {
            scope: each
            for scope, each in self._gates.sets.items()
            if each.benign is not None or each.bad is not None
        }
        now_ms = int(self._now() * 1_000)
        self._forget_all_but({each.digest for each in sets.values()}, set(sets))
        self._show_sets(sets, now_ms)
        coverages = await self._coverages(sets)
        due: dict[str, list[Trigger]] = {}
        for scope, each in sets.items():
            standing = Standing(
                now_ms - each.found.made_at_ms,
                self._decisions.get(each.digest, 0),
                each.digest in self._drifting,
                list(coverages.get(scope, {}).values()),
            )
            if triggers := triggers_of(standing, self._settings.triggers):
                due[scope] = triggers
        for scope, triggers in list(due.items()):
            if await self._recalibration.replace(scope, sets[scope], triggers[0], len(sets)):
                self._metrics.recalibrations[triggers[0]] += 1
                del due[scope]
                await self._gates.refresh()
        self._metrics.due = {
            trigger: sum(trigger in triggers for triggers in due.values()) for trigger in self._metrics.due
        }

    def _forget_all_but(self, digests: set[str], scopes: set[str]) -> None:
        """Keep counts of sets in force alone, so that they are as many."""
        self._decisions = {digest: count for digest, count in self._decisions.items() if digest in digests}
        self._recalibration.forget_all_but(digests, scopes)
        self._off_target = {(digest, label) for digest, label in self._off_target if digest in digests}

    def _show_sets(self, sets: dict[str, SetInForce], now_ms: int) -> None:
        shown = sorted(sets)[: WATCH_TENANTS_MAX + 1]  # the global one is first
        self._metrics.sets = {GLOBAL_SCOPE: SetFigures()} | {
            scope: SetFigures(
                each.version,
                len(each.found.benign),
                len(each.found.bad),
                (now_ms - each.found.made_at_ms) / 1_000,
            )
            for scope, each in ((scope, sets[scope]) for scope in shown)
        }

    async def _coverages(self, sets: dict[str, SetInForce]) -> dict[str, dict[Label, Coverage]]:
        """Return what labels say of each set, and show it."""
        if not self._settings.reads_labels or not sets:
            return {}
        # A set judges nothing before it is made.
        since_ms = min(each.found.made_at_ms for each in sets.values())
        labels = await self._store.list_labels(None, since_ms=since_ms, limit=REVIEW_LABELS_MAX)
        found = await self._offload.run(
            lambda: {scope: coverages_of(each, labels) for scope, each in sets.items()}
        )
        self._show_rates(sets, found)
        return found

    def _show_rates(self, sets: dict[str, SetInForce], found: dict[str, dict[Label, Coverage]]) -> None:
        shown = set(self._metrics.sets)
        rates: dict[tuple[str, Label], RateFigures] = {
            (GLOBAL_SCOPE, label): RateFigures() for label in ("benign", "bad")
        }
        share = self._settings.triggers.off_target_share
        for scope, by_class in found.items():
            for label, each in by_class.items():
                is_broken = each.is_broken(share)
                if scope in shown:
                    rates[scope, label] = RateFigures(
                        each.rate or 0.0, each.low, each.high, each.trials, is_broken
                    )
                key = (sets[scope].digest, label)
                if is_broken and key not in self._off_target:
                    self._off_target.add(key)
                    self._metrics.alarms["miscoverage"] += 1
                    _log.warning(
                        "a calibration set is wrong more often than promised",
                        scope=scope,
                        label=label,
                        errors=each.errors,
                        labels=each.trials,
                    )
                elif not is_broken:
                    self._off_target.discard(key)
        self._metrics.rates = rates
