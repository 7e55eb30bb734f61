"""The VRF: every value of the RFC's examples, an oracle in plain integers, and refusals of everything else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl import bindings

from pcs_core import vrf
from pcs_core.errors import KeyMaterialError
from pcs_core.vrf import PROOF_BYTES, VrfPublicKey, VrfSecretKey, decode_proof, encode_to_curve, proof_to_hash

CASES = json.loads(Path(__file__).with_name("rfc9381_vectors.json").read_text(encoding="utf-8"))["cases"]
KEY = VrfSecretKey(bytes(range(32)))
ALPHA = b"a root|7|shard-a"
PROOF = KEY.prove(ALPHA)

P = 2**255 - 19
Q = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]
"""The eight points of small order (RFC 9381 §5.6.1 has the seven others than the identity as bad_pk)."""

NOT_CANONICAL = [(value + P).to_bytes(32, "little") for value in range(19)]
"""The second spelling of every y that has one."""

given_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])


@given_case
def test_every_value_of_the_rfcs_examples_is_met(case: dict[str, Any]) -> None:
    value = {name: bytes.fromhex(text) for name, text in case.items() if name not in {"name", "ctr"}}
    key = VrfSecretKey(value["SK"])
    assert key.public.public_bytes == value["PK"]
    assert key._scalar == value["x"]
    assert encode_to_curve(value["PK"], value["alpha"]) == value["H"]
    assert key._nonce(value["H"]) == value["k_string"]
    assert bindings.crypto_core_ed25519_scalar_reduce(value["k_string"]) == value["k"]
    assert key.prove(value["alpha"]) == value["pi"]
    assert proof_to_hash(value["pi"]) == value["beta"]
    parts = decode_proof(value["pi"])
    assert parts is not None
    assert key.public._commitments(value["H"], parts) == (value["U"], value["V"])
    assert VrfPublicKey(value["PK"]).verify(value["alpha"], value["pi"]) == value["beta"]


@given_case
def test_the_point_of_a_message_is_found_at_the_rfcs_try(case: dict[str, Any]) -> None:
    start = b"\x03\x01" + bytes.fromhex(case["PK"] + case["alpha"])
    digests = [hashlib.sha512(start + bytes((counter, 0))).digest() for counter in range(case["ctr"] + 1)]
    found = [vrf._decode_and_clear(digest[:32]) is not None for digest in digests]
    assert found == [False] * case["ctr"] + [True]


# An oracle that shares nothing with the module: points as pairs of integers


def add(left: tuple[int, int], right: tuple[int, int]) -> tuple[int, int]:
    (x1, y1), (x2, y2) = left, right
    product = D * x1 * x2 * y1 * y2 % P
    return (
        (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P,
    )


def decode(text: bytes) -> tuple[int, int] | None:
    """RFC 8032 §5.1.3."""
    number = int.from_bytes(text, "little")
    sign, y = number >> 255, number & (1 << 255) - 1
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    return (P - x if x & 1 != sign else x), y


def encode(point: tuple[int, int]) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def plain_encode_to_curve(salt: bytes, alpha: bytes) -> bytes:
    for counter in range(256):
        point = decode(hashlib.sha512(b"\x03\x01" + salt + alpha + bytes((counter, 0))).digest()[:32])
        if point is None:
            continue
        for _ in range(3):
            point = add(point, point)
        if point != (0, 1):
            return encode(point)
    raise AssertionError("no point")


@given(alpha=st.binary(max_size=64))
@settings(max_examples=50, deadline=None)
def test_the_point_of_a_message_is_that_of_an_oracle_in_integers(alpha: bytes) -> None:
    salt = KEY.public.public_bytes
    assert encode_to_curve(salt, alpha) == plain_encode_to_curve(salt, alpha)


@given(
    text=st.binary(min_size=32, max_size=32)
    | st.sampled_from([*map(bytes.fromhex, SMALL_ORDER), *NOT_CANONICAL])
)
@settings(max_examples=100, deadline=None)
def test_decoding_takes_the_points_that_the_rfc_takes(text: bytes) -> None:
    point = decode(text)
    if point is not None:
        for _ in range(3):
            point = add(point, point)
    expected = None if point in (None, (0, 1)) else encode(point)
    assert vrf._decode_and_clear(text) == expected


# Round trip


@given(seed=st.binary(min_size=32, max_size=32), alpha=st.binary(max_size=200))
@settings(max_examples=50, deadline=None)
def test_what_is_proved_verifies_to_its_hash(seed: bytes, alpha: bytes) -> None:
    key = VrfSecretKey(seed)
    proof = key.prove(alpha)
    assert len(proof) == PROOF_BYTES
    assert key.prove(alpha) == proof, "a second proof of the same would tell the key"
    output = VrfPublicKey(key.public.public_bytes).verify(alpha, proof)
    assert output == proof_to_hash(proof)
    assert output is not None
    assert len(output) == 64


@given(position=st.integers(0, PROOF_BYTES - 1), flip=st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_any_altered_byte_of_a_proof_is_refused(position: int, flip: int) -> None:
    altered = bytearray(PROOF)
    altered[position] ^= flip
    assert KEY.public.verify(ALPHA, bytes(altered)) is None


def test_every_flipped_bit_of_a_proof_is_refused() -> None:
    found = []
    for bit in range(8 * PROOF_BYTES):
        altered = bytearray(PROOF)
        altered[bit // 8] ^= 1 << bit % 8
        found.append(KEY.public.verify(ALPHA, bytes(altered)))
    assert found == [None] * len(found)


@given(alpha=st.binary(max_size=64).filter(lambda alpha: alpha != ALPHA))
@settings(max_examples=50, deadline=None)
def test_a_proof_for_another_message_is_refused(alpha: bytes) -> None:
    assert KEY.public.verify(alpha, PROOF) is None


@given(bit=st.integers(0, 255))
@settings(max_examples=100, deadline=None)
def test_an_altered_public_key_is_refused_or_does_not_verify(bit: int) -> None:
    altered = bytearray(KEY.public.public_bytes)
    altered[bit // 8] ^= 1 << bit % 8
    try:
        other = VrfPublicKey(bytes(altered))
    except KeyMaterialError:
        return
    assert other.verify(ALPHA, PROOF) is None


# Edges


@pytest.mark.parametrize(
    "surplus", [0, 1, Q, 2**256 - 1 - 2 * Q], ids=["order", "one more", "twice", "greatest"]
)
def test_a_scalar_from_the_order_on_is_refused(surplus: int) -> None:
    altered = PROOF[:48] + (Q + surplus).to_bytes(32, "little")
    assert decode_proof(altered) is None
    assert KEY.public.verify(ALPHA, altered) is None


def test_a_scalar_that_is_the_right_one_plus_the_order_is_refused() -> None:
    """The arithmetic would take it: a second proof of the same, which is nobody's to make."""
    right = int.from_bytes(PROOF[48:], "little")
    assert KEY.public.verify(ALPHA, PROOF[:48] + (right + Q).to_bytes(32, "little")) is None


@pytest.mark.parametrize("scalar", [0, Q - 1], ids=["least", "greatest"])
def test_the_edges_of_the_scalars_range_are_tried_and_do_not_verify(scalar: int) -> None:
    altered = PROOF[:48] + scalar.to_bytes(32, "little")
    assert decode_proof(altered) is not None
    assert KEY.public.verify(ALPHA, altered) is None


def test_a_challenge_of_zero_does_not_verify() -> None:
    assert KEY.public.verify(ALPHA, PROOF[:32] + bytes(16) + PROOF[48:]) is None


@pytest.mark.parametrize("text", [*SMALL_ORDER, *(text.hex() for text in NOT_CANONICAL)])
def test_points_of_small_order_and_second_spellings_are_no_gamma(text: str) -> None:
    altered = bytes.fromhex(text) + PROOF[32:]
    assert decode_proof(altered) is None
    assert KEY.public.verify(ALPHA, altered) is None
    with pytest.raises(ValueError, match="no proof"):
        proof_to_hash(altered)


@pytest.mark.parametrize("text", [*SMALL_ORDER, *(text.hex() for text in NOT_CANONICAL)])
def test_points_of_small_order_and_second_spellings_are_no_public_key(text: str) -> None:
    with pytest.raises(KeyMaterialError, match="prime-order group"):
        VrfPublicKey(bytes.fromhex(text))


@pytest.mark.parametrize("torsion", SMALL_ORDER[1:])
def test_points_with_a_part_of_small_order_are_neither(torsion: str) -> None:
    mixed = bindings.crypto_core_ed25519_add(KEY.public.public_bytes, bytes.fromhex(torsion))
    with pytest.raises(KeyMaterialError, match="prime-order group"):
        VrfPublicKey(mixed)
    gamma = bindings.crypto_core_ed25519_add(PROOF[:32], bytes.fromhex(torsion))
    assert decode_proof(gamma + PROOF[32:]) is None


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_keys_of_another_length_are_refused(size: int) -> None:
    for kind in (VrfSecretKey, VrfPublicKey):
        with pytest.raises(KeyMaterialError, match=f"found {size} bytes"):
            kind(bytes(size))


@given(proof=st.binary(max_size=120))
def test_arbitrary_bytes_are_no_proof(proof: bytes) -> None:
    assert KEY.public.verify(ALPHA, proof) is None


def test_a_key_does_not_print() -> None:
    assert repr(KEY) == f"VrfSecretKey({KEY.public.key_id})"
    assert KEY.seed.hex() not in f"{KEY!r}{KEY.public!r}"
