"""Decoding of records: every field of contract §1, and errors that never repeat what was sent."""

from __future__ import annotations

import json
import math
import traceback
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pcs_records
from pcs_core.errors import IdentityError, MalformedError, PcsError
from pcs_core.identity import is_pcs_id, is_shard_id
from pcs_core.record import (
    ADDED_FIELDS,
    ALLOWED,
    Record,
    check_identity,
    decode_record,
    encode_record,
    sent_at_s,
)

FIELDS = [
    "pcs_id",
    "schema",
    "version",
    "shard_id",
    "epoch",
    "attempt",
    "sent_at",
    "seed",
    "scales",
    "N_j",
    "D_hat",
    "coh_star",
    "v_star",
    "r",
    "regime",
    "budget",
    "merkle_root",
    "sig",
    "ft",
]
FT_FIELDS = ["outbox_seq", "degraded", "fallbacks", "clock_skew_ms"]
PATHS = FIELDS + [f"ft.{name}" for name in FT_FIELDS]
INTEGERS = ["epoch", "attempt", "seed", "ft.outbox_seq", "ft.clock_skew_ms"]
NUMBERS = ["D_hat", "coh_star", "r", "budget"]
STRINGS = ["pcs_id", "schema", "version", "shard_id", "sent_at", "regime", "merkle_root", "sig"]
REMOVED = object()


def right_types(path: str) -> set[type]:
    """Return the types a field may have, its range apart."""
    if path in INTEGERS:
        return {int}
    if path in NUMBERS:
        return {int, float}
    if path in STRINGS:
        return {str}
    return {"N_j": {dict}, "ft": {dict}, "ft.degraded": {bool}}.get(path, {list})


def with_value(path: str, value: object) -> dict[str, Any]:
    """Return a document in which the member at a path such as `ft.degraded` or `v_star.1` is replaced or removed."""
    document = deepcopy(pcs_records.document())
    *outer, last = path.split(".")
    node: Any = document
    for step in outer:
        node = node[int(step)] if isinstance(node, list) else node[step]
    if value is REMOVED:
        del node[last]
    else:
        node[int(last) if isinstance(node, list) else last] = value
    return document


def decode(document: dict[str, Any]) -> Record:
    return decode_record(pcs_records.body(document))


def refusal(body: bytes) -> MalformedError:
    with pytest.raises(MalformedError) as caught:
        decode_record(body)
    return caught.value


def refusal_of(path: str, value: object) -> MalformedError:
    return refusal(pcs_records.body(with_value(path, value)))


def test_a_valid_record_decodes_to_what_was_sent() -> None:
    document = pcs_records.document()
    record = decode(document)
    assert {name: getattr(record, name.lower()) for name in FIELDS if name != "ft"} == {
        name: document[name] for name in FIELDS if name != "ft"
    }
    assert {name: getattr(record.ft, name) for name in FT_FIELDS} == document["ft"]
    assert record.counts == [3, 5, 9, 17, 32]
    check_identity(record)


def test_the_tests_know_every_field_of_the_record() -> None:
    assert set(pcs_records.document()) == set(FIELDS)
    paths = {path for path in ALLOWED if path and "[]" not in path and path.split(".")[0] not in ADDED_FIELDS}
    assert paths == set(PATHS)


# Missing and wrong types


@pytest.mark.parametrize("path", PATHS)
def test_a_missing_field_is_malformed_and_named(path: str) -> None:
    """L11."""
    error = refusal_of(path, REMOVED)
    assert error.field == f"$.{path}"
    assert error.found == "nothing"
    assert error.allowed == ALLOWED[path]


WRONG_TYPES = [
    (path, value)
    for path in PATHS
    for value in (None, [], {}, "", 7, True, 0.5, "text", ["text"], {"key": 1})
    if type(value) not in right_types(path)
]


@pytest.mark.parametrize(("path", "value"), WRONG_TYPES, ids=repr)
def test_a_value_of_a_wrong_type_is_malformed_and_named(path: str, value: object) -> None:
    """L11, L12."""
    error = refusal_of(path, value)
    assert error.field == f"$.{path}"
    assert error.allowed == ALLOWED[path]


@pytest.mark.parametrize("path", [*INTEGERS, "scales.1", "N_j.4"])
@pytest.mark.parametrize("text", ["1.0", "true", '"1"', "1e0", "5.0", "null", "-1.5"])
def test_an_integer_has_no_fraction_and_is_no_boolean(path: str, text: str) -> None:
    """L12."""
    body = pcs_records.body(with_value(path, "@")).replace(b'"@"', text.encode())
    error = refusal(body)
    assert error.field.startswith("$." + path.split(".", maxsplit=1)[0])


@pytest.mark.parametrize("path", [*NUMBERS, "v_star.0"])
@pytest.mark.parametrize("value", [True, "0.5", None], ids=repr)
def test_a_number_is_neither_boolean_nor_string(path: str, value: object) -> None:
    assert refusal_of(path, value).field.startswith("$." + path.split(".", maxsplit=1)[0])


@pytest.mark.parametrize("path", NUMBERS)
def test_a_number_field_takes_integers_as_floats(path: str) -> None:
    record = decode(with_value(path, 1))
    value = getattr(record, path.lower())
    assert (type(value), value) == (float, 1.0)


# Ranges


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("epoch", 0),
        ("epoch", 2**53 - 1),
        ("attempt", 1),
        ("attempt", 10**9),
        ("seed", 0),
        ("seed", 2**63 - 1),
        ("N_j.4", 1),
        ("N_j.4", 2**53 - 1),
        ("budget", 0),
        ("budget", 1),
        ("D_hat", -1e308),
        ("coh_star", 1e308),
        ("r", -5.0),
        ("r", 7),
        ("v_star", []),
        ("v_star", [0.5] * 4096),
        ("v_star", [1, 2]),
        ("shard_id", "a"),
        ("shard_id", "Az09._:/@+-" * 11 + "1234567"),
        ("version", "0.1"),
        ("version", "0.2"),
        ("version", "0.37"),
        ("regime", "mixed"),
        ("regime", "non_sticky"),
        ("sig", ""),
        ("ft.outbox_seq", 0),
        ("ft.degraded", True),
        ("ft.fallbacks", ["x" * 64] * 16),
        ("ft.fallbacks", [""]),
        ("ft.clock_skew_ms", -86_400_000),
    ],
    ids=lambda value: str(value)[:40],
)
def test_values_at_the_edge_of_their_range_are_taken(path: str, value: object) -> None:
    record = decode(with_value(path, value))
    document = json.loads(encode_record(record))
    *outer, last = path.split(".")
    for step in outer:
        document = document[step]
    assert document[last] == value


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("pcs_id", "0" * 63, "$.pcs_id"),
        ("pcs_id", "0" * 65, "$.pcs_id"),
        ("pcs_id", "A" * 64, "$.pcs_id"),
        ("pcs_id", "g" * 64, "$.pcs_id"),
        ("pcs_id", "0" * 64 + "\n", "$.pcs_id"),
        ("pcs_id", "０" * 64, "$.pcs_id"),
        ("merkle_root", "A" * 64, "$.merkle_root"),
        ("merkle_root", "0" * 64 + "\n", "$.merkle_root"),
        ("schema", "fractal-lba", "$.schema"),
        ("schema", "Fractal-LBA-Kakeya", "$.schema"),
        ("version", "1.0", "$.version"),
        ("version", "99", "$.version"),
        ("version", "0", "$.version"),
        ("version", "0.x", "$.version"),
        ("version", "00.1", "$.version"),
        ("version", "0.1\n", "$.version"),
        ("version", "0.1.2", "$.version"),
        ("shard_id", "", "$.shard_id"),
        ("shard_id", "s" * 129, "$.shard_id"),
        ("shard_id", "a|b", "$.shard_id"),
        ("shard_id", "a b", "$.shard_id"),
        ("shard_id", "ü", "$.shard_id"),
        ("shard_id", "a\n", "$.shard_id"),
        ("shard_id", "a\x00", "$.shard_id"),
        ("shard_id", 'a"', "$.shard_id"),
        ("shard_id", "a\\", "$.shard_id"),
        ("epoch", -1, "$.epoch"),
        ("epoch", 2**53, "$.epoch"),
        ("epoch", 2**64, "$.epoch"),
        ("epoch", 10**30, "$.epoch"),
        ("attempt", 0, "$.attempt"),
        ("attempt", -1, "$.attempt"),
        ("seed", -1, "$.seed"),
        ("seed", 2**63, "$.seed"),
        ("seed", 2**64, "$.seed"),
        ("scales", [], "$.scales"),
        ("scales", [2], "$.scales"),
        ("scales", [0, 2, 4, 8, 16, 32], "$.scales[0]"),
        ("scales", [-2, 4], "$.scales[0]"),
        ("scales", [2, 2**64], "$.scales[1]"),
        ("N_j.4", 0, "$.N_j[...]"),
        ("N_j.4", -5, "$.N_j[...]"),
        ("N_j.4", 2**53, "$.N_j[...]"),
        ("N_j.4", 10**30, "$.N_j[...]"),
        ("v_star", [0.5] * 4097, "$.v_star"),
        ("v_star", [0.5, None], "$.v_star[1]"),
        ("regime", "Sticky", "$.regime"),
        ("regime", "non-sticky", "$.regime"),
        ("budget", -0.000001, "$.budget"),
        ("budget", 1.000001, "$.budget"),
        ("budget", 2, "$.budget"),
        ("ft.outbox_seq", -1, "$.ft.outbox_seq"),
        ("ft.fallbacks", ["x"] * 17, "$.ft.fallbacks"),
        ("ft.fallbacks", ["ok", "x" * 65], "$.ft.fallbacks[1]"),
        ("ft.fallbacks", ["ok", 7], "$.ft.fallbacks[1]"),
        ("ft.clock_skew_ms", 2**64, "$.ft.clock_skew_ms"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_values_outside_their_range_are_malformed_and_named(path: str, value: object, field: str) -> None:
    """L11, L12, L22."""
    assert refusal_of(path, value).field == field


@pytest.mark.parametrize("scales", [[4, 2], [2, 2], [2, 4, 4], [2, 8, 4, 16]], ids=str)
def test_scales_that_do_not_increase_are_malformed(scales: list[int]) -> None:
    """L12."""
    document = pcs_records.document() | {"scales": scales, "N_j": {str(scale): 3 for scale in scales}}
    assert refusal(pcs_records.body(document)).field == "$.scales"


@pytest.mark.parametrize("count", [33, 34, 5_000])
def test_more_than_32_scales_are_malformed_before_any_work_on_them(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L13. The bound is found by the typed conversion: nothing of the record's own checks has run."""
    monkeypatch.setattr(
        "pcs_core.record._check_scales", lambda _record: pytest.fail("reached the pairwise check")
    )
    monkeypatch.setattr("pcs_core.record.sent_at_s", lambda _record: pytest.fail("reached the time"))
    scales = list(range(1, count + 1))
    document = pcs_records.document() | {"scales": scales, "N_j": {str(scale): scale for scale in scales}}
    error = refusal(pcs_records.body(document))
    assert (error.field, error.found) == ("$.scales", f"a list of length {count}")


def test_thirty_two_scales_are_taken() -> None:
    """L13."""
    scales = list(range(1, 33))
    assert decode(pcs_records.document(scales=scales, N_j={str(s): s for s in scales})).scales == scales


@pytest.mark.parametrize(
    "keys",
    [
        ["2", "4", "8", "16"],
        ["2", "4", "8", "16", "32", "64"],
        ["2", "4", "8", "16", "33"],
        ["2", "4", "8", "16", "032"],
        ["2", "4", "8", "16", "32.0"],
        ["2", "4", "8", "16", " 32"],
        ["2", "4", "8", "16", "٣٢"],
        [],
    ],
    ids=ascii,
)
def test_counts_whose_keys_are_not_exactly_the_scales_are_malformed(keys: list[str]) -> None:
    """L11, L12."""
    document = pcs_records.document() | {"N_j": dict.fromkeys(keys, 3)}
    error = refusal(pcs_records.body(document))
    assert error.field == "$.N_j"
    assert error.allowed == ALLOWED["N_j"]


# The document itself


def test_of_equal_keys_the_last_counts() -> None:
    body = pcs_records.body(pcs_records.document())
    twice = b'{"epoch": "first", "N_j": 7, ' + body[1:]
    assert decode_record(twice) == decode_record(body)
    twice = body[:-1] + b', "attempt": 9}'
    assert decode_record(twice).attempt == 9
    twice = body.replace(b'"N_j": {"2": 3,', b'"N_j": {"2": 3, "2": 4,')
    assert decode_record(twice).n_j["2"] == 4


def test_of_equal_keys_a_bad_last_one_counts_too() -> None:
    body = pcs_records.body(pcs_records.document())
    assert refusal(body[:-1] + b', "epoch": -1}').field == "$.epoch"


def test_unknown_fields_are_ignored_at_both_levels() -> None:
    document = pcs_records.document()
    extended = document | {
        "future": {"deep": [1]},
        "ft": document["ft"] | {"future": None},
        "d_hat": 9,
        "n_j": 9,
    }
    assert decode(extended) == decode(document)


@pytest.mark.parametrize("value", [None, True, 1, 0.5, "{}", [], [{}]], ids=repr)
def test_a_document_that_is_no_object_is_malformed(value: object) -> None:
    error = refusal(json.dumps(value).encode())
    assert (error.field, error.allowed) == ("$", ALLOWED[""])


def test_an_empty_object_names_the_first_missing_field() -> None:
    """L11."""
    assert refusal(b"{}").field == "$.pcs_id"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"{}{}",
        b'{"epoch": 1,}',
        b"\xef\xbb\xbf{}",
        b'{"shard_id": "\xff"}',
        b'{"shard_id": "\xed\xa0\x80"}',
        b'{"\xc3": 1}',
        b'{"shard_id": "\\ud800"}',
        '{"epoch": 1}'.encode("utf-16"),
        b'{"D_hat": NaN}',
        b'{"D_hat": Infinity}',
        b'{"D_hat": -Infinity}',
        b'{"D_hat": 1e999}',
        b'{"D_hat": -1e999}',
        b'{"D_hat": 01}',
        b'{"D_hat": .5}',
        b'{"epoch": ' + b"9" * 5_000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"x": 1} // comment',
        b'\x00{"x": 1}',
    ],
    ids=lambda body: ascii(body)[:40],
)
def test_bytes_that_are_not_json_in_utf8_are_malformed(body: bytes) -> None:
    error = refusal(body)
    assert error.field == "$"
    assert error.allowed == ALLOWED[""]
    assert error.found.startswith(f"{len(body)} bytes that are not JSON in UTF-8 (line ")


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
@pytest.mark.parametrize("path", [*NUMBERS, "v_star.1"])
def test_numbers_that_are_not_finite_are_malformed_in_every_field(path: str, text: str) -> None:
    body = pcs_records.body(with_value(path, "@")).replace(b'"@"', text.encode())
    assert refusal(body).field == "$"


def test_numbers_too_small_for_a_float_are_zero() -> None:
    body = pcs_records.body(with_value("D_hat", "@")).replace(b'"@"', b"1e-400")
    assert decode_record(body).d_hat == 0.0


def test_negative_zero_is_taken() -> None:
    record = decode(with_value("coh_star", -0.0))
    assert (record.coh_star, math.copysign(1, record.coh_star)) == (0.0, -1.0)


def test_nesting_within_an_unknown_field_does_no_harm() -> None:
    body = pcs_records.body(pcs_records.document())
    nested = body[:-1] + b', "x": ' + b"[" * 900 + b"]" * 900 + b"}"
    assert decode_record(nested) == decode_record(body)


# sent_at


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0.0),
        ("2026-11-21T08:15:30Z", datetime(2026, 11, 21, 8, 15, 30, tzinfo=UTC).timestamp()),
        ("2026-11-21t08:15:30z", datetime(2026, 11, 21, 8, 15, 30, tzinfo=UTC).timestamp()),
        ("2026-11-21T08:15:30+00:00", datetime(2026, 11, 21, 8, 15, 30, tzinfo=UTC).timestamp()),
        ("2026-11-21T08:15:30-00:00", datetime(2026, 11, 21, 8, 15, 30, tzinfo=UTC).timestamp()),
        ("2026-11-21T08:15:30.5Z", datetime(2026, 11, 21, 8, 15, 30, 500_000, tzinfo=UTC).timestamp()),
        (
            "2026-11-21T08:15:30.250000001Z",
            datetime(2026, 11, 21, 8, 15, 30, 250_000, tzinfo=UTC).timestamp(),
        ),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC).timestamp()),
        ("2016-12-31T23:59:60.5Z", datetime(2017, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC).timestamp()),
        ("2024-02-29T00:00:00Z", datetime(2024, 2, 29, tzinfo=UTC).timestamp()),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC).timestamp()),
        ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()),
    ],
)
def test_sent_at_is_read_in_every_form_of_rfc_3339_in_utc(text: str, expected: float) -> None:
    assert sent_at_s(decode(with_value("sent_at", text))) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-11-21",
        "2026-11-21T08:15:30",
        "2026-11-21 08:15:30Z",
        "2026-11-21T08:15Z",
        "2026-11-21T08:15:30+01:00",
        "2026-11-21T08:15:30+0000",
        "2026-11-21T08:15:30.Z",
        "2026-11-21T08:15:30,5Z",
        "2026-11-21T08:15:30Z\n",
        " 2026-11-21T08:15:30Z",
        "2026-13-01T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "2026-11-21T24:00:00Z",
        "2026-11-21T08:60:00Z",
        "2026-11-21T08:15:61Z",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:60Z",
        "12026-11-21T08:15:30Z",
        "２０２６-11-21T08:15:30Z",
        "2026-W47-6T08:15:30Z",
        "1763712930",
    ],
)
def test_sent_at_in_any_other_form_is_malformed(text: str) -> None:
    error = refusal_of("sent_at", text)
    assert (error.field, error.found) == ("$.sent_at", f"a string of length {len(text)}")


# Identity


@pytest.mark.parametrize(
    ("path", "value"),
    [("epoch", 8), ("shard_id", "shard-b"), ("merkle_root", "0" * 64), ("pcs_id", "0" * 64)],
)
def test_a_pcs_id_that_is_not_the_hash_of_its_parts_is_an_identity_error(path: str, value: object) -> None:
    """L8, L22."""
    record = decode(with_value(path, value))
    with pytest.raises(IdentityError) as caught:
        check_identity(record)
    assert record.pcs_id not in str(caught.value)


def test_fields_outside_the_identity_do_not_change_it() -> None:
    for path, value in [("attempt", 2), ("D_hat", 5.0), ("sig", "AAAA"), ("ft.degraded", True)]:
        check_identity(decode(with_value(path, value)))


@given(st.text(max_size=140))
def test_no_shard_id_has_a_bar_or_needs_escaping(text: str) -> None:
    """L22."""
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/@+-")
    assert is_shard_id(text) is (1 <= len(text) <= 128 and set(text) <= allowed)


def test_a_pcs_id_has_64_lower_case_hex_digits() -> None:
    good = "0123456789abcdef" * 4
    assert [is_pcs_id(text) for text in (good, good.upper(), good[1:], good + "0", good + "\n", "")] == [
        True,
        False,
        False,
        False,
        False,
        False,
    ]


# Errors never repeat a value

CANARY = "canary-7f3e9d"
CANARY_NUMBER = -718281828459


@pytest.mark.parametrize("path", [*PATHS, "v_star.1", "scales.1", "N_j.4"])
@pytest.mark.parametrize(
    "value",
    [
        f"{CANARY} with spaces",
        [CANARY],
        {CANARY: CANARY},
        [[CANARY]] * 5_000,
        CANARY_NUMBER,
        CANARY_NUMBER / 1000,
        float(CANARY_NUMBER),
        CANARY_NUMBER * 10**20,
        CANARY * 100 + "\n",
    ],
    ids=[
        "string",
        "list",
        "object",
        "long list",
        "integer",
        "fraction",
        "whole float",
        "big integer",
        "long string",
    ],
)
def test_the_error_holds_no_value_from_the_record_whatever_field_is_wrong(path: str, value: object) -> None:
    try:
        decode(with_value(path, value))
    except PcsError as error:
        refused = error
    else:
        # Only these have no bounds that such a value breaks.
        assert path in {"D_hat", "coh_star", "r", "sig", "v_star.1", "ft.clock_skew_ms", "ft.fallbacks"}
        return
    text = "".join([str(refused), repr(refused), *traceback.format_exception(refused)])
    assert CANARY not in text
    assert "718281828" not in text
    assert len(str(refused)) < 300
    assert (refused.__context__, refused.__cause__) == (None, None), "a chained error may carry the value"


@pytest.mark.parametrize(
    "body",
    [
        f'{{"{CANARY}": 1, "epoch"'.encode(),
        f'"{CANARY}'.encode(),
        f'{{"shard_id": "{CANARY}\\ud800"}}'.encode(),
        CANARY.encode() + b"\xff",
    ],
    ids=ascii,
)
def test_the_error_holds_nothing_of_bytes_that_are_not_json(body: bytes) -> None:
    error = refusal(body)
    assert CANARY not in "".join([str(error), repr(error), *traceback.format_exception(error)])
    assert error.__context__ is None
    assert error.__cause__ is None


def test_the_error_does_not_name_keys_that_the_sender_chose() -> None:
    document = pcs_records.document()
    document["N_j"][CANARY] = 0
    assert CANARY not in str(refusal(pcs_records.body(document)))
    document["N_j"][CANARY] = 1
    assert CANARY not in str(refusal(pcs_records.body(document)))


# Round trip

finite = st.floats(allow_nan=False, allow_infinity=False).map(lambda value: value + 0.0)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    scales = sorted(draw(st.sets(st.integers(1, 2**40), min_size=2, max_size=32)))
    counts = {str(scale): draw(st.integers(1, 2**53 - 1)) for scale in scales}
    return pcs_records.document() | {
        "shard_id": draw(st.text("azAZ09._:/@+-", min_size=1, max_size=128)),
        "epoch": draw(st.integers(0, 2**53 - 1)),
        "attempt": draw(st.integers(1, 2**40)),
        "seed": draw(st.integers(0, 2**63 - 1)),
        "scales": scales,
        "N_j": counts,
        "D_hat": draw(finite),
        "coh_star": draw(finite),
        "v_star": draw(st.lists(finite, max_size=20)),
        "r": draw(finite),
        "regime": draw(st.sampled_from(["sticky", "mixed", "non_sticky"])),
        "budget": draw(st.floats(0, 1).map(lambda value: value + 0.0)),
        "merkle_root": draw(st.binary(min_size=32, max_size=32)).hex(),
        "sig": draw(st.text(max_size=100)),
        "ft": {
            "outbox_seq": draw(st.integers(0, 2**40)),
            "degraded": draw(st.booleans()),
            "fallbacks": draw(st.lists(st.text(max_size=64), max_size=16)),
            "clock_skew_ms": draw(st.integers(-(2**40), 2**40)),
        },
    }


@given(documents())
def test_what_is_decoded_and_encoded_again_is_the_same_record(document: dict[str, Any]) -> None:
    record = decode(document)
    encoded = encode_record(record)
    assert json.loads(encoded) == document
    assert decode_record(encoded) == record


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_malformed_and_nothing_else_is_raised(body: bytes) -> None:
    assert refusal(body).field.startswith("$")


@given(
    path=st.sampled_from([*PATHS, "v_star.0", "scales.0", "N_j.2"]),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | finite | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=8,
    ),
)
def test_any_json_value_in_any_field_decodes_or_is_malformed(path: str, value: object) -> None:
    try:
        body = pcs_records.body(with_value(path, value))
    except UnicodeEncodeError:
        return  # a lone surrogate cannot be sent
    try:
        record = decode_record(body)
    except MalformedError as error:
        assert error.field.startswith("$")  # noqa: PT017 - either outcome is right
    else:
        assert isinstance(record, Record)


def test_encoding_writes_compact_json_in_the_contracts_order() -> None:
    encoded = encode_record(decode(pcs_records.document()))
    assert list(json.loads(encoded)) == FIELDS
    assert list(json.loads(encoded)["ft"]) == FT_FIELDS
    assert b" " not in encoded
    assert b"\n" not in encoded


def test_a_record_cannot_be_changed() -> None:
    record = decode(pcs_records.document())
    with pytest.raises(AttributeError):
        record.epoch = 9  # type: ignore[misc]
    assert msgspec.structs.replace(record, epoch=9).epoch == 9
