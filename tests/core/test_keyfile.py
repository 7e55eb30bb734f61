"""Key files: PEM as OpenSSL writes it, base64, and refusals that show nothing of the file."""

from __future__ import annotations

import base64
import shutil
import subprocess
import traceback
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519

from pcs_core.errors import KeyMaterialError
from pcs_core.keyfile import (
    encode_ed25519_public,
    encode_ed25519_secret,
    parse_ed25519_public,
    parse_ed25519_secret,
)
from pcs_core.signing import Ed25519SecretKey

SEED = bytes(range(32))
# RFC 8410 §10.3 and §10.1: the same key's private and public form, as every tool writes them.
RFC_SECRET_PEM = b"""-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
"""
RFC_PUBLIC_PEM = b"""-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""
RFC_SEED = bytes.fromhex("d4ee72dbf913584ad5b6d8f1f769f8ad3afe7c28cbf1d4fbe097a88f44755842")
PKCS8, TRADITIONAL = serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL
PLAIN = serialization.NoEncryption()

Pem = Callable[[], bytes]


def private_pem(key: object, form: serialization.PrivateFormat, protection: object) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, protection)  # type: ignore[attr-defined]


def public_pem(key: object) -> bytes:
    public = key.public_key()  # type: ignore[attr-defined]
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def ed25519_key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.from_private_bytes(SEED)


def test_the_pem_of_rfc_8410_is_read() -> None:
    key = parse_ed25519_secret(RFC_SECRET_PEM)
    assert key.seed == RFC_SEED
    assert parse_ed25519_public(RFC_PUBLIC_PEM).key_id == key.key_id


def test_pem_round_trip() -> None:
    key = Ed25519SecretKey(SEED)
    secret_pem, public = encode_ed25519_secret(key), encode_ed25519_public(key.public_bytes)
    assert secret_pem == private_pem(ed25519_key(), PKCS8, PLAIN)
    assert public == public_pem(ed25519_key())
    assert parse_ed25519_secret(secret_pem).seed == SEED
    assert parse_ed25519_public(public).key_id == key.key_id


def test_openssl_reads_what_is_written_and_is_read() -> None:
    openssl = shutil.which("openssl")
    assert openssl is not None, "the openssl command is part of every image these tests run in"
    key = Ed25519SecretKey(SEED)
    public = subprocess.run(
        [openssl, "pkey", "-pubout"], input=encode_ed25519_secret(key), capture_output=True, check=True
    ).stdout
    assert public == encode_ed25519_public(key.public_bytes)
    made = subprocess.run(
        [openssl, "genpkey", "-algorithm", "ed25519"], capture_output=True, check=True
    ).stdout
    assert encode_ed25519_secret(parse_ed25519_secret(made)) == made


@pytest.mark.parametrize("around", [b"%s", b"%s\n", b"\n  %s\r\n"])
def test_base64_as_in_the_environment_is_read(around: bytes) -> None:
    assert parse_ed25519_secret(around % base64.b64encode(SEED)).seed == SEED
    public = ed25519_key().public_key().public_bytes_raw()
    assert parse_ed25519_public(around % base64.b64encode(public)).key_id == Ed25519SecretKey(SEED).key_id


PASSWORD = serialization.BestAvailableEncryption(b"password")
REFUSED_SECRETS: dict[str, Pem] = {
    "encrypted": lambda: private_pem(ed25519_key(), PKCS8, PASSWORD),
    "rsa": lambda: private_pem(rsa.generate_private_key(65537, 2048), PKCS8, PLAIN),
    "rsa, traditional": lambda: private_pem(rsa.generate_private_key(65537, 2048), TRADITIONAL, PLAIN),
    "rsa, encrypted": lambda: private_pem(rsa.generate_private_key(65537, 2048), TRADITIONAL, PASSWORD),
    "p-256": lambda: private_pem(ec.generate_private_key(ec.SECP256R1()), PKCS8, PLAIN),
    "x25519": lambda: private_pem(x25519.X25519PrivateKey.generate(), PKCS8, PLAIN),
    "public": lambda: RFC_PUBLIC_PEM,
    "cut": lambda: RFC_SECRET_PEM[:70],
    "no end": lambda: RFC_SECRET_PEM[:-30],
    "garbled": lambda: RFC_SECRET_PEM.replace(b"MC4CAQ", b"MC4CAA"),
    "x448, cut short": lambda: RFC_SECRET_PEM.replace(b"K2Vw", b"K2Vv"),
    "unknown label": lambda: RFC_SECRET_PEM.replace(b"PRIVATE KEY", b"SECRET THING"),
    "empty body": lambda: b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
    "seed in hex": lambda: RFC_SEED.hex().encode(),
    "raw seed": lambda: RFC_SEED,
    "short base64": lambda: base64.b64encode(RFC_SEED[:31]),
    "two lines of base64": lambda: base64.b64encode(RFC_SEED) + b"\n" + base64.b64encode(RFC_SEED),
    "text": lambda: b"correct horse battery staple",
    "empty": lambda: b"",
    "binary": lambda: bytes(range(128, 256)),
}


def assert_shows_nothing_of(data: bytes, error: BaseException) -> None:
    shown = "".join([str(error), repr(error), *traceback.format_exception(error)])
    assert (error.__context__, error.__cause__) == (None, None)
    for line in data.decode("latin-1").splitlines():
        if len(line) >= 8 and not line.startswith("-----"):
            assert line not in shown
            assert line[:8] not in shown


@pytest.mark.parametrize("name", list(REFUSED_SECRETS))
def test_any_other_secret_file_is_refused_without_a_trace_of_its_bytes(name: str) -> None:
    data = REFUSED_SECRETS[name]()
    with pytest.raises(KeyMaterialError) as caught:
        parse_ed25519_secret(data)
    assert_shows_nothing_of(data, caught.value)


@pytest.mark.parametrize(
    "data",
    [
        RFC_SECRET_PEM,
        public_pem(ec.generate_private_key(ec.SECP256R1())),
        public_pem(x25519.X25519PrivateKey.generate()),
        RFC_PUBLIC_PEM[:60],
        RFC_PUBLIC_PEM.replace(b"MCow", b"MCox"),
        RFC_PUBLIC_PEM.replace(b"K2Vw", b"K2Vv"),
        b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBm/RAlphM3+hUG6wWfcO5bIUIaqMLa2ywxcOK1wMWbh",
        b"",
        base64.b64encode(bytes(33)),
    ],
    ids=["secret", "p-256", "x25519", "cut", "garbled", "x448, cut short", "ssh", "empty", "33 bytes"],
)
def test_any_other_public_file_is_refused_without_a_trace_of_its_bytes(data: bytes) -> None:
    with pytest.raises(KeyMaterialError) as caught:
        parse_ed25519_public(data)
    assert_shows_nothing_of(data, caught.value)
