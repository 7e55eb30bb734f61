"""Sets that are due are found, and replaced where that is asked for and labels allow it; over the real store of memory."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gates import set_of, weighted_set_of
from inboxes import Clock, running_inbox
from pcs_backend.conformal import shelf
from pcs_backend.conformal.build import BuildSettings
from pcs_backend.conformal.calibration import GLOBAL_SCOPE, CalibrationSet, Label, Labelled, Signals
from pcs_backend.conformal.density_ratio import DensityRatio
from pcs_backend.conformal.in_force import Gates
from pcs_backend.conformal.monitors import DriftSettings
from pcs_backend.conformal.oversight import Oversight, OversightSettings
from pcs_backend.conformal.promotion import promote_set
from pcs_backend.conformal.recalibration import (
    AUTOMATIC_SETS_MAX,
    RECALIBRATION_INTERVAL_S,
    RETRY_INTERVAL_S,
    interval_s,
)
from pcs_backend.conformal.store import ARTIFACTS_MAX, CalibrationStore
from pcs_backend.conformal.triggers import TriggerSettings
from pcs_backend.conformal.watch import Watch
from pcs_backend.dedup.memory_store import MemoryStore
from pcs_backend.effects.calibration_metrics import CalibrationMetrics, RateFigures, SetFigures
from pcs_backend.errors import StoreUnavailableError
from pcs_backend.offload import ThreadOffload
from pcs_core.params import Params
from pcs_core.verify import Recomputed, Verdict

DAY_S = 86_400.0
PLAIN, ODD = Signals(3.5, 1.05, 0.65), Signals(0.0, 0.0, 0.0)
VERDICT = Verdict((), Recomputed(1.0, "mixed", 0.3))


class Rig:
    """An oversight over a store that a clock and a test move."""

    def __init__(self, store: CalibrationStore, offload: ThreadOffload, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.metrics = CalibrationMetrics()
        self.watch = Watch(self.metrics)
        self.gates = Gates(store, Params(), decides=True)
        self._offload = offload
        self.oversight = self.new()

    def new(
        self,
        *,
        automatic: bool = True,
        reads_labels: bool = True,
        decisions: int = 10_000,
        window_h: float = 24.0,
    ) -> Oversight:
        self.oversight = Oversight(
            watch=self.watch,
            gates=self.gates,
            store=self.store,
            metrics=self.metrics,
            settings=OversightSettings(
                DriftSettings(),
                TriggerSettings(decisions=decisions),
                BuildSettings(score="weighted", window_h=window_h),
                automatic=automatic,
                sets_kept_s=15 * DAY_S,
                reads_labels=reads_labels,
            ),
            params=Params(),
            offload=self._offload,
            now=self.clock,
            sleep=asyncio.sleep,
        )
        return self.oversight

    @property
    def now_ms(self) -> int:
        return int(self.clock() * 1_000)

    async def promote(self, found: CalibrationSet) -> str:
        await promote_set(self.store, found, by="a person", note="first", now_ms=self.now_ms)
        await self.gates.refresh()
        return found.digest

    async def in_force(self, scope: str = GLOBAL_SCOPE) -> tuple[int, str, str]:
        (newest,) = await self.store.list_promotions(scope, 1)
        return newest.version, newest.by, newest.note

    async def label(
        self,
        label: Label,
        signals: Sequence[Signals],
        *,
        sets: tuple[str, str] = ("", ""),
        picked_by_verdict: bool = False,
        tenant: str = "plants",
        name: str = "",
    ) -> None:
        await self.store.put_labels(
            [
                Labelled(
                    tenant=tenant,
                    pcs_id=hashlib.sha256(f"{name}{label}{number}".encode()).hexdigest(),
                    label=label,
                    by="a person",
                    signals=each,
                    picked_by_verdict=picked_by_verdict,
                    status=200,
                    sets=sets,
                    stored_at_ms=self.now_ms,
                    labelled_at_ms=self.now_ms,
                )
                for number, each in enumerate(signals)
            ]
        )

    def decide(self, tenant: str, signals: Sequence[Signals]) -> None:
        gate = self.gates.gate(tenant)
        self.watch.observe(tenant, gate, [VERDICT.gated(gate.decide(*each)) for each in signals])


def plain(count: int) -> list[Signals]:
    """Signals whose scores lie between 0 and 0.35, evenly."""
    return [Signals(3.5 * number / count, 1.05, 0.65) for number in range(count)]


def odd(count: int) -> list[Signals]:
    """Signals whose scores lie between 0.65 and 1, evenly."""
    return [Signals(3.5 * number / count, 0.0, 0.0) for number in range(count)]


def fresh(rig: Rig, *, scope: str = GLOBAL_SCOPE, benign: int = 1_000, bad: int = 1_000) -> CalibrationSet:
    """Return a set made now, of such signals."""
    found = set_of(
        [0.35 * (1 - each / benign) for each in range(benign)],
        [0.65 + 0.35 * (1 - each / bad) for each in range(bad)],
        scope=scope,
    )
    return CalibrationSet(
        **{name: getattr(found, name) for name in found.__struct_fields__} | {"made_at_ms": rig.now_ms}
    )


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Rig]:
    offload, clock = ThreadOffload("oversight"), Clock()
    async with running_inbox(folder) as inbox:
        store = MemoryStore(now=clock, journal=inbox, records_max=10)
        rig = Rig(store.calibrations, offload, clock)
        await rig.gates.refresh()
        try:
            yield rig
        finally:
            offload.close()


async def test_nothing_is_due_while_everything_is_as_promised(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        digest = await rig.promote(fresh(rig))
        rig.decide("plants", random.Random(1).sample(plain(200), 150))
        await rig.label("benign", plain(150), sets=(digest, digest))
        await rig.oversight.turn()
        await rig.oversight.review()
        assert await rig.in_force() == (1, "a person", "first")
        assert set(rig.metrics.due.values()) == set(rig.metrics.alarms.values()) == {0}
        assert rig.metrics.sets == {GLOBAL_SCOPE: SetFigures(1, 1_000, 1_000, 0.0)}
        assert rig.metrics.drift["plants"].ks_p > 0.05


async def test_old_set_is_replaced_by_one_of_the_labels_there_are(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        await rig.promote(fresh(rig))
        rig.clock.move(7 * DAY_S - 1)
        await rig.label("benign", plain(120))
        await rig.label("bad", odd(110))
        await rig.oversight.review()
        assert (await rig.in_force())[0] == 1
        rig.clock.move(1)
        await rig.oversight.review()
        assert await rig.in_force() == (2, "", "recalibrated: time")
        assert rig.metrics.recalibrations == {"time": 1, "count": 0, "drift": 0, "miscoverage": 0}
        assert set(rig.metrics.due.values()) == {0}
        made = rig.gates.sets[GLOBAL_SCOPE].found
        assert (len(made.benign), len(made.bad), made.trigger, made.made_at_ms) == (
            120,
            110,
            "time",
            rig.now_ms,
        )
        await rig.oversight.review()
        assert rig.metrics.sets == {GLOBAL_SCOPE: SetFigures(2, 120, 110, 0.0)}


async def test_set_of_a_tenant_is_made_of_its_labels_alone(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        await rig.promote(fresh(rig, scope="plants"))
        rig.clock.move(8 * DAY_S)
        for tenant, count in (("plants", 120), ("fleet", 300)):
            await rig.label("benign", plain(count), tenant=tenant)
            await rig.label("bad", odd(count), tenant=tenant)
        await rig.oversight.review()
        assert (await rig.in_force("plants"))[0] == 2
        assert (
            await rig.store.list_promotions(GLOBAL_SCOPE, 1) == []
        )  # a first set is brought into force by hand
        assert len(rig.gates.sets["plants"].found.benign) == 120


async def test_no_set_at_all_stays_until_somebody_says_otherwise(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        await rig.promote(fresh(rig))
        await rig.promote(set_of((), ()))
        rig.clock.move(8 * DAY_S)
        await rig.label("benign", plain(200))
        await rig.label("bad", odd(200))
        await rig.oversight.review()
        assert (await rig.in_force())[0] == 2
        assert set(rig.metrics.due.values()) == {0}
        assert rig.metrics.sets == {GLOBAL_SCOPE: SetFigures()}


async def test_by_hand_it_is_only_said(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        oversight = rig.new(automatic=False)
        await rig.promote(fresh(rig))
        rig.clock.move(8 * DAY_S)
        await rig.label("benign", plain(200))
        await rig.label("bad", odd(200))
        await oversight.review()
        assert (await rig.in_force())[0] == 1
        assert rig.metrics.due == {"time": 1, "count": 0, "drift": 0, "miscoverage": 0}


async def test_a_set_with_a_density_ratio_is_left_to_who_knows_the_ratio(tmp_path: Path) -> None:
    """Odd scores are what the ratio says, so they are no drift; an old set is due, and nobody replaces it."""
    async with running(tmp_path) as rig:
        await rig.promote(weighted_set_of(fresh(rig), DensityRatio("r", (0.5,), (9.0, 1.0)), heavy=900))
        rig.clock.move(8 * DAY_S)
        rig.decide("plants", random.Random(1).sample(odd(150), 150))
        await rig.label("benign", plain(200))
        await rig.label("bad", odd(200))
        await rig.oversight.turn()
        with capture_logs() as logs:
            await rig.oversight.review()
            await rig.oversight.review()
        assert (await rig.in_force())[0] == 1
        assert rig.metrics.due == {"time": 1, "count": 0, "drift": 0, "miscoverage": 0}
        assert [each["event"] for each in logs] == [
            "a calibration set is due for another, and only somebody who knows its density ratio can make it"
        ]


async def test_errors_are_counted_at_the_threshold_of_each_records_piece(tmp_path: Path) -> None:
    """Without scores in their piece that weigh enough, heavy records have no threshold, and so no error."""
    async with running(tmp_path) as rig:
        ratio = DensityRatio("D_hat", (0.5,), (1_000_000.0, 1.0))
        digest = await rig.promote(weighted_set_of(fresh(rig), ratio, heavy=1_000))
        heavy, light = ODD, Signals(0.6, 0.0, 0.0)
        await rig.label("benign", [heavy] * 60 + [light] * 40, sets=(digest, digest))
        await rig.oversight.review()
        assert rig.metrics.rates[GLOBAL_SCOPE, "benign"].rate == 0.4


@pytest.mark.parametrize(("benign", "bad"), [(0, 0), (99, 200), (200, 99)])
async def test_set_that_would_lose_a_guarantee_is_not_promoted_and_tried_again_later(
    tmp_path: Path, benign: int, bad: int
) -> None:
    async with running(tmp_path) as rig:
        await rig.promote(fresh(rig))
        rig.clock.move(8 * DAY_S)
        await rig.label("benign", plain(benign))
        await rig.label("bad", odd(bad))
        await rig.oversight.review()
        assert (await rig.in_force())[0] == 1
        assert rig.metrics.due["time"] == 1
        await rig.label("benign", plain(200))
        await rig.label("bad", odd(200))
        rig.clock.move(RETRY_INTERVAL_S - 1)
        await rig.oversight.review()
        assert (await rig.in_force())[0] == 1
        rig.clock.move(1)
        await rig.oversight.review()
        assert (await rig.in_force())[0] == 2
        assert rig.metrics.due["time"] == 0


async def test_store_without_room_for_sets_is_said_and_the_review_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as rig:
        await rig.promote(fresh(rig))
        await rig.promote(fresh(rig, scope="plants"))
        rig.clock.move(7 * DAY_S)
        await rig.label("benign", plain(120))
        await rig.label("bad", odd(110))
        monkeypatch.setattr(shelf, "ARTIFACTS_MAX", 2)
        with capture_logs() as logs:
            await rig.oversight.review_if_up()
        message = "a calibration set is due for another, and the store holds as many sets as it may"
        assert [(each["event"], each["scope"]) for each in logs] == [
            (message, GLOBAL_SCOPE),
            (message, "plants"),
        ]
        assert rig.metrics.due["time"] == 2
        assert (await rig.in_force(), await rig.in_force("plants")) == ((1, "a person", "first"),) * 2


async def test_decisions_count_for_the_set_that_made_them(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        oversight = rig.new(automatic=False, decisions=100)
        await rig.promote(fresh(rig))
        await rig.promote(fresh(rig, scope="plants"))
        rig.decide("plants", plain(99))
        rig.decide("fleet", plain(50))
        for expected in (0, 1):
            await oversight.turn()
            await oversight.review()
            assert rig.metrics.due["count"] == expected
            rig.decide("plants", plain(1))


async def test_drift_of_a_tenant_makes_the_set_that_judges_it_due(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        await rig.promote(fresh(rig))
        rig.clock.move(RECALIBRATION_INTERVAL_S - 1)
        rig.decide("plants", odd(150))
        await rig.oversight.turn()
        assert rig.metrics.alarms["ks"] == 1
        assert rig.metrics.drift["plants"].ks_alarm
        await rig.label("benign", [*plain(100), *odd(100)])
        await rig.label("bad", odd(200))
        await rig.oversight.review()
        assert (await rig.in_force())[0] == 1  # one in so short a time is enough
        assert rig.metrics.due["drift"] == 1
        rig.clock.move(1)
        await rig.oversight.review()
        assert await rig.in_force() == (2, "", "recalibrated: drift")
        rig.decide("plants", random.Random(1).sample([*plain(75), *odd(75)], 150))
        await rig.oversight.turn()
        await rig.oversight.review()
        figures = rig.metrics.drift["plants"]
        assert (figures.ks_alarm, figures.martingale_alarm) == (False, False)
        assert (await rig.in_force())[0] == 2
        assert rig.metrics.restarts == {"set": 1, "size": 0}


async def test_errors_beyond_the_promise_raise_an_alarm_and_make_the_set_due(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        oversight = rig.new(automatic=False)
        digest = await rig.promote(fresh(rig))
        await rig.label("benign", [PLAIN] * 80 + [ODD] * 20, sets=(digest, digest))
        await rig.label("bad", [ODD] * 100, sets=(digest, digest))
        await oversight.review()
        found = rig.metrics.rates[GLOBAL_SCOPE, "benign"]
        # Clopper and Pearson's interval of 20 in 100, as tables have it.
        assert (found.rate, found.labels, found.alarm) == (0.2, 100, True)
        assert (round(found.low, 4), round(found.high, 4)) == (0.1267, 0.2918)
        bad = rig.metrics.rates[GLOBAL_SCOPE, "bad"]
        assert (bad.rate, bad.low, round(bad.high, 4), bad.labels, bad.alarm) == (
            0.0,
            0.0,
            0.0362,
            100,
            False,
        )
        assert rig.metrics.alarms["miscoverage"] == 1
        assert rig.metrics.due["miscoverage"] == 1
        await oversight.review()
        assert rig.metrics.alarms["miscoverage"] == 1


async def test_no_error_in_few_labels_is_no_miscoverage(tmp_path: Path) -> None:
    """L27: a monitor with zero errors is not miscalibrated."""
    async with running(tmp_path) as rig:
        digest = await rig.promote(fresh(rig))
        await rig.label("benign", [PLAIN] * 50, sets=(digest, digest))
        await rig.oversight.review()
        found = rig.metrics.rates[GLOBAL_SCOPE, "benign"]
        assert (found.rate, found.labels, found.alarm) == (0.0, 50, False)
        assert (rig.metrics.alarms["miscoverage"], rig.metrics.due["miscoverage"]) == (0, 0)


async def test_records_picked_by_their_verdict_and_those_of_other_sets_do_not_count(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        digest = await rig.promote(fresh(rig))
        await rig.label("benign", [ODD] * 100, sets=(digest, digest), picked_by_verdict=True, name="picked")
        await rig.label("benign", [ODD] * 100, sets=("f" * 64, digest), name="judged by another")
        await rig.label("bad", [PLAIN] * 100, sets=(digest, "f" * 64), name="judged by another")
        await rig.oversight.review()
        assert {each.labels for each in rig.metrics.rates.values()} == {0}
        assert rig.metrics.rates[GLOBAL_SCOPE, "benign"] == RateFigures()


async def test_of_several_workers_one_reads_labels(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        oversight = rig.new(reads_labels=False)
        digest = await rig.promote(fresh(rig))
        await rig.label("benign", [ODD] * 100, sets=(digest, digest))
        await oversight.review()
        assert rig.metrics.rates == {}
        assert rig.metrics.sets[GLOBAL_SCOPE].version == 1


async def test_many_scopes_share_the_room_for_automatic_sets(tmp_path: Path) -> None:
    """One set an hour and scope, kept for a fortnight, would fill the store with those of six busy tenants."""
    scopes = [f"tenant-{number}" for number in range(6)]
    async with running(tmp_path) as rig:
        for scope in scopes:
            await rig.promote(fresh(rig, scope=scope))
            await rig.label("benign", plain(200), tenant=scope)
            await rig.label("bad", odd(200), tenant=scope)
        oversight = rig.new(decisions=1)
        interval = interval_s(len(scopes), 15 * DAY_S)
        assert interval > RECALIBRATION_INTERVAL_S
        for moved_s, version in ((interval - 1, 1), (1, 2)):
            rig.clock.move(moved_s)
            for scope in scopes:
                rig.decide(scope, plain(1))
            await oversight.turn()
            await oversight.review()
            assert {(await rig.in_force(scope))[0] for scope in scopes} == {version}


@pytest.mark.parametrize("scopes", [1, 2, 10, 200, 1_000])
def test_automatic_sets_never_fill_the_store(scopes: int) -> None:
    kept_s = 15 * DAY_S
    assert scopes * kept_s / interval_s(scopes, kept_s) <= AUTOMATIC_SETS_MAX < ARTIFACTS_MAX


async def test_whoever_is_slower_promotes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        await rig.promote(fresh(rig))
        rig.clock.move(8 * DAY_S)
        await rig.label("benign", plain(200))
        await rig.label("bad", odd(200))
        slower = Rig(rig.store, rig._offload, rig.clock)
        await slower.gates.refresh()
        await rig.oversight.review()
        rig.clock.move(RECALIBRATION_INTERVAL_S)
        await slower.oversight.review()
        assert (await rig.in_force())[0] == 2
        assert slower.metrics.recalibrations["time"] == 0


async def test_store_that_is_down_is_said_once_and_asked_again(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        digest = await rig.promote(fresh(rig))
        await rig.label("benign", plain(10), sets=(digest, digest))
        listing, outage = rig.store.list_labels, [StoreUnavailableError("the store is down")] * 2

        async def moody(tenant: str | None, *, since_ms: int, limit: int) -> list[Labelled]:
            if outage:
                raise outage.pop()
            return await listing(tenant, since_ms=since_ms, limit=limit)

        rig.store.list_labels = moody  # type: ignore[method-assign]  # an outage that a store in memory does not have
        with capture_logs() as logged:
            for labels in (0, 0, 10):
                await rig.oversight.review_if_up()
                assert rig.metrics.rates[GLOBAL_SCOPE, "benign"].labels == labels
        assert [each["event"] for each in logged] == [
            "calibration cannot be reviewed while the store is down"
        ]
