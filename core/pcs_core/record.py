"""The PCS record (contract §1): its types, its decoding with a JSON path in every error, its encoding.

The JSON spellings live here alone; everywhere else the names are `d_hat` and `n_j`.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Literal

import msgspec
import orjson
from msgspec import Meta

from pcs_core.errors import IdentityError, MalformedError
from pcs_core.identity import (
    EPOCH_MAX,
    HEX_DIGEST_PATTERN,
    SHARD_ID_PATTERN,
    SHARD_ID_RULE,
    PcsId,
    ShardId,
    compute_pcs_id,
)
from pcs_core.regime import Regime
from pcs_core.typed import convert, describe
from pcs_core.vrf import PROOF_BYTES

SCHEMA: Literal["fractal-lba-kakeya"] = "fractal-lba-kakeya"
VERSION_FIRST, VERSION = "0.1", "0.2"
"""A record that uses nothing of 0.2 stays one of 0.1: backends of either version read it."""

SCALES_MIN, SCALES_MAX = 2, 32
COUNT_MAX = 2**53 - 1
SEED_MAX = 2**63 - 1
DIMENSIONS_MAX = 4096
FALLBACKS_MAX, FALLBACK_CHARACTERS_MAX = 16, 64
METHODS_MAX, METHOD_MEMBERS_MAX, METHOD_CHARACTERS_MAX = 16, 16, 64
"""Signals that `methods` may name, members of each, characters of a name or string there."""

METHOD_NUMBER_MAX = 2**53 - 1
"""Magnitude of a number in `methods`: up to it every reader of JSON has integers exactly."""

PROOF_SUITE: Literal["ECVRF-EDWARDS25519-SHA512-TAI"] = "ECVRF-EDWARDS25519-SHA512-TAI"
_INTEGER_MAX = 2**63 - 1
_CACHED_TIMES_MAX, _CACHED_TIME_CHARACTERS_MAX = 1_024, 40

_Count = Annotated[int, Meta(ge=1, le=COUNT_MAX)]
_Scale = Annotated[int, Meta(ge=1, le=_INTEGER_MAX)]
_HexDigest = Annotated[str, Meta(pattern=HEX_DIGEST_PATTERN)]
_WORD_PATTERN = rf"\A[a-z0-9_.-]{{1,{METHOD_CHARACTERS_MAX}}}\Z"
_WORD = re.compile(_WORD_PATTERN)
_Word = Annotated[str, Meta(pattern=_WORD_PATTERN)]
_Parameter = (
    Annotated[int, Meta(ge=-METHOD_NUMBER_MAX, le=METHOD_NUMBER_MAX)]
    | Annotated[float, Meta(ge=-METHOD_NUMBER_MAX, le=METHOD_NUMBER_MAX)]
    | bool
    | Annotated[str, Meta(max_length=METHOD_CHARACTERS_MAX)]
)
# The one spelling of 80 bytes that an encoder writes: 26 groups, then two bytes whose last character has two bits to spare.
PROOF_PATTERN = "[A-Za-z0-9+/]{106}[AEIMQUYcgkosw048]="
_TIME = re.compile(
    r"\A\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:(?P<second>\d{2})(?P<fraction>\.\d+)?(?:[Zz]|[+-]00:00)\Z", re.ASCII
)


class Ft(msgspec.Struct, frozen=True, kw_only=True):
    """How a record was made and delivered. Not signed.

    Attributes:
        outbox_seq: Position in the agent's outbox, ≥ 0.
        degraded: Whether a documented default stands for something that could not be computed.
        fallbacks: Up to 16 codes of up to 64 characters saying which.
        clock_skew_ms: Agent's clock minus backend's, as measured from the `Date` header.
    """

    outbox_seq: Annotated[int, Meta(ge=0, le=_INTEGER_MAX)]
    degraded: bool
    fallbacks: Annotated[
        list[Annotated[str, Meta(max_length=FALLBACK_CHARACTERS_MAX)]], Meta(max_length=FALLBACKS_MAX)
    ]
    clock_skew_ms: Annotated[int, Meta(ge=-_INTEGER_MAX, le=_INTEGER_MAX)]


Methods = Annotated[
    dict[_Word, Annotated[dict[_Word, _Parameter], Meta(max_length=METHOD_MEMBERS_MAX)]],
    Meta(max_length=METHODS_MAX),
]
"""How signals were computed: signal (`d_hat`, `coh_star`, `r`) to `name` of the method and its parameters."""


class DirectionProof(msgspec.Struct, frozen=True, kw_only=True):
    """The proof that a record's seed follows from its root, epoch and shard (contract §1). Not signed.

    Attributes:
        suite: How the proof is made, of RFC 9381.
        proof: Standard base64 of its 80 bytes.
    """

    suite: Literal["ECVRF-EDWARDS25519-SHA512-TAI"]
    proof: Annotated[str, Meta(pattern=rf"\A{PROOF_PATTERN}\Z")]


class Record(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"n_j": "N_j", "d_hat": "D_hat"}
):
    """A Proof-of-Computation Summary. Field meanings and ranges: contract §1."""

    pcs_id: Annotated[PcsId, Meta(pattern=HEX_DIGEST_PATTERN)]
    schema: Literal["fractal-lba-kakeya"]
    version: Annotated[str, Meta(pattern=r"\A0\.[0-9]{1,9}\Z")]
    shard_id: Annotated[ShardId, Meta(pattern=SHARD_ID_PATTERN)]
    epoch: Annotated[int, Meta(ge=0, le=EPOCH_MAX)]
    attempt: Annotated[int, Meta(ge=1, le=_INTEGER_MAX)]
    sent_at: str
    seed: Annotated[int, Meta(ge=0, le=SEED_MAX)]
    scales: Annotated[list[_Scale], Meta(min_length=SCALES_MIN, max_length=SCALES_MAX)]
    n_j: dict[str, _Count]
    d_hat: float
    coh_star: float
    v_star: Annotated[list[float], Meta(max_length=DIMENSIONS_MAX)]
    r: float
    regime: Regime
    budget: Annotated[float, Meta(ge=0, le=1)]
    merkle_root: _HexDigest
    sig: str
    ft: Ft
    methods: Methods | None = None
    direction_proof: DirectionProof | None = None

    @property
    def counts(self) -> list[int]:
        """Occupied cells in the order of `scales`."""
        return [self.n_j[str(scale)] for scale in self.scales]


ALLOWED = {
    "": "one JSON object with the fields of a PCS record",
    "pcs_id": "64 lower-case hex digits",
    "schema": f'the string "{SCHEMA}"',
    "version": 'a string "0.x"',
    "shard_id": SHARD_ID_RULE,
    "epoch": f"an integer from 0 to {EPOCH_MAX}",
    "attempt": "an integer from 1",
    "sent_at": "an RFC 3339 time in UTC",
    "seed": f"an integer from 0 to {SEED_MAX}",
    "scales": f"{SCALES_MIN} to {SCALES_MAX} strictly increasing integers from 1",
    "scales[]": "an integer from 1",
    "N_j": "an object with exactly the scales as keys",
    "N_j[]": f"an integer from 1 to {COUNT_MAX}",
    "D_hat": "a finite number",
    "coh_star": "a finite number",
    "v_star": f"a list of up to {DIMENSIONS_MAX} finite numbers",
    "v_star[]": "a finite number",
    "r": "a finite number",
    "regime": "one of sticky, mixed, non_sticky",
    "budget": "a finite number from 0 to 1",
    "merkle_root": "64 lower-case hex digits",
    "sig": "a string: standard base64, or empty where signing is off",
    "ft": "an object with outbox_seq, degraded, fallbacks and clock_skew_ms",
    "ft.outbox_seq": "an integer from 0",
    "ft.degraded": "true or false",
    "ft.fallbacks": f"up to {FALLBACKS_MAX} strings",
    "ft.fallbacks[]": f"a string of up to {FALLBACK_CHARACTERS_MAX} characters",
    "ft.clock_skew_ms": "an integer",
    "methods": (
        f"an object with up to {METHODS_MAX} members, their keys 1 to {METHOD_CHARACTERS_MAX} of a-z 0-9 _ . -"
    ),
    "methods[]": (
        f"an object with a name and up to {METHOD_MEMBERS_MAX} members, "
        f"their keys 1 to {METHOD_CHARACTERS_MAX} of a-z 0-9 _ . -"
    ),
    "methods[].name": f"1 to {METHOD_CHARACTERS_MAX} of a-z 0-9 _ . -",
    "methods[][]": (
        f"a number of magnitude up to {METHOD_NUMBER_MAX}, true, false or a string of up to "
        f"{METHOD_CHARACTERS_MAX} characters"
    ),
    "direction_proof": "an object with suite and proof",
    "direction_proof.suite": f'the string "{PROOF_SUITE}"',
    "direction_proof.proof": f"standard base64 of {PROOF_BYTES} bytes",
}
"""What each path of a record allows, as error messages say it."""


ADDED_FIELDS = ("methods", "direction_proof")
"""Fields of 0.2 that 0.1 did not have."""


def decode_record(body: bytes) -> Record:
    """Decode and check structure, types and ranges (contract §4 step 4); neither identity nor signature.

    Args:
        body: UTF-8 JSON. Of equal keys the last counts; unknown fields are ignored.

    Raises:
        MalformedError: The body is not a record; the error names the JSON path.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # The exception carries the document itself, so it must not be chained.
        place = f"line {error.lineno} column {error.colno}"
        malformed = MalformedError(
            "$", f"{len(body)} bytes that are not JSON in UTF-8 ({place})", ALLOWED[""]
        )
    else:
        if isinstance(document, dict) and document.get("version") == VERSION_FIRST:
            for name in ADDED_FIELDS:  # unknown to 0.1, and what is unknown is ignored
                document.pop(name, None)
        record = convert(document, Record, ALLOWED)
        _check_scales(record)
        check_methods(record)
        sent_at_s(record)
        return record
    raise malformed


def encode_record(record: Record) -> bytes:
    """Return the record as compact JSON in UTF-8, fields in the contract's order, absent ones left out."""
    return msgspec.json.encode(record)


def check_identity(record: Record) -> None:
    """Check that `pcs_id` is the hash of its parts (contract §4 step 6).

    Raises:
        IdentityError: It is not.
    """
    if compute_pcs_id(record.merkle_root, record.epoch, record.shard_id) != record.pcs_id:
        raise IdentityError("$.pcs_id: is not the SHA-256 of merkle_root|epoch|shard_id")


def check_methods(record: Record) -> None:
    """Check what the types of `methods` do not: that each method has a well-formed name.

    Raises:
        MalformedError: One has none.
    """
    for method in (record.methods or {}).values():
        name = method.get("name")
        if name is None:
            raise MalformedError("$.methods[...].name", "nothing", ALLOWED["methods[].name"])
        if not isinstance(name, str) or _WORD.match(name) is None:
            raise MalformedError("$.methods[...].name", describe(name), ALLOWED["methods[].name"])


def sent_at_s(record: Record) -> float:
    """Return `sent_at` in seconds since 1970.

    Raises:
        MalformedError: Not an RFC 3339 time in UTC.
    """
    text = record.sent_at
    read = _time_s if len(text) <= _CACHED_TIME_CHARACTERS_MAX else _time_s.__wrapped__
    at_s = read(text)
    if at_s is None:
        raise MalformedError("$.sent_at", describe(text), ALLOWED["sent_at"])
    return at_s


@lru_cache(maxsize=_CACHED_TIMES_MAX)
def _time_s(text: str) -> float | None:
    """Return a time in seconds since 1970. Cached, because the records of a batch were sent at the same time."""
    match = _TIME.match(text)
    if match is None:
        return None
    leap = match["second"] == "60"  # RFC 3339 allows a leap second, Python's datetime does not
    whole = text[:17] + ("59" if leap else match["second"])
    fraction = float(match["fraction"] or 0)
    try:
        moment = datetime.fromisoformat(whole + "+00:00") + timedelta(seconds=float(leap))
    except (ValueError, OverflowError):
        return None
    return moment.timestamp() + fraction


def _check_scales(record: Record) -> None:
    if any(left >= right for left, right in pairwise(record.scales)):
        raise MalformedError(
            "$.scales", f"{describe(record.scales)} that does not increase", ALLOWED["scales"]
        )
    expected = {str(scale) for scale in record.scales}
    if record.n_j.keys() != expected:
        missing = len(expected - record.n_j.keys())
        extra = len(record.n_j.keys() - expected)
        raise MalformedError("$.N_j", f"{missing} scales missing and {extra} other keys", ALLOWED["N_j"])
