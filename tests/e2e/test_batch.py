"""Batches over HTTP: what a client sees, and what is left after a restart."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pytest

import pcs_records
from processes import HMAC_KEY, Answer, Backend, Client, run

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

pytestmark = [pytest.mark.slow]

NDJSON = "application/x-ndjson"


def signed(epoch: int) -> bytes:
    document = pcs_records.document(epoch=epoch)
    return pcs_records.body(pcs_records.sign(document, hmac_key=HMAC_KEY.encode()))


async def post(client: Client, body: bytes, content_type: str = NDJSON, **headers: str) -> Answer:
    headers = {"Content-Type": content_type} | headers
    return await client.request("POST", "/v1/pcs/batch", data=body, headers=headers)


def entries(answer: Answer) -> list[dict[str, object]]:
    assert (answer.status, answer.headers["Content-Type"]) == (200, NDJSON)
    return [json.loads(line) for line in answer.body.splitlines()]


async def test_thousand_records_at_once_and_again_after_a_restart(
    tmp_path: Path, hmac_variables: dict[str, str]
) -> None:
    body = b"\n".join(signed(epoch) for epoch in range(999)) + b"\n{}\n"
    with Backend(tmp_path / "data", **hmac_variables) as backend:
        async with Client(backend) as client:
            first = await post(client, body)
            assert [each["status"] for each in entries(first)] == [200] * 999 + [400]
            assert len(first.headers["X-Request-ID"]) > 0
            assert await client.counters() == (1_000, 0, 999, 0)
            metrics = await client.metrics()
            assert metrics['flk_refused_total{problem="malformed"}'] == 1
            assert metrics["flk_verify_seconds_count"] == 999
            single = await client.submit(signed(7))
            assert single.replayed
            assert first.body.splitlines()[7].endswith(b'"body":' + single.body + b"}")
        assert backend.kill() != 0
        backend.start()
        async with Client(backend) as client:
            again = entries(await post(client, body))
            assert [each["replayed"] for each in again] == [True] * 999 + [False]
            assert [each["body"] for each in again] == [each["body"] for each in entries(first)]
            assert await client.counters() == (1_000, 999, 0, 0)
            assert (await client.metrics())["flk_open_requests"] == 0


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "zstd"])
async def test_compressed_batch(tmp_path: Path, hmac_variables: dict[str, str], encoding: str) -> None:
    body = b"\n".join(signed(epoch) for epoch in range(50))
    packed = gzip.compress(body) if encoding != "zstd" else zstd.compress(body)
    with Backend(tmp_path / "data", **hmac_variables) as backend:
        async with Client(backend) as client:
            answer = await post(client, packed, **{"Content-Encoding": encoding})
            assert [each["status"] for each in entries(answer)] == [200] * 50
            assert (await client.submit(signed(1), **{"Content-Encoding": encoding})).status == 415
        listed = run("pcs-backend", "records", "--json", **backend.variables).stdout.splitlines()
        assert [json.loads(line)["epoch"] for line in listed] == list(reversed(range(50)))


async def test_rate_counts_records(tmp_path: Path, hmac_variables: dict[str, str]) -> None:
    """More than a second's worth is taken when the bucket is full, and owed."""
    with Backend(tmp_path / "data", TOKEN_RATE="10", **hmac_variables) as backend:
        async with Client(backend) as client:
            body = b"\n".join(signed(epoch) for epoch in range(500))
            assert len(entries(await post(client, body))) == 500
            for refused in (await post(client, body), await client.submit(signed(1))):
                assert (refused.status, refused.document["type"]) == (429, "urn:pcs:problem:rate-limited")
                assert 40 <= int(refused.headers["Retry-After"]) <= 50


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content_type": "text/plain"}, 415),
        ({"Content-Encoding": "br"}, 415),
        ({"Content-Encoding": "gzip, gzip"}, 415),
    ],
)
async def test_other_forms_are_415(
    tmp_path: Path, hmac_variables: dict[str, str], headers: dict[str, str], status: int
) -> None:
    with Backend(tmp_path / "data", **hmac_variables) as backend:
        async with Client(backend) as client:
            answer = await post(client, signed(1), **headers)
            assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")
            assert (await client.request("GET", "/v1/pcs/batch")).headers["Allow"] == "POST"


async def test_body_beyond_its_size_is_413(tmp_path: Path, hmac_variables: dict[str, str]) -> None:
    with Backend(tmp_path / "data", MAX_BATCH_BYTES="4096", **hmac_variables) as backend:
        async with Client(backend) as client:
            assert (await post(client, b" " * 4_097)).status == 413
            assert (await post(client, b" " * 4_096)).status == 400


async def test_listing_shows_every_record_of_a_batch(tmp_path: Path, hmac_variables: dict[str, str]) -> None:
    with Backend(tmp_path / "data", **hmac_variables) as backend:
        async with Client(backend) as client:
            foreign = pcs_records.body(pcs_records.document(epoch=2))
            await post(client, b"\n".join([signed(1), foreign, signed(3)]))
        listed = [
            json.loads(line)
            for line in run("pcs-backend", "records", "--json", **backend.variables).stdout.splitlines()
        ]
        assert [(each["epoch"], each["verdict"]) for each in listed] == [
            (3, "accepted"),
            (2, "refused"),
            (1, "accepted"),
        ]
        assert {each["frame"] for each in listed} == {"0/1"}
