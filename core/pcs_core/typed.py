"""Typed decoding of untrusted values, with errors that name the field and never repeat its value.

msgspec converts and checks in C. Its own messages quote some values (a wrong enum member, for one), so on failure
only the path is taken from them, and the message is written anew from a table of what each field allows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar, cast

import msgspec

from pcs_core.errors import MalformedError

T = TypeVar("T")

_PATH = re.compile(r" - at `\$(?P<path>[^`]*)`\Z")
_KEY = re.compile(r" - at `key` in `\$(?P<path>[^`]*)`\Z")
_MISSING = re.compile(r"\AObject missing required field `(?P<name>[^`]*)`")
_UNKNOWN = re.compile(r"\AObject contains unknown field `[^`]*`")
_MEMBER = re.compile(r"\[\.\.\.\]")
_INTEGER_64_BIT = 2.0**63
"""Integers from here on come out of the JSON decoder as floating-point numbers."""

_MEMBER_KINDS_MAX = 3
_STEP = re.compile(r"\.(?P<name>[A-Za-z0-9_]+)|\[(?P<index>\d+)\]")


def describe(value: object) -> str:
    """Return what kind of thing a decoded JSON value is, without saying its value.

    >>> describe(-3), describe("abc"), describe(None)
    ('a negative integer', 'a string of length 3', 'null')
    """
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "a negative integer" if value < 0 else "an integer"
        case float() if abs(value) >= _INTEGER_64_BIT:
            return "a number too large for an integer of 64 bits"
        case float():
            return "a number with a fraction or exponent"
        case str():
            return f"a string of length {len(value)}"
        case list():
            return f"a list of length {len(value)}"
        case dict():
            return f"an object with {len(value)} members"
        case _:
            return f"a value of type {type(value).__name__}"


def convert(value: object, kind: type[T], allowed: Mapping[str, str], *, strict: bool = True) -> T:
    """Convert a decoded JSON value to `kind`.

    Args:
        value: What `orjson.loads` or `tomllib.loads` returned.
        kind: A msgspec-compatible type, its `Meta` constraints included.
        allowed: What each path below the root allows, list positions written `[]`: `{"ft.fallbacks[]": "..."}`.
        strict: Whether `"1"` is no integer, as in JSON; environment variables are converted with `False`.

    Raises:
        MalformedError: The value does not fit.
    """
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as error:
        message = str(error)
    # Outside the handler, so that the traceback does not carry msgspec's message, which may quote the value.
    raise _explain(message, value, allowed)


def _explain(message: str, value: object, allowed: Mapping[str, str]) -> MalformedError:
    found_path = _PATH.search(message) or _KEY.search(message)
    path = found_path["path"] if found_path else ""
    if missing := _MISSING.match(message):
        path, found = f"{path}.{missing['name']}", "nothing"
    elif _UNKNOWN.match(message):
        found = "an unknown member"
    else:
        found = _describe_at(value, path)
    rule = allowed.get(re.sub(r"\[[^\]]*\]", "[]", path).removeprefix("."), "another kind of value")
    return MalformedError(f"${path}", found, rule)


def _describe_at(value: object, path: str) -> str:
    """Describe what stands at a path of msgspec's, which names the keys of objects and not those of mappings."""
    values = [value]
    position = 0
    while position < len(path):
        if member := _MEMBER.match(path, position):
            position = member.end()
            values = [each for mapping in values if isinstance(mapping, dict) for each in mapping.values()]
            continue
        step = cast("re.Match[str]", _STEP.match(path, position))
        position = step.end()
        if step["name"] is not None:
            values = [cast("dict[str, object]", each)[step["name"]] for each in values]
        else:
            values = [cast("list[object]", each)[int(step["index"])] for each in values]
    if not _MEMBER.search(path):
        return describe(values[0])
    kinds = sorted({describe(each) for each in values})
    return f"members that are {' or '.join(kinds[:_MEMBER_KINDS_MAX])}"
