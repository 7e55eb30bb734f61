"""Every row of contract §4, by HTTP against a running process, for each store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import pcs_records
from processes import HMAC_KEY, Answer, Backend, Client

pytestmark = [pytest.mark.slow]

KEY = HMAC_KEY.encode()
SIZE_BYTES_MAX = 262_144


@pytest.fixture
def backend(
    tmp_path: Path, store_variables: dict[str, str], hmac_variables: dict[str, str]
) -> Iterator[Backend]:
    with Backend(tmp_path / "data", BODY_TIMEOUT_S="0.5", **store_variables, **hmac_variables) as backend:
        yield backend


@pytest.fixture
async def client(backend: Backend) -> AsyncIterator[Client]:
    async with Client(backend) as client:
        yield client


def signed(**overrides: object) -> bytes:
    return pcs_records.body(pcs_records.sign(pcs_records.document(**overrides), hmac_key=KEY))


def assert_problem(answer: Answer, status: int, code: str) -> None:
    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.document["type"] == f"urn:pcs:problem:{code}"
    assert answer.document["status"] == status


async def exchange(backend: Backend, data: bytes) -> bytes:
    """Send raw bytes on one connection, read until the server closes it."""
    address = urlsplit(backend.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(data)
    await writer.drain()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


class TestStep1:
    async def test_unknown_path_is_404(self, client: Client) -> None:
        assert_problem(await client.get("/v1/pcs"), 404, "not-found")
        assert_problem(await client.request("POST", "/v1/pcs/submit/"), 404, "not-found")

    async def test_other_method_is_405_and_names_the_allowed(self, client: Client) -> None:
        answer = await client.get("/v1/pcs/submit")
        assert_problem(answer, 405, "method-not-allowed")
        assert answer.headers["Allow"] == "POST"
        answer = await client.request("POST", "/metrics")
        assert_problem(answer, 405, "method-not-allowed")
        assert answer.headers["Allow"] == "GET, HEAD"

    @pytest.mark.parametrize(
        "content_type", ["text/plain", "application/x-ndjson", "application/problem+json"]
    )
    async def test_other_content_type_is_415(self, client: Client, content_type: str) -> None:
        answer = await client.submit(signed(), **{"Content-Type": content_type})
        assert_problem(answer, 415, "unsupported-media-type")

    async def test_no_content_type_is_415(self, client: Client, backend: Backend) -> None:
        answer = await exchange(
            backend,
            b"POST /v1/pcs/submit HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
        )
        assert answer.startswith(b"HTTP/1.1 415 ")

    async def test_content_type_parameters_are_ignored(self, client: Client) -> None:
        answer = await client.submit(signed(), **{"Content-Type": "Application/JSON; charset=latin-1"})
        assert answer.status == 200

    @pytest.mark.parametrize("encoding", ["gzip", "identity", "zstd"])
    async def test_any_content_encoding_is_415(self, client: Client, encoding: str) -> None:
        answer = await client.submit(signed(), **{"Content-Encoding": encoding})
        assert_problem(answer, 415, "unsupported-media-type")

    async def test_a_coded_transfer_is_415(self, backend: Backend) -> None:
        head = b"POST /v1/pcs/submit HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nConnection: close\r\n"
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(signed()), signed())
        answer = await exchange(backend, head + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + body)
        assert answer.startswith(b"HTTP/1.1 415 ")

    async def test_exactly_the_limit_passes(self, client: Client) -> None:
        """The size limit is inclusive: white space behind a record brings it to exactly 262,144 bytes."""
        assert (await client.submit(signed().ljust(SIZE_BYTES_MAX))).status == 200
        assert_problem(await client.submit(signed(epoch=2).ljust(SIZE_BYTES_MAX + 1)), 413, "too-large")

    async def test_content_length_above_the_limit_is_413_before_any_body_byte(self, backend: Backend) -> None:
        """L14: not read on, not cut, not stored; the connection closes without draining."""
        head = b"POST /v1/pcs/submit HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        answer = await exchange(backend, head + b"Content-Length: 99999999999\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"Connection: close" in answer

    async def test_expect_above_the_limit_is_413_without_100(self, backend: Backend) -> None:
        head = b"POST /v1/pcs/submit HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        answer = await exchange(backend, head + b"Content-Length: 262145\r\nExpect: 100-continue\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"100 Continue" not in answer

    async def test_expect_below_the_limit_gets_100_then_the_outcome(self, client: Client) -> None:
        assert (await client.submit(signed(), Expect="100-continue")).status == 200

    async def test_chunked_body_above_the_limit_is_413_when_the_count_passes_it(
        self, backend: Backend
    ) -> None:
        head = b"POST /v1/pcs/submit HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        answer = await exchange(backend, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 5)
        assert answer.startswith(b"HTTP/1.1 413 ")

    async def test_slow_body_is_408(self, backend: Backend, client: Client) -> None:
        wal_before = (await client.metrics())["flk_wal_size_bytes"]
        head = b"POST /v1/pcs/submit HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        answer = await exchange(backend, head + b"Content-Length: 100\r\n\r\n{")
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert (await client.metrics())["flk_wal_size_bytes"] == wal_before
        assert (await client.counters())[0] == 0

    async def test_what_is_not_http_is_a_problem_too_and_not_quoted(self, backend: Backend) -> None:
        answer = await exchange(backend, b"canary-not-http \x00\r\n\r\n")
        assert answer.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))
        assert b"application/problem+json" in answer
        assert b"canary" not in answer
        assert b"canary" not in backend.output


class TestStep3:
    async def test_request_is_in_the_wal_before_anything_is_parsed(
        self, client: Client, backend: Backend
    ) -> None:
        body = b"\xff not even UTF-8 " * 3
        assert_problem(await client.submit(body), 400, "malformed")
        segments = sorted((backend.data_dir / "wal" / "0").glob("*.wal"))
        assert body in segments[0].read_bytes()


class TestSteps4To6:
    async def test_malformed_names_field_kind_and_what_is_allowed(self, client: Client) -> None:
        """L11, L12: refused, and not cached."""
        document = json.loads(signed())
        document["epoch"] = "seven"
        answer = await client.submit(json.dumps(document).encode())
        assert_problem(answer, 400, "malformed")
        assert answer.document["field"] == "$.epoch"
        assert answer.document["found"] == "a string of length 5"
        assert answer.document["allowed"] == "an integer from 0 to 9007199254740991"
        assert b"seven" not in answer.body
        assert (await client.submit(signed())).replayed is False

    @pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{}", b"{" * 2_000, b"\xff", b'{"pcs_id": NaN}'])
    async def test_what_is_no_record_is_400(self, client: Client, body: bytes) -> None:
        assert_problem(await client.submit(body), 400, "malformed")

    async def test_signature_that_is_not_base64_is_400(self, client: Client) -> None:
        document = pcs_records.document(sig="not base64!")
        assert_problem(await client.submit(pcs_records.body(document)), 400, "malformed")

    @pytest.mark.parametrize("sig", ["", "AAAA", "A" * 43 + "="])
    async def test_bad_signature_is_401_and_not_cached(self, client: Client, sig: str) -> None:
        assert_problem(
            await client.submit(pcs_records.body(pcs_records.document(sig=sig))), 401, "bad-signature"
        )
        assert (await client.submit(signed())).replayed is False

    async def test_signed_record_with_a_foreign_id_is_400(self, client: Client) -> None:
        """L8: the id is checked before dedup, so nothing is cached under someone else's id."""
        victim = pcs_records.document()
        answer = await client.submit(signed(epoch=99, pcs_id=victim["pcs_id"]))
        assert_problem(answer, 400, "identity-mismatch")
        assert (await client.submit(signed())).replayed is False

    async def test_signature_comes_before_identity(self, client: Client) -> None:
        document = pcs_records.document(pcs_id="0" * 64)
        assert_problem(await client.submit(pcs_records.body(document)), 401, "bad-signature")

    async def test_both_spellings_are_accepted(self, client: Client) -> None:
        """L2."""
        import base64
        import hashlib
        import hmac

        document = pcs_records.document(epoch=3)
        digest = hashlib.sha256(pcs_records.fixed_point(document)).digest()
        document["sig"] = base64.b64encode(hmac.new(KEY, digest, "sha256").digest()).decode()
        assert (await client.submit(pcs_records.body(document))).status == 200


class TestSteps7To11:
    async def test_accepted_then_replayed_byte_for_byte(self, client: Client) -> None:
        first = await client.submit(signed())
        assert first.status == 200
        assert first.headers["Content-Type"] == "application/json"
        assert first.replayed is False
        document = pcs_records.document()
        assert first.document == {
            "pcs_id": document["pcs_id"],
            "accepted": True,
            "escalated": False,
            "reasons": [],
            "recomputed": {name: document[name] for name in ("D_hat", "regime", "budget")},
        }
        again = await client.submit(signed(attempt=2, sent_at="2030-01-01T00:00:00Z"))
        assert (again.status, again.body, again.replayed) == (200, first.body, True)
        assert "PCS-Conflict" not in again.headers
        assert await client.counters() == (2, 1, 1, 0)

    async def test_escalated_then_replayed(self, client: Client) -> None:
        body = signed(r=1.5, budget=0.0)
        first = await client.submit(body)
        assert first.status == 202
        assert first.document["accepted"] is False
        assert first.document["escalated"] is True
        assert first.document["reasons"] == ["compressibility_out_of_bounds", "budget_mismatch"]
        again = await client.submit(body)
        assert (again.status, again.body, again.replayed) == (202, first.body, True)
        assert await client.counters() == (2, 1, 0, 1)
        metrics = await client.metrics()
        assert metrics['flk_escalated_reason_total{reason="budget_mismatch"}'] == 1

    @pytest.mark.parametrize(
        ("overrides", "reason"),
        [
            ({"D_hat": 9.0}, "slope_out_of_tolerance"),
            ({"coh_star": 1.2}, "coherence_out_of_bounds"),
            ({"r": -5.0}, "compressibility_out_of_bounds"),
            ({"N_j": {"2": 9, "4": 8, "8": 64, "16": 256, "32": 1024}}, "counts_not_monotone"),
            ({"regime": "non_sticky"}, "regime_mismatch"),
            ({"budget": 0.99}, "budget_mismatch"),
            (
                {"ft": {"outbox_seq": 1, "degraded": True, "fallbacks": ["x"], "clock_skew_ms": 0}},
                "degraded",
            ),
        ],
    )
    async def test_each_failed_check_escalates(
        self, client: Client, overrides: dict[str, object], reason: str
    ) -> None:
        """L12."""
        answer = await client.submit(signed(scales=[2, 4, 8, 16, 32], **overrides))
        assert answer.status == 202
        assert reason in answer.document["reasons"]

    async def test_neighbouring_scales_however_large_are_judged(self, client: Client) -> None:
        """Their logs are the same float; the slope of a record that any sender may send is finite all the same."""
        scales = [2**50, 2**50 + 1]
        body = signed(scales=scales, N_j=dict.fromkeys(map(str, scales), 7), D_hat=0.0)
        answer = await client.submit(body)
        assert answer.document["recomputed"]["D_hat"] == 0.0
        assert "slope_out_of_tolerance" not in answer.document["reasons"]

    async def test_changed_counts_under_a_known_id_are_a_conflict(self, client: Client) -> None:
        """L9: the first outcome is answered, the conflict counted and kept."""
        document = pcs_records.sign(pcs_records.document(), hmac_key=KEY)
        first = await client.submit(pcs_records.body(document))
        largest = str(document["scales"][-1])
        altered = document | {"N_j": document["N_j"] | {largest: document["N_j"][largest] + 1}}
        for _ in range(2):
            answer = await client.submit(pcs_records.body(altered))
            assert (answer.status, answer.body, answer.replayed) == (first.status, first.body, True)
            assert answer.headers["PCS-Conflict"] == "true"
        assert (await client.metrics())["flk_conflicts_total"] == 2

    async def test_refusals_count_as_ingested_and_nothing_else(self, client: Client) -> None:
        await client.submit(b"{}")
        await client.submit(pcs_records.body(pcs_records.document()))
        assert await client.counters() == (2, 0, 0, 0)


class TestEndpoints:
    async def test_health_is_green(self, client: Client) -> None:
        for path in ("/health/live", "/health/ready", "/health/startup"):
            answer = await client.get(path)
            assert (answer.status, answer.document) == (200, {"status": "ok"})

    async def test_counters_start_at_zero_without_labels(self, client: Client) -> None:
        assert await client.counters() == (0, 0, 0, 0)
