"""The agent behind mutual TLS, with every request signed as a whole."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import certificates
import pytest

from pcs_core.keyring import message_ed25519_key
from pcs_records import ed25519_public
from processes import HMAC_KEY, Backend, run

pytestmark = [pytest.mark.slow]

SEED = bytes(range(32))
LINES = "x,y\n" + "".join(f"{number},{number * number % 17}\n" for number in range(60))
DEMAND = {"REQUIRE_MESSAGE_SIGNATURE": "true"}


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def ed25519_keys(folder: Path) -> dict[str, str]:
    path = folder / "keys.toml"
    path.write_text(
        f'[[keys]]\nid = "agent"\nalgorithm = "ed25519"\npublic_key = "{encode(ed25519_public(SEED))}"\n'
        f'message_public_key = "{encode(message_ed25519_key(SEED).public_bytes)}"\n'
    )
    return {"PCS_KEYS_FILE": str(path)}


def run_agent(
    folder: Path, backend: Backend, *options: str, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    stream = folder / "stream.csv"
    stream.write_text(LINES)
    arguments = ("run", str(stream), "--shard-id", "s", "--epoch", "0", "--window", "20", "--json", *options)
    given = {"ENDPOINT": f"{backend.url}/v1/pcs/submit", "OUTBOX_DIR": str(folder / "outbox")} | variables
    return run("pcs-agent", *arguments, **given)


def verdicts(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    return [json.loads(line)["verdict"] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("algorithm", ["hmac", "ed25519"])
def test_signed_requests_are_taken_where_they_are_demanded(
    tmp_path: Path, hmac_variables: dict[str, str], algorithm: str
) -> None:
    if algorithm == "hmac":
        verifying, signing = hmac_variables, {"PCS_SIGN_ALG": "hmac", "PCS_HMAC_KEY": HMAC_KEY}
    else:
        verifying = ed25519_keys(tmp_path)
        signing = {"PCS_SIGN_ALG": "ed25519", "PCS_ED25519_SECRET_B64": encode(SEED)}
    with Backend(tmp_path / "data", **DEMAND, **verifying) as backend:
        refused = run_agent(tmp_path, backend, SIGN_REQUESTS="false", **signing)
        assert (refused.returncode, set(verdicts(refused))) == (1, {"pending"})
        done = run_agent(tmp_path, backend, **signing)
        assert (done.returncode, set(verdicts(done))) == (0, {"accepted"}), done.stderr
        assert backend.stop() == 0


def test_mutual_tls(tmp_path: Path, hmac_variables: dict[str, str]) -> None:
    authority = certificates.make_authority()
    ca, _ = certificates.write(authority, tmp_path, "ca")
    server = certificates.write(
        certificates.issue(authority, ("127.0.0.1",), for_server=True), tmp_path, "server"
    )
    client = certificates.write(
        certificates.issue(authority, ("agent",), for_server=False), tmp_path, "agent"
    )
    other, _ = certificates.write(certificates.make_authority("other"), tmp_path, "other")
    tls = {"TLS_CERT": str(server[0]), "TLS_KEY": str(server[1]), "TLS_CLIENT_CA": str(ca)}
    shown = {"TLS_CLIENT_CERT": str(client[0]), "TLS_CLIENT_KEY": str(client[1])}
    signing = {"PCS_SIGN_ALG": "hmac", "PCS_HMAC_KEY": HMAC_KEY}
    with Backend(tmp_path / "data", **DEMAND, **tls, **hmac_variables) as backend:
        quick = ("--deadline", "0.01")
        for options, variables in (
            ((), shown),  # the system's authorities
            (("--ca-file", str(other)), shown),
        ):
            refused = run_agent(tmp_path, backend, *quick, *options, **signing, **variables)
            assert refused.returncode == 1
            assert b"certificate not trusted" in refused.stdout + refused.stderr
            assert run("pcs-agent", "dlq", "redrive", OUTBOX_DIR=str(tmp_path / "outbox")).returncode == 0
        nameless = run_agent(tmp_path, backend, *quick, "--ca-file", str(ca), **signing)
        assert nameless.returncode == 1
        assert run("pcs-agent", "dlq", "redrive", OUTBOX_DIR=str(tmp_path / "outbox")).returncode == 0
        done = run_agent(tmp_path, backend, "--ca-file", str(ca), **signing, **shown)
        assert done.returncode == 0, done.stderr
        assert set(verdicts(done)) == {"accepted"}
        loud = run_agent(tmp_path, backend, TLS_VERIFY="false", **signing, **shown)
        assert loud.returncode == 0
        assert b"Warning: TLS_VERIFY=false: the backend's certificate is NOT verified" in loud.stderr
        assert backend.stop() == 0


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"TLS_CLIENT_CERT": "x"}, b"TLS_CLIENT_KEY: found nothing"),
        ({"TLS_CLIENT_KEY": "x"}, b"TLS_CLIENT_CERT: found nothing"),
        (
            {"TLS_CA_FILE": "/nowhere"},
            b"TLS_CA_FILE: found a file that cannot be used (No such file or directory)",
        ),
        ({"TLS_VERIFY": "maybe"}, b"TLS_VERIFY: found a string of length 5; allowed: true or false"),
        (
            {"TLS_CLIENT_CERT": "/nowhere", "TLS_CLIENT_KEY": "/nowhere"},
            b"TLS_CLIENT_CERT and TLS_CLIENT_KEY: found files that cannot be used",
        ),
    ],
)
def test_half_a_configuration_is_refused(tmp_path: Path, variables: dict[str, str], message: bytes) -> None:
    given = {"ENDPOINT": "https://127.0.0.1:1/v1/pcs/submit", "OUTBOX_DIR": str(tmp_path)} | variables
    ended = run("pcs-agent", "outbox", "flush", **given)
    assert ended.returncode == 2
    assert message in ended.stderr
