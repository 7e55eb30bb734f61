"""Taking labels in: what somebody says of a record that was judged before, beside the signals that were stored with it.

A label without the record's stored signals is worth nothing, so the outcome is looked up, and what it does not have is
said: whoever labels cannot bring signals along. What a call accepted is durable when it returns. Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

import msgspec
import orjson
from msgspec import Meta

from pcs_backend.conformal.calibration import Label, Labelled
from pcs_backend.conformal.provenance import read_provenance
from pcs_backend.conformal.store import Calibrations
from pcs_backend.exchange import Reply
from pcs_backend.outcome import Key, Outcome
from pcs_backend.problems import Problem, malformed_reply
from pcs_core.errors import MalformedError
from pcs_core.keyring import DEFAULT_TENANT
from pcs_core.ports import WallClock
from pcs_core.typed import convert

LABELS_PATH = "/v1/calibration/labels"

LABEL_LINES_MAX = 1_000
"""Labels in one request."""

BY_CHARACTERS_MAX = 128

STORED_BY_CHARACTERS_MAX = 512
"""Of who labelled and how it was found out who sent it, together."""

LABELLER_CHARACTERS_MAX = 256

_PCS_ID_RULE = "64 lower-case hex digits"
_TENANT_RULE = "1 to 63 characters of a-z 0-9 . _ -, the first a letter or digit"
_Digest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_NoDigest = Annotated[str, Meta(pattern=r"\A(?:[0-9a-f]{64})?\Z")]
_Tenant = Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9._-]{0,62}\Z")]
_Time = Annotated[int, Meta(ge=0, le=2**53)]
_By = Annotated[str, Meta(pattern=rf"\A[\w .:/@+-]{{1,{BY_CHARACTERS_MAX}}}\Z")]

Get = Callable[[Sequence[Key]], Awaitable[list[Outcome | None]]]
"""Returns the stored outcome of each key, in order."""


class Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A label as it is sent.

    Attributes:
        pcs_id: Of which record.
        label: What it was.
        by: Who says so.
        picked_by_verdict: Whether its verdict was the reason to look at it; unsaid, it counts as if it was, whatever the verdict.
        tenant: Whose record; the sender's own if unsaid.
    """

    pcs_id: _Digest
    label: Label
    by: _By
    picked_by_verdict: bool | None = None
    tenant: _Tenant | None = None


ALLOWED: Mapping[str, str] = {
    "": "an object with only these names: " + ", ".join(Said.__struct_fields__),
    "pcs_id": _PCS_ID_RULE,
    "label": "benign or bad",
    "by": f"1 to {BY_CHARACTERS_MAX} letters, digits or characters of . _ : / @ + - and blanks",
    "picked_by_verdict": "true or false, or left out",
    "tenant": f"{_TENANT_RULE}, or left out",
}
"""What each field of a label allows."""


class _Whole(Labelled, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A label with its signals, from a file."""

    tenant: _Tenant
    pcs_id: _Digest
    by: Annotated[str, Meta(pattern=rf"\A[^\x00-\x1f\x7f]{{1,{STORED_BY_CHARACTERS_MAX}}}\Z")]
    status: Literal[200, 202]
    sets: tuple[_NoDigest, _NoDigest] = ("", "")
    stored_at_ms: _Time
    labelled_at_ms: _Time


WHOLE_ALLOWED: Mapping[str, str] = {
    **ALLOWED,
    "": "an object with only these names: " + ", ".join(_Whole.__struct_fields__),
    "tenant": _TENANT_RULE,
    "by": f"1 to {STORED_BY_CHARACTERS_MAX} characters that can be printed",
    "picked_by_verdict": "true or false",
    "signals": "a list of three numbers",
    "signals[]": "a finite number",
    "status": "200 or 202",
    "sets": "a list of two digests, each empty or 64 lower-case hex digits",
    "stored_at_ms": "milliseconds since 1970",
    "labelled_at_ms": "milliseconds since 1970",
}
"""What each field of a label in a file allows."""


class Labeller(NamedTuple):
    """Who sends labels.

    Attributes:
        name: How it was found out who it is: written beside who is said to have labelled.
        tenant: Whose records it may label; `None` for those of all.
    """

    name: str
    tenant: str | None


class Labelling:
    """Takes labels in, over the stores."""

    def __init__(self, get: Get, calibrations: Calibrations, now: WallClock) -> None:
        """Take where outcomes and labels lie.

        Args:
            get: Asks for stored outcomes.
            calibrations: Where labels go.
            now: Stamps labels.
        """
        self._get = get
        self._calibrations = calibrations
        self._now = now

    async def take(self, lines: Sequence[bytes], labeller: Labeller) -> list[Reply]:
        """Take labels in. Of two for one record the later line counts.

        Args:
            lines: One JSON object each, at most `LABEL_LINES_MAX`.
            labeller: Who sends them.

        Returns:
            What becomes of each, in order. Labels answered 200 are durable.

        Raises:
            UnavailableError: The store is down, or cannot read an outcome. Labels may be kept, each of them whole.
        """
        read = [_read(line, labeller) for line in lines]
        keys = [each.key for each in read if isinstance(each, _Addressed)]
        outcomes = iter(await self._get(keys) if keys else [])
        now_ms = int(self._now() * 1_000)
        kept: dict[Key, Labelled] = {}
        replies = []
        for each in read:
            if isinstance(each, Reply):
                replies.append(each)
                continue
            found = _label(each, next(outcomes), labeller, now_ms)
            if isinstance(found, Labelled):
                kept.pop(each.key, None)  # so that the order is that of the lines that count
                kept[each.key] = found
                found = _taken(found)
            replies.append(found)
        if kept:
            await self._calibrations.put_labels(list(kept.values()))
        return replies


def is_whole(line: bytes) -> bool:
    """Whether a line is a label with its signals, as `calibrate export` writes it."""
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return isinstance(document, dict) and "signals" in document


def read_whole(line: bytes) -> Labelled:
    """Read a label with its signals.

    Raises:
        MalformedError: It is not one.
    """
    whole = convert(orjson.loads(line), _Whole, WHOLE_ALLOWED)
    return Labelled(**msgspec.structs.asdict(whole))


class _Addressed(NamedTuple):
    """A label, and the record that it is of."""

    said: Said
    key: Key


def _read(line: bytes, labeller: Labeller) -> _Addressed | Reply:
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError:  # its message quotes the line
        return malformed_reply(MalformedError("$", f"{len(line)} bytes that are no JSON", ALLOWED[""]))
    try:
        said = convert(document, Said, ALLOWED)
    except MalformedError as error:
        return malformed_reply(error)
    if said.tenant is not None and labeller.tenant not in (None, said.tenant):
        return Problem.BAD_SIGNATURE.reply(
            "$.tenant: found another than that of the credentials; allowed: their own, or none",
            field="$.tenant",
        )
    return _Addressed(said, Key(said.tenant or labeller.tenant or DEFAULT_TENANT, said.pcs_id))


def _label(
    addressed: _Addressed, outcome: Outcome | None, labeller: Labeller, now_ms: int
) -> Labelled | Reply:
    """Return a label with what was stored with its outcome, or why there can be none."""
    said = addressed.said
    if outcome is None:
        return Problem.NOT_FOUND.reply(
            "$.pcs_id: found one without a stored outcome; allowed: that of a record that was accepted or escalated",
            field="$.pcs_id",
        )
    try:
        provenance = read_provenance(outcome.provenance)
    except msgspec.MsgspecError:  # its message may quote a value
        provenance = None
    if provenance is None:
        return Problem.NO_SIGNALS.reply(
            "$.pcs_id: found an outcome that was stored without signals; allowed: one that was stored while "
            "ENABLE_CALIBRATION_LOGGING or ENABLE_CONFORMAL_GATE was true",
            field="$.pcs_id",
        )
    return Labelled(
        tenant=outcome.tenant,
        pcs_id=outcome.pcs_id,
        label=said.label,
        by=f"{said.by} ({_printable(labeller.name)})",
        signals=provenance.signals,
        # Unsaid, it must not depend on the verdict either: a sample without its escalated records has lost its odd ones, and
        # a set made of the rest refuses more than it promises, the next one more still.
        picked_by_verdict=said.picked_by_verdict is not False,
        status=outcome.status,
        sets=provenance.sets,
        stored_at_ms=outcome.stored_at_ms,
        labelled_at_ms=now_ms,
    )


def _taken(labelled: Labelled) -> Reply:
    body = {
        "pcs_id": labelled.pcs_id,
        "tenant": labelled.tenant,
        "label": labelled.label,
        "picked_by_verdict": labelled.picked_by_verdict,
    }
    return Reply(200, orjson.dumps(body))


def _printable(name: str) -> str:
    """Return a name as it may stand in a list or a log: whoever made a certificate chose it."""
    return "".join(each for each in name if each.isprintable())[:LABELLER_CHARACTERS_MAX]
