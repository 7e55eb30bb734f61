"""`make certs`: a certificate authority for development, a certificate for the backend and one for an agent.

Not for production: the authority's key lies beside what it signed. Everything is ECDSA P-256; keys have mode 0600.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAYS = 90
SERVER_NAMES = ("localhost", "127.0.0.1", "::1", "backend")
CLIENT_NAME = "agent.localhost"


class Issued(NamedTuple):
    """A certificate with its key.

    Attributes:
        certificate: The certificate.
        key: Its private key.
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_authority(name: str = "PCS development CA", days: float = DAYS) -> Issued:
    """Return a new certificate authority, valid from now for some days."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(name, name, key.public_key(), *_validity(days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
    )
    return Issued(builder.sign(key, hashes.SHA256()), key)


def issue(authority: Issued, names: tuple[str, ...], *, for_server: bool, days: float = DAYS) -> Issued:
    """Return a certificate of an authority's.

    Args:
        authority: Signs it.
        names: Host names and addresses it stands for; the first is its common name.
        for_server: Whether it is a server's or a client's.
        days: How long it is valid from now; negative for one that has expired.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if for_server else ExtendedKeyUsageOID.CLIENT_AUTH
    issuer = authority.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    builder = (
        _builder(names[0], str(issuer), key.public_key(), *_validity(days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
        )
    )
    return Issued(builder.sign(authority.key, hashes.SHA256()), key)


def write(issued: Issued, folder: Path, name: str) -> tuple[Path, Path]:
    """Write `NAME.pem` and `NAME.key`, each whole or not at all, and return their paths."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    _replace(certificate, issued.certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    private = issued.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _replace(key, private, 0o600)
    return certificate, key


def main() -> None:
    """Write everything into a folder."""
    parser = argparse.ArgumentParser(description="Make certificates for development.")
    parser.add_argument("folder", type=Path, help="where to write; made if it is missing")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    authority = make_authority()
    write(authority, folder, "ca")
    write(issue(authority, SERVER_NAMES, for_server=True), folder, "backend")
    write(issue(authority, (CLIENT_NAME,), for_server=False), folder, "agent")
    print(f"wrote ca, backend and agent (.pem, .key) to {folder}, valid for {DAYS} days")


def _builder(
    subject: str,
    issuer: str,
    public_key: ec.EllipticCurvePublicKey,
    not_before: datetime,
    not_after: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _validity(days: float) -> tuple[datetime, datetime]:
    now = datetime.now(UTC)
    return now - timedelta(days=max(0.0, -days) + 1), now + timedelta(days=days)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _replace(path: Path, data: bytes, mode: int) -> None:
    new = path.with_name(path.name + ".new")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    new.rename(path)


if __name__ == "__main__":
    main()
