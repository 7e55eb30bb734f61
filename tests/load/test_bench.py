"""The benchmark: a short run of it, and that it notices what is wrong or missing."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pcs_records
from processes import HMAC_KEY, Backend, Client, clean_environment

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 180.0


def python(
    module: str, *arguments: str, stdin: bytes = b"", **variables: str
) -> subprocess.CompletedProcess[bytes]:
    path = os.pathsep.join([str(ROOT / "load"), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=clean_environment(**variables, PYTHONPATH=path),
        input=stdin,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def test_a_quick_run_measures_floors_and_service_and_finds_every_record(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = python("bench", "--quick", "--folder", str(tmp_path), "--json", str(figures))
    assert done.returncode == 0, done.stderr.decode()
    found = {name: runs[0] for name, runs in json.loads(figures.read_bytes()).items()}
    assert all(each["rate"] > 0 and not each["wrong"] for each in found.values())
    served = found["single hmac memory 1w"]
    assert served["latency_ms"] == sorted(served["latency_ms"])
    assert served["cpu_us"] > found["F2 checks in a bare loop"]["cpu_us"]
    assert served["records_a_sync"] > 1
    assert found["batch 100 hmac memory 1w"]["records_a_sync"] >= 50  # a batch has a sync or two
    assert found["open loop 100/s hmac memory"]["rate"] == pytest.approx(100, rel=0.5)
    lines = done.stdout.decode().splitlines()
    assert any(line.startswith("0 ") and "all" in line and "yes" in line for line in lines)
    assert any(line.startswith("1 ") and "≥ 0.75" in line for line in lines)


async def test_what_is_missing_after_a_run_is_counted(tmp_path: Path) -> None:
    documents = [
        pcs_records.sign(pcs_records.document(epoch=epoch), hmac_key=HMAC_KEY.encode()) for epoch in range(3)
    ]
    lines = []
    with Backend(tmp_path / "data", PCS_SIGN_ALG="hmac", PCS_HMAC_KEY=HMAC_KEY) as backend:
        async with Client(backend) as client:
            for document in documents:
                answer = await client.submit(pcs_records.body(document).replace(b": ", b":"))
                assert answer.status == 200
                lines.append(b"%b 200 %b\n" % (document["pcs_id"].encode(), answer.body))
        backend.kill()
        answers = tmp_path / "answers"
        answers.write_bytes(b"".join(lines))
        assert count_missing(answers, backend) == {
            "answered": 3,
            "no_request": 0,
            "no_outcome": 0,
            "other_outcome": 0,
        }
        lines[1] = lines[1].replace(b'"accepted":true', b'"accepted":null')
        lines[2] = b"%b %b" % (b"0" * 64, lines[2][65:])
        answers.write_bytes(b"".join(lines))
        assert count_missing(answers, backend) == {
            "answered": 3,
            "no_request": 1,
            "no_outcome": 1,
            "other_outcome": 1,
        }


def count_missing(answers: Path, backend: Backend) -> dict[str, int]:
    done = python("bench.replay", str(answers), "--logs", str(backend.data_dir), **backend.variables)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@contextlib.contextmanager
def constant_server(folder: Path) -> Iterator[dict[str, object]]:
    """Give a job of 40 records for F1, which answers everything with the outcome of one record that nobody sent."""
    bodies = folder / "records.ndjson"
    made = python("bench.records", str(bodies), "--count", "40")
    assert made.returncode == 0, made.stderr.decode()
    ids = folder / "ids"
    ids.write_text("".join(json.loads(line)["pcs_id"] for line in bodies.read_text().splitlines()))
    server = Backend(folder, PYTHONPATH=str(ROOT / "load"))
    server.command = [sys.executable, "-m", "bench.floors.http"]
    server.start(wait_ready=False)
    try:
        yield {
            "ports": [int(server.url.rpartition(":")[2])],
            "path": "/v1/pcs/submit",
            "bodies": str(bodies),
            "ids": str(ids),
            "pool_count": 40,
            "count": 40,
            "connections": 4,
            "pids": [server.pid],
        }
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("rate", "may_refuse", "wrong"),
    [
        pytest.param(0.0, False, {"the outcome of another record": 40}, id="closed"),
        pytest.param(400.0, True, {"the outcome of another record": 40}, id="open"),
    ],
)
def test_the_client_notices_an_answer_that_is_another_records(
    tmp_path: Path, *, rate: float, may_refuse: bool, wrong: dict[str, int]
) -> None:
    with constant_server(tmp_path) as job:
        job |= {"rate": rate, "may_refuse": may_refuse}
        done = python("bench.client", stdin=json.dumps(job).encode())
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    assert (found["records"], found["wrong"]) == (0, wrong)


def test_the_client_of_two_services_notices_it_as_well(tmp_path: Path) -> None:
    with constant_server(tmp_path) as job:
        done = python("bench.turns", stdin=json.dumps([job, job]).encode())
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    assert [(each["records"], each["wrong"]) for each in found["sides"]] == [
        (0, {"the outcome of another record": 40})
    ] * 2
