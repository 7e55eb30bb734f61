"""What the tests of the chart share: the Secrets that its values name, with real keys and certificates."""

from __future__ import annotations

import base64
from pathlib import Path

import certificates
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from processes import HMAC_KEY

KEYS_FILE = """
[[keys]]
id = "plant-7"
algorithm = "ed25519"
public_key = "{public_key}"
message_public_key = "{public_key}"
tenant = "plants"

[tenants.plants]
rate = 100.0
"""


@pytest.fixture(scope="session")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Contents of the Secrets, by name and key."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = certificates.make_authority()

    def pair(names: tuple[str, ...], *, for_server: bool) -> dict[str, str]:
        issued = certificates.issue(authority, names, for_server=for_server, days=1)
        paths = certificates.write(issued, folder, names[0])
        return {"tls.crt": paths[0].read_text(), "tls.key": paths[1].read_text(), "ca.crt": ca.read_text()}

    ca: Path = certificates.write(authority, folder, "ca")[0]
    public_key = base64.b64encode(Ed25519PrivateKey.generate().public_key().public_bytes_raw()).decode()
    own = {
        "PCS_HMAC_KEY": HMAC_KEY,
        "PCS_ED25519_PUB_B64": public_key,
        "METRICS_USER": "prometheus",
        "METRICS_PASS": "a-password-of-the-tests",
        "CALIBRATION_USER": "labels",
        "CALIBRATION_PASS": "another-password-of-the-tests",
        "REDIS_ADDR": "127.0.0.1:6379",
        "POSTGRES_DSN": "postgresql://pcs@127.0.0.1/pcs",
        "keys.toml": KEYS_FILE.format(public_key=public_key),
    }
    return {
        "pcs-verification-keys": own,
        "pcs-verification": own,
        "pcs-tls": pair(("pcs-verification.plant.svc", "127.0.0.1"), for_server=True),
        "pcs-client-ca": {"ca.crt": ca.read_text()},
        "pcs-client": pair(("client",), for_server=False),
    }
