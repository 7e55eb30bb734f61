"""The scan of `make secrets`: it finds what it should, and its exceptions are no wider than they say."""

from __future__ import annotations

import base64
import hashlib
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from pcs_core.keyfile import encode_ed25519_secret
from pcs_core.signing import Ed25519SecretKey

ROOT = Path(__file__).resolve().parents[2]
GITLEAKS = Path(sys.executable).parent / "gitleaks"


def scan(folder: Path) -> int:
    command = [str(GITLEAKS), "git", "--no-banner", "--log-level", "error", "--redact"]
    return subprocess.run(
        [*command, "--config", str(ROOT / ".gitleaks.toml"), str(folder)], check=False
    ).returncode


def commit(folder: Path, name: str, content: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True)
    path.write_text(content, encoding="utf-8")
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    for arguments in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "a file"]):
        subprocess.run(["git", "-C", str(folder), *arguments], check=True)


def private_key() -> str:
    return encode_ed25519_secret(Ed25519SecretKey(secrets.token_bytes(32))).decode()


def password() -> str:
    # The same one each time: of random ones the tool takes some, which hold a common word by chance, for no secret.
    return f'api_key = "{base64.b64encode(hashlib.sha256(b"a password").digest()).decode()}"\n'


@pytest.mark.parametrize("name", ["core/pcs_core/a.py", "agent/pcs_agent/config.py", "tests/core/test_a.py"])
@pytest.mark.parametrize("secret", [private_key, password])
def test_new_secret_is_found(name: str, secret: object, tmp_path: Path) -> None:
    assert callable(secret)
    commit(tmp_path, name, secret())
    assert scan(tmp_path) == 1


def test_what_is_no_secret_passes(tmp_path: Path) -> None:
    commit(tmp_path, "tests/core/test_a.py", 'PCS_HMAC_KEY = "canary-secret-6f1e-0a1b2c3d4e5f"\n')
    assert scan(tmp_path) == 0
