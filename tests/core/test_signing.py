"""Signatures: which bytes, which keys, which refusals — and that no key ever shows."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

import pcs_records
from pcs_core.errors import BadSignatureError, KeyMaterialError, MalformedError
from pcs_core.record import Record, decode_record
from pcs_core.signing import (
    Ed25519PublicKey,
    Ed25519SecretKey,
    HmacKey,
    SigningAlgorithm,
    decode_key_base64,
    sign_record,
)
from verifying import signer_of

SECRET = b"a secret of the tests"
SEED = bytes(range(100, 132))
PUBLIC = pcs_records.ed25519_public(SEED)
SMALL = {"D_hat": 5e-05, "coh_star": 1e-9, "r": 0.5, "budget": 1.0}


def record_of(document: dict[str, Any]) -> Record:
    return decode_record(pcs_records.body(document))


def with_sig(sig: str) -> Record:
    return record_of(pcs_records.document() | {"sig": sig})


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


# Signed elsewhere, verified here; signed here, verified elsewhere


def test_a_signature_made_by_foreign_code_verifies() -> None:
    """L1, L17."""
    document = pcs_records.document()
    by_hmac, by_ed25519 = HmacKey(SECRET), Ed25519PublicKey(PUBLIC)
    assert signer_of([by_hmac], record_of(pcs_records.sign(document, hmac_key=SECRET))) == by_hmac.key_id
    assert (
        signer_of([by_ed25519], record_of(pcs_records.sign(document, ed25519_seed=SEED))) == by_ed25519.key_id
    )


@given(st.binary(min_size=1, max_size=200), st.binary(min_size=32, max_size=32))
def test_signatures_equal_those_of_foreign_code_for_any_key(secret: bytes, seed: bytes) -> None:
    """L1, L17."""
    document = pcs_records.document(**SMALL)
    record = record_of(document)
    assert sign_record(record, HmacKey(secret)).sig == pcs_records.sign(document, hmac_key=secret)["sig"]
    assert (
        sign_record(record, Ed25519SecretKey(seed)).sig
        == pcs_records.sign(document, ed25519_seed=seed)["sig"]
    )


def test_signing_changes_nothing_but_the_signature() -> None:
    document = pcs_records.document()
    signed = sign_record(record_of(document), HmacKey(SECRET))
    assert signed == record_of(document | {"sig": signed.sig})


def test_without_a_signer_the_signature_is_empty() -> None:
    assert sign_record(with_sig("AAAA"), None).sig == ""


# The matrix of L2: every variant of the signed bytes but the two of the contract is refused


def floats_as(spell: Callable[[float], str]) -> Callable[[dict[str, Any]], bytes]:
    """Return a payload writer that spells the four numbers in its own way."""

    def write(document: dict[str, Any]) -> bytes:
        subset = {name: document[name] for name in pcs_records.SIGNED_FIELDS}
        subset |= {name: f"|{spell(float(document[name]))}|" for name in pcs_records.NUMBER_FIELDS}
        text = json.dumps(subset, sort_keys=True, separators=(",", ":"))
        return text.replace('"|', "").replace('|"', "").encode()

    return write


def rounded(document: dict[str, Any]) -> dict[str, Any]:
    subset = {name: document[name] for name in pcs_records.SIGNED_FIELDS}
    return subset | {name: pcs_records.round9(document[name]) for name in pcs_records.NUMBER_FIELDS}


def without(text: str) -> Callable[[dict[str, Any]], bytes]:
    def write(document: dict[str, Any]) -> bytes:
        subset = rounded(document)
        del subset[text]
        return json.dumps(subset, sort_keys=True, separators=(",", ":")).encode()

    return write


ACCEPTED = {
    "shortest": pcs_records.canonical,
    "nine decimals": pcs_records.fixed_point,
    "nine decimals by printf": floats_as(lambda value: f"{pcs_records.round9(value):.9f}"),
}
REFUSED: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "ten decimals": floats_as(lambda value: f"{value:.10f}"),
    "eight decimals": floats_as(lambda value: f"{value:.8f}"),
    "nine significant digits": floats_as(lambda value: f"{value:.9g}"),
    "nine decimals in exponent form": floats_as(lambda value: f"{value:.9e}"),
    "integers without fraction": floats_as(lambda value: repr(value).removesuffix(".0")),
    "exponent without padding, as orjson and Go": lambda document: orjson.dumps(
        rounded(document), option=orjson.OPT_SORT_KEYS
    ),
    "upper-case exponent": floats_as(lambda value: repr(pcs_records.round9(value)).upper()),
    "plus sign": floats_as(lambda value: f"{pcs_records.round9(value):+}"),
    "numbers as strings": lambda document: json.dumps(
        {k: str(v) if isinstance(v, float) else v for k, v in rounded(document).items()},
        sort_keys=True,
        separators=(",", ":"),
    ).encode(),
    "one number in the other spelling": lambda document: pcs_records.canonical(document).replace(
        b'"budget":1.0,', b'"budget":1.000000000,'
    ),
    "white space": lambda document: json.dumps(rounded(document), sort_keys=True).encode(),
    "indented": lambda document: json.dumps(rounded(document), sort_keys=True, indent=2).encode(),
    "final newline": lambda document: pcs_records.canonical(document) + b"\n",
    "keys in the record's order": lambda document: json.dumps(
        rounded(document), separators=(",", ":")
    ).encode(),
    "keys sorted without case": lambda document: json.dumps(
        dict(sorted(rounded(document).items(), key=lambda item: item[0].lower())), separators=(",", ":")
    ).encode(),
    "slash escaped": lambda document: pcs_records.canonical(document).replace(b"/", b"\\/"),
    "plus escaped, as Go's HTML escaping": lambda document: pcs_records.canonical(document).replace(
        b"+", b"\\u002b"
    ),
    "with one field more": lambda document: json.dumps(
        rounded(document) | {"regime": document["regime"]}, sort_keys=True, separators=(",", ":")
    ).encode(),
    "without the budget": without("budget"),
    "without pcs_id": without("pcs_id"),
    "utf-16": lambda document: pcs_records.canonical(document).decode().encode("utf-16"),
    "the whole record": lambda document: json.dumps(document, sort_keys=True, separators=(",", ":")).encode(),
    "empty": lambda _document: b"",
}
MATRIX_DOCUMENT = pcs_records.document(shard_id="a/b+c", **SMALL)


def sign_bytes(algorithm: str, message: bytes) -> bytes:
    if algorithm == "hmac":
        return hmac.digest(SECRET, message, "sha256")
    return Ed25519PrivateKey.from_private_bytes(SEED).sign(message)


def signer_by(algorithm: str, record: Record) -> str:
    return signer_of([HmacKey(SECRET) if algorithm == "hmac" else Ed25519PublicKey(PUBLIC)], record)


both_algorithms = pytest.mark.parametrize("algorithm", ["hmac", "ed25519"])


@both_algorithms
@pytest.mark.parametrize("spelling", list(ACCEPTED))
def test_both_spellings_of_the_contract_verify(algorithm: str, spelling: str) -> None:
    """L2."""
    digest = hashlib.sha256(ACCEPTED[spelling](MATRIX_DOCUMENT)).digest()
    record = record_of(MATRIX_DOCUMENT | {"sig": base64_of(sign_bytes(algorithm, digest))})
    assert signer_by(algorithm, record).startswith(algorithm)


@both_algorithms
@pytest.mark.parametrize("spelling", list(REFUSED))
def test_no_third_spelling_verifies(algorithm: str, spelling: str) -> None:
    """L2."""
    payload = REFUSED[spelling](MATRIX_DOCUMENT)
    assert payload not in [write(MATRIX_DOCUMENT) for write in ACCEPTED.values()]
    digest = hashlib.sha256(payload).digest()
    record = record_of(MATRIX_DOCUMENT | {"sig": base64_of(sign_bytes(algorithm, digest))})
    with pytest.raises(BadSignatureError):
        signer_by(algorithm, record)


@both_algorithms
@pytest.mark.parametrize("spelling", list(ACCEPTED))
@pytest.mark.parametrize("digest", ["none", "hex", "twice", "sha512", "base64"])
def test_only_the_sha256_digest_is_signed(algorithm: str, spelling: str, digest: str) -> None:
    """L2."""
    payload = ACCEPTED[spelling](MATRIX_DOCUMENT)
    sha256 = hashlib.sha256(payload)
    message = {
        "none": payload,
        "hex": sha256.hexdigest().encode(),
        "twice": hashlib.sha256(sha256.digest()).digest(),
        "sha512": hashlib.sha512(payload).digest(),
        "base64": base64.b64encode(sha256.digest()),
    }[digest]
    record = record_of(MATRIX_DOCUMENT | {"sig": base64_of(sign_bytes(algorithm, message))})
    with pytest.raises(BadSignatureError):
        signer_by(algorithm, record)


@both_algorithms
def test_numbers_that_were_not_rounded_before_signing_do_not_verify(algorithm: str) -> None:
    """L2, L23."""
    document = pcs_records.document(r=0.1 + 0.2)
    payload = floats_as(repr)(document)
    assert b"0.30000000000000004" in payload
    signature = sign_bytes(algorithm, hashlib.sha256(payload).digest())
    with pytest.raises(BadSignatureError):
        signer_by(algorithm, record_of(document | {"sig": base64_of(signature)}))


@both_algorithms
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epoch", 8),
        ("shard_id", "b"),
        ("merkle_root", "0" * 64),
        ("pcs_id", "0" * 64),
        ("D_hat", 0.9),
        ("coh_star", 0.9),
        ("r", 0.9),
        ("budget", 0.9),
    ],
)
def test_a_changed_field_of_the_subset_breaks_the_signature(algorithm: str, name: str, value: object) -> None:
    keys = {"hmac": {"hmac_key": SECRET}, "ed25519": {"ed25519_seed": SEED}}[algorithm]
    signed = pcs_records.sign(pcs_records.document(), **keys)
    with pytest.raises(BadSignatureError):
        signer_by(algorithm, record_of(signed | {name: value}))


# The signature's own form


@both_algorithms
@pytest.mark.parametrize(
    "sig",
    [
        "not base64!",
        "AAA",
        "QQQQQ",
        "AAAA=",
        "AAAA====",
        "AAB=",
        "====",
        "AAAA\n",
        " AAAA",
        "AA AA",
        "AA==AA==",
        "-_-_",
        "ÄÄÄÄ",
        "AAAA\x00",
        "０" * 4,
    ],
    ids=ascii,
)
def test_a_signature_that_is_not_standard_base64_is_malformed(algorithm: str, sig: str) -> None:
    with pytest.raises(MalformedError) as caught:
        signer_by(algorithm, with_sig(sig))
    assert caught.value.field == "$.sig"
    text = "".join([*traceback.format_exception(caught.value), str(caught.value), repr(caught.value)])
    assert sig not in text
    assert (caught.value.__context__, caught.value.__cause__) == (None, None)


@both_algorithms
@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 63, 64, 65, 1_000])
def test_an_empty_signature_one_of_the_wrong_length_or_a_false_one_is_bad(
    algorithm: str, length: int
) -> None:
    with pytest.raises(BadSignatureError) as caught:
        signer_by(algorithm, with_sig(base64_of(bytes(length))))
    assert str(caught.value) == "$.sig: no valid key verifies this signature"


@both_algorithms
def test_a_signature_with_any_single_bit_changed_is_bad(algorithm: str) -> None:
    document = pcs_records.document()
    good = sign_bytes(algorithm, hashlib.sha256(pcs_records.canonical(document)).digest())
    assert signer_by(algorithm, record_of(document | {"sig": base64_of(good)})).startswith(algorithm)
    for bit in range(len(good) * 8):
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadSignatureError):
            signer_by(algorithm, record_of(document | {"sig": base64_of(bytes(changed))}))


def test_with_signing_off_any_string_is_ignored() -> None:
    assert [signer_of([], with_sig(sig)) for sig in ("", "not base64!", "AAAA", "ÄÄ")] == ["", "", "", ""]


# Several keys


def test_every_key_that_is_valid_now_is_tried_over_both_spellings() -> None:
    keys = [HmacKey(b"old"), HmacKey(SECRET), Ed25519PublicKey(PUBLIC)]
    document = pcs_records.document()
    fixed = hashlib.sha256(pcs_records.fixed_point(document)).digest()
    signatures = [
        pcs_records.sign(document, hmac_key=b"old")["sig"],
        base64_of(hmac.digest(b"old", fixed, "sha256")),
        pcs_records.sign(document, hmac_key=SECRET)["sig"],
        base64_of(hmac.digest(SECRET, fixed, "sha256")),
        pcs_records.sign(document, ed25519_seed=SEED)["sig"],
        base64_of(Ed25519PrivateKey.from_private_bytes(SEED).sign(fixed)),
    ]
    found = [signer_of(keys, record_of(document | {"sig": sig})) for sig in signatures]
    assert found == [key.key_id for key in keys for _ in range(2)]
    with pytest.raises(BadSignatureError):
        signer_of(keys, record_of(pcs_records.sign(document, hmac_key=b"another")))


def test_a_key_of_one_algorithm_does_not_verify_the_others_signature() -> None:
    document = pcs_records.document()
    with pytest.raises(BadSignatureError):
        signer_by("hmac", record_of(pcs_records.sign(document, ed25519_seed=SEED)))
    with pytest.raises(BadSignatureError):
        signer_by("ed25519", record_of(pcs_records.sign(document, hmac_key=SECRET)))


def test_the_public_key_used_as_an_hmac_secret_gives_no_valid_ed25519_signature() -> None:
    """Algorithm confusion: whoever knows the public key can compute this MAC."""
    forged = pcs_records.sign(pcs_records.document(), hmac_key=PUBLIC)
    with pytest.raises(BadSignatureError):
        signer_by("ed25519", record_of(forged))


def test_a_public_key_of_small_order_verifies_nothing() -> None:
    """With the point of order one, (R, S) = (identity, 0) holds for every message in careless libraries."""
    identity = b"\x01" + bytes(31)
    record = with_sig(base64_of(identity + bytes(32)))
    with pytest.raises(BadSignatureError):
        signer_of([Ed25519PublicKey(identity)], record)


# Keys


def test_a_key_shows_its_name_and_nothing_else() -> None:
    secret, seed = b"Tr0ub4dor&3-secret", b"0123456789abcdefghijklmnopqrstuv"
    keys = [HmacKey(secret), Ed25519SecretKey(seed), Ed25519PublicKey(pcs_records.ed25519_public(seed))]
    for key in keys:
        shown = f"{key} {key!r} {[key]} {key.key_id}"
        assert repr(key) == f"{type(key).__name__}({key.key_id})"
        for hidden in (secret, seed):
            for form in (hidden.decode(), hidden.hex(), base64_of(hidden), repr(hidden)):
                assert form not in shown
        with pytest.raises((TypeError, AttributeError)):
            vars(key)


def test_a_key_cannot_be_pickled_into_a_log_or_a_queue() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(HmacKey(SECRET))


def test_key_names_differ_by_key_and_are_stable() -> None:
    assert HmacKey(SECRET).key_id == HmacKey(SECRET).key_id
    assert HmacKey(SECRET).key_id != HmacKey(SECRET + b"\x00x").key_id
    assert Ed25519SecretKey(SEED).key_id == Ed25519PublicKey(PUBLIC).key_id
    assert Ed25519PublicKey(PUBLIC).key_id == "ed25519-" + hashlib.sha256(PUBLIC).hexdigest()[:16]
    assert HmacKey(SECRET).key_id.startswith("hmac-")


def test_an_hmac_key_has_any_length_but_zero() -> None:
    assert [len(HmacKey(b"k" * length).sign(b"")) for length in (1, 16, 64, 65, 10_000)] == [32] * 5
    with pytest.raises(KeyMaterialError) as caught:
        HmacKey(b"")
    assert str(caught.value) == "found an empty HMAC key; allowed: one byte or more"


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_an_ed25519_key_has_32_bytes(length: int) -> None:
    with pytest.raises(
        KeyMaterialError, match=f"^found {length} bytes; allowed: an Ed25519 seed of 32 bytes$"
    ):
        Ed25519SecretKey(b"s" * length)
    with pytest.raises(
        KeyMaterialError, match=f"^found {length} bytes; allowed: an Ed25519 public key of 32 bytes$"
    ):
        Ed25519PublicKey(b"s" * length)
    with pytest.raises(
        KeyMaterialError, match=f"^found {length} bytes; allowed: an Ed25519 key of 32 bytes$"
    ):
        decode_key_base64(base64_of(b"s" * length))


def test_a_secret_key_knows_its_public_half() -> None:
    key = Ed25519SecretKey(SEED)
    assert (key.seed, key.public_bytes) == (SEED, PUBLIC)
    assert key.public.verifies(b"digest", key.sign(b"digest")) is True
    assert key.public.verifies(b"other", key.sign(b"digest")) is False


def test_key_text_in_base64_decodes_to_its_bytes() -> None:
    assert decode_key_base64(base64_of(SEED)) == SEED


@pytest.mark.parametrize(
    "text",
    [
        "no base64 secret!",
        base64_of(SEED)[:-1],
        base64_of(SEED) + "\n",
        "ü" * 44,
        base64_of(SEED).replace("=", ""),
    ],
    ids=ascii,
)
def test_key_text_that_is_not_base64_is_refused_without_a_trace_of_it(text: str) -> None:
    with pytest.raises(KeyMaterialError) as caught:
        decode_key_base64(text)
    shown = "".join([repr(caught.value), *traceback.format_exception(caught.value)])
    assert text not in shown
    assert text[:8] not in shown
    assert (caught.value.__context__, caught.value.__cause__) == (None, None)


def test_the_algorithms_are_spelled_as_the_environment_spells_them() -> None:
    assert [str(algorithm) for algorithm in SigningAlgorithm] == ["none", "hmac", "ed25519"]
