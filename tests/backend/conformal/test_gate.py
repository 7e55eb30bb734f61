"""What the gate decides, what the answer says of it, and that many records are decided as each is alone."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pcs_records
from gates import gate_of, set_of, weighted_set_of
from pcs_backend.bulk import verify_many
from pcs_backend.checking import Judged
from pcs_backend.conformal.calibration import CLASS_SCORES_MIN, GLOBAL_SCOPE, Signals, decode_set
from pcs_backend.conformal.density_ratio import DensityRatio
from pcs_backend.conformal.gate import SCORED_TOGETHER_MIN, Gate
from pcs_backend.conformal.scores import score_from
from pcs_backend.conformal.weighted import weighted_benign_thresholds
from pcs_backend.outcome import Outcome, Shared
from pcs_backend.outcome_body import outcome_body, status_of, tell_outcomes
from pcs_core.params import Params
from pcs_core.record import Record, decode_record
from pcs_core.verify import NOT_ASKED, verify

PARAMS = Params()
SCORE = score_from("weighted", "{}", PARAMS)
LOW, HIGH = [0.0] * CLASS_SCORES_MIN, [0.999999999] * CLASS_SCORES_MIN


def record(**fields: Any) -> Record:
    return decode_record(pcs_records.body(pcs_records.document(**fields)))


HONEST = record()
"""Its score lies between those of LOW and HIGH."""


def answer(gate: Gate, judged: Record = HONEST) -> tuple[int, dict[str, Any]]:
    verdict = verify(judged, PARAMS, gate)
    return status_of(verdict), json.loads(outcome_body(judged.pcs_id, verdict, gate))


@pytest.mark.parametrize(
    ("benign", "bad", "decision", "reasons", "missing"),
    [
        (HIGH, HIGH, "ACCEPT", [], []),
        (HIGH, LOW, "ESCALATE", ["score_escalated"], []),
        (LOW, HIGH, "ESCALATE", ["score_escalated"], []),
        (LOW, LOW, "REJECT", ["score_rejected"], []),
        (HIGH, [], "ACCEPT", [], ["bad"]),
        (LOW, [], "REJECT", ["score_rejected"], ["bad"]),
        ([], HIGH, "ACCEPT", [], ["benign"]),
        ([], LOW, "ESCALATE", ["score_escalated"], ["benign"]),
    ],
)
def test_each_side_decides_what_it_can_promise(
    benign: list[float], bad: list[float], decision: str, reasons: list[str], missing: list[str]
) -> None:
    status, body = answer(gate_of(set_of(benign, bad)))
    assert (status, body["decision"]) == (200 if decision == "ACCEPT" else 202, decision)
    assert (body["accepted"], body["escalated"]) == (status == 200, status == 202)
    assert body["reasons"] == reasons
    assert body["calibration"]["gate"] == decision
    assert body["calibration"]["missing"] == missing


def test_a_score_that_equals_the_threshold_is_neither_above_nor_below() -> None:
    score = SCORE.of(Signals(verify(HONEST, PARAMS).recomputed.d_hat, HONEST.coh_star, HONEST.r))
    at = [score] * CLASS_SCORES_MIN
    assert answer(gate_of(set_of(at, [])))[1]["decision"] == "ACCEPT"
    assert answer(gate_of(set_of([], at)))[1]["decision"] == "ESCALATE"


def test_without_any_set_the_fixed_checks_decide_and_the_answer_says_so() -> None:
    gate = gate_of(None)
    status, body = answer(gate)
    assert (status, body["decision"], body["reasons"]) == (200, "ACCEPT", [])
    assert body["calibration"] == {"gate": None, "missing": ["benign", "bad"], "benign": None, "bad": None}
    status, body = answer(gate, record(regime="mixed"))
    assert (status, body["decision"], body["reasons"]) == (202, "ESCALATE", ["regime_mismatch"])


def test_what_fails_a_fixed_check_is_not_accepted_whatever_its_score() -> None:
    status, body = answer(gate_of(set_of(HIGH, HIGH)), record(regime="mixed"))
    assert (status, body["decision"], body["reasons"]) == (202, "ESCALATE", ["regime_mismatch"])
    assert body["calibration"]["gate"] == "ACCEPT"
    status, body = answer(gate_of(set_of(LOW, LOW)), record(regime="mixed"))
    assert (status, body["decision"]) == (202, "REJECT")
    assert body["reasons"] == ["regime_mismatch", "score_rejected"]


def test_the_block_names_sets_thresholds_levels_and_scores() -> None:
    scores = [at / 1000 for at in range(200)]
    gate = gate_of(set_of(scores, scores, scope="tenant-a", alpha=0.1, delta=0.2), version=7)
    d_hat = verify(HONEST, PARAMS).recomputed.d_hat
    score = SCORE.of(Signals(d_hat, HONEST.coh_star, HONEST.r))
    shared = {"scope": "tenant", "version": 7, "n": 200}
    assert answer(gate)[1]["calibration"] == {
        "gate": "REJECT",
        "missing": [],
        "benign": shared | {"score": score, "threshold": 0.180, "alpha": 0.1},  # the 181st of 201 · 0.9
        "bad": shared | {"score": score, "threshold": 0.039, "delta": 0.2},  # the 40th of 201 · 0.2
    }


def test_each_class_comes_from_the_tenants_set_if_that_has_enough_of_it_else_from_the_global_one() -> None:
    enough, few = [0.5] * CLASS_SCORES_MIN, [0.5] * (CLASS_SCORES_MIN - 1)
    own, all_tenants = set_of(enough, few, scope="tenant-a"), set_of(enough, enough, scope=GLOBAL_SCOPE)
    block = answer(gate_of(own, fallback=all_tenants))[1]["calibration"]
    assert (block["benign"]["scope"], block["bad"]["scope"], block["missing"]) == ("tenant", "global", [])
    block = answer(gate_of(own))[1]["calibration"]
    assert (block["benign"]["n"], block["bad"], block["missing"]) == (CLASS_SCORES_MIN, None, ["bad"])


def test_a_threshold_that_so_few_scores_do_not_support_is_none() -> None:
    block = answer(gate_of(set_of(LOW, [], alpha=0.001)))[1]["calibration"]
    assert (block["gate"], block["benign"]["threshold"]) == ("ACCEPT", None)
    block = answer(gate_of(set_of([], HIGH, delta=0.001)))[1]["calibration"]
    assert (block["gate"], block["bad"]["threshold"]) == ("ESCALATE", None)


RATIO = DensityRatio("coh_star", (0.9,), (0.0625, 1.0))
"""HONEST is of the first piece."""


def test_each_piece_of_a_density_ratio_has_thresholds_of_its_own() -> None:
    """200 scores, the highest 20 of the heavy piece, so the 180 others weigh 11.25 of 31.25 together."""
    scores = [at / 200 for at in range(200)]
    found = weighted_set_of(set_of(scores, scores, alpha=0.2, delta=0.4), RATIO, heavy=20)
    gate = gate_of(found)
    assert gate.benign is not None
    assert gate.bad is not None
    assert list(gate.benign.thresholds) == weighted_benign_thresholds(
        found.benign, [0.0625] * 180 + [1.0] * 20, RATIO.ratios, 0.2
    )
    heavy = record(coh_star=0.91, epoch=1)
    weights = []
    for judged, piece in ((HONEST, 0), (heavy, 1)):
        _, body = answer(gate, judged)
        for side, name in ((gate.benign, "benign"), (gate.bad, "bad")):
            block = body["calibration"][name]
            assert (block["threshold"], block["weight"]) == (side.thresholds[piece], RATIO.ratios[piece])
            weights.append(block["weight"])
    assert weights == [0.0625, 0.0625, 1.0, 1.0]
    # With its own weight 31.3125 or 32.25, of which 0.8 are reached by the 14th and the 15th of the heavy scores.
    assert list(gate.benign.thresholds) == [scores[193], scores[194]]
    # From above 0.6 are reached by the 19th and the 20th.
    assert list(gate.bad.thresholds) == [scores[181], scores[180]]


def test_a_threshold_that_a_heavy_record_lacks_refuses_nothing() -> None:
    ratio = DensityRatio("coh_star", (0.9,), (0.0625, 1_000.0))
    gate = gate_of(weighted_set_of(set_of(LOW, LOW), ratio, heavy=0))
    light, heavy = (answer(gate, record(coh_star=coh_star))[1] for coh_star in (0.89, 0.91))
    assert (light["decision"], light["calibration"]["benign"]["threshold"]) == ("REJECT", 0.0)
    assert (heavy["decision"], heavy["calibration"]["benign"]["threshold"]) == ("ESCALATE", None)


def test_a_set_without_ratio_is_written_as_ever() -> None:
    assert b"weighting" not in set_of(LOW, HIGH).encoded
    found = weighted_set_of(set_of(LOW, HIGH), RATIO, heavy=5)
    assert decode_set(found.encoded) == found
    assert found.digest != set_of(LOW, HIGH).digest


SIGNAL = st.floats(-0.5, 4) | st.floats(allow_nan=False, allow_infinity=False)
THRESHOLDS = st.lists(st.floats(0, 1), min_size=CLASS_SCORES_MIN, max_size=CLASS_SCORES_MIN).map(sorted)


@given(
    signals=st.lists(
        st.tuples(SIGNAL, SIGNAL, st.integers(1, 32)), min_size=1, max_size=3 * SCORED_TOGETHER_MIN
    ),
    benign=THRESHOLDS | st.just([]),
    bad=THRESHOLDS | st.just([]),
    is_weighted=st.booleans(),
)
def test_many_records_are_decided_as_each_is_alone(
    signals: list[tuple[float, float, int]], benign: list[float], bad: list[float], *, is_weighted: bool
) -> None:
    found = set_of(benign, bad)
    gate = gate_of(weighted_set_of(found, RATIO, heavy=20) if is_weighted else found)
    records = [
        record(coh_star=coh_star, r=r, epoch=at, N_j={"2": 1, "4": 2, "8": 3, "16": 17, "32": 17 + count})
        for at, (coh_star, r, count) in enumerate(signals)
    ]
    verified = verify_many(records, PARAMS)
    together = gate.decide_all(verified, records)
    assert together == [verify(each, PARAMS, gate) for each in records]
    assert gate.decide_all(verified._replace(signals=None), records) == together
    told = tell_outcomes(records, [Judged(verdict, gate=gate) for verdict in together])
    for each, verdict, (*own, form) in zip(records, together, told, strict=True):
        outcome = Outcome(Shared("default", 200, "", "", 0, 0, form), each.pcs_id, "", *own)
        assert outcome.body == outcome_body(each.pcs_id, verdict, gate)
        inputs = gate.provenance.inputs_of(each, NOT_ASKED)
        assert outcome.provenance.encode() == gate.provenance.head + inputs + b"]}"
        body = json.loads(outcome.body)
        assert (body["decision"] == "ACCEPT") == body["accepted"]
        assert body["decision"] == verdict.decision
        assert body["calibration"]["gate"] == (verdict.decided and verdict.decided.gate)
        for side, score in zip(("benign", "bad"), msgspec.structs.astuple(verdict.decided)[1:3], strict=True):
            assert body["calibration"][side] is None or body["calibration"][side]["score"] == score
