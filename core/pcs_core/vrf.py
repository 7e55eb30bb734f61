"""ECVRF-EDWARDS25519-SHA512-TAI of RFC 9381: a hash of a message that only the holder of a key can make, and anyone check.

`prove` makes a proof, `proof_to_hash` the 64 pseudorandom bytes that follow from it, `verify` both at once. For one public
key and message there is exactly one hash, whoever made the proof.

The group is libsodium's. Its scalar multiplication refuses points outside the prime-order group, so the cofactor is cleared
by three additions. For the same reason a public key or Γ with a part of small order is refused here, where the RFC's
verification of a proof with such a Γ may succeed: no honest prover makes one.

Secrets: scalar and nonce go through SHA-512 and libsodium's constant-time arithmetic, and nothing branches on them or is
looked up by them. What Python does not give: its copies of them stay in memory until it is used again. Finding the curve
point of a message (try-and-increment) takes a time that depends on message and public key, and both are public here.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import NamedTuple

from nacl import bindings
from nacl.exceptions import RuntimeError as NaclError

from pcs_core.errors import KeyMaterialError

SEED_BYTES = PUBLIC_KEY_BYTES = 32
PROOF_BYTES, HASH_BYTES = 80, 64

_SUITE = b"\x03"
_ENCODE, _CHALLENGE, _HASH, _BACK = b"\x01", b"\x02", b"\x03", b"\x00"
_TRIES = 256
_POINT_BYTES, _CHALLENGE_BYTES, _SCALAR_BYTES = 32, 16, 32
_PRIME = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_SIGN_BIT = 1 << 255
_IDENTITY = b"\x01" + bytes(31)


class VrfSecretKey:
    """The secret half, from its 32-byte seed: proves. It never prints."""

    __slots__ = ("_nonce_key", "_scalar", "_seed", "public")

    def __init__(self, seed: bytes) -> None:
        """Take the 32-byte seed.

        Raises:
            KeyMaterialError: Another length.
        """
        if len(seed) != SEED_BYTES:
            raise KeyMaterialError(f"found {len(seed)} bytes; allowed: a VRF seed of {SEED_BYTES} bytes")
        digest = bytearray(hashlib.sha512(seed).digest())
        digest[0] &= 0xF8
        digest[31] = digest[31] & 0x7F | 0x40
        self._seed = bytes(seed)
        self._scalar = bytes(digest[:32])
        self._nonce_key = bytes(digest[32:])
        self.public = VrfPublicKey(bindings.crypto_scalarmult_ed25519_base_noclamp(self._scalar))

    def __repr__(self) -> str:
        return f"VrfSecretKey({self.key_id})"

    @property
    def key_id(self) -> str:
        """The public key's name."""
        return self.public.key_id

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes, for writing a key file."""
        return self._seed

    def prove(self, alpha: bytes) -> bytes:
        """Return the 80-byte proof for a message (RFC 9381 §5.1)."""
        point = encode_to_curve(self.public.public_bytes, alpha)
        gamma = bindings.crypto_scalarmult_ed25519_noclamp(self._scalar, point)
        nonce = bindings.crypto_core_ed25519_scalar_reduce(self._nonce(point))
        challenge = _challenge(
            self.public.public_bytes,
            point,
            gamma,
            bindings.crypto_scalarmult_ed25519_base_noclamp(nonce),
            bindings.crypto_scalarmult_ed25519_noclamp(nonce, point),
        )
        product = bindings.crypto_core_ed25519_scalar_mul(_as_scalar(challenge), self._scalar)
        return gamma + challenge + bindings.crypto_core_ed25519_scalar_add(nonce, product)

    def _nonce(self, point: bytes) -> bytes:
        """Return the 64 bytes that the nonce is made of, as RFC 8032 makes it (RFC 9381 §5.4.2.2)."""
        return hashlib.sha512(self._nonce_key + point).digest()


class VrfPublicKey:
    """The public half: verifies."""

    __slots__ = ("key_id", "public_bytes")

    def __init__(self, public_key: bytes) -> None:
        """Take the 32 bytes of the public key.

        Raises:
            KeyMaterialError: Another length, or no point of the prime-order group: RFC 9381 §5.4.5 and more.
        """
        if len(public_key) != PUBLIC_KEY_BYTES:
            raise KeyMaterialError(
                f"found {len(public_key)} bytes; allowed: a VRF public key of {PUBLIC_KEY_BYTES} bytes"
            )
        if not bindings.crypto_core_ed25519_is_valid_point(public_key):
            raise KeyMaterialError(
                "found 32 bytes that are no point of the prime-order group; allowed: a VRF public key"
            )
        self.public_bytes = bytes(public_key)
        self.key_id = "vrf-" + hashlib.sha256(self.public_bytes).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"VrfPublicKey({self.key_id})"

    def verify(self, alpha: bytes, proof: bytes) -> bytes | None:
        """Return the hash of a message if the proof is this key's for it (RFC 9381 §5.3), `None` if it is not."""
        parts = _split(proof)
        if parts is None:
            return None
        point = encode_to_curve(self.public_bytes, alpha)
        try:
            first, second = self._commitments(point, parts)
        except (
            NaclError
        ):  # Γ is no point of the group; or a product is the identity, which no prover meets by chance
            return None
        expected = _challenge(self.public_bytes, point, parts.gamma, first, second)
        return _hash(parts.gamma) if hmac.compare_digest(expected, parts.challenge) else None

    def _commitments(self, point: bytes, parts: Proof) -> tuple[bytes, bytes]:
        """Return U = s·B − c·Y and V = s·H − c·Γ."""
        scalar = _as_scalar(parts.challenge)
        multiply, subtract = bindings.crypto_scalarmult_ed25519_noclamp, bindings.crypto_core_ed25519_sub
        first = subtract(
            bindings.crypto_scalarmult_ed25519_base_noclamp(parts.response),
            multiply(scalar, self.public_bytes),
        )
        return first, subtract(multiply(parts.response, point), multiply(scalar, parts.gamma))


class Proof(NamedTuple):
    """A proof taken apart.

    Attributes:
        gamma: The point Γ, 32 bytes.
        challenge: c, 16 bytes, little-endian.
        response: s, 32 bytes, little-endian, below the group's order.
    """

    gamma: bytes
    challenge: bytes
    response: bytes


def decode_proof(proof: bytes) -> Proof | None:
    """Take a proof apart (RFC 9381 §5.4.4); `None` if it is none: its length, its point or its scalar is not allowed."""
    parts = _split(proof)
    if parts is None or not bindings.crypto_core_ed25519_is_valid_point(parts.gamma):
        return None
    return parts


def proof_to_hash(proof: bytes) -> bytes:
    """Return the 64 bytes that follow from a proof that is known to be good (RFC 9381 §5.2).

    Raises:
        ValueError: It is no proof.
    """
    parts = decode_proof(proof)
    if parts is None:
        raise ValueError(f"found {len(proof)} bytes that are no proof; allowed: what prove returned")
    return _hash(parts.gamma)


def encode_to_curve(salt: bytes, alpha: bytes) -> bytes:
    """Return the point of a message by try-and-increment (RFC 9381 §5.4.1.1).

    Args:
        salt: The 32 bytes of the public key.
        alpha: The message.

    Returns:
        A point of the prime-order group, 32 bytes.
    """
    for counter in range(_TRIES):
        digest = hashlib.sha512(_SUITE + _ENCODE + salt + alpha + bytes((counter,)) + _BACK).digest()
        if (point := _decode_and_clear(digest[:_POINT_BYTES])) is not None:
            return point
    raise ValueError(
        "found a message without a point in 256 tries, which no known message is"
    )  # chance 2^-256


def _split(proof: bytes) -> Proof | None:
    """Take a proof apart without a look at its point, which costs as much as half a multiplication."""
    if len(proof) != PROOF_BYTES:
        return None
    gamma, rest = proof[:_POINT_BYTES], proof[_POINT_BYTES:]
    challenge, response = rest[:_CHALLENGE_BYTES], rest[_CHALLENGE_BYTES:]
    if int.from_bytes(response, "little") >= _ORDER:
        return None
    return Proof(gamma, challenge, response)


def _hash(gamma: bytes) -> bytes:
    return hashlib.sha512(_SUITE + _HASH + _clear_cofactor(gamma) + _BACK).digest()


def _decode_and_clear(text: bytes) -> bytes | None:
    """Return 8 times the point that 32 bytes name (RFC 8032 §5.1.3); `None` if they name none, or one of small order."""
    if int.from_bytes(text, "little") & ~_SIGN_BIT >= _PRIME:
        return None  # libsodium's additions take y modulo p
    try:
        point = _clear_cofactor(text)
    except NaclError:
        return None
    return None if point == _IDENTITY else point


def _clear_cofactor(point: bytes) -> bytes:
    """Return 8 times a point of the curve.

    Raises:
        NaclError: No point.
    """
    for _ in range(3):
        point = bindings.crypto_core_ed25519_add(point, point)
    return point


def _challenge(*points: bytes) -> bytes:
    """Return c of Y, H, Γ, U and V (RFC 9381 §5.4.3), 16 bytes."""
    return hashlib.sha512(_SUITE + _CHALLENGE + b"".join(points) + _BACK).digest()[:_CHALLENGE_BYTES]


def _as_scalar(challenge: bytes) -> bytes:
    return challenge.ljust(_SCALAR_BYTES, b"\0")
