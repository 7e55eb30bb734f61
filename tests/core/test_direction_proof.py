"""Seeds of directions: from root, epoch and shard alone, and what is wrong with one that is not."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pcs_records
from pcs_core.direction_proof import Directions, check_directions, prove_directions
from pcs_core.identity import identity_bytes
from pcs_core.params import Params
from pcs_core.record import DirectionProof, Record, decode_record
from pcs_core.verify import verify
from pcs_core.vrf import VrfSecretKey

KEY, OTHER = VrfSecretKey(bytes(32)), VrfSecretKey(b"\1" * 32)
ASKED = Directions([KEY.public])
SHARDS = st.text("azAZ09._:/@+-", min_size=1, max_size=128)
ROOTS = st.binary(min_size=32, max_size=32).map(bytes.hex)


def proven(key: VrfSecretKey = KEY, **overrides: Any) -> Record:
    """Return a record whose directions are proved with the key."""
    plain = pcs_records.document(version="0.2", **overrides)
    seed, proof = prove_directions(key, plain["merkle_root"], plain["epoch"], plain["shard_id"])
    document = plain | {"seed": seed, "direction_proof": msgspec.to_builtins(proof)}
    return decode_record(pcs_records.body(document))


@given(root=ROOTS, epoch=st.integers(0, 2**53 - 1), shard=SHARDS)
@settings(max_examples=50, deadline=None)
def test_the_seed_is_the_beginning_of_the_hash_that_the_proof_gives(
    root: str, epoch: int, shard: str
) -> None:
    seed, proof = prove_directions(KEY, root, epoch, shard)
    output = KEY.public.verify(f"{root}|{epoch}|{shard}".encode(), base64.b64decode(proof.proof))
    assert output is not None
    assert seed == int(output.hex()[:16], 16) % 2**63
    assert proof.suite == "ECVRF-EDWARDS25519-SHA512-TAI"


def test_seeds_are_pinned() -> None:
    seed, proof = prove_directions(KEY, "00" * 32, 1, "shard-a")
    assert seed == 8557883882980428325
    assert proof.proof == (
        "GSaYlatoefxTVjebyAcnZHmcGHVnmF9MFJeeJt5L75LlCW0ey4EQ4W9JgQA1aJCH2ooiWGxgPQkzgqcX+AW2l2lMcKkxy3If9AjQReyJAAw="
    )


def test_what_is_proved_is_what_pcs_id_hashes() -> None:
    assert identity_bytes("ab" * 32, 7, "s") == b"ab" * 32 + b"|7|s"


def test_a_record_with_its_own_proof_is_accepted() -> None:
    record = proven()
    assert check_directions(record, ASKED) is None
    assert verify(record, Params(), directions=ASKED).reasons == ()


@pytest.mark.parametrize("field", ["merkle_root", "epoch", "shard_id"])
def test_a_proof_for_other_parts_is_invalid(field: str) -> None:
    other: dict[str, Any] = {"merkle_root": "00" * 32, "epoch": 8, "shard_id": "shard-b"}
    foreign = proven(**{field: other[field]})
    record = msgspec.structs.replace(proven(), direction_proof=foreign.direction_proof, seed=foreign.seed)
    assert verify(record, Params(), directions=ASKED).reasons == ("direction_proof_invalid",)


def test_a_proof_by_another_key_is_invalid() -> None:
    assert check_directions(proven(OTHER), ASKED) == "direction_proof_invalid"


def test_any_key_that_counts_will_do() -> None:
    both = Directions([OTHER.public, KEY.public])
    assert [check_directions(proven(key), both) for key in (KEY, OTHER)] == [None, None]


def test_a_proof_where_no_key_counts_is_invalid() -> None:
    assert check_directions(proven(), Directions([])) == "direction_proof_invalid"


@pytest.mark.parametrize("change", [1, -1, 1 << 62])
def test_a_seed_that_is_not_its_proofs_is_a_mismatch(change: int) -> None:
    record = proven()
    altered = msgspec.structs.replace(record, seed=(record.seed + change) % 2**63)
    assert check_directions(altered, ASKED) == "direction_seed_mismatch"


def test_a_record_without_proof_is_incomplete_only_where_one_is_required() -> None:
    record = decode_record(pcs_records.body(pcs_records.document()))
    assert check_directions(record, ASKED) is None
    assert check_directions(record, Directions([KEY.public], required=True)) == "direction_proof_missing"


def test_without_keys_a_proof_is_not_checked() -> None:
    garbage = DirectionProof(suite="ECVRF-EDWARDS25519-SHA512-TAI", proof="A" * 107 + "=")
    assert check_directions(msgspec.structs.replace(proven(), direction_proof=garbage), Directions()) is None


def test_the_reason_comes_after_those_of_the_other_checks() -> None:
    record = msgspec.structs.replace(proven(OTHER), r=7.0, budget=0.0)
    assert verify(record, Params(), directions=ASKED).reasons == (
        "compressibility_out_of_bounds",
        "direction_proof_invalid",
    )
