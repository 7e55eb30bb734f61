"""Key files: PEM, as OpenSSL writes it, or the standard base64 that the environment variables hold.

Reads and writes bytes only; where they lie, and with which mode, is the caller's business.
"""

from __future__ import annotations

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from pcs_core.errors import KeyMaterialError
from pcs_core.signing import Ed25519PublicKey, Ed25519SecretKey, decode_key_base64

KEY_FILE_BYTES_MAX = 16_384
_PEM_START = b"-----BEGIN "

# What the library raises at PEM that is no key it knows; the last where OpenSSL gave no reason, as for an X448 key cut short.
_NO_KEY_ERRORS = (ValueError, TypeError, UnsupportedAlgorithm, InternalError)


def parse_ed25519_secret(data: bytes) -> Ed25519SecretKey:
    """Read an Ed25519 secret key: unencrypted PKCS#8 PEM, or base64 of the 32-byte seed.

    Raises:
        KeyMaterialError: Anything else. The message holds no byte of the file.
    """
    if not data.lstrip().startswith(_PEM_START):
        return Ed25519SecretKey(decode_key_base64(_single_line(data)))
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except _NO_KEY_ERRORS:
        key = None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise KeyMaterialError(
            "found PEM of another kind; allowed: an unencrypted Ed25519 private key in PKCS#8"
        )
    return Ed25519SecretKey(key.private_bytes_raw())


def parse_ed25519_public(data: bytes) -> Ed25519PublicKey:
    """Read an Ed25519 public key: SubjectPublicKeyInfo PEM, or base64 of the 32 bytes.

    Raises:
        KeyMaterialError: Anything else.
    """
    if not data.lstrip().startswith(_PEM_START):
        return Ed25519PublicKey(decode_key_base64(_single_line(data)))
    try:
        key = serialization.load_pem_public_key(data)
    except _NO_KEY_ERRORS:
        key = None
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise KeyMaterialError("found PEM of another kind; allowed: an Ed25519 public key")
    return Ed25519PublicKey(key.public_bytes_raw())


def encode_ed25519_secret(key: Ed25519SecretKey) -> bytes:
    """Return the key as unencrypted PKCS#8 PEM. Write it with mode 0600."""
    return ed25519.Ed25519PrivateKey.from_private_bytes(key.seed).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def encode_ed25519_public(public_bytes: bytes) -> bytes:
    """Return 32 public bytes as SubjectPublicKeyInfo PEM."""
    return ed25519.Ed25519PublicKey.from_public_bytes(public_bytes).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _single_line(data: bytes) -> str:
    return data.strip().decode("ascii", errors="replace")
