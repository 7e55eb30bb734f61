"""The checks of contract §4 step 8, each alone, at its boundary, and its figures."""

from __future__ import annotations

from typing import Any

import pytest

import pcs_records
from pcs_core.params import Params
from pcs_core.record import decode_record
from pcs_core.verify import Decided, Decision, Recomputed, Verdict, verify

STICKY, MIXED, NON_STICKY = "sticky", "mixed", "non_sticky"
LINE = {"scales": [2, 4, 8], "N_j": {"2": 2, "4": 4, "8": 8}}  # slope 1
ALL_REASONS = (
    "slope_out_of_tolerance",
    "coherence_out_of_bounds",
    "compressibility_out_of_bounds",
    "counts_not_monotone",
    "regime_mismatch",
    "budget_mismatch",
    "degraded",
)


def judge(params: Params | None = None, **overrides: Any) -> Verdict:
    document = pcs_records.document(**overrides)
    return verify(decode_record(pcs_records.body(document)), params or Params())


def ft(**overrides: Any) -> dict[str, Any]:
    return pcs_records.document()["ft"] | overrides


def test_a_consistent_record_is_accepted_with_its_own_figures() -> None:
    document = pcs_records.document()
    verdict = judge()
    assert verdict == Verdict((), Recomputed(document["D_hat"], document["regime"], document["budget"]))
    assert verdict.accepted is True


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (LINE | {"D_hat": 1.2}, "slope_out_of_tolerance"),
        (LINE | {"D_hat": 0.8}, "slope_out_of_tolerance"),
        ({"coh_star": 1.06}, "coherence_out_of_bounds"),
        ({"coh_star": -0.000000001}, "coherence_out_of_bounds"),
        ({"r": -5.0}, "compressibility_out_of_bounds"),
        ({"r": 1.000000001}, "compressibility_out_of_bounds"),
        ({"scales": [2, 4, 8, 16], "N_j": {"2": 5, "4": 4, "8": 8, "16": 16}}, "counts_not_monotone"),
        ({"regime": "mixed"}, "regime_mismatch"),
        ({"regime": "non_sticky"}, "regime_mismatch"),
        ({"budget": 0.5}, "budget_mismatch"),
        ({"budget": 0.0}, "budget_mismatch"),
        ({"ft": ft(degraded=True)}, "degraded"),
    ],
    ids=str,
)
def test_each_check_gives_its_own_reason_alone(overrides: dict[str, Any], reason: str) -> None:
    """L12."""
    verdict = judge(**overrides)
    assert verdict.reasons == (reason,)
    assert verdict.accepted is False


def test_all_reasons_come_in_the_contracts_order() -> None:
    """L12."""
    verdict = judge(
        scales=[2, 4, 8],
        N_j={"2": 8, "4": 4, "8": 2},
        D_hat=3.0,
        coh_star=2.0,
        r=-5.0,
        regime="sticky",
        budget=0.3,
        ft=ft(degraded=True),
    )
    assert verdict.reasons == ALL_REASONS


@pytest.mark.parametrize(
    ("claimed", "accepted"),
    [
        (1.15, True),
        (0.85, True),
        (1.150000001, False),
        (0.849999999, False),
        (1.1500000004, True),
        (1.0, True),
    ],
)
def test_a_claim_exactly_at_the_tolerance_of_the_slope_passes(claimed: float, accepted: bool) -> None:
    # 1.15 − 1.0 is 0.1499999999999999 in binary, and 1.0 − 0.85 is 0.15000000000000002: rounded before compared.
    assert judge(**LINE, D_hat=claimed).accepted is accepted


@pytest.mark.parametrize(
    ("coh_star", "accepted"), [(0.0, True), (-0.0, True), (1.0, True), (1.05, True), (1.050000001, False)]
)
def test_coherence_exactly_at_its_tolerance_passes(coh_star: float, accepted: bool) -> None:
    assert judge(coh_star=coh_star).accepted is accepted


@pytest.mark.parametrize(("r", "accepted"), [(0.0, True), (1.0, True), (1.000000001, False), (-1e-9, False)])
def test_compressibility_exactly_at_its_bounds_passes(r: float, accepted: bool) -> None:
    """L12."""
    assert judge(r=r).accepted is accepted


def test_values_that_round_into_their_bounds_pass() -> None:
    assert judge(r=1.0000000004).accepted is True
    assert judge(coh_star=-1e-10).accepted is True


@pytest.mark.parametrize(
    ("shift", "accepted"),
    [(0.01, True), (-0.01, True), (0.010000001, False), (-0.010000001, False), (0.005, True)],
)
def test_a_budget_exactly_at_its_tolerance_passes(shift: float, accepted: bool) -> None:
    budget = pcs_records.round9(pcs_records.document()["budget"] + shift)
    assert judge(budget=budget).accepted is accepted


@pytest.mark.parametrize(
    ("counts", "reasons"),
    [
        # 3 is no multiple of 2: a coarse grid that is not a union of fine cells may see more.
        ({2: 4, 3: 3}, ()),
        ({4: 16, 6: 12, 12: 30}, ()),
        ({2: 3, 3: 4, 6: 3}, ("counts_not_monotone",)),
        ({2: 4, 3: 3, 6: 4}, ()),
        ({2: 4, 4: 4, 8: 4}, ()),
        ({2: 4, 4: 5, 8: 4}, ("counts_not_monotone",)),
        # Each neighbour is fine, the pair (2, 8) is not.
        ({2: 9, 5: 9, 8: 8}, ("counts_not_monotone",)),
        ({1: 2, 7: 1}, ("counts_not_monotone",)),
        ({3: 9, 5: 8, 7: 7, 11: 6}, ()),
    ],
    ids=str,
)
def test_only_a_divisors_count_bounds_a_scales_count(
    counts: dict[int, int], reasons: tuple[str, ...]
) -> None:
    """L12."""
    verdict = judge(scales=list(counts), N_j={str(scale): count for scale, count in counts.items()})
    assert verdict.reasons == reasons


def test_regime_and_budget_are_checked_for_the_claimed_dimension_and_reported_for_the_recomputed_one() -> (
    None
):
    counts = {"scales": [2, 4, 8], "N_j": {"2": 6, "4": 36, "8": 216}}  # slope log2(6) = 2.584962501
    verdict = judge(**counts, D_hat=2.65, coh_star=0.1, r=1.0)
    assert pcs_records.document(**counts, D_hat=2.65, coh_star=0.1, r=1.0)["regime"] == NON_STICKY
    assert verdict.reasons == ()
    assert verdict.recomputed == Recomputed(2.584962501, MIXED, pcs_records.budget(2.584962501, 0.1, 1.0))


def test_the_example_record_of_the_design_papers_is_not_accepted() -> None:
    """Its D_hat and budget do not follow from its own N_j: 0.857 and 0.285 would."""
    verdict = judge(
        scales=[2, 4, 8, 16, 32],
        N_j={"2": 3, "4": 5, "8": 9, "16": 17, "32": 31},
        D_hat=1.41,
        coh_star=0.73,
        r=0.87,
        regime="sticky",
        budget=0.42,
    )
    assert verdict.reasons == ("slope_out_of_tolerance", "budget_mismatch")
    assert verdict.recomputed == Recomputed(
        pytest.approx(0.857, abs=5e-4), STICKY, pytest.approx(0.285, abs=5e-4)
    )


def test_tolerances_come_from_the_parameters() -> None:
    claim = LINE | {"D_hat": 1.3}
    assert judge(Params(tol_d=0.3), **claim).accepted is True
    assert judge(Params(tol_d=0.299999999), **claim).accepted is False
    assert judge(Params(tol_coh=0.0), coh_star=1.000000001).accepted is False
    assert judge(Params(tol_budget=0.0)).accepted is True
    assert judge(Params(tol_budget=0.1), budget=0.543).accepted is True


def test_numbers_of_any_size_are_judged_and_never_crash() -> None:
    for value in (1e308, -1e308, 1.7976931348623157e308, 5e-324):
        verdict = judge(D_hat=value, coh_star=value, r=value)
        assert set(verdict.reasons) <= set(ALL_REASONS)
        assert 0 <= verdict.recomputed.budget <= 1


@pytest.mark.parametrize(
    ("gate", "regime", "decision", "reasons"),
    [
        ("ACCEPT", "sticky", "ACCEPT", ()),
        ("REJECT", "sticky", "REJECT", ("score_rejected",)),
        ("ESCALATE", "sticky", "ESCALATE", ("score_escalated",)),
        (None, "sticky", "ACCEPT", ()),
        ("ACCEPT", "mixed", "ESCALATE", ("regime_mismatch",)),
        ("REJECT", "mixed", "REJECT", ("regime_mismatch", "score_rejected")),
        (None, "mixed", "ESCALATE", ("regime_mismatch",)),
    ],
)
def test_a_gate_decides_after_the_other_checks_and_sees_the_recomputed_slope(
    gate: Decision | None, regime: str, decision: Decision, reasons: tuple[str, ...]
) -> None:
    seen: list[tuple[float, float, float]] = []

    class Calibration:
        def decide(self, d_hat: float, coh_star: float, r: float) -> Decided:
            seen.append((d_hat, coh_star, r))
            return Decided(gate, 0.5, None)

    document = pcs_records.document(regime=regime)
    slope = document["D_hat"]
    document["D_hat"] = round(slope + 0.1, 9)
    document["budget"] = pcs_records.budget(document["D_hat"], document["coh_star"], document["r"])
    verdict = verify(decode_record(pcs_records.body(document)), Params(), Calibration())
    assert (verdict.decision, verdict.reasons) == (decision, reasons)
    assert seen == [(slope, document["coh_star"], document["r"])]
