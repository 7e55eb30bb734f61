"""Signing and verification of records (contract §2).

A key never prints: `repr` shows its id alone. Verification tries every key that is valid now, over both accepted
spellings; a bad signature is one that no key verifies. Comparison is constant time.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import hmac
from typing import Protocol

import msgspec
from nacl.exceptions import BadSignatureError as NaclBadSignatureError
from nacl.signing import SigningKey, VerifyKey

from pcs_core.canonical import canonical_payload, payload_digest
from pcs_core.errors import KeyMaterialError, MalformedError
from pcs_core.record import ALLOWED, Record
from pcs_core.typed import describe

ED25519_KEY_BYTES = 32
HMAC_KEY_SHORT_BYTES = 16
"""An HMAC key below this length works, and is worth a warning."""

_KEY_ID_HEX_DIGITS = 16
_BLOCK_BYTES = 64
_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))


class SigningAlgorithm(enum.StrEnum):
    """How records are signed, as `PCS_SIGN_ALG` spells it."""

    NONE = "none"
    HMAC = "hmac"
    ED25519 = "ed25519"


class Signer(Protocol):
    """Something that signs a digest."""

    @property
    def key_id(self) -> str:
        """Public name of the key."""

    def sign(self, digest: bytes) -> bytes:
        """Return the signature of a 32-byte digest."""


class VerificationKey(Protocol):
    """Something that checks a signature of a digest."""

    @property
    def key_id(self) -> str:
        """Public name of the key."""

    def verifies(self, digest: bytes, signature: bytes) -> bool:
        """Whether the signature is this key's over the digest."""

    def verifies_text(self, digest: bytes, text: str) -> bool:
        """Whether the text is standard base64 of this key's signature over the digest. Never raises."""


class HmacKey:
    """A shared secret of any non-zero length: signs and verifies by HMAC-SHA256."""

    __slots__ = ("_inner", "_outer", "key_id")

    def __init__(self, secret: bytes) -> None:
        """Take the raw bytes of the secret.

        Raises:
            KeyMaterialError: The secret is empty.
        """
        if not secret:
            raise KeyMaterialError("found an empty HMAC key; allowed: one byte or more")
        # RFC 2104, the two hashes keyed once and copied for each record: a third of the cost of hmac.digest.
        block = (hashlib.sha256(secret).digest() if len(secret) > _BLOCK_BYTES else secret).ljust(
            _BLOCK_BYTES, b"\0"
        )
        self._inner = hashlib.sha256(block.translate(_INNER_PAD))
        self._outer = hashlib.sha256(block.translate(_OUTER_PAD))
        # A MAC of a fixed text tells no more about the key than any signature made with it.
        self.key_id = "hmac-" + self.sign(b"pcs key id").hex()[:_KEY_ID_HEX_DIGITS]

    def __repr__(self) -> str:
        return f"HmacKey({self.key_id})"

    def sign(self, digest: bytes) -> bytes:
        """Return HMAC-SHA256(secret, digest), 32 bytes."""
        inner = self._inner.copy()
        inner.update(digest)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()

    def verifies(self, digest: bytes, signature: bytes) -> bool:
        """Whether the signature is this key's over the digest, in constant time."""
        return hmac.compare_digest(self.sign(digest), signature)

    def verifies_text(self, digest: bytes, text: str) -> bool:
        """Whether the text is the base64 of this key's signature over the digest, in constant time."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(digest)
        outer.update(inner.digest())
        own = binascii.b2a_base64(outer.digest(), newline=False)
        return hmac.compare_digest(own, text.encode("utf-8", "surrogatepass"))


class Ed25519PublicKey:
    """The public half: verifies."""

    __slots__ = ("_key", "key_id")

    def __init__(self, public_key: bytes) -> None:
        """Take the 32 bytes of the public key.

        Raises:
            KeyMaterialError: Another length.
        """
        _require_key_length(public_key, "public key")
        self._key = VerifyKey(public_key)
        self.key_id = "ed25519-" + hashlib.sha256(public_key).hexdigest()[:_KEY_ID_HEX_DIGITS]

    def __repr__(self) -> str:
        return f"Ed25519PublicKey({self.key_id})"

    @property
    def public_bytes(self) -> bytes:
        """The 32 public bytes."""
        return bytes(self._key)

    def verifies(self, digest: bytes, signature: bytes) -> bool:
        """Whether the signature is this key's over the digest."""
        try:
            self._key.verify(digest, signature)
        except (NaclBadSignatureError, ValueError):  # ValueError: not 64 bytes
            return False
        return True

    def verifies_text(self, digest: bytes, text: str) -> bool:
        """Whether the text is the base64 of this key's signature over the digest."""
        try:
            return self.verifies(digest, decode_signature(text))
        except MalformedError:
            return False


class Ed25519SecretKey:
    """The secret half, from its 32-byte seed: signs."""

    __slots__ = ("_key", "public")

    def __init__(self, seed: bytes) -> None:
        """Take the 32-byte seed.

        Raises:
            KeyMaterialError: Another length.
        """
        _require_key_length(seed, "seed")
        self._key = SigningKey(seed)
        self.public = Ed25519PublicKey(bytes(self._key.verify_key))

    def __repr__(self) -> str:
        return f"Ed25519SecretKey({self.key_id})"

    @property
    def key_id(self) -> str:
        """The public key's name."""
        return self.public.key_id

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes, for writing a key file."""
        return bytes(self._key)

    @property
    def public_bytes(self) -> bytes:
        """The 32 public bytes."""
        return self.public.public_bytes

    def sign(self, digest: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature of the digest."""
        return self._key.sign(digest).signature


def sign_record(record: Record, signer: Signer | None) -> Record:
    """Return the record with its signature over the canonical payload; with `None`, with an empty one."""
    if signer is None:
        return msgspec.structs.replace(record, sig="")
    signature = signer.sign(payload_digest(canonical_payload(record)))
    return msgspec.structs.replace(record, sig=base64.b64encode(signature).decode("ascii"))


def decode_signature(text: str) -> bytes:
    """Decode the `sig` of a record; an empty one has no bytes.

    Raises:
        MalformedError: Not standard base64.
    """
    if not text:
        return b""
    try:
        return _decode_base64(text)
    except ValueError:
        found = f"{describe(text)} that is not base64"
    raise MalformedError("$.sig", found, ALLOWED["sig"])


def decode_key_base64(text: str) -> bytes:
    """Decode the standard base64 of a 32-byte Ed25519 seed or public key.

    Raises:
        KeyMaterialError: Not base64, or another length. The message does not hold the text.
    """
    try:
        key = _decode_base64(text)
    except ValueError:
        found = f"a string of length {len(text)} that is not base64"
        error = KeyMaterialError(f"found {found}; allowed: standard base64 of {ED25519_KEY_BYTES} bytes")
    else:
        _require_key_length(key, "key")
        return key
    raise error


def _require_key_length(key: bytes, name: str) -> None:
    if len(key) != ED25519_KEY_BYTES:
        raise KeyMaterialError(
            f"found {len(key)} bytes; allowed: an Ed25519 {name} of {ED25519_KEY_BYTES} bytes"
        )


def _decode_base64(text: str) -> bytes:
    """Decode the one spelling that an encoder writes.

    Raises:
        ValueError: Any other, such as surplus padding, of which Python's versions think differently.
    """
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode("ascii") != text:
        raise ValueError("not canonical")
    return data
