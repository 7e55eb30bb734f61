"""The courier against a real HTTP server, in time that only sleeping advances."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import structlog.testing
from aiohttp import web

from delivering import Bench
from pcs_agent.deliver import Settlement
from pcs_agent.deliver.courier import FLIGHTS_MAX
from pcs_agent.deliver.request_signer import RequestSigner
from pcs_agent.deliver.transport import open_transport
from pcs_agent.outbox import State, Verdict
from pcs_core.record import decode_record
from pcs_core.signing import HmacKey, sign_record
from verifying import signer_of


def receipt(document: dict[str, Any]) -> web.Response:
    body = {"pcs_id": document["pcs_id"], "accepted": True, "escalated": False, "reasons": []}
    return web.json_response(body)


def answer_with(*statuses: int, **headers: str) -> Callable[[dict[str, Any], int], web.StreamResponse]:
    """Answer these statuses in turn, then accept."""

    def answer(document: dict[str, Any], before: int) -> web.StreamResponse:
        if before < len(statuses):
            return web.Response(status=statuses[before], headers=headers)
        return receipt(document)

    return answer


async def test_what_is_taken_is_acknowledged(bench: Bench, backend: Any) -> None:
    bench.fill(20)
    done = await bench.deliver(backend.endpoint)
    assert done.verdicts() == dict.fromkeys(range(20), Verdict.ACCEPTED)
    assert len(backend.received) == 20
    assert len(bench.outbox.entries(State.ACKED)) == 20


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
async def test_transient_statuses_are_retried(bench: Bench, backend: Any, status: int) -> None:
    """Lesson L16: 429 is not fatal."""
    bench.fill(1)
    backend.answer = answer_with(status, status)
    done = await bench.deliver(backend.endpoint)
    assert done.verdicts() == {0: Verdict.ACCEPTED}
    assert [document["attempt"] for document in backend.received] == [1, 2, 3]
    assert bench.time.slept_s == pytest.approx([0.25, 0.5])


@pytest.mark.parametrize("wait", ["17", "Tue, 14 Nov 2023 22:13:37 GMT"])
async def test_retry_after_is_obeyed(bench: Bench, backend: Any, wait: str) -> None:
    """Lesson L16. The date is 17 s after the start of the test's clock, by which the backend's `Date` is told too."""
    bench.fill(1)
    backend.answer = answer_with(429, **{"Retry-After": wait, "Date": "Tue, 14 Nov 2023 22:13:20 GMT"})
    await bench.deliver(backend.endpoint)
    assert bench.time.slept_s == [pytest.approx(17, abs=0.5)]


async def test_retry_after_holds_every_record(bench: Bench, backend: Any) -> None:
    bench.fill(FLIGHTS_MAX + 5)
    times: list[float] = []

    def answer(document: dict[str, Any], before: int) -> web.StreamResponse:
        times.append(bench.time.monotonic())
        if before < FLIGHTS_MAX:
            return web.Response(status=503, headers={"Retry-After": "40"})
        return receipt(document)

    backend.answer = answer
    done = await bench.deliver(backend.endpoint)
    assert set(done.verdicts().values()) == {Verdict.ACCEPTED}
    assert all(time_s >= 40 for time_s in times[FLIGHTS_MAX:])


async def test_a_backend_that_comes_back_gets_everything(
    bench: Bench, backend: Any, unused_tcp_port_factory: Callable[[], int]
) -> None:
    bench.fill(3)
    settlements: list[Settlement] = []
    down = f"http://127.0.0.1:{unused_tcp_port_factory()}/v1/pcs/submit"
    async with (
        open_transport(down, connections_max=1) as broken,
        open_transport(backend.endpoint, connections_max=1) as working,
    ):

        class Switch:
            attempts = 0

            async def post(self, body: bytes) -> Any:
                self.attempts += 1
                return await (broken if self.attempts <= 7 else working).post(body)

        courier = bench.courier(Switch(), settlements)
        for entry in bench.outbox.entries(State.PENDING):
            courier.add(entry.seq)
        courier.finish()
        await courier.run()
    assert [settled.verdict for settled in settlements] == [Verdict.ACCEPTED] * 3
    assert sorted(document["epoch"] for document in backend.received) == [0, 1, 2]


async def test_a_backend_that_stays_down_makes_dead_letters_at_the_deadline(
    bench: Bench, unused_tcp_port_factory: Callable[[], int]
) -> None:
    bench.fill(2)
    port = unused_tcp_port_factory()
    done = await bench.deliver(f"http://user:geheim@127.0.0.1:{port}/x?token=geheim")
    reasons = [entry.reason for entry in bench.outbox.entries(State.DEAD)]
    assert reasons == ["deadline of 900 s passed; last: connection refused"] * 2
    # Each record has its own deadline, from its first attempt: one at a time goes out as long as none was answered.
    assert 870 <= bench.time.monotonic() <= 902
    assert done.verdicts() == {0: Verdict.DEAD, 1: Verdict.DEAD}


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_record_at_fault_is_a_dead_letter_at_once(bench: Bench, backend: Any, status: int) -> None:
    bench.fill(3)
    backend.answer = lambda document, _: (
        web.Response(status=status) if document["epoch"] == 1 else receipt(document)
    )
    done = await bench.deliver(backend.endpoint)
    assert done.verdicts() == {0: Verdict.ACCEPTED, 1: Verdict.DEAD, 2: Verdict.ACCEPTED}
    assert len(backend.received) == 3
    assert [entry.reason for entry in bench.outbox.entries(State.DEAD)] == [f"rejected: status {status}"]


@pytest.mark.parametrize("status", [401, 403, 404, 405, 415, 301, 307])
async def test_refusals_pause_delivery_and_keep_every_record(bench: Bench, backend: Any, status: int) -> None:
    bench.fill(20)
    backend.answer = lambda *_: web.Response(status=status, headers={"Location": "/elsewhere"})
    with structlog.testing.capture_logs() as logged:
        done = await bench.deliver(backend.endpoint)
    assert done.courier.paused is not None
    assert str(status) in done.courier.paused
    assert done.courier.advice.startswith("check the key" if status == 401 else "check ENDPOINT")
    assert ("--resign" in done.courier.advice) == (status == 401)
    assert done.settlements == []
    assert len(bench.outbox.entries(State.PENDING)) == 20
    (paused,) = [line for line in logged if line["event"] == "paused"]
    assert paused["pending"] == 20
    assert len(backend.received) <= FLIGHTS_MAX + 3


async def test_one_refused_record_among_good_ones_is_a_dead_letter(bench: Bench, backend: Any) -> None:
    records = bench.fill(5 * FLIGHTS_MAX)  # so that others are taken after its first refusal
    backend.answer = lambda document, _: (
        web.Response(status=401) if document["epoch"] == 0 else receipt(document)
    )
    done = await bench.deliver(backend.endpoint)
    assert done.courier.paused is None
    assert done.verdicts() == {0: Verdict.DEAD} | dict.fromkeys(range(1, len(records)), Verdict.ACCEPTED)
    assert backend.attempts(records[0].pcs_id) == 3


async def test_a_record_taken_while_paused_sets_the_others_going(bench: Bench, backend: Any) -> None:
    """A single bad record, refused three times in an otherwise idle outbox, must not stop the agent for ever."""
    bench.fill(1)
    backend.answer = lambda document, _: (
        web.Response(status=401) if document["epoch"] == 0 else receipt(document)
    )
    done = await bench.deliver(backend.endpoint, more=[bench.make_record(5)])
    assert done.verdicts() == {0: Verdict.DEAD, 5: Verdict.ACCEPTED}
    assert done.courier.paused is None


async def test_a_redirect_is_not_followed(bench: Bench, backend: Any) -> None:
    bench.fill(1)
    backend.answer = lambda *_: web.Response(status=307, headers={"Location": backend.endpoint})
    await bench.deliver(backend.endpoint)
    assert len(backend.received) == 3  # one per attempt: none was a second request of the same attempt
    assert [document["attempt"] for document in backend.received] == [1, 2, 3]


@pytest.mark.parametrize(
    "body",
    [
        b"<html>hotel wifi</html>",
        json.dumps({"pcs_id": "ab" * 32, "accepted": True, "escalated": False}).encode(),
        b" " * 100_000,
        b'{"pcs_id": "\xff"}',
        b'{"later": ' + b"[" * 30_000,
    ],
)
async def test_a_200_that_is_no_receipt_is_a_network_error(bench: Bench, backend: Any, body: bytes) -> None:
    bench.fill(1)
    backend.answer = lambda document, before: web.Response(body=body) if before < 2 else receipt(document)
    done = await bench.deliver(backend.endpoint)
    assert done.verdicts() == {0: Verdict.ACCEPTED}
    assert len(backend.received) == 3


async def test_a_retry_changes_attempt_time_and_skew_and_not_the_signature(
    bench: Bench, backend: Any
) -> None:
    key = HmacKey(b"key")
    bench.outbox.append([sign_record(bench.make_record(1), key)])
    # The backend's clock is 100 s behind; the middle of its second is the measure.
    backend.answer = answer_with(503, Date="Tue, 14 Nov 2023 22:11:40 GMT")
    await bench.deliver(backend.endpoint)
    first, second = backend.received
    assert (first["attempt"], second["attempt"]) == (1, 2)
    assert first["sent_at"] < second["sent_at"]
    assert (first["ft"]["clock_skew_ms"], second["ft"]["clock_skew_ms"]) == (0, 99_500)
    assert first["sig"] == second["sig"]
    for document in backend.received:
        assert signer_of([key], decode_record(json.dumps(document).encode())) == key.key_id


async def test_refusals_of_requests_signed_by_a_clock_that_was_off_do_not_pause_delivery(
    bench: Bench, backend: Any
) -> None:
    """Requests in flight together are all refused, before the first answer has told the time."""
    bench.fill(FLIGHTS_MAX)
    backend.answer = answer_with(*[401] * FLIGHTS_MAX, Date="Mon, 14 Nov 2022 22:11:40 GMT")
    signer = RequestSigner(HmacKey(b"message key"), "key", backend.endpoint)
    done = await bench.deliver(backend.endpoint, request_signer=signer)
    assert done.verdicts() == dict.fromkeys(range(FLIGHTS_MAX), Verdict.ACCEPTED)
    assert done.courier.paused is None


async def test_refusals_of_requests_signed_by_a_clock_that_is_right_pause_delivery(
    bench: Bench, backend: Any
) -> None:
    bench.fill(FLIGHTS_MAX)
    backend.answer = answer_with(*[401] * FLIGHTS_MAX, Date="Tue, 14 Nov 2023 22:13:20 GMT")
    signer = RequestSigner(HmacKey(b"message key"), "key", backend.endpoint)
    done = await bench.deliver(backend.endpoint, request_signer=signer)
    assert done.courier.paused is not None


async def test_resigning_replaces_the_signature_of_a_key_that_was_wrong(bench: Bench, backend: Any) -> None:
    right = HmacKey(b"right")
    bench.outbox.append([sign_record(bench.make_record(1), HmacKey(b"wrong"))])
    await bench.deliver(backend.endpoint, resigner=right)
    record = decode_record(json.dumps(backend.received[0]).encode())
    assert signer_of([right], record) == right.key_id


async def test_a_conflict_is_told(bench: Bench, backend: Any) -> None:
    bench.fill(1)

    def answer(document: dict[str, Any], _: int) -> web.StreamResponse:
        response = receipt(document)
        response.headers["PCS-Conflict"] = "true"
        return response

    backend.answer = answer
    done = await bench.deliver(backend.endpoint)
    assert [settled.conflict for settled in done.settlements] == [True]


async def test_trouble_is_told_at_once_and_then_once_a_minute(bench: Bench, backend: Any) -> None:
    bench.fill(3)
    told: list[tuple[float, str]] = []
    backend.answer = lambda document, _: (
        web.Response(status=503) if bench.time.monotonic() < 300 else receipt(document)
    )
    done = await bench.deliver(
        backend.endpoint, warn=lambda message: told.append((bench.time.monotonic(), message))
    )
    assert set(done.verdicts().values()) == {Verdict.ACCEPTED}
    times = [time_s for time_s, _ in told]
    assert times[0] == 0
    assert 4 <= len(times) <= 6
    assert all(later - earlier >= 60 for earlier, later in pairwise(times))
    assert told[0][1] == (
        "not delivered: status 503. Each record is tried again for up to 900 s and stays in the outbox; "
        "now waiting: 3"
    )


async def test_stopping_leaves_the_rest_pending(bench: Bench, backend: Any) -> None:
    bench.fill(5)
    async with open_transport(backend.endpoint, connections_max=1) as transport:
        courier = bench.courier(transport, [])
        for entry in bench.outbox.entries(State.PENDING):
            courier.add(entry.seq)
        courier.stop()
        await courier.run()
    assert len(bench.outbox.entries(State.PENDING)) == 5
    assert backend.received == []
