"""What 0.2 adds to a record: `methods` and `direction_proof`, both optional, unknown to 0.1."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pcs_records
from pcs_core.errors import MalformedError
from pcs_core.record import (
    ADDED_FIELDS,
    ALLOWED,
    METHOD_CHARACTERS_MAX,
    METHOD_MEMBERS_MAX,
    METHOD_NUMBER_MAX,
    METHODS_MAX,
    PROOF_BYTES,
    PROOF_SUITE,
    check_identity,
    decode_record,
    encode_record,
)

PROOF = {"suite": PROOF_SUITE, "proof": base64.b64encode(bytes(range(80))).decode()}
METHODS: dict[str, Any] = {
    "d_hat": {"name": "projected", "dimensions": 3, "leading": True},
    "r": {"name": "pq-lz", "correction": 0.25, "codebook": "ab12"},
}
WORDS = st.text("abcz019_.-", min_size=1, max_size=METHOD_CHARACTERS_MAX)
PARAMETERS = (
    st.integers(-METHOD_NUMBER_MAX, METHOD_NUMBER_MAX)
    | st.floats(-METHOD_NUMBER_MAX, METHOD_NUMBER_MAX).map(lambda value: value + 0.0)
    | st.booleans()
    | st.text(max_size=METHOD_CHARACTERS_MAX)
)
METHOD = st.tuples(WORDS, st.dictionaries(WORDS, PARAMETERS, max_size=METHOD_MEMBERS_MAX - 1)).map(
    lambda parts: {**parts[1], "name": parts[0]}
)
ADDITIONS = st.fixed_dictionaries(
    {},
    optional={
        "methods": st.dictionaries(
            st.sampled_from(["d_hat", "coh_star", "r"]) | WORDS, METHOD, max_size=METHODS_MAX
        ),
        "direction_proof": st.binary(min_size=80, max_size=80).map(
            lambda proof: {"suite": PROOF_SUITE, "proof": base64.b64encode(proof).decode()}
        ),
    },
)


def body_of(version: str = "0.2", **added: Any) -> bytes:
    return pcs_records.body(pcs_records.document(version=version, **added))


def refusal_of(**added: Any) -> MalformedError:
    with pytest.raises(MalformedError) as caught:
        decode_record(body_of(**added))
    return caught.value


def test_both_fields_are_read_and_written_again() -> None:
    record = decode_record(body_of(methods=METHODS, direction_proof=PROOF))
    check_identity(record)
    assert record.methods == METHODS
    assert record.direction_proof is not None
    assert (record.direction_proof.suite, record.direction_proof.proof) == (PROOF["suite"], PROOF["proof"])
    document = json.loads(encode_record(record))
    assert (document["methods"], document["direction_proof"]) == (METHODS, PROOF)


@given(added=ADDITIONS)
def test_what_is_decoded_and_encoded_again_is_the_same_record(added: dict[str, Any]) -> None:
    document = pcs_records.document(version="0.2", **added)
    record = decode_record(pcs_records.body(document))
    assert json.loads(encode_record(record)) == document
    assert decode_record(encode_record(record)) == record


@pytest.mark.parametrize("version", ["0.1", "0.2", "0.37"])
def test_a_record_without_them_is_written_without_them(version: str) -> None:
    record = decode_record(body_of(version))
    assert (record.methods, record.direction_proof) == (None, None)
    assert json.loads(encode_record(record)) == pcs_records.document(version=version)


@pytest.mark.parametrize("field", ADDED_FIELDS)
def test_null_stands_for_nothing(field: str) -> None:
    assert getattr(decode_record(body_of(**{field: None})), field) is None


@pytest.mark.parametrize("field", ADDED_FIELDS)
@pytest.mark.parametrize("value", [METHODS, PROOF, 7, "text", [], {"r": 1}], ids=repr)
def test_a_record_of_0_1_verifies_as_before_whatever_stands_there(field: str, value: object) -> None:
    assert decode_record(body_of("0.1", **{field: value})) == decode_record(body_of("0.1"))


@pytest.mark.parametrize(
    ("methods", "path", "found"),
    [
        (7, "methods", "an integer"),
        ([], "methods", "a list of length 0"),
        ({f"m{position}": {"name": "a"} for position in range(17)}, "methods", "an object with 17 members"),
        ({"R": {"name": "a"}}, "methods", "an object with 1 members"),
        ({"x" * 65: {"name": "a"}}, "methods", "an object with 1 members"),
        ({"": {"name": "a"}}, "methods", "an object with 1 members"),
        ({"r": None}, "methods[...]", "members that are null"),
        ({"r": "pq"}, "methods[...]", "members that are a string of length 2"),
        ({"r": {"name": "a", "secret!": 1}}, "methods[...]", "members that are an object with 2 members"),
        (
            {"r": {"name": "a"} | {f"p{position}": 0 for position in range(16)}},
            "methods[...]",
            "members that are an object with 17 members",
        ),
        ({"r": {}}, "methods[...].name", "nothing"),
        ({"d_hat": {"name": "a"}, "r": {"x": 1}}, "methods[...].name", "nothing"),
        ({"r": {"name": ""}}, "methods[...].name", "a string of length 0"),
        ({"r": {"name": "Upper"}}, "methods[...].name", "a string of length 5"),
        ({"r": {"name": "a\n"}}, "methods[...].name", "a string of length 2"),
        ({"r": {"name": True}}, "methods[...].name", "a boolean"),
        ({"r": {"name": 1}}, "methods[...].name", "an integer"),
        (
            {"r": {"name": "a", "x": None}},
            "methods[...][...]",
            "members that are a string of length 1 or null",
        ),
        (
            {"r": {"name": "a", "x": [1]}},
            "methods[...][...]",
            "members that are a list of length 1 or a string of length 1",
        ),
        (
            {"r": {"name": "a", "x": "y" * 65}},
            "methods[...][...]",
            "members that are a string of length 1 or a string of length 65",
        ),
        (
            {"r": {"name": "a", "x": 2**53}},
            "methods[...][...]",
            "members that are a string of length 1 or an integer",
        ),
        (
            {"r": {"name": "a", "x": -(2.0**53)}},
            "methods[...][...]",
            "members that are a number with a fraction or exponent or a string of length 1",
        ),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_malformed_methods_are_named_and_not_repeated(methods: object, path: str, found: str) -> None:
    error = refusal_of(methods=methods)
    allowed = path.replace("...", "")
    assert (error.field, error.found, error.allowed) == (f"$.{path}", found, ALLOWED[allowed])
    assert "secret" not in str(error)
    assert error.__context__ is None


@pytest.mark.parametrize(
    ("proof", "path", "found"),
    [
        (7, "direction_proof", "an integer"),
        ("text", "direction_proof", "a string of length 4"),
        ({}, "direction_proof.suite", "nothing"),
        ({"suite": PROOF_SUITE}, "direction_proof.proof", "nothing"),
        (PROOF | {"suite": "another"}, "direction_proof.suite", "a string of length 7"),
        (PROOF | {"proof": ""}, "direction_proof.proof", "a string of length 0"),
        (PROOF | {"proof": "A" * 108}, "direction_proof.proof", "a string of length 108"),
        (PROOF | {"proof": "A" * 106 + "B="}, "direction_proof.proof", "a string of length 108"),
        (PROOF | {"proof": "A" * 106 + "-="}, "direction_proof.proof", "a string of length 108"),
        (PROOF | {"proof": "A" * 107 + "=\n"}, "direction_proof.proof", "a string of length 109"),
        (PROOF | {"proof": None}, "direction_proof.proof", "null"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_malformed_proof_is_named_and_not_repeated(proof: object, path: str, found: str) -> None:
    error = refusal_of(direction_proof=proof)
    assert (error.field, error.found, error.allowed) == (f"$.{path}", found, ALLOWED[path])


@given(proof=st.binary(max_size=100) | st.binary(min_size=PROOF_BYTES, max_size=PROOF_BYTES))
def test_only_the_base64_of_80_bytes_is_a_proof(proof: bytes) -> None:
    text = base64.b64encode(proof).decode()
    if len(proof) == PROOF_BYTES:
        record = decode_record(body_of(direction_proof=PROOF | {"proof": text}))
        assert record.direction_proof is not None
        assert record.direction_proof.proof == text
    else:
        assert refusal_of(direction_proof=PROOF | {"proof": text}).field == "$.direction_proof.proof"


def test_unknown_members_of_a_proof_are_ignored() -> None:
    plain = decode_record(body_of(direction_proof=PROOF))
    assert decode_record(body_of(direction_proof=PROOF | {"future": [1]})) == plain
