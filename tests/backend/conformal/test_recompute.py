"""An answer is told again, bit for bit, from what was stored with it; and what cannot be told is not guessed."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

import pcs_records
from gates import gate_of, set_of, weighted_set_of
from outcomes import changed
from pcs_backend.checking import Judged
from pcs_backend.conformal.calibration import CalibrationSet
from pcs_backend.conformal.density_ratio import DensityRatio
from pcs_backend.conformal.gate import Gate
from pcs_backend.conformal.provenance import digest_of, encode_params, read_provenance
from pcs_backend.conformal.recompute import artifacts_of, recompute
from pcs_backend.outcome import Outcome, Shared
from pcs_backend.outcome_body import status_of, tell_outcomes
from pcs_core.direction_proof import Directions, prove_directions
from pcs_core.params import Params
from pcs_core.record import Record, decode_record
from pcs_core.verify import NOT_ASKED, verify
from pcs_core.vrf import VrfSecretKey

PARAMS = Params()
SCORES = [at / 500 for at in range(500)]
SET = set_of(SCORES, SCORES, alpha=0.3, delta=0.6)


def record(**fields: Any) -> Record:
    return decode_record(pcs_records.body(pcs_records.document(**fields)))


def outcome(judged: Record, gate: Gate, directions: Directions = NOT_ASKED) -> Outcome:
    verdict = verify(judged, PARAMS, gate if gate.decides else None, directions)
    ((*own, form),) = tell_outcomes([judged], [Judged(verdict, directions, gate)])
    return Outcome(
        Shared("default", status_of(verdict), PARAMS.version, "", 0, 0, form), judged.pcs_id, "", *own
    )


def artifacts(*sets: CalibrationSet) -> Mapping[str, bytes]:
    return {digest_of(each): each for each in (encode_params(PARAMS), *(found.encoded for found in sets))}


def test_a_thousand_verdicts_come_out_as_they_were() -> None:
    numbers = random.Random(8)
    gate = gate_of(SET, version=3)
    found = []
    for epoch in range(1_000):
        counts = sorted(numbers.randint(1, 64) for _ in range(5))
        judged = record(
            epoch=epoch,
            N_j={str(2 << at): count for at, count in enumerate(counts)},
            coh_star=round(numbers.uniform(0, 1.02), 9),
            r=round(numbers.uniform(0, 1.02), 9),
            **({"D_hat": 1.25} if epoch % 7 == 0 else {}),
            **(
                {"ft": {"outbox_seq": 1, "degraded": True, "fallbacks": [], "clock_skew_ms": 0}}
                if epoch % 11 == 0
                else {}
            ),
        )
        stored = outcome(judged, gate)
        again = recompute(stored, artifacts(SET))
        assert (again.finding, again.status, again.body) == ("same", stored.status, stored.body)
        found.append(stored.status)
    assert 100 < found.count(202) < 900


def test_a_verdict_by_a_density_ratio_comes_out_as_it_was() -> None:
    ratio = DensityRatio("r", (0.5,), (0.25, 4.0))
    found = weighted_set_of(SET, ratio, heavy=100)
    gate = gate_of(found)
    weights = set()
    for epoch in range(40):
        stored = outcome(record(epoch=epoch, coh_star=0.02 * epoch, r=0.025 * epoch), gate)
        assert recompute(stored, artifacts(found)).finding == "same"
        weights.add(json.loads(stored.body)["calibration"]["bad"]["weight"])
    assert weights == set(ratio.ratios)


@pytest.mark.parametrize("key_is_right", [True, False])
@pytest.mark.parametrize("required", [True, False])
def test_what_was_asked_of_directions_is_asked_again(*, key_is_right: bool, required: bool) -> None:
    secret, other = VrfSecretKey(bytes(32)), VrfSecretKey(bytes([1]) * 32)
    plain = record()
    seed, proof = prove_directions(secret, plain.merkle_root, plain.epoch, plain.shard_id)
    proven = msgspec.structs.replace(plain, seed=seed, direction_proof=proof)
    asked = Directions([secret.public if key_is_right else other.public], required)
    gate = gate_of(SET)
    for judged in (plain, proven):
        stored = outcome(judged, gate, asked)
        assert recompute(stored, artifacts(SET)).finding == "same"
    assert (b"direction_proof_invalid" in stored.body) is not key_is_right


def test_an_outcome_of_a_service_without_gate_is_recomputed_without_one() -> None:
    gate = Gate(None, None, digest_of(encode_params(PARAMS)), decides=False)
    stored = outcome(record(), gate)
    assert b"calibration" not in stored.body
    assert recompute(stored, artifacts()).finding == "same"


def test_what_was_altered_comes_out_otherwise() -> None:
    stored = outcome(record(), gate_of(SET))
    for altered in (
        changed(stored, status=200 if stored.status == 202 else 202),
        changed(stored, body=stored.body.replace(b"alpha", b"Alpha")),
        changed(stored, provenance=stored.provenance.replace("0.83", "0.82")),
    ):
        again = recompute(altered, artifacts(SET))
        assert (again.finding, again.body is None) == ("other", False)


def test_what_cannot_be_told_is_said() -> None:
    stored = outcome(record(), gate_of(SET))
    assert sorted(artifacts_of(stored)) == sorted([*artifacts(SET), SET.digest])
    assert recompute(stored, artifacts()).finding == "artifact_missing"
    assert recompute(stored, {**artifacts(SET), SET.digest: b"{}"}).finding == "unreadable"
    for text, finding in (("", "no_provenance"), ("{}", "unreadable"), ('{"v":1}', "unreadable")):
        without = changed(stored, provenance=text)
        assert recompute(without, artifacts(SET)).finding == finding
        assert artifacts_of(without) == []


def test_provenance_of_many_is_that_of_each() -> None:
    counts = [{"2": at, "4": 2 * at, "8": 3 * at, "16": 4 * at, "32": 5 * at} for at in (1, 7, 2**40)]
    judged = [
        record(epoch=at, N_j=n_j, r=1 / (at + 3), coh_star=10.0**-at, regime=regime)
        for at, (n_j, regime) in enumerate(zip(counts, ("sticky", "mixed", "non_sticky"), strict=True))
    ]
    writer = gate_of(SET).provenance
    together = writer.inputs_of_all(judged)
    assert together == [writer.inputs_of(each, NOT_ASKED) for each in judged]
    for each, inputs in zip(judged, together, strict=True):
        provenance = read_provenance((writer.head + inputs + writer.tail(is_asked=False)).decode())
        assert provenance is not None
        assert provenance.inputs == (
            *(each.n_j, each.d_hat, each.coh_star, each.r, each.budget, each.regime, each.ft.degraded),
        )


def test_provenance_gives_labels_the_signals_that_the_score_saw() -> None:
    judged = record(coh_star=0.1234567894, r=0.25)
    provenance = read_provenance(outcome(judged, gate_of(SET)).provenance)
    assert provenance is not None
    verdict = verify(judged, PARAMS)
    assert provenance.signals == (verdict.recomputed.d_hat, 0.123456789, 0.25)
    assert provenance.sets == (SET.digest, SET.digest)
