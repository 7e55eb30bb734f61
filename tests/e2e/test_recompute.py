"""A thousand answers are told again from the store alone, after all that they could have depended on has changed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import orjson
import pytest

import pcs_records
from gates import promote, set_of
from pcs_backend import __version__
from processes import HMAC_KEY, Backend, Client, clean_environment, command, run
from servers import PostgresServer, RedisServer

RECORDS = 1_000
SIGNED = {"PCS_SIGN_ALG": "hmac", "PCS_HMAC_KEY": HMAC_KEY}
OTHER_KEY = {"PCS_SIGN_ALG": "hmac", "PCS_HMAC_KEY": "a-key-that-came-later-than-all-of-them"}
GATE = {"ENABLE_CONFORMAL_GATE": "true"}
SCORES = [at / 500 for at in range(500)]
LATER_PARAMS = """
version = "later"
tol_d = 0.5
base = 0.2
score_d_hat = 0.0
"""
LATER_VERSION = "99.0.0"

pytestmark = [pytest.mark.slow]


@pytest.fixture(params=["memory", "redis", "postgres"])
def store(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    if request.param == "memory":
        yield {"DEDUP_BACKEND": "memory"}
    elif request.param == "redis":
        with RedisServer() as redis:
            yield {"DEDUP_BACKEND": "redis", "REDIS_ADDR": redis.address}
    else:
        with PostgresServer() as postgres:
            yield {"DEDUP_BACKEND": "postgres", "POSTGRES_DSN": postgres.create_database()}


@pytest.fixture
def later_package(tmp_path: Path) -> Path:
    """A folder from which the installed package has another version."""
    metadata = tmp_path / "later" / f"pcs_verification-{LATER_VERSION}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: pcs-verification\nVersion: {LATER_VERSION}\n"
    )
    return metadata.parent


def bodies() -> list[bytes]:
    """Return records of which some fail a fixed check, and some the gate."""
    numbers = random.Random(85)
    documents = [
        pcs_records.document(
            epoch=epoch,
            coh_star=round(numbers.uniform(0, 1.02), 9),
            r=round(numbers.uniform(0, 1), 9),
            N_j={"2": 3, "4": 5, "8": 9, "16": 17, "32": numbers.randint(18, 32_000)},
            **({"regime": "sticky"} if epoch % 10 == 0 else {}),
        )
        for epoch in range(RECORDS)
    ]
    return [pcs_records.body(pcs_records.sign(each, hmac_key=HMAC_KEY.encode())) for each in documents]


def recompute(ids: bytes, later_package: Path, environ: Mapping[str, str]) -> list[dict[str, object]]:
    told = subprocess.run(
        [command("pcs-backend"), "recompute", "--json", "-"],
        input=ids,
        env=clean_environment(**environ, PYTHONPATH=str(later_package)),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert told.returncode in (0, 1), told.stderr.decode()
    return [orjson.loads(line) for line in told.stdout.splitlines()]


async def test_a_thousand_verdicts_are_recomputed_bit_for_bit_after_everything_changed(
    tmp_path: Path, store: dict[str, str], later_package: Path
) -> None:
    data_dir = tmp_path / "data"
    first = set_of(SCORES, SCORES, alpha=0.4, delta=0.55)
    environ = {**store, **SIGNED, **GATE}
    await promote(clean_environment(DATA_DIR=str(data_dir), **environ), first)
    with Backend(data_dir, **environ) as backend:
        async with Client(backend) as client:
            answer = await client.request(
                "POST",
                "/v1/pcs/batch",
                data=b"\n".join(bodies()),
                headers={"Content-Type": "application/x-ndjson"},
            )
        assert (answer.status, backend.stop()) == (200, 0)
    entries = [json.loads(line) for line in answer.body.splitlines()]
    decisions = [entry["body"]["decision"] for entry in entries]
    assert {each: decisions.count(each) > 50 for each in decisions} == dict.fromkeys(
        ("ACCEPT", "ESCALATE", "REJECT"), True
    )

    params = tmp_path / "later.toml"
    params.write_text(LATER_PARAMS)
    later = {"DATA_DIR": str(data_dir), **store, **OTHER_KEY, **GATE, "PCS_PARAMS_FILE": str(params)}
    await promote(clean_environment(**later), set_of([0.0] * 100, [0.0] * 100))
    assert version_seen_from(later_package) == LATER_VERSION != __version__

    ids = "\n".join(entry["body"]["pcs_id"] for entry in entries).encode()
    told = recompute(ids, later_package, later)
    assert [(each["finding"], each["recomputed"]) for each in told] == [
        ("same", entry["status"]) for entry in entries
    ]


def version_seen_from(folder: Path) -> str:
    shown = subprocess.run(
        [sys.executable, "-c", "import pcs_backend; print(pcs_backend.__version__)"],
        env=clean_environment(PYTHONPATH=str(folder)),
        capture_output=True,
        text=True,
        check=True,
    )
    return shown.stdout.strip()


async def test_beside_a_serving_process_and_what_cannot_be_told_has_a_name(tmp_path: Path) -> None:
    body = bodies()[1]
    pcs_id = json.loads(body)["pcs_id"]
    environ = {**SIGNED, **GATE}
    with Backend(tmp_path, **environ) as backend:
        async with Client(backend) as client:
            assert (await client.submit(body)).status in (200, 202)
        shown = run("pcs-backend", "recompute", pcs_id, DATA_DIR=str(tmp_path), **environ)
        assert (shown.returncode, shown.stdout.decode()) == (0, "1 of 1 came out the same\n")
        missing = run("pcs-backend", "recompute", "0" * 64, DATA_DIR=str(tmp_path), **environ)
        assert missing.returncode == 1
        assert "no outcome of that id" in missing.stdout.decode()
        malformed = run("pcs-backend", "recompute", "x", DATA_DIR=str(tmp_path), **environ)
        assert (malformed.returncode, b"64 lower-case hex digits" in malformed.stderr) == (2, True)
