"""The signed bytes: one payload, two spellings, correct rounding."""

from __future__ import annotations

import hashlib
import json
import math
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import pcs_records
from pcs_core.canonical import canonical_payload, fixed_point_payload, payload_digest, round9
from pcs_core.record import Record, decode_record

finite = st.floats(allow_nan=False, allow_infinity=False)
ties = st.integers(-(2**40), 2**40).map(lambda steps: steps * 2.0**-10)
near_ties = st.integers(-(10**12), 10**12).map(lambda steps: (steps + 0.5) / 10**9)
numbers = finite | ties | near_ties | st.floats(-4, 4) | st.floats(-1e-8, 1e-8)


def record_of(**overrides: Any) -> Record:
    return decode_record(pcs_records.body(pcs_records.document(**overrides)))


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    return pcs_records.document(
        shard_id=draw(st.text("azAZ09._:/@+-", min_size=1, max_size=128)),
        epoch=draw(st.integers(0, 2**53 - 1)),
        merkle_root=draw(st.binary(min_size=32, max_size=32)).hex(),
        D_hat=draw(numbers),
        coh_star=draw(numbers),
        r=draw(numbers),
        budget=draw(st.floats(0, 1) | st.floats(0, 1e-4)),
    )


@given(numbers)
@example(-(2.0**-10))
@example(2.0**-10)
@example(5e-10)
@example(-5e-10)
@example(1.7976931348623157e308)
@example(-0.0)
def test_rounding_is_the_correct_rounding_of_the_exact_binary_value(number: float) -> None:
    """L23."""
    exact = Decimal(number).quantize(Decimal("1e-9"), ROUND_HALF_EVEN, Context(prec=2000))
    rounded = round9(number)
    assert rounded == float(exact)
    assert not (rounded == 0 and math.copysign(1, rounded) < 0)


@given(numbers)
def test_rounding_is_symmetric_and_rounding_again_changes_nothing(number: float) -> None:
    """L23."""
    assert round9(-number) == -round9(number)
    assert round9(round9(number)) == round9(number)


@given(documents())
def test_the_payload_is_what_json_dumps_writes_of_the_rounded_subset(document: dict[str, Any]) -> None:
    """L1, L2."""
    record = decode_record(pcs_records.body(document))
    assert canonical_payload(record) == pcs_records.canonical(document)


@given(documents())
def test_the_other_spelling_has_exactly_nine_decimals_of_the_same_values(document: dict[str, Any]) -> None:
    """L2."""
    record = decode_record(pcs_records.body(document))
    payload = fixed_point_payload(record)
    assert payload == pcs_records.fixed_point(document)
    assert json.loads(payload) == json.loads(canonical_payload(record))
    spelled = json.loads(payload, parse_float=str)
    for name in pcs_records.NUMBER_FIELDS:
        assert len(spelled[name].partition(".")[2]) == 9


def test_keys_are_sorted_by_code_point_without_white_space() -> None:
    """L1."""
    payload = canonical_payload(record_of())
    assert list(json.loads(payload)) == [
        "D_hat",
        "budget",
        "coh_star",
        "epoch",
        "merkle_root",
        "pcs_id",
        "r",
        "shard_id",
    ]
    assert b" " not in payload
    assert payload.isascii()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attempt", 2),
        ("sent_at", "2030-01-01T00:00:00Z"),
        ("seed", 1),
        ("v_star", []),
        ("regime", "mixed"),
        ("sig", "AAAA"),
        ("version", "0.2"),
        ("N_j", {"2": 3, "4": 5, "8": 9, "16": 17, "32": 33}),
        ("ft", {"outbox_seq": 0, "degraded": True, "fallbacks": ["x"], "clock_skew_ms": 0}),
    ],
)
def test_a_field_outside_the_subset_does_not_change_the_payload(name: str, value: object) -> None:
    document = pcs_records.document()
    changed = decode_record(pcs_records.body(document | {name: value}))
    assert canonical_payload(changed) == canonical_payload(record_of())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pcs_id", "0" * 64),
        ("merkle_root", "0" * 64),
        ("epoch", 8),
        ("shard_id", "b"),
        ("D_hat", 1.000000001),
        ("coh_star", 0.830000001),
        ("r", 0.410000001),
        ("budget", 0.443000001),
    ],
)
def test_each_field_of_the_subset_changes_the_payload(name: str, value: object) -> None:
    changed = decode_record(pcs_records.body(pcs_records.document() | {name: value}))
    assert canonical_payload(changed) != canonical_payload(record_of())
    assert fixed_point_payload(changed) != fixed_point_payload(record_of())


def test_an_integer_in_a_number_field_is_signed_as_a_float() -> None:
    """L2."""
    whole, fraction = record_of(D_hat=1), record_of(D_hat=1.0)
    assert canonical_payload(whole) == canonical_payload(fraction)
    assert b'"D_hat":1.0,' in canonical_payload(whole)
    assert b'"D_hat":1.000000000,' in fixed_point_payload(whole)


def test_numbers_that_were_not_rounded_by_the_sender_are_signed_rounded() -> None:
    """L2, L23."""
    assert canonical_payload(record_of(r=0.1 + 0.2)) == canonical_payload(record_of(r=0.3))
    assert canonical_payload(record_of(coh_star=-0.0)) == canonical_payload(record_of(coh_star=0.0))


def test_the_digest_is_the_sha256_of_the_payload() -> None:
    payload = canonical_payload(record_of())
    assert payload_digest(payload) == hashlib.sha256(payload).digest()
