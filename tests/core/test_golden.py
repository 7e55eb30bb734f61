"""Golden vectors: the core against them, and they against code that shares nothing with either."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import runpy
from pathlib import Path
from typing import Any

import nacl.signing
import numpy as np
import pytest
import scipy.stats

import pcs_records
from pcs_core.budget import compute_budget
from pcs_core.canonical import canonical_payload, fixed_point_payload, payload_digest, round9
from pcs_core.errors import MalformedError
from pcs_core.identity import compute_pcs_id
from pcs_core.merkle import merkle_root
from pcs_core.params import Params
from pcs_core.record import Record, decode_record
from pcs_core.regime import classify_regime
from pcs_core.signing import Ed25519PublicKey, Ed25519SecretKey, HmacKey, sign_record
from pcs_core.slope import theil_sen_slope
from verifying import signer_of

GOLDEN = Path(__file__).parents[1] / "golden"


def load(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_bytes())


SIGNING = load("signing")
CASES = SIGNING["cases"]
SPELLINGS = {"shortest": canonical_payload, "fixed_point": fixed_point_payload}
HMAC_KEY = SIGNING["hmac_key_utf8"].encode("utf-8")
ED25519_SEED = base64.b64decode(SIGNING["ed25519_seed_base64"])
ED25519_PUBLIC = base64.b64decode(SIGNING["ed25519_public_base64"])

every_case = pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
every_spelling = pytest.mark.parametrize("spelling", list(SPELLINGS))


def record_of(case: dict[str, Any], sig: str = "") -> Record:
    return decode_record(pcs_records.body(pcs_records.document(**case["signed"], sig=sig)))


def test_the_generator_writes_the_committed_files_byte_for_byte() -> None:
    written = runpy.run_path(str(GOLDEN / "make_golden.py"))["files"]()
    committed = {path.name: path.read_bytes() for path in GOLDEN.glob("*.json")}
    assert written == committed


@every_case
@every_spelling
def test_payload_and_digest_are_the_golden_ones(case: dict[str, Any], spelling: str) -> None:
    """L1, L2, L23."""
    payload = SPELLINGS[spelling](record_of(case))
    assert payload.decode("ascii") == case[spelling]["payload"]
    assert payload_digest(payload).hex() == case[spelling]["digest"]


@every_case
def test_the_agent_signs_the_shortest_spelling(case: dict[str, Any]) -> None:
    """L1, L2, L17."""
    record = record_of(case)
    assert sign_record(record, HmacKey(HMAC_KEY)).sig == case["shortest"]["hmac"]
    assert sign_record(record, Ed25519SecretKey(ED25519_SEED)).sig == case["shortest"]["ed25519"]


@every_case
@every_spelling
def test_the_verifier_takes_both_spellings(case: dict[str, Any], spelling: str) -> None:
    """L1, L2, L17."""
    key, public = HmacKey(HMAC_KEY), Ed25519PublicKey(ED25519_PUBLIC)
    assert signer_of([key], record_of(case, case[spelling]["hmac"])) == key.key_id
    assert signer_of([public], record_of(case, case[spelling]["ed25519"])) == public.key_id


@every_case
def test_the_golden_signatures_hold_by_the_standard_library_and_libsodium(case: dict[str, Any]) -> None:
    for spelling in SPELLINGS:
        golden = case[spelling]
        digest = hashlib.sha256(golden["payload"].encode("ascii")).digest()
        assert digest.hex() == golden["digest"]
        assert base64.b64decode(golden["hmac"]) == hmac.digest(HMAC_KEY, digest, "sha256")
        signed = nacl.signing.VerifyKey(ED25519_PUBLIC).verify(digest, base64.b64decode(golden["ed25519"]))
        assert signed == digest


@every_case
def test_the_golden_payloads_are_what_plain_json_and_printf_write(case: dict[str, Any]) -> None:
    assert pcs_records.canonical(case["signed"]).decode("ascii") == case["shortest"]["payload"]
    assert pcs_records.fixed_point(case["signed"]).decode("ascii") == case["fixed_point"]["payload"]
    shortest, fixed = (json.loads(case[spelling]["payload"]) for spelling in SPELLINGS)
    assert shortest == fixed, "both spellings name the same value"
    assert list(shortest) == sorted(pcs_records.SIGNED_FIELDS)


@pytest.mark.parametrize("case", load("rounding"), ids=lambda case: f"{case['number']!r} {case['note']}")
def test_rounding_gives_the_golden_value_and_sign(case: dict[str, Any]) -> None:
    """L23."""
    number = float.fromhex(case["hex"])
    assert number.hex() == case["number"].hex()
    rounded = round9(number)
    assert rounded == case["rounded"]
    assert math.copysign(1, rounded) == math.copysign(1, case["rounded"])
    assert rounded == pcs_records.round9(number)
    assert repr(rounded) != "-0.0"


@pytest.mark.parametrize("shard_id", SIGNING["refused_shard_ids"], ids=ascii)
def test_shard_ids_that_need_escaping_or_bars_are_malformed(shard_id: str) -> None:
    """L2, L22."""
    body = pcs_records.body(pcs_records.document() | {"shard_id": shard_id})
    with pytest.raises(MalformedError) as caught:
        decode_record(body)
    assert caught.value.field == "$.shard_id"


@pytest.mark.parametrize("case", load("identity"), ids=lambda case: f"{case['epoch']} {case['shard_id']:.12}")
def test_pcs_id_is_the_golden_one(case: dict[str, Any]) -> None:
    parts = case["merkle_root"], case["epoch"], case["shard_id"]
    assert compute_pcs_id(*parts) == case["pcs_id"]
    assert pcs_records.pcs_id(*parts) == case["pcs_id"]


@pytest.mark.parametrize("case", load("merkle"), ids=lambda case: case["note"])
def test_merkle_root_is_the_golden_one(case: dict[str, Any]) -> None:
    """L21."""
    assert merkle_root([bytes.fromhex(leaf) for leaf in case["leaves_hex"]]) == case["root"]


def test_numeric_and_token_leaves_in_the_golden_file_are_what_numpy_writes() -> None:
    leaves = {case["note"]: case["leaves_hex"] for case in load("merkle")}
    assert leaves["numeric columns 1.0 and -0.5 as little-endian float64"] == [
        np.array([1.0, -0.5], dtype="<f8").tobytes().hex()
    ]
    assert leaves["tokens 1 and 50256 as little-endian uint32"] == [
        np.array([1, 50256], dtype="<u4").tobytes().hex()
    ]


@pytest.mark.parametrize("case", load("budget"), ids=str)
def test_budget_and_regime_are_the_golden_ones(case: dict[str, Any]) -> None:
    d_hat, coh_star, r = case["D_hat"], case["coh_star"], case["r"]
    assert round9(compute_budget(d_hat, coh_star, r, Params())) == case["budget"]
    assert classify_regime(d_hat, coh_star, Params()) == case["regime"]
    assert pcs_records.budget(d_hat, coh_star, r) == case["budget"]
    assert pcs_records.regime(d_hat, coh_star) == case["regime"]


@pytest.mark.parametrize("case", load("slope"), ids=lambda case: str(case["scales"])[:30])
def test_slope_is_the_golden_one_and_scipys(case: dict[str, Any]) -> None:
    scales, counts = case["scales"], [case["N_j"][str(scale)] for scale in case["scales"]]
    assert round9(theil_sen_slope(scales, counts)) == case["slope"]
    oracle = scipy.stats.theilslopes(np.log2(counts), np.log2(scales)).slope
    assert case["slope"] == pytest.approx(oracle, abs=1e-9)
