"""What the gate did is counted whole, and what the monitors look at is bounded: a turn, a tenant, and in tenants."""

from __future__ import annotations

from gates import gate_of, set_of
from pcs_backend.conformal.gate import Gate
from pcs_backend.conformal.watch import (
    WATCH_SCORES_MAX,
    WATCH_TENANT_SCORES_MAX,
    WATCH_TENANTS_MAX,
    Batch,
    Watch,
)
from pcs_backend.effects.calibration_metrics import CalibrationMetrics
from pcs_core.verify import Decision, Recomputed, Verdict

RECOMPUTED = Recomputed(1.0, "mixed", 0.3)
SCORES = tuple(number / 100 for number in range(100))
OWN, COMMON = set_of(SCORES, SCORES, scope="plants"), set_of(SCORES, SCORES)
OWN_BENIGN, COMMON_BENIGN = set_of(SCORES, (), scope="plants"), set_of(SCORES, ())


def verdicts(judging: Gate, *signals: tuple[float, float, float]) -> list[Verdict]:
    return [Verdict((), RECOMPUTED).gated(judging.decide(*each)) for each in signals]


ODD, MIDDLING, PLAIN = (0.0, 0.0, 0.0), (1.75, 0.525, 0.65), (3.5, 1.05, 0.65)


def counted(metrics: CalibrationMetrics, name: str, **labels: str) -> float:
    (found,) = (
        sample.value
        for family in metrics.collect()
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    )
    return found


def test_decisions_are_counted_by_what_was_decided() -> None:
    metrics = CalibrationMetrics()
    own = gate_of(OWN)
    found = verdicts(own, ODD, MIDDLING, MIDDLING, PLAIN)
    expected: list[Decision] = ["REJECT", "ESCALATE", "ESCALATE", "ACCEPT"]
    assert [each.decision for each in found] == expected
    Watch(metrics).observe("plants", own, found)
    for decision, count in (("REJECT", 1), ("ESCALATE", 2), ("ACCEPT", 1)):
        assert counted(metrics, "flk_decisions_total", decision=decision) == count


def test_fallbacks_are_counted_by_class_and_by_what_stood_in() -> None:
    metrics = CalibrationMetrics()
    watch = Watch(metrics)
    for judging in (
        gate_of(OWN),
        gate_of(OWN_BENIGN, fallback=COMMON),
        gate_of(COMMON_BENIGN),
        gate_of(None),
    ):
        watch.observe("plants", judging, verdicts(judging, PLAIN, PLAIN))
    found = {
        (label, to): counted(metrics, "flk_calibration_fallbacks_total", **{"class": label, "to": to})
        for label in ("benign", "bad")
        for to in ("global", "none")
    }
    assert found == {
        ("benign", "global"): 2,
        ("benign", "none"): 2,
        ("bad", "global"): 2,
        ("bad", "none"): 4,
    }


def test_scores_are_put_by_with_the_set_that_judged_them_until_they_are_taken() -> None:
    watch = Watch(CalibrationMetrics())
    own, common = gate_of(OWN_BENIGN), gate_of(COMMON_BENIGN)
    watch.observe("plants", own, verdicts(own, PLAIN, ODD))
    watch.observe("fleet", common, verdicts(common, ODD))
    watch.observe("plants", own, verdicts(own, MIDDLING))
    assert watch.take() == [
        Batch("plants", OWN_BENIGN.digest, [0.0, own.decide(*ODD).benign_score, 0.5 * 0.75]),
        Batch("fleet", COMMON_BENIGN.digest, [own.decide(*ODD).benign_score]),
    ]
    assert watch.take() == []


def test_decisions_of_a_set_count_once_where_it_gave_both_sides_and_where_it_gave_one() -> None:
    watch = Watch(CalibrationMetrics())
    both, mixed = gate_of(OWN), gate_of(OWN_BENIGN, fallback=COMMON)
    watch.observe("plants", both, verdicts(both, PLAIN, PLAIN))
    watch.observe("plants", mixed, verdicts(mixed, PLAIN))
    assert watch.take_decisions() == {OWN.digest: 2, OWN_BENIGN.digest: 1, COMMON.digest: 1}
    assert watch.take_decisions() == {}


def test_scores_beyond_the_bounds_of_a_turn_are_counted_and_the_first_ones_kept() -> None:
    metrics = CalibrationMetrics()
    watch, own = Watch(metrics), gate_of(COMMON_BENIGN)
    found = verdicts(own, ODD, *[PLAIN] * WATCH_TENANT_SCORES_MAX)
    tenants = WATCH_SCORES_MAX // WATCH_TENANT_SCORES_MAX + 1
    for tenant in range(tenants):
        watch.observe(str(tenant), own, found)
    batches = watch.take()
    assert [(each.tenant, len(each.scores)) for each in batches] == [
        (str(tenant), WATCH_TENANT_SCORES_MAX) for tenant in range(tenants - 1)
    ]
    assert {each.scores[0] for each in batches} == {own.decide(*ODD).benign_score}
    skipped = tenants * len(found) - WATCH_SCORES_MAX
    assert counted(metrics, "flk_calibration_scores_skipped_total") == skipped
    watch.observe("0", own, found[:3])  # the next turn has room again
    assert [len(each.scores) for each in watch.take()] == [3]
    assert counted(metrics, "flk_calibration_scores_skipped_total") == skipped


def test_tenants_beyond_the_bound_are_only_counted() -> None:
    metrics = CalibrationMetrics()
    watch, own = Watch(metrics), gate_of(COMMON_BENIGN)
    for tenant in range(WATCH_TENANTS_MAX + 2):
        watch.observe(str(tenant), own, verdicts(own, PLAIN))
    assert len(watch.take()) == WATCH_TENANTS_MAX
    assert counted(metrics, "flk_calibration_scores_skipped_total") == 2
    watch.observe("0", own, verdicts(own, PLAIN))
    assert [each.tenant for each in watch.take()] == ["0"]
