"""Many records at once are found to be what each is alone, to the bit."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import random
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import pcs_records
from pcs_backend.bulk import (
    SPELLED_TOGETHER_MIN,
    VERIFIED_TOGETHER_MIN,
    canonical_payloads,
    fingerprint,
    read_records,
    round9_all,
    verify_many,
)
from pcs_core.canonical import canonical_payload, payload_digest, round9
from pcs_core.errors import IdentityError, MalformedError
from pcs_core.params import Params
from pcs_core.record import PROOF_SUITE, Record, check_identity, decode_record
from pcs_core.verify import verify

FINITE = st.floats(allow_nan=False, allow_infinity=False)
NEAR_TIES = st.integers(-(10**13), 10**13).map(lambda number: (number + 0.5) / 1e9)
DECIMAL = st.integers(-(10**16), 10**16).map(lambda number: number / 1e9)
SMALL = st.floats(-2e-4, 2e-4)
NUMBERS = st.one_of(
    FINITE, NEAR_TIES, DECIMAL, SMALL, st.sampled_from([0.0, -0.0, 1e-4, 1e16, 5e-10, 1e22, 999.9999999995])
)

SCALES = st.lists(st.integers(1, 2**63 - 1) | st.integers(1, 64), min_size=2, max_size=6, unique=True).map(
    sorted
)


@st.composite
def records(draw: st.DrawFn) -> Record:
    scales = draw(st.sampled_from([[2, 4, 8, 16, 32], [1, 2], [3, 6, 7, 12]]) | SCALES)
    counts = draw(
        st.lists(st.integers(1, 64) | st.integers(1, 2**53 - 1), min_size=len(scales), max_size=len(scales))
    )
    likely = st.floats(-0.5, 4) | NUMBERS
    document = pcs_records.document(
        scales=scales,
        N_j={str(scale): count for scale, count in zip(scales, counts, strict=True)},
        epoch=draw(st.integers(0, 2**53 - 1)),
        coh_star=draw(likely),
        r=draw(likely),
        budget=draw(st.floats(0, 1)),
        regime=draw(st.sampled_from(["sticky", "mixed", "non_sticky"])),
        ft={"outbox_seq": 0, "degraded": draw(st.booleans()), "fallbacks": [], "clock_skew_ms": 0},
    )
    if draw(st.booleans()):
        document["D_hat"] = draw(likely)
    return decode_record(pcs_records.body(document))


PARAMS = st.builds(
    Params,
    tol_d=st.floats(0, 1),
    tol_coh=st.floats(0, 1),
    tol_budget=st.floats(0, 1),
    alpha=st.floats(0, 1),
    beta=st.floats(0, 1),
    gamma=st.floats(0, 1),
    base=st.floats(0, 1),
)


@given(values=st.lists(NUMBERS, min_size=1, max_size=50))
@settings(max_examples=500)
def test_rounding_is_the_plain_one(values: list[float]) -> None:
    rounded = round9_all(np.array(values)).tolist()
    assert list(map(repr, rounded)) == [repr(round9(value)) for value in values]


def test_rounding_is_the_plain_one_for_many_ordinary_numbers() -> None:
    source = random.Random(6)
    values = [source.uniform(-4, 4) for _ in range(100_000)]
    values += [round(value, 9) for value in values[:20_000]]
    values += [math.nextafter(round(value, 9) + 5e-10, source.choice([-9, 9])) for value in values[:20_000]]
    assert round9_all(np.array(values)).tolist() == [round9(value) for value in values]


@given(batch=st.lists(records(), max_size=SPELLED_TOGETHER_MIN + 4))
@settings(max_examples=100, deadline=None)
def test_payloads_are_the_plain_ones(batch: list[Record]) -> None:
    assert canonical_payloads(batch) == [canonical_payload(each) for each in batch]


@given(batch=st.lists(records(), max_size=VERIFIED_TOGETHER_MIN + 4), params=PARAMS)
@settings(max_examples=100, deadline=None)
def test_verdicts_are_the_plain_ones(batch: list[Record], params: Params) -> None:
    alike = [each for each in batch for _ in range(VERIFIED_TOGETHER_MIN)]
    for sequence in (batch, alike):
        expected = [verify(each, params) for each in sequence]
        verified = verify_many(sequence, params)
        found, signals = verified.verdicts, verified.signals
        assert found == expected
        assert msgspec.json.encode(found) == msgspec.json.encode(expected)
        if signals is not None:
            assert signals.tolist() == [
                [one.recomputed.d_hat, round9(each.coh_star), round9(each.r)]
                for one, each in zip(expected, sequence, strict=True)
            ]


def read_alone(body: bytes) -> tuple[Record, bytes, str] | None:
    """Return what the plain functions find, or nothing where they refuse."""
    try:
        record = decode_record(body)
        check_identity(record)
    except (MalformedError, IdentityError):
        return None
    return record, payload_digest(canonical_payload(record)), fingerprint(record)


def assert_reads_alike(bodies: Sequence[bytes]) -> int:
    """Whatever is read in bulk is read alone as well, to the same. Returns how many were."""
    read = 0
    for body, checked in zip(bodies, read_records(bodies), strict=True):
        if checked is None:
            continue
        read += 1
        alone = read_alone(body)
        assert alone is not None
        record, digest, name = alone
        assert msgspec.to_builtins(checked.record) == msgspec.to_builtins(record)
        assert (checked.digest, checked.fingerprint) == (digest, name)
    return read


GOOD = pcs_records.document()
VALUES: list[object] = [
    None, True, False, 0, -0.0, 1, -1, 1.0, 1.5, 2**53, 2**63, 2**64, 1e308, -1e308, "", "0.1", "0.x", "1.0", "0.1\n",
    "é", "\ud83d", "0" * 64, "A" * 64, "0" * 63, [], [1], [1, 2], [2, 1], [1.0, 2], {}, {"2": 1}, "2026-02-30T00:00:00Z",
    "2026-11-21T08:15:60Z", "2026-11-21t08:15:30.5z", "0000-01-01T00:00:00Z", "a|b", "x" * 129, "mixed",
    {"outbox_seq": 0, "degraded": False, "fallbacks": [], "clock_skew_ms": 0, "more": 1},
    {"outbox_seq": -1, "degraded": False, "fallbacks": [], "clock_skew_ms": 0},
]  # fmt: skip


@pytest.mark.parametrize("field", [*GOOD, "another"])
def test_altered_fields_are_read_as_alone(field: str) -> None:
    bodies = []
    for value in VALUES:
        altered = {**GOOD, field: value}
        bodies.append(json.dumps(altered).encode())
        if field in ("merkle_root", "epoch", "shard_id"):
            bodies.append(json.dumps(pcs_records.document(**{field: value})).encode())
    bodies.append(json.dumps({name: value for name, value in GOOD.items() if name != field}).encode())
    assert_reads_alike(bodies)


@pytest.mark.parametrize("pcs_id", ["", hashlib.sha256(b"").hexdigest()])
def test_no_id_passes_for_that_of_parts_that_make_none(pcs_id: str) -> None:
    bodies = [pcs_records.body({**GOOD, "merkle_root": "z" * 64, "pcs_id": pcs_id}) for _ in range(3)]
    assert assert_reads_alike([*bodies, pcs_records.body(GOOD)]) == 1


def test_ordinary_records_are_read_in_bulk() -> None:
    bodies = [pcs_records.body(pcs_records.document(epoch=epoch)) for epoch in range(20)]
    assert assert_reads_alike(bodies) == 20


NEIGHBOURS = [
    GOOD,
    *({**GOOD, "sent_at": text} for text in ("", "0", "2026-11-21T09:15:30Z", "2026-02-30T00:00:00Z")),
    *({**GOOD, "scales": scales} for scales in ([], [2, 4], [4, 2, 8, 16, 32])),
    {**GOOD, "N_j": dict(reversed(GOOD["N_j"].items()))},
    {**GOOD, "version": "0.2", "methods": {"r": {"name": "pq-lz"}}},
    {**GOOD, "version": "0.2", "methods": {"r": {"name": "pq-lz"}}, "sent_at": ""},
    {**GOOD, "methods": {"r": {}}},
]


@pytest.mark.parametrize("first", NEIGHBOURS)
def test_a_record_is_read_the_same_whatever_came_before_it(first: dict[str, Any]) -> None:
    for second in NEIGHBOURS:
        read = assert_reads_alike([*map(pcs_records.body, (first, second, second, first, second))])
        alone = [assert_reads_alike([pcs_records.body(each)]) for each in (first, second)]
        assert read == 2 * alone[0] + 3 * alone[1]


def test_two_records_in_one_body_are_none() -> None:
    body = pcs_records.body(GOOD).replace(b"\n", b"")
    assert assert_reads_alike([body + b"\n" + body, b"", body]) == 1


PROOF = {"suite": PROOF_SUITE, "proof": base64.b64encode(bytes(80)).decode()}
METHODS = {
    "d_hat": {"name": "projected", "k": 3, "x": 0.5},
    "r": {"name": "pq-lz", "leading": True, "c": "ab"},
}
EXTENDED = {**GOOD, "version": "0.2", "methods": METHODS, "direction_proof": PROOF}
PARAMETERS = [*VALUES, -(2**53), 2**53 - 1, 2.0**53, -(2**64), 1e400, "x" * 64, "x" * 65]


@pytest.mark.parametrize(
    "added", [{}, {"methods": METHODS}, {"direction_proof": PROOF}, {"methods": {}}], ids=str
)
def test_what_0_2_adds_is_read_in_bulk(added: dict[str, object]) -> None:
    bodies = [pcs_records.body(pcs_records.document(epoch=n, version="0.2", **added)) for n in range(5)]
    assert assert_reads_alike(bodies) == 5


@pytest.mark.parametrize("version", ["0.1", "0.2", "0.3"])
@pytest.mark.parametrize(
    "path", ["methods", "methods.r", "methods.r.name", "methods.r.c", "methods.R!", "methods.r.X!"]
)
def test_altered_methods_are_read_as_alone(version: str, path: str) -> None:
    for value in PARAMETERS:
        altered = json.loads(json.dumps({**EXTENDED, "version": version}))
        *outer, last = path.split(".")
        node = altered
        for step in outer:
            node = node[step]
        node[last] = value
        assert_reads_alike([json.dumps(altered).encode(), pcs_records.body(GOOD)])


@pytest.mark.parametrize("version", ["0.1", "0.2", "0.3"])
@pytest.mark.parametrize("path", ["direction_proof", "direction_proof.suite", "direction_proof.proof"])
def test_altered_proofs_are_read_as_alone(version: str, path: str) -> None:
    spellings = ["A" * 107 + "=", "A" * 106 + "B=", "A" * 108, "A" * 107 + "=\n", " " + "A" * 106 + "="]
    for value in [*PARAMETERS, *spellings, {**PROOF, "more": 1}, {"suite": PROOF_SUITE}]:
        altered = {**EXTENDED, "version": version}
        if "." in path:
            altered["direction_proof"] = {**PROOF, path.partition(".")[2]: value}
        else:
            altered[path] = value
        assert_reads_alike([json.dumps(altered).encode()])


@pytest.mark.parametrize("member", ["ft", "direction_proof"])
@pytest.mark.parametrize("value", [b"1e999", b"[[1e999]]", b"1", b"[]", b'"\\ud800"'], ids=repr)
def test_an_unknown_member_is_read_as_alone(member: str, value: bytes) -> None:
    """What is not known msgspec skips without looking at it, and orjson refuses some of it."""
    start = f'"{member}": {{'.encode()
    body = pcs_records.body(EXTENDED)
    altered = body.replace(start, start + b'"future": ' + value + b", ")
    assert len(altered) > len(body)
    assert_reads_alike([altered])


@given(position=st.integers(0, 1_000), byte=st.binary(min_size=1, max_size=2), insert=st.booleans())
@settings(max_examples=500, deadline=None)
def test_damaged_bodies_of_0_2_are_read_as_alone(position: int, byte: bytes, insert: bool) -> None:
    body = pcs_records.body(EXTENDED)
    assert_reads_alike([body[:position] + byte + body[position + (0 if insert else len(byte)) :]])


@given(position=st.integers(0, 700), byte=st.binary(min_size=1, max_size=2), insert=st.booleans())
@example(position=0, byte=b" ", insert=True)
@settings(max_examples=500, deadline=None)
def test_damaged_bodies_are_read_as_alone(position: int, byte: bytes, insert: bool) -> None:
    body = pcs_records.body(GOOD)
    assert_reads_alike([body[:position] + byte + body[position + (0 if insert else len(byte)) :]])
