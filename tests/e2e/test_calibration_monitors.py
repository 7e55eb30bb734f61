"""A running service whose gate is on: drift shows in its metrics, and a due set is replaced by one of the labels there are."""

from __future__ import annotations

from pathlib import Path

import pytest

import pcs_records
from gates import promote, set_of
from labels import labelled, put_labels
from pcs_backend.conformal.calibration import Signals
from processes import HMAC_KEY, Backend, Client, clean_environment

pytestmark = [pytest.mark.slow]

GATE = {
    "PCS_SIGN_ALG": "hmac",
    "PCS_HMAC_KEY": HMAC_KEY,
    "ENABLE_CONFORMAL_GATE": "true",
    "CALIBRATION_SCORE": "weighted",
}
SPREAD = [at / 500 for at in range(500)]


def body(epoch: int) -> bytes:
    document = pcs_records.document(epoch=epoch)
    return pcs_records.body(pcs_records.sign(document, hmac_key=HMAC_KEY.encode()))


async def test_drift_is_seen_and_brings_a_new_set(tmp_path: Path) -> None:
    environ = clean_environment(DATA_DIR=str(tmp_path), **GATE)
    await promote(environ, set_of(SPREAD, SPREAD))
    benign, bad = Signals(1.0, 0.8, 0.4), Signals(0.0, 0.0, 0.0)
    await put_labels(environ, labelled("benign", benign, 150), labelled("bad", bad, 120))
    with Backend(tmp_path, **GATE) as backend:
        async with Client(backend) as client:
            for epoch in range(120):
                await client.submit(body(epoch))
            await client.wait_for_metric('flk_calibration_drift{monitor="ks",tenant="default"}', 1)
            found = await client.metrics()
            decided = {
                each: found[f'flk_decisions_total{{decision="{each}"}}']
                for each in ("ACCEPT", "REJECT", "ESCALATE")
            }
            assert decided == {"ACCEPT": 0, "REJECT": 0, "ESCALATE": 120}
            assert found['flk_calibration_fallbacks_total{class="bad",to="global"}'] == 120
            await client.wait_for_metric('flk_calibration_set_version{scope="_global"}', 1)
            await client.wait_for_metric('flk_calibration_recalibrations_total{trigger="drift"}', 1)
            await client.submit(body(1_000))
            await client.wait_for_metric('flk_calibration_martingale_restarts_total{reason="set"}', 1)
            await client.wait_for_metric('flk_calibration_set_version{scope="_global"}', 2)
            found = await client.metrics()
            scores = {
                each: found[f'flk_calibration_set_scores{{class="{each}",scope="_global"}}']
                for each in ("benign", "bad")
            }
            assert scores == {"benign": 150, "bad": 120}
            assert found['flk_calibration_drift{monitor="ks",tenant="default"}'] == 0
        assert backend.stop() == 0
