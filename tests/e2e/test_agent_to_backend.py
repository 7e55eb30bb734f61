"""Agent and backend as installed, end to end, with signing on."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import subprocess
from pathlib import Path

import pytest

import pcs_records
from processes import HMAC_KEY, Backend, Client, clean_environment, command, run

pytestmark = [pytest.mark.slow]

SEED = bytes(range(32))
SUBMIT = "/v1/pcs/submit"
WINDOWS, WINDOW_ROWS = 12, 50

SIGNERS = {
    "hmac": (
        {"PCS_SIGN_ALG": "hmac", "PCS_HMAC_KEY": HMAC_KEY},
        {"PCS_SIGN_ALG": "hmac", "PCS_HMAC_KEY": HMAC_KEY},
    ),
    "ed25519": (
        {"PCS_SIGN_ALG": "ed25519", "PCS_ED25519_SECRET_B64": base64.b64encode(SEED).decode()},
        {
            "PCS_SIGN_ALG": "ed25519",
            "PCS_ED25519_PUB_B64": base64.b64encode(pcs_records.ed25519_public(SEED)).decode(),
        },
    ),
}


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    """A stream of `WINDOWS` windows of points in the plane."""
    generator = random.Random(3)
    path = tmp_path / "stream.csv"
    rows = [f"{generator.random()},{generator.random()}" for _ in range(WINDOWS * WINDOW_ROWS)]
    path.write_text("x,y\n" + "\n".join(rows) + "\n")
    return path


def agent_arguments(stream: Path) -> list[str]:
    return ["run", str(stream), "--shard-id", "e2e", "--epoch", "5", "--window", str(WINDOW_ROWS), "--json"]


@pytest.mark.parametrize("algorithm", list(SIGNERS))
async def test_agent_signatures_are_accepted_and_a_second_run_doubles_nothing(
    tmp_path: Path, stream: Path, store_variables: dict[str, str], algorithm: str
) -> None:
    """L1, L17: both sides agree on the signed bytes, with both algorithms."""
    signing, verifying = SIGNERS[algorithm]
    with Backend(tmp_path / "data", **store_variables, **verifying) as backend:
        variables = signing | {"ENDPOINT": backend.url + SUBMIT}
        done = run("pcs-agent", *agent_arguments(stream), OUTBOX_DIR=str(tmp_path / "outbox"), **variables)
        assert done.returncode == 0, done.stderr.decode()
        results = [json.loads(line) for line in done.stdout.splitlines()]
        assert [result["epoch"] for result in sorted(results, key=lambda each: each["epoch"])] == list(
            range(5, 17)
        )
        assert {result["verdict"] for result in results} == {"accepted"}
        async with Client(backend) as client:
            assert await client.counters() == (WINDOWS, 0, WINDOWS, 0)
            # Another outbox knows nothing of the first: it sends everything again, and is answered as a duplicate.
            again = run(
                "pcs-agent", *agent_arguments(stream), OUTBOX_DIR=str(tmp_path / "other"), **variables
            )
            assert again.returncode == 0
            assert await client.counters() == (2 * WINDOWS, WINDOWS, WINDOWS, 0)
            assert (await client.metrics())["flk_conflicts_total"] == 0


async def test_backend_verifies_what_the_agent_builds_and_openssl_style_keys_work(
    tmp_path: Path, stream: Path
) -> None:
    made = run("pcs-agent", "keygen", "--out", str(tmp_path / "agent.key"))
    assert made.returncode == 0
    assert (tmp_path / "agent.key").stat().st_mode & 0o777 == 0o600
    public = next(
        line.partition("=")[2]
        for line in made.stdout.decode().splitlines()
        if line.startswith("PCS_ED25519_PUB_B64=")
    )
    built = run(
        "pcs-agent", "build", str(stream), "--shard-id", "s", "--epoch", "1", "--key-file", str(tmp_path / "agent.key"),
        PCS_SIGN_ALG="ed25519",
    )  # fmt: skip
    assert built.returncode == 0, built.stderr.decode()
    with Backend(tmp_path / "data", PCS_SIGN_ALG="ed25519", PCS_ED25519_PUB_B64=public) as backend:
        async with Client(backend) as client:
            assert (await client.submit(built.stdout)).status == 200


async def test_agent_outlives_a_backend_that_is_killed_and_comes_back(tmp_path: Path, stream: Path) -> None:
    """The backend dies under the agent's hands and returns on the same port: nothing is lost, nothing doubled."""
    signing, verifying = SIGNERS["hmac"]
    backend = Backend(tmp_path / "data", **verifying)
    with backend.start():
        port = backend.url.rpartition(":")[2]
        backend.kill()
    agent = await asyncio.create_subprocess_exec(
        command("pcs-agent"),
        *agent_arguments(stream),
        env=clean_environment(ENDPOINT=backend.url + SUBMIT, OUTBOX_DIR=str(tmp_path / "outbox"), **signing),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    # The outbox has the stream on disk before the backend is there at all.
    pending = tmp_path / "outbox"
    while not any(path.stat().st_size > WINDOWS * 500 for path in pending.rglob("*.wal")):
        await asyncio.sleep(0.01)
    backend.variables["PORT"] = port
    with backend.start():
        stdout, stderr = await agent.communicate()
        assert agent.returncode == 0, stderr.decode()
        assert {json.loads(line)["verdict"] for line in stdout.splitlines()} == {"accepted"}
        async with Client(backend) as client:
            _, _, accepted, escalated = await client.counters()
            assert (accepted, escalated) == (WINDOWS, 0)


async def test_agent_with_a_wrong_key_keeps_its_records_and_says_so(tmp_path: Path, stream: Path) -> None:
    """Repeated 401s pause delivery: the outbox is not emptied into the dead letters."""
    _, verifying = SIGNERS["hmac"]
    wrong = {"PCS_SIGN_ALG": "hmac", "PCS_HMAC_KEY": "another-key-than-the-backend"}
    outbox = {"OUTBOX_DIR": str(tmp_path / "outbox")}
    with Backend(tmp_path / "data", **verifying) as backend:
        endpoint = {"ENDPOINT": backend.url + SUBMIT}
        refused = run("pcs-agent", *agent_arguments(stream), **endpoint, **outbox, **wrong)
        assert refused.returncode == 1
        assert b"paused" in refused.stderr
        assert {json.loads(line)["verdict"] for line in refused.stdout.splitlines()} == {"pending"}
        dead = run("pcs-agent", "dlq", "list", "--json", **outbox)
        assert dead.stdout == b""
        waiting = run("pcs-agent", "outbox", "list", "--json", **outbox)
        assert len(waiting.stdout.splitlines()) == WINDOWS
