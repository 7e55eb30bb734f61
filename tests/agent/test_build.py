"""Records as built: what the verifier recomputes must agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pcs_agent.build import build_record
from pcs_agent.fallbacks import Fallback
from pcs_agent.signals import SignalSettings, compute_signals
from pcs_core.canonical import round9
from pcs_core.identity import ShardId
from pcs_core.params import Params
from pcs_core.record import Record, check_identity, decode_record, encode_record
from pcs_core.verify import verify


def build(events: np.ndarray, *more: Fallback, scales: tuple[int, ...] = (2, 4, 8, 16, 32)) -> Record:
    chosen = SignalSettings(scales=scales, directions=10)
    return build_record(
        compute_signals(events, chosen),
        chosen,
        shard_id=ShardId("shard-a"),
        epoch=2**53 - 1,
        params=Params(),
        sent_at_s=1.0,
        more_fallbacks=more,
    )


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(2, 40), st.integers(1, 4)),
        elements=st.floats(allow_nan=False, allow_infinity=False),
    )
)
@settings(deadline=None, max_examples=60)
def test_every_record_decodes_and_passes_every_check(events: np.ndarray) -> None:
    record = build(events)
    assert decode_record(encode_record(record)) == record
    check_identity(record)
    assert verify(record, Params()).reasons == ()


def test_numbers_are_rounded_before_regime_and_budget_follow() -> None:
    record = build(np.random.default_rng(0).random((300, 2)), scales=(3, 7, 11))
    for value in (record.d_hat, record.coh_star, record.r, record.budget, *record.v_star):
        assert value == round9(value)
    assert verify(record, Params()).recomputed.budget == record.budget


@pytest.mark.parametrize("code", [Fallback.INPUT_MISSING, Fallback.INPUT_EMPTY])
def test_a_record_of_nothing_is_degraded_and_escalates(code: Fallback) -> None:
    record = build(np.empty((0, 1)), code)
    assert (record.ft.degraded, record.ft.fallbacks) == (True, [str(code)])
    assert (record.d_hat, record.coh_star, record.v_star, record.r, record.regime) == (
        0.0,
        0.0,
        [],
        1.0,
        "mixed",
    )
    assert verify(record, Params()).reasons == ("degraded",)
