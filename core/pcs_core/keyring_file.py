"""The key file: which keys records may be signed with, and the limits of tenants. TOML.

    [[keys]]
    id = "plant-7"
    algorithm = "hmac"                # or "ed25519"
    secret = "env:PLANT_7_KEY"        # hmac: the secret, or file:PATH, or env:NAME
    # public_key = "file:plant-7.pub" # ed25519: base64 or PEM, the same three ways
    # message_public_key = "…"        # ed25519: what `pcs-agent keygen` prints beside it
    tenant = "plants"
    shards = ["plant-7/*"]
    not_before = 2026-11-21T00:00:00Z
    not_after = 2027-11-21T00:00:00Z
    revoked = false

    [[direction_keys]]                # what proofs of directions are checked with
    id = "plant-7-directions"
    public_key = "file:plant-7-vrf.pub" # base64, the same three ways
    # tenant, shards, not_before, not_after, revoked as above

    [[peers]]                         # names in client certificates
    name = "gateway-1.example"
    tenant = "plants"

    [tenants.plants]                  # limits; 0 = none
    rate = 100.0                      # records a second
    daily = 1000000                   # records a day (UTC)

Errors name the place and never hold a value; of a referenced file or variable not even its name.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal, TypedDict

import msgspec
from msgspec import Meta

from pcs_core.direction_proof import DIRECTION_KEYS_MAX, DirectionKey
from pcs_core.errors import KeyMaterialError, KeyringError, MalformedError
from pcs_core.keyfile import parse_ed25519_public
from pcs_core.keyring import (
    DEFAULT_TENANT,
    EVERY_SHARD,
    KEYS_MAX,
    KeyEntry,
    message_hmac_key,
)
from pcs_core.signing import Ed25519PublicKey, HmacKey, VerificationKey, decode_key_base64
from pcs_core.typed import convert
from pcs_core.vrf import VrfPublicKey

TENANTS_MAX = 1_000
PEERS_MAX = 10_000
SHARD_PATTERNS_MAX = 64
"""Patterns a key."""

_TENANT_RULE = "1 to 63 characters of a-z 0-9 . _ -, the first a letter or digit"
_Tenant = Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9._-]{0,62}\Z")]
_KeyId = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._-]{1,64}\Z")]
_Pattern = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._:/@+*-]{1,128}\Z")]
_Reference = Annotated[str, Meta(min_length=1, max_length=16_384)]

_Resolve = Callable[[str, str | None], bytes]
ReadFile = Callable[[str], bytes]
"""Returns the bytes of a referenced file; raises OSError, or ValueError for what can be no name."""


class TenantLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a tenant may send. 0 means no limit.

    Attributes:
        rate: Records a second, bursts as large as one second's worth.
        daily: Records a day, UTC.
    """

    rate: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.0
    daily: Annotated[int, Meta(ge=0, le=2**53)] = 0


class KeyFile(msgspec.Struct, frozen=True):
    """What a key file says.

    Attributes:
        entries: The keys that sign.
        direction_keys: The keys that prove directions.
        peers: Tenant of each certificate name.
        limits: Limits of each tenant that has any.
    """

    entries: tuple[KeyEntry, ...]
    direction_keys: tuple[DirectionKey, ...]
    peers: Mapping[str, str]
    limits: Mapping[str, TenantLimits]


class _Terms(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: _KeyId
    tenant: _Tenant = DEFAULT_TENANT
    shards: Annotated[list[_Pattern], Meta(min_length=1, max_length=SHARD_PATTERNS_MAX)] = msgspec.field(
        default_factory=lambda: list(EVERY_SHARD)
    )
    not_before: datetime | None = None
    not_after: datetime | None = None
    revoked: bool = False


class _Key(_Terms, frozen=True, forbid_unknown_fields=True, kw_only=True):
    algorithm: Literal["hmac", "ed25519"]
    secret: _Reference | None = None
    public_key: _Reference | None = None
    message_public_key: _Reference | None = None


class _DirectionKey(_Terms, frozen=True, forbid_unknown_fields=True, kw_only=True):
    public_key: _Reference | None = None


class _Peer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1, max_length=255)]
    tenant: _Tenant


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: Annotated[list[_Key], Meta(max_length=KEYS_MAX)] = []
    direction_keys: Annotated[list[_DirectionKey], Meta(max_length=DIRECTION_KEYS_MAX)] = []
    peers: Annotated[list[_Peer], Meta(max_length=PEERS_MAX)] = []
    tenants: Annotated[dict[_Tenant, TenantLimits], Meta(max_length=TENANTS_MAX)] = {}


_LINE = re.compile(r"at line \d+")
_REFERENCE_RULE = "the key, or file:PATH, or env:NAME"
_ALLOWED = {
    "": "a table with only keys, direction_keys, peers and tenants",
    "keys": f"up to {KEYS_MAX} tables",
    "keys[]": "a table with only these names: " + ", ".join(_Key.__struct_fields__),
    "keys[].id": "1 to 64 characters of A-Z a-z 0-9 . _ -",
    "keys[].algorithm": "hmac or ed25519",
    "keys[].secret": _REFERENCE_RULE,
    "keys[].public_key": _REFERENCE_RULE,
    "keys[].message_public_key": _REFERENCE_RULE,
    "keys[].tenant": _TENANT_RULE,
    "keys[].shards": f"1 to {SHARD_PATTERNS_MAX} patterns",
    "keys[].shards[]": "a shard id in which * stands for any characters",
    "keys[].not_before": "a date and time with its offset",
    "keys[].not_after": "a date and time with its offset",
    "keys[].revoked": "true or false",
    "direction_keys": f"up to {DIRECTION_KEYS_MAX} tables",
    "direction_keys[]": "a table with only these names: " + ", ".join(_DirectionKey.__struct_fields__),
    "peers": f"up to {PEERS_MAX} tables",
    "peers[]": "a table with only name and tenant",
    "peers[].name": "a name in a client certificate, of up to 255 characters",
    "peers[].tenant": _TENANT_RULE,
    "tenants": f"up to {TENANTS_MAX} tables, each named by its tenant: {_TENANT_RULE}",
    "tenants[]": "a table with only rate and daily",
    "tenants[].rate": "a number from 0 to 1000000 (records a second, 0 = no limit)",
    "tenants[].daily": "an integer from 0 (records a day, 0 = no limit)",
}
_ALLOWED |= {
    f"direction_keys[]{name}": rule
    for name, rule in (
        (path.removeprefix("keys[]"), rule) for path, rule in _ALLOWED.items() if path.startswith("keys[].")
    )
    if name.partition("[")[0].removeprefix(".") in _DirectionKey.__struct_fields__
}


def parse_key_file(text: str, environ: Mapping[str, str], read_file: ReadFile) -> KeyFile:
    """Read a key file's text, and the files and variables it names.

    Args:
        text: TOML.
        environ: For `env:NAME`.
        read_file: For `file:PATH`.

    Raises:
        KeyringError: Anything that cannot be used; the message names the place.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # Its message may quote a character, and of a secret that is one too many.
        line = _LINE.search(str(error))
        problem = f"found text that is not TOML ({line[0] if line else 'at its end'}); allowed: TOML"
    except (ValueError, RecursionError):
        problem = "found a number of thousands of digits, or lists nested without end; allowed: TOML"
    else:
        try:
            return _build(convert(table, _File, _ALLOWED), environ, read_file)
        except MalformedError as error:
            problem = str(error)
    raise KeyringError(problem)


def _build(file: _File, environ: Mapping[str, str], read_file: ReadFile) -> KeyFile:
    def resolve(where: str, reference: str | None) -> bytes:
        return _resolve(where, reference, environ, read_file)

    _check_ids("keys", file.keys)
    entries = [_build_entry(f"$.keys[{number}]", key, resolve) for number, key in enumerate(file.keys)]
    _check_ids("direction_keys", file.direction_keys)
    direction_keys = [
        _build_direction_key(f"$.direction_keys[{number}]", key, resolve)
        for number, key in enumerate(file.direction_keys)
    ]
    peers: dict[str, str] = {}
    for number, peer in enumerate(file.peers):
        if peers.setdefault(peer.name, peer.tenant) != peer.tenant:
            raise KeyringError(
                f"$.peers[{number}].name: found a name again with another tenant; allowed: one tenant a name"
            )
    return KeyFile(
        entries=tuple(entries), direction_keys=tuple(direction_keys), peers=peers, limits=file.tenants
    )


def _check_ids(name: str, keys: Sequence[_Terms]) -> None:
    ids: dict[str, int] = {}
    for number, key in enumerate(keys):
        if (first := ids.setdefault(key.id, number)) != number:
            raise KeyringError(
                f"$.{name}[{number}].id: found the id of {name}[{first}] again; allowed: a different id for each"
            )


def _build_direction_key(place: str, key: _DirectionKey, resolve: _Resolve) -> DirectionKey:
    terms = _build_terms(place, key)
    where = f"{place}.public_key"
    try:
        public_key = VrfPublicKey(
            decode_key_base64(resolve(where, key.public_key).decode("ascii", "replace"))
        )
    except KeyMaterialError as error:
        problem = f"{where}: {error}"
    else:
        return DirectionKey(public_key=public_key, **terms)
    raise KeyringError(problem)


def _build_entry(place: str, key: _Key, resolve: _Resolve) -> KeyEntry:
    terms = _build_terms(place, key)
    record_key, message_key = (_load_hmac if key.algorithm == "hmac" else _load_ed25519)(place, key, resolve)
    return KeyEntry(record_key=record_key, message_key=message_key, **terms)


class _BuiltTerms(TypedDict):
    key_id: str
    tenant: str
    shards: tuple[str, ...]
    not_before_s: float
    not_after_s: float
    revoked: bool


def _build_terms(place: str, key: _Terms) -> _BuiltTerms:
    not_before_s = _time(f"{place}.not_before", key.not_before, -math.inf)
    not_after_s = _time(f"{place}.not_after", key.not_after, math.inf)
    if not_after_s <= not_before_s:
        raise KeyringError(
            f"{place}.not_after: found a time that is not after not_before; allowed: a later one"
        )
    return {
        "key_id": key.id,
        "tenant": key.tenant,
        "shards": tuple(key.shards),
        "not_before_s": not_before_s,
        "not_after_s": not_after_s,
        "revoked": key.revoked,
    }


def _load_hmac(place: str, key: _Key, resolve: _Resolve) -> tuple[VerificationKey, VerificationKey | None]:
    if key.public_key is not None or key.message_public_key is not None:
        raise KeyringError(f"{place}: found a public key; allowed: a secret, beside algorithm hmac")
    secret = resolve(f"{place}.secret", key.secret)
    if not secret:
        raise KeyringError(f"{place}.secret: found nothing in it; allowed: one byte or more")
    return HmacKey(secret), message_hmac_key(secret)


def _load_ed25519(place: str, key: _Key, resolve: _Resolve) -> tuple[VerificationKey, VerificationKey | None]:
    if key.secret is not None:
        raise KeyringError(f"{place}: found a secret; allowed: a public key, beside algorithm ed25519")
    record_key = _public_key(f"{place}.public_key", resolve(f"{place}.public_key", key.public_key))
    if key.message_public_key is None:
        return record_key, None
    where = f"{place}.message_public_key"
    return record_key, _public_key(where, resolve(where, key.message_public_key))


def _public_key(where: str, data: bytes) -> Ed25519PublicKey:
    try:
        return parse_ed25519_public(data)
    except KeyMaterialError as error:
        problem = f"{where}: {error}"
    raise KeyringError(problem)


def _resolve(where: str, reference: str | None, environ: Mapping[str, str], read_file: ReadFile) -> bytes:
    if reference is None:
        raise KeyringError(f"{where}: found nothing; allowed: {_REFERENCE_RULE}")
    kind, _, name = reference.partition(":")
    if kind == "env":
        if value := environ.get(name):
            return value.encode("utf-8", "surrogateescape")
        raise KeyringError(f"{where}: found a variable that is not set; allowed: {_REFERENCE_RULE}")
    if kind == "file":
        try:
            return read_file(name).rstrip(b"\r\n")
        except OSError as error:
            reason = error.strerror or type(error).__name__
        except ValueError:  # a NUL in it
            reason = "no name of a file"
        raise KeyringError(
            f"{where}: found a file that cannot be read ({reason}); allowed: {_REFERENCE_RULE}"
        )
    return reference.encode()


def _time(where: str, moment: datetime | None, otherwise: float) -> float:
    if moment is None:
        return otherwise
    if moment.tzinfo is None:
        raise KeyringError(
            f"{where}: found a time without an offset; allowed: one with it, such as Z for UTC"
        )
    try:
        return moment.astimezone(UTC).timestamp()
    except OverflowError:
        problem = f"{where}: found a time outside the years 1 to 9999 of UTC; allowed: one within"
    raise KeyringError(problem)
