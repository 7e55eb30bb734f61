"""Typed conversion: the path is named, the value never."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from pcs_core.errors import MalformedError
from pcs_core.typed import convert, describe


class Inner(msgspec.Struct):
    count: Annotated[int, Meta(ge=1)]
    names: list[str]


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    inner: Inner
    table: dict[str, Annotated[int, Meta(ge=1)]] = {}
    rows: list[Inner] = []
    kind: Literal["a", "b"] = "a"
    words: dict[Annotated[str, Meta(pattern="^[a-z]$")], dict[str, int]] = {}


ALLOWED = {
    "": "the whole",
    "inner": "an inner",
    "inner.count": "a count",
    "inner.names[]": "a name",
    "rows[].count": "a row's count",
    "table[]": "a cell",
    "kind": "a or b",
    "words": "words",
    "words[][]": "a number",
}
GOOD = {"count": 1, "names": ["x"]}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "a boolean"),
        (0, "an integer"),
        (7, "an integer"),
        (-7, "a negative integer"),
        (10**40, "an integer"),
        (1.0, "a number with a fraction or exponent"),
        ("", "a string of length 0"),
        ("secret", "a string of length 6"),
        ([1, 2], "a list of length 2"),
        ({"secret": 1}, "an object with 1 members"),
        (b"secret", "a value of type bytes"),
    ],
)
def test_a_description_tells_kind_and_length_only(value: object, text: str) -> None:
    assert describe(value) == text


def test_a_value_that_fits_is_converted() -> None:
    outer = convert({"inner": GOOD, "table": {"k": 2}}, Outer, ALLOWED)
    assert (outer.inner.count, outer.inner.names, outer.table, outer.kind) == (1, ["x"], {"k": 2}, "a")


@pytest.mark.parametrize(
    ("value", "field", "found", "allowed"),
    [
        ({}, "$.inner", "nothing", "an inner"),
        ("secret", "$", "a string of length 6", "the whole"),
        ({"inner": 7}, "$.inner", "an integer", "an inner"),
        ({"inner": {"names": []}}, "$.inner.count", "nothing", "a count"),
        ({"inner": GOOD | {"count": 0}}, "$.inner.count", "an integer", "a count"),
        ({"inner": GOOD | {"count": "secret"}}, "$.inner.count", "a string of length 6", "a count"),
        ({"inner": GOOD | {"names": ["x", 7]}}, "$.inner.names[1]", "an integer", "a name"),
        (
            {"inner": GOOD, "rows": [GOOD, GOOD | {"count": -1}]},
            "$.rows[1].count",
            "a negative integer",
            "a row's count",
        ),
        ({"inner": GOOD, "rows": [GOOD, {"names": []}]}, "$.rows[1].count", "nothing", "a row's count"),
        ({"inner": GOOD, "table": {"secret": 0}}, "$.table[...]", "members that are an integer", "a cell"),
        (
            {"inner": GOOD, "table": {"secret": 0, "other": "x", "third": 1}},
            "$.table[...]",
            "members that are a string of length 1 or an integer",
            "a cell",
        ),
        (
            {"inner": GOOD | {"count": 2.0**64}},
            "$.inner.count",
            "a number too large for an integer of 64 bits",
            "a count",
        ),
        ({"inner": GOOD, "kind": "secret"}, "$.kind", "a string of length 6", "a or b"),
        ({"inner": GOOD, "secret": 1}, "$", "an unknown member", "the whole"),
        ({"inner": GOOD, "words": {"secret": {}}}, "$.words", "an object with 1 members", "words"),
        (
            {"inner": GOOD, "words": {"a": {"secret": "x"}, "b": {"other": 1}, "c": 7}},
            "$.words[...][...]",
            "members that are a string of length 1 or an integer",
            "a number",
        ),
        ({"inner": GOOD | {"names": 7}}, "$.inner.names", "an integer", "another kind of value"),
    ],
    ids=str,
)
def test_an_error_names_path_kind_and_what_is_allowed(
    value: Any, field: str, found: str, allowed: str
) -> None:
    with pytest.raises(MalformedError) as caught:
        convert(value, Outer, ALLOWED)
    assert (caught.value.field, caught.value.found, caught.value.allowed) == (field, found, allowed)
    assert str(caught.value) == f"{field}: found {found}; allowed: {allowed}"
    assert "secret" not in str(caught.value)
    assert (caught.value.__context__, caught.value.__cause__) == (None, None)


def test_strings_are_no_numbers_unless_asked_for_as_in_an_environment() -> None:
    with pytest.raises(MalformedError):
        convert("7", int, {})
    assert convert("7", int, {}, strict=False) == 7
    with pytest.raises(MalformedError) as caught:
        convert("secret", int, {"": "an integer"}, strict=False)
    assert str(caught.value) == "$: found a string of length 6; allowed: an integer"
