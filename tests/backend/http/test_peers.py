"""The name a proxy passes on is the name the handshake would have given, and nothing else is taken for one."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from pcs_backend.errors import UnavailableError
from pcs_backend.http.peers import _passed_on

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def certificate(common_names: list[str], alternatives: list[x509.GeneralName] | None = None) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each) for each in common_names])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=1))
    )
    if alternatives is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(KEY, None).public_bytes(serialization.Encoding.DER)


def header(der: bytes) -> str:
    return f":{base64.b64encode(der).decode()}:"


@pytest.mark.parametrize(
    ("der", "names"),
    [
        (certificate(["common"]), ["common"]),
        (certificate(["common"], [x509.DNSName("a"), x509.DNSName("b")]), ["a", "b"]),
        (
            certificate(["common"], [x509.RFC822Name("a@b"), x509.UniformResourceIdentifier("spiffe://a/b")]),
            ["spiffe://a/b"],
        ),
        (certificate(["common"], [x509.RFC822Name("a@b")]), ["common"]),
        (certificate([]), []),
    ],
)
def test_names_are_those_of_a_handshake(der: bytes, names: list[str]) -> None:
    assert list(_passed_on([header(der)])) == names


@pytest.mark.parametrize("values", [[], [""], ["::"], [" "]])
def test_no_certificate_is_no_name(values: list[str]) -> None:
    assert list(_passed_on(values)) == []


def test_one_certificate_twice_is_refused() -> None:
    value = header(certificate(["a"]))
    with pytest.raises(UnavailableError):
        _passed_on([value, value])


@given(st.text() | st.binary(max_size=2_000).map(header))
def test_what_is_no_certificate_is_unavailable_and_never_shown(text: str) -> None:
    if text.strip() in {"", "::"}:
        assert list(_passed_on([text])) == []
        return
    with pytest.raises(UnavailableError) as caught:
        _passed_on([text])
    assert str(caught.value) == "Client-Cert: the proxy sent something that is not one certificate"
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_damaged_certificates_raise_nothing_else() -> None:
    """Every byte of a certificate, changed into every other."""
    der = certificate(["common"], [x509.DNSName("a")])
    refused = 0
    for place in range(len(der)):
        for change in range(1, 256):
            damaged = bytearray(der)
            damaged[place] ^= change
            try:
                names = _passed_on([header(bytes(damaged))])
            except UnavailableError:
                refused += 1
            else:
                assert all(isinstance(name, str) for name in names)
    assert refused > len(der)
