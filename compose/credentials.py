"""`make compose-secrets`: the secrets and certificates that compose/compose.yaml and its overlay mount as files.

Run again, it keeps every secret and both authorities, and issues the certificates anew: that is how they are renewed.

Compose mounts a file as it is, and the containers run as users of their own: the files are readable by all, in a folder
that only its owner can enter.
"""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path

import certificates
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

PASSWORD_BYTES = 32
AUTHORITY_DAYS = 3_650

INNER, AGENTS = "inner-authority", "agents-authority"
"""Whoever has a certificate of the inner authority may speak to the backend; one of the agents' only through the proxy."""

_CERTIFICATES = (
    ("backend", INNER, certificates.SERVER_NAMES),
    ("proxy", INNER, ("proxy",)),
    ("prometheus", INNER, ("prometheus",)),
    ("agent", AGENTS, ("agent.localhost",)),
)


def main() -> None:
    """Write everything into a folder."""
    parser = argparse.ArgumentParser(description="Make the secrets of compose/compose.yaml.")
    parser.add_argument("folder", type=Path, help="where to write; made if it is missing")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    made = write_secrets(folder) + write_certificates(folder)
    print(f"wrote {', '.join(made)} to {folder}; certificates are valid for {certificates.DAYS} days")


def write_secrets(folder: Path) -> list[str]:
    """Make the secrets that are not there yet.

    Returns:
        Their names.
    """
    database, redis = _password(folder, "postgres_password"), _password(folder, "redis_password")
    contents = {
        "hmac_key": secrets.token_hex(PASSWORD_BYTES),
        "metrics_password": secrets.token_hex(PASSWORD_BYTES),
        "grafana_password": secrets.token_hex(PASSWORD_BYTES),
        "postgres_password": database,
        "postgres_dsn": f"postgresql://pcs:{database}@postgres:5432/pcs",
        "redis_password": redis,
        "redis_auth": f"requirepass {redis}",
        "redis_addr": f"redis://:{redis}@redis:6379/0",
    }
    missing = [name for name in contents if not (folder / name).exists()]
    for name in missing:
        _write(folder / name, contents[name])
    return missing


def write_certificates(folder: Path) -> list[str]:
    """Issue every certificate, and make the authorities that are not there yet.

    Returns:
        The names of what was made.
    """
    made = []
    authorities = {}
    for name in (INNER, AGENTS):
        if (folder / f"{name}.key").exists() and (folder / f"{name}.pem").exists():
            authorities[name] = _load(folder, name)
            continue
        authorities[name] = certificates.make_authority(f"PCS {name}", days=AUTHORITY_DAYS)
        certificates.write(
            authorities[name], folder, name
        )  # its key stays with mode 0600: no container needs it
        made.append(name)
    for name, authority, names in _CERTIFICATES:
        issued = certificates.issue(authorities[authority], names, for_server=name == "backend")
        _, key = certificates.write(issued, folder, name)
        key.chmod(0o644)
        made.append(name)
    return made


def _password(folder: Path, name: str) -> str:
    path = folder / name
    return path.read_text().strip() if path.exists() else secrets.token_hex(PASSWORD_BYTES)


def _load(folder: Path, name: str) -> certificates.Issued:
    key = serialization.load_pem_private_key((folder / f"{name}.key").read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return certificates.Issued(x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes()), key)


def _write(path: Path, text: str) -> None:
    path.write_text(text + "\n")
    path.chmod(0o644)


if __name__ == "__main__":
    main()
