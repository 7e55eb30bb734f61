"""The Locust file and the k6 script against a real backend: what they say they sent is what the backend counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from processes import HMAC_KEY, Backend, Client, clean_environment, command
from tools import tool

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
RECORDS = 3_000
TIMEOUT_S = 120.0


@pytest.fixture
def records(tmp_path: Path) -> Path:
    return make_records(tmp_path, RECORDS)


def make_records(tmp_path: Path, count: int) -> Path:
    path = tmp_path / "records.ndjson"
    done = run(
        [sys.executable, "-m", "bench.records", str(path), "--count", str(count)],
        PCS_SIGN_ALG="hmac",
        PCS_HMAC_KEY=HMAC_KEY,
    )
    assert done.returncode == 0, done.stderr
    return path


def run(arguments: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    environment = clean_environment(**variables, PYTHONPATH=os.pathsep.join([str(ROOT / "load")]))
    return subprocess.run(
        arguments, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


async def assert_counted(backend: Backend, new: int, duplicate: int, bad_signature: int) -> None:
    async with Client(backend) as client:
        metrics = await client.metrics()
        assert await client.counters() == (new + duplicate + bad_signature, duplicate, new, 0)
    assert metrics['flk_refused_total{problem="bad-signature"}'] == bad_signature
    assert (
        sum(value for name, value in metrics.items() if name.startswith("flk_refused_total{"))
        == bad_signature
    )


async def test_locust(tmp_path: Path) -> None:
    records = make_records(tmp_path, 400)
    with Backend(tmp_path / "data", PCS_SIGN_ALG="hmac", PCS_HMAC_KEY=HMAC_KEY) as backend:
        options = [
            "-f",
            "load/locustfile.py",
            "--host",
            backend.url,
            "--headless",
            "--only-summary",
            "--json",
        ]
        users = ["--users", "10", "--spawn-rate", "10", "--run-time", f"{TIMEOUT_S:.0f}s"]
        done = run([command("locust"), *options, *users], RECORDS=str(records))
        assert done.returncode == 0, done.stderr
        found = {each["name"]: each for each in json.loads(done.stdout)}
        assert sum(each["num_failures"] for each in found.values()) == 0
        sent = {name: each["num_requests"] for name, each in found.items()}
        assert sent == {"new": 380, "duplicate": 60, "bad-signature": 20}
        await assert_counted(backend, 380, 60, 20)


async def test_locust_fails_where_an_answer_is_not_the_one_that_is_due(tmp_path: Path, records: Path) -> None:
    with Backend(
        tmp_path / "data", PCS_SIGN_ALG="hmac", PCS_HMAC_KEY="another key, so nothing verifies"
    ) as backend:
        options = ["-f", "load/locustfile.py", "--host", backend.url, "--headless", "--only-summary"]
        done = run(
            [command("locust"), *options, "--users", "5", "--run-time", "2s", "--stop-timeout", "20"],
            RECORDS=str(records),
        )
    assert done.returncode == 1
    assert "status 401" in done.stderr + done.stdout


async def test_k6(tmp_path: Path, records: Path) -> None:
    summary = tmp_path / "summary.json"
    with Backend(tmp_path / "data", PCS_SIGN_ALG="hmac", PCS_HMAC_KEY=HMAC_KEY) as backend:
        done = run_k6(backend, records, summary)
        assert done.returncode == 0, done.stderr
        found = json.loads(summary.read_text())
        assert found["wrong"] == 0
        assert 0 < found["bad_signature"] < found["duplicate"] < found["new"]
        await assert_counted(backend, found["new"], found["duplicate"], found["bad_signature"])


async def test_k6_fails_where_an_answer_is_not_the_one_that_is_due(tmp_path: Path, records: Path) -> None:
    summary = tmp_path / "summary.json"
    with Backend(
        tmp_path / "data", PCS_SIGN_ALG="hmac", PCS_HMAC_KEY="another key, so nothing verifies"
    ) as backend:
        done = run_k6(backend, records, summary)
    assert done.returncode == 99  # a threshold was crossed
    assert json.loads(summary.read_text())["wrong"] > 100


def run_k6(backend: Backend, records: Path, summary: Path) -> subprocess.CompletedProcess[str]:
    values = {
        "RECORDS": str(records),
        "URL": backend.url,
        "RATE": "40",
        "DURATION": "5s",
        "SUMMARY": str(summary),
    }
    options = [option for name, value in values.items() for option in ("-e", f"{name}={value}")]
    return run([tool("k6"), "run", "--quiet", "--no-usage-report", *options, "load/k6.js"])
