"""The keys that records may be signed with, and what each may sign for: tenant, shards, dates.

A record is checked as of the time it was received, so that a rotation changes nothing for what came before it. A revoked
key is worth nothing from the moment it is, whenever the record came. Why a key was refused is for metrics and logs; the
sender learns only that no valid key verifies the signature.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Self

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pcs_core.canonical import canonical_payload, fixed_point_payload, payload_digest
from pcs_core.errors import BadSignatureError
from pcs_core.record import Record
from pcs_core.signing import (
    Ed25519PublicKey,
    Ed25519SecretKey,
    HmacKey,
    VerificationKey,
    decode_signature,
)

DEFAULT_TENANT = "default"
EVERY_SHARD = ("*",)
KEYS_MAX = 256
"""Keys at once. A bad signature costs one try for each key of its shard and each spelling."""

KEYS_DIAGNOSED_MAX = 16
"""Keys that may not sign a record and are tried all the same, to tell why it is refused."""

LIKELY_SHARDS_MAX = 10_000
"""Shards whose last good key is remembered and tried first."""

PATTERNS_CACHED_MAX = 4_096
"""Shard patterns kept compiled."""

_MESSAGE_KEY_BYTES = 32
_NO_KEY = "$.sig: no valid key verifies this signature"


class KeyRefusal(enum.StrEnum):
    """Why a signature counts for nothing: a label of metrics and logs."""

    NO_KEY = "no_key"
    REVOKED = "revoked"
    NOT_YET_VALID = "not_yet_valid"
    EXPIRED = "expired"
    SHARD = "shard"


class KeyTerms(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What a key counts for.

    Attributes:
        key_id: The operator's name of it, or the one that follows from the key.
        tenant: Whose records it is for.
        shards: Patterns of the shards it is for; `*` stands for any characters.
        not_before_s: Seconds since 1970 from which on it counts.
        not_after_s: Seconds since 1970 from which on it counts no more.
        revoked: Whether it counts for nothing.
    """

    key_id: str
    tenant: str = DEFAULT_TENANT
    shards: tuple[str, ...] = EVERY_SHARD
    not_before_s: float = -math.inf
    not_after_s: float = math.inf
    revoked: bool = False

    def refusal(self, at_s: float, shard_id: str | None = None) -> KeyRefusal | None:
        """Why it does not count at a time, and for a shard if one is given; `None` if it does."""
        if self.revoked:
            return KeyRefusal.REVOKED
        if at_s < self.not_before_s:
            return KeyRefusal.NOT_YET_VALID
        if at_s >= self.not_after_s:
            return KeyRefusal.EXPIRED
        if shard_id is None or self.shards == EVERY_SHARD:
            return None
        return None if any(matches(pattern, shard_id) for pattern in self.shards) else KeyRefusal.SHARD


class KeyEntry(KeyTerms, frozen=True, kw_only=True, eq=False):
    """A key that signs, and what it may sign for.

    Attributes:
        record_key: Checks signatures of records.
        message_key: Checks signatures of whole requests; `None` if it is not known.
    """

    record_key: VerificationKey
    message_key: VerificationKey | None = None


class Keyring:
    """Every key at once. Without any, signing is off and every record is taken."""

    def __init__(self, entries: Sequence[KeyEntry]) -> None:
        """Take the keys.

        Args:
            entries: Up to `KEYS_MAX`, their ids different.

        Raises:
            ValueError: More, or two of one id.
        """
        if len(entries) > KEYS_MAX:
            raise ValueError(f"found {len(entries)} keys; allowed: up to {KEYS_MAX}")
        self.entries = tuple(entries)
        self._by_id = {entry.record_key.key_id: entry for entry in reversed(entries)}
        named = {entry.key_id: entry for entry in entries}
        if len(named) != len(entries):
            raise ValueError("found two keys of one id; allowed: a different id for each")
        self._by_id |= named
        self._likely: dict[str, KeyEntry] = {}

    @classmethod
    def of(cls, keys: Iterable[VerificationKey]) -> Self:
        """Return a keyring of keys that may sign for everything, at any time."""
        return cls(
            [KeyEntry(key_id=key_id, record_key=key) for key_id, key in {k.key_id: k for k in keys}.items()]
        )

    def __bool__(self) -> bool:
        """Whether signatures are checked at all."""
        return bool(self.entries)

    def find(self, key_id: str) -> KeyEntry | None:
        """Return the key of this id: the operator's, or the one that follows from the key itself."""
        return self._by_id.get(key_id)

    def likely(self, shard_id: str, at_s: float) -> KeyEntry | None:
        """Return the key that last signed for a shard, if it may sign for it at a time; `None` if none is known."""
        entry = self._likely.get(shard_id)
        return None if entry is None or entry.refusal(at_s, shard_id) is not None else entry

    def verify(self, record: Record, at_s: float) -> KeyEntry | None:
        """Check a record's signature (contract §4 step 5).

        Args:
            record: A decoded record.
            at_s: When it was received, seconds since 1970.

        Returns:
            The key that verifies it; `None` where signing is off.

        Raises:
            MalformedError: `sig` is not standard base64.
            BadSignatureError: No valid key verifies it.
        """
        if not self.entries:
            return None
        signature = decode_signature(record.sig)
        usual = payload_digest(canonical_payload(record))
        likely = self.likely(record.shard_id, at_s)
        if likely is not None and likely.record_key.verifies(usual, signature):
            return likely
        refusals = [(entry, entry.refusal(at_s, record.shard_id)) for entry in self.entries]
        allowed = [entry for entry, refusal in refusals if refusal is None]
        tries = [(usual, entry) for entry in allowed if entry is not likely]
        other = payload_digest(fixed_point_payload(record))
        for digest, entry in [*tries, *((other, entry) for entry in allowed)]:
            if entry.record_key.verifies(digest, signature):
                self._remember(record.shard_id, entry)
                return entry
        barred = [(entry, refusal) for entry, refusal in refusals if refusal is not None]
        for entry, refusal in barred[:KEYS_DIAGNOSED_MAX]:
            if any(entry.record_key.verifies(digest, signature) for digest in (usual, other)):
                raise BadSignatureError(_NO_KEY, refusal)
        raise BadSignatureError(_NO_KEY, KeyRefusal.NO_KEY)

    def _remember(self, shard_id: str, entry: KeyEntry) -> None:
        if self._likely.get(shard_id) is not entry:
            if len(self._likely) >= LIKELY_SHARDS_MAX:
                self._likely.clear()
            self._likely[shard_id] = entry


def matches(pattern: str, shard_id: str) -> bool:
    """Whether a shard falls under a pattern, in which `*` stands for any characters and all else for itself.

    >>> matches("plant-7/*", "plant-7/line-1"), matches("plant-7/*", "plant-70/line-1")
    (True, False)
    """
    return _compiled(pattern).fullmatch(shard_id) is not None


@lru_cache(maxsize=PATTERNS_CACHED_MAX)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))))


def message_hmac_key(secret: bytes) -> HmacKey:
    """Derive the key that signs whole requests from an HMAC record key, by HKDF-SHA256 (RFC 5869)."""
    return HmacKey(_derive(secret, b"pcs message signature hmac-sha256"))


def message_ed25519_key(seed: bytes) -> Ed25519SecretKey:
    """Derive the key that signs whole requests from the 32-byte seed of an Ed25519 record key, by HKDF-SHA256."""
    return Ed25519SecretKey(_derive(seed, b"pcs message signature ed25519"))


def entry_of_secret(secret: bytes) -> KeyEntry:
    """Return the entry of an HMAC key that may sign for everything.

    Raises:
        KeyMaterialError: The secret is empty.
    """
    key = HmacKey(secret)
    return KeyEntry(key_id=key.key_id, record_key=key, message_key=message_hmac_key(secret))


def entry_of_public_key(public_key: bytes) -> KeyEntry:
    """Return the entry of an Ed25519 key that may sign records for everything.

    Raises:
        KeyMaterialError: Not 32 bytes.
    """
    key = Ed25519PublicKey(public_key)
    return KeyEntry(key_id=key.key_id, record_key=key)


def _derive(secret: bytes, info: bytes) -> bytes:
    return HKDF(SHA256(), _MESSAGE_KEY_BYTES, salt=None, info=info).derive(secret)
