"""A real service whose gate is on: what it answers, and that any of it can be told again later."""

from __future__ import annotations

from pathlib import Path

import pcs_records
from gates import promote, set_of
from processes import HMAC_KEY, Backend, Client, clean_environment

SIGNED = {"PCS_SIGN_ALG": "hmac", "PCS_HMAC_KEY": HMAC_KEY}
GATE = {**SIGNED, "ENABLE_CONFORMAL_GATE": "true"}
SCORES = [at / 500 for at in range(500)]


def body(epoch: int, coh_star: float = 0.83) -> bytes:
    document = pcs_records.document(epoch=epoch, coh_star=coh_star)
    return pcs_records.body(pcs_records.sign(document, hmac_key=HMAC_KEY.encode()))


async def test_without_a_set_the_fixed_checks_decide_and_from_the_first_answer_on_it_says_so(
    tmp_path: Path,
) -> None:
    with Backend(tmp_path, **GATE) as backend:
        async with Client(backend) as client:
            first = await client.submit(body(1))
            assert (first.status, first.document["decision"]) == (200, "ACCEPT")
            assert first.document["calibration"] == {
                "gate": None,
                "missing": ["benign", "bad"],
                "benign": None,
                "bad": None,
            }
            again = await client.submit(body(1))
            assert (again.replayed, again.body) == (True, first.body)


async def test_a_set_in_force_decides_and_an_answer_outlives_it(tmp_path: Path) -> None:
    environ = clean_environment(DATA_DIR=str(tmp_path), **GATE)
    await promote(environ, set_of(SCORES, SCORES, alpha=0.3, delta=0.6))
    with Backend(tmp_path, **GATE) as backend:
        async with Client(backend) as client:
            good, odd = await client.submit(body(1)), await client.submit(body(2, coh_star=0.2))
            assert (good.status, good.document["decision"]) == (200, "ACCEPT")
            assert (odd.status, odd.document["decision"]) == (202, "ESCALATE")
            assert odd.document["reasons"] == ["score_escalated"]
            assert backend.stop() == 0
    await promote(environ, set_of([0.0] * 100, [0.0] * 100))
    with Backend(tmp_path, **GATE) as backend:
        async with Client(backend) as client:
            assert (await client.submit(body(1))).body == good.body
            later = await client.submit(body(3))
            assert (later.status, later.document["decision"]) == (202, "REJECT")


async def test_without_gate_answers_are_what_they_were(tmp_path: Path) -> None:
    with Backend(tmp_path, **SIGNED, ENABLE_CALIBRATION_LOGGING="true") as backend:
        async with Client(backend) as client:
            answer = await client.submit(body(1))
            assert sorted(answer.document) == ["accepted", "escalated", "pcs_id", "reasons", "recomputed"]
