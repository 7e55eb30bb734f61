"""Batches against a real HTTP server: what goes together, and that each record has its own answer or none."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from aiohttp import web

from delivering import Bench
from pcs_agent.deliver import Settlement
from pcs_agent.deliver import courier as courier_module
from pcs_agent.deliver.batch_size import BATCH_RECHECK_S
from pcs_agent.deliver.courier import FLIGHTS_MAX
from pcs_agent.deliver.request_signer import RequestSigner
from pcs_agent.deliver.transport import batch_url, open_transport
from pcs_agent.outbox import State, Verdict
from pcs_core.errors import BadSignatureError
from pcs_core.keyring import Keyring, entry_of_secret, message_hmac_key
from pcs_core.message_signature import Message, verify_message
from pcs_core.record import decode_record
from pcs_core.signing import HmacKey, sign_record
from pcs_core.wal import PosixFiles
from verifying import signer_of

RECORDS = 20
WAIT_S = 10.0
Documents = list[dict[str, Any]]
EntryMaker = Callable[[dict[str, Any]], dict[str, Any]]


def entry(document: dict[str, Any], status: int = 200, *, conflict: bool = False) -> dict[str, Any]:
    """The entry of one record as the contract has it."""
    body: dict[str, Any] = {"type": "urn:pcs:problem:malformed", "title": "no"}
    if status in {200, 202}:
        body = {
            "pcs_id": document["pcs_id"],
            "accepted": status == 200,
            "escalated": status == 202,
            "reasons": [] if status == 200 else ["degraded"],
        }
    return {"status": status, "replayed": False, "conflict": conflict, "body": body}


def lines(entries: Sequence[object]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in entries)


def each(make: EntryMaker) -> Callable[[Documents, int], web.StreamResponse]:
    """Answer every batch with an entry of this kind a record."""
    return lambda documents, _: web.Response(body=lines([make(document) for document in documents]))


def whole(*statuses: int, **headers: str) -> Callable[[Documents, int], web.StreamResponse]:
    """Answer the first batches with these statuses as a whole, the others record by record."""

    def answer(documents: Documents, before: int) -> web.StreamResponse:
        if before < len(statuses):
            return web.Response(status=statuses[before], headers=headers)
        return each(entry)(documents, before)

    return answer


def epochs(batches: list[Documents]) -> list[list[int]]:
    return [[document["epoch"] for document in batch] for batch in batches]


def all_accepted(count: int = RECORDS) -> dict[int, Verdict]:
    return dict.fromkeys(range(count), Verdict.ACCEPTED)


# --- what goes together ---------------------------------------------------------------------------------------------


async def test_what_waits_goes_in_one_request_in_order_and_is_noted_with_one_sync(
    bench: Bench, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.fill(RECORDS)
    syncs = []
    sync = PosixFiles.sync_data

    def counted(files: PosixFiles, handle: int) -> None:
        syncs.append(handle)
        sync(files, handle)

    monkeypatch.setattr(PosixFiles, "sync_data", counted)
    done = await bench.deliver(backend.endpoint, batch_records=100)
    assert epochs(backend.batches) == [list(range(RECORDS))]
    assert done.verdicts() == all_accepted()
    assert len(bench.outbox.entries(State.ACKED)) == RECORDS
    assert len(syncs) == 1
    (request,) = backend.requests
    assert request[1]["Content-Type"] == "application/x-ndjson"
    assert "traceparent" not in request[1]


async def test_a_batch_has_no_more_records_than_it_may_have(bench: Bench, backend: Any) -> None:
    bench.fill(RECORDS)
    done = await bench.deliver(backend.endpoint, batch_records=8)
    assert sorted(map(len, backend.batches)) == [4, 8, 8]
    assert done.verdicts() == all_accepted()


async def test_a_batch_has_no_more_bytes_than_it_may_have(
    bench: Bench, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit is sent beside it, nothing twice."""
    bench.fill(RECORDS)
    monkeypatch.setattr(courier_module, "BATCH_BYTES_MAX", 5_000)
    done = await bench.deliver(backend.endpoint, batch_records=100)
    bodies = [len(body) for path, _, body in backend.requests if path.endswith("/batch")]
    assert len(bodies) >= 2
    assert max(bodies) <= 5_000 + 100 * 5
    assert len(backend.received) == RECORDS
    assert done.verdicts() == all_accepted()


async def test_a_record_larger_than_a_batch_may_be_goes_alone(
    bench: Bench, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.fill(3)
    monkeypatch.setattr(courier_module, "BATCH_BYTES_MAX", 10)
    done = await bench.deliver(backend.endpoint, batch_records=100)
    assert [path for path, _, _ in backend.requests] == ["/v1/pcs/submit"] * 3
    assert done.verdicts() == all_accepted(3)


async def test_one_record_goes_alone(bench: Bench, backend: Any) -> None:
    bench.fill(1)
    await bench.deliver(backend.endpoint, batch_records=100)
    assert [path for path, _, _ in backend.requests] == ["/v1/pcs/submit"]


async def test_one_request_goes_out_until_it_is_known_whether_batches_are_taken(
    bench: Bench, backend: Any
) -> None:
    bench.fill(RECORDS)
    at_once = [0, 0]
    waiting = 0
    together = asyncio.Event()

    async def arrived() -> None:
        nonlocal waiting
        is_known = len(backend.requests) > 1
        waiting += 1
        at_once[is_known] = max(at_once[is_known], waiting)
        if waiting > 1:
            together.set()
        if is_known:
            async with asyncio.timeout(WAIT_S):
                await together.wait()
        waiting -= 1

    backend.arrived = arrived
    done = await bench.deliver(backend.endpoint, batch_records=4)
    assert at_once[0] == 1
    assert 2 <= at_once[1] <= FLIGHTS_MAX
    assert done.verdicts() == all_accepted()


async def test_what_comes_while_a_request_is_on_its_way_gathers_for_the_next(
    bench: Bench, backend: Any
) -> None:
    """Nothing waits for a batch to fill, and nothing goes alone beside others."""
    bench.fill(1)
    settlements: list[Settlement] = []
    async with open_transport(backend.endpoint, connections_max=FLIGHTS_MAX) as transport:
        courier = bench.courier(transport, settlements, batch_records=100)

        async def arrived() -> None:
            if len(backend.requests) == 1:
                for entry in bench.outbox.append([bench.make_record(epoch) for epoch in range(1, 6)]):
                    courier.add(entry.seq)
                courier.finish()

        backend.arrived = arrived
        courier.add(bench.outbox.entries(State.PENDING)[0].seq)
        await courier.run()
    assert epochs(backend.batches) == [[1, 2, 3, 4, 5]]
    assert len(settlements) == 6


# --- each has its own answer ----------------------------------------------------------------------------------------


async def test_each_record_has_the_answer_of_its_own_entry(bench: Bench, backend: Any) -> None:
    bench.fill(6)
    statuses = {1: 202, 2: 400, 3: 413, 4: 422}
    backend.answer_batch = each(
        lambda document: entry(
            document, statuses.get(document["epoch"], 200), conflict=document["epoch"] == 5
        )
    )
    done = await bench.deliver(backend.endpoint, batch_records=100)
    told = {
        settled.record.epoch: (settled.verdict, settled.reason, settled.conflict, settled.attempts)
        for settled in done.settlements
        if settled.record is not None
    }
    assert told == {
        0: (Verdict.ACCEPTED, "", False, 1),
        1: (Verdict.ESCALATED, "degraded", False, 1),
        2: (Verdict.DEAD, "rejected: status 400", False, 1),
        3: (Verdict.DEAD, "rejected: status 413", False, 1),
        4: (Verdict.DEAD, "rejected: status 422", False, 1),
        5: (Verdict.ACCEPTED, "", True, 1),
    }
    assert len(backend.batches) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
async def test_records_without_an_outcome_yet_are_sent_again_and_no_others(
    bench: Bench, backend: Any, status: int
) -> None:
    bench.fill(RECORDS)
    late = {3, 7}

    def answer(documents: Documents, before: int) -> web.StreamResponse:
        return each(
            lambda document: entry(document, status if document["epoch"] in late and before < 2 else 200)
        )(documents, before)

    backend.answer_batch = answer
    done = await bench.deliver(backend.endpoint, batch_records=100)
    assert epochs(backend.batches) == [list(range(RECORDS)), [3, 7], [3, 7]]
    assert [document["attempt"] for document in backend.received if document["epoch"] == 3] == [1, 2, 3]
    assert bench.time.slept_s == pytest.approx([0.25, 0.5])
    assert done.verdicts() == all_accepted()


async def test_a_retry_after_of_the_answer_holds_what_it_left_undecided(bench: Bench, backend: Any) -> None:
    bench.fill(4)

    def answer(documents: Documents, before: int) -> web.StreamResponse:
        made = [
            entry(document, 503 if before == 0 and document["epoch"] > 1 else 200) for document in documents
        ]
        return web.Response(body=lines(made), headers={"Retry-After": "17"} if before == 0 else {})

    backend.answer_batch = answer
    await bench.deliver(backend.endpoint, batch_records=100)
    assert epochs(backend.batches) == [[0, 1, 2, 3], [2, 3]]
    assert bench.time.slept_s == [pytest.approx(17, abs=0.5)]


async def test_one_refused_record_among_good_ones_becomes_a_dead_letter_and_pauses_nothing(
    bench: Bench, backend: Any
) -> None:
    records = bench.fill(RECORDS)
    bad = {0, 18, 19}  # also at the end, where none is taken after them
    backend.answer_batch = each(lambda document: entry(document, 401 if document["epoch"] in bad else 200))
    done = await bench.deliver(backend.endpoint, batch_records=100)
    assert done.courier.paused is None
    assert done.verdicts() == all_accepted() | dict.fromkeys(bad, Verdict.DEAD)
    assert backend.attempts(records[0].pcs_id) == 3


async def test_a_wrong_key_costs_three_requests_and_loses_nothing(bench: Bench, backend: Any) -> None:
    bench.fill(RECORDS)
    backend.answer_batch = each(lambda document: entry(document, 401))
    backend.answer = lambda *_: web.Response(status=401)
    done = await bench.deliver(backend.endpoint, batch_records=100)
    assert done.courier.paused == "status 401, 3 times in a row"
    assert len(backend.requests) == 3
    assert done.settlements == []
    assert len(bench.outbox.entries(State.PENDING)) == RECORDS


async def test_a_record_taken_while_paused_sets_the_others_going_together(bench: Bench, backend: Any) -> None:
    bench.fill(RECORDS)
    backend.answer_batch = whole(401, 401, 401)
    done = await bench.deliver(backend.endpoint, more=[bench.make_record(RECORDS)], batch_records=100)
    assert done.courier.paused is None
    assert done.verdicts() == all_accepted(RECORDS + 1)
    probe = [path for path, _, _ in backend.requests].index("/v1/pcs/submit")
    assert json.loads(backend.requests[probe][2])["epoch"] == RECORDS
    assert probe == 3
    assert len(backend.requests[probe + 1 :]) < RECORDS


async def test_a_record_damaged_in_the_outbox_harms_no_other(
    bench: Bench, backend: Any, tmp_path: Path
) -> None:
    bench.fill(RECORDS)
    entries = bench.outbox.entries(State.PENDING)
    position = entries[4].position
    (segment,) = (tmp_path / "outbox").glob("*.wal")
    data = bytearray(segment.read_bytes())
    data[position.offset + position.size_bytes // 2] ^= 0xFF
    segment.write_bytes(data)
    done = await bench.deliver(backend.endpoint, batch_records=100)
    dead = [settled for settled in done.settlements if settled.verdict is Verdict.DEAD]
    assert [(settled.seq, settled.reason) for settled in dead] == [(entries[4].seq, "damaged in the outbox")]
    assert len(bench.outbox.entries(State.ACKED)) == RECORDS - 1
    assert len(backend.batches) == 1


# --- answers of the whole -------------------------------------------------------------------------------------------


def of(documents: Documents) -> list[dict[str, Any]]:
    return [entry(document) for document in documents]


MISFITS: dict[str, Callable[[Documents], bytes]] = {
    "no JSON": lambda documents: b"<html>hotel wifi</html>",
    "nothing": lambda documents: b"",
    "one too few": lambda documents: lines(of(documents)[1:]),
    "one too many": lambda documents: lines([*of(documents), entry(documents[0])]),
    "another's outcome": lambda documents: lines([entry({"pcs_id": "ab" * 32}), *of(documents)[1:]]),
    "in another order": lambda documents: lines(of(documents)[::-1]),
    "a refusal in another's place": lambda documents: lines([entry(documents[0], 400), *of(documents)[:-1]]),
    "cut short": lambda documents: lines(of(documents))[:-20],
    "an array": lambda documents: json.dumps(of(documents)).encode(),
    "no status": lambda documents: lines([{"body": {}}, *of(documents)[1:]]),
    "a status that is none": lambda documents: lines([*of(documents)[1:], entry(documents[0], 42)]),
    "a status of text": lambda documents: lines([{"status": "200", "body": {}}, *of(documents)[1:]]),
    "no body": lambda documents: lines([{"status": 400}, *of(documents)[1:]]),
    "bytes that are no text": lambda documents: lines(of(documents)).replace(b"accepted", b"accept\xff"),
    "nested without end": lambda documents: (b'{"x":' + b"[" * 30_000 + b"\n") * len(documents),
    "without end": lambda documents: b" " * 5_000_000,
}


@pytest.mark.parametrize("misfit", MISFITS.values(), ids=list(MISFITS))
async def test_an_answer_that_does_not_fit_marks_nothing(
    bench: Bench, backend: Any, misfit: Callable[[Documents], bytes]
) -> None:
    """Neither as delivered nor, by an entry that stands at the wrong place, as refused."""
    bench.fill(4)

    def answer(documents: Documents, before: int) -> web.StreamResponse:
        if before == 0:
            return web.Response(body=misfit(documents))
        assert len(bench.outbox.entries(State.PENDING)) + len(bench.outbox.entries(State.ACKED)) == 4
        return each(entry)(documents, before)

    backend.answer_batch = answer
    done = await bench.deliver(backend.endpoint, batch_records=100)
    assert epochs(backend.batches)[0] == [0, 1, 2, 3]
    assert done.verdicts() == all_accepted(4)
    assert {settled.attempts for settled in done.settlements} == {2}


async def test_a_202_of_the_whole_marks_nothing(bench: Bench, backend: Any) -> None:
    bench.fill(4)
    backend.answer_batch = lambda documents, before: web.Response(
        body=lines(of(documents)), status=202 if before == 0 else 200
    )
    done = await bench.deliver(backend.endpoint, batch_records=100)
    assert done.verdicts() == all_accepted(4)
    assert {document["attempt"] for document in backend.received} == {1, 2}


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
async def test_a_failure_of_the_whole_sends_all_again_together(
    bench: Bench, backend: Any, status: int
) -> None:
    bench.fill(RECORDS)
    backend.answer_batch = whole(status)
    done = await bench.deliver(backend.endpoint, batch_records=100)
    assert epochs(backend.batches) == [list(range(20)), list(range(10)), list(range(10, 20))]
    assert [document["attempt"] for document in backend.received] == [1] * 20 + [2] * 20
    assert bench.time.slept_s == pytest.approx([0.25])
    assert done.verdicts() == all_accepted()


async def test_retry_after_of_the_whole_is_obeyed(bench: Bench, backend: Any) -> None:
    bench.fill(RECORDS)
    backend.answer_batch = whole(429, **{"Retry-After": "17"})
    await bench.deliver(backend.endpoint, batch_records=100)
    assert bench.time.slept_s == [17]


async def test_a_backend_that_is_away_is_tried_until_the_deadline_and_nothing_is_lost(
    bench: Bench, unused_tcp_port: int
) -> None:
    bench.fill(RECORDS)
    done = await bench.deliver(f"http://127.0.0.1:{unused_tcp_port}/v1/pcs/submit", batch_records=100)
    assert done.verdicts() == dict.fromkeys(range(RECORDS), Verdict.DEAD)
    reasons = {entry.reason for entry in bench.outbox.entries(State.DEAD)}
    assert reasons == {"deadline of 900 s passed; last: connection refused"}


async def test_a_record_that_no_server_can_answer_harms_its_neighbours_for_a_while_only(
    bench: Bench, backend: Any
) -> None:
    bench.fill(RECORDS)
    poison = 7

    def batch(documents: Documents, before: int) -> web.StreamResponse:
        if any(document["epoch"] == poison for document in documents):
            return web.Response(status=500)
        return each(entry)(documents, before)

    backend.answer_batch = batch
    taken = backend.answer
    backend.answer = lambda document, before: (
        web.Response(status=500) if document["epoch"] == poison else taken(document, before)
    )
    done = await bench.deliver(backend.endpoint, batch_records=100)
    assert done.verdicts() == all_accepted() | {poison: Verdict.DEAD}
    assert bench.time.monotonic() <= 900


async def test_a_quota_smaller_than_a_batch_is_met_by_smaller_ones(bench: Bench, backend: Any) -> None:
    bench.fill(RECORDS)
    backend.answer_batch = lambda documents, before: (
        each(entry)(documents, before)
        if len(documents) <= 5
        else web.Response(status=429, headers={"Retry-After": "1"})
    )
    done = await bench.deliver(backend.endpoint, batch_records=100)
    assert done.verdicts() == all_accepted()
    assert bench.time.monotonic() < 60


async def test_a_whole_refused_by_a_clock_that_is_off_pauses_nothing(bench: Bench, backend: Any) -> None:
    bench.fill(RECORDS)
    backend.answer_batch = whole(*[401] * 3, Date="Mon, 14 Nov 2022 22:11:40 GMT")
    signer = RequestSigner(HmacKey(b"message key"), "key", backend.endpoint)
    done = await bench.deliver(backend.endpoint, batch_records=100, request_signer=signer)
    assert done.courier.paused is None
    assert done.verdicts() == all_accepted()


# --- backends that take no batches, or no large ones ----------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 403, 404, 405, 415, 422, 301])
async def test_a_backend_that_takes_no_batches_gets_single_submits_at_once(
    bench: Bench, backend: Any, status: int
) -> None:
    bench.fill(RECORDS)
    backend.answer_batch = whole(*[status] * RECORDS)
    told: list[str] = []
    with structlog.testing.capture_logs() as logged:
        done = await bench.deliver(backend.endpoint, batch_records=100, warn=told.append)
    assert done.verdicts() == all_accepted()
    assert len(backend.batches) == 1
    assert len(backend.requests) == 1 + RECORDS
    assert bench.time.slept_s == []
    assert told == []
    assert [line["status"] for line in logged if line["event"] == "batches_refused"] == [status]


async def test_a_wrong_endpoint_pauses_delivery_as_single_submits_do(bench: Bench, backend: Any) -> None:
    bench.fill(RECORDS)
    done = await bench.deliver(backend.endpoint.replace("/v1/", "/v2/"), batch_records=100)
    assert done.courier.paused == "status 404, 3 times in a row"
    assert done.courier.advice.startswith("check ENDPOINT")
    assert len(bench.outbox.entries(State.PENDING)) == RECORDS


async def test_a_backend_that_took_no_batches_is_asked_again_later(bench: Bench, backend: Any) -> None:
    """It was replaced by a newer one, in front of which a process of the agent goes on."""
    bench.fill(RECORDS)
    backend.answer_batch = whole(404)
    slow = backend.answer

    def answer(document: dict[str, Any], before: int) -> web.StreamResponse:
        bench.time.now_s += BATCH_RECHECK_S / 10
        response: web.StreamResponse = slow(document, before)
        return response

    backend.answer = answer
    done = await bench.deliver(backend.endpoint, batch_records=100)
    assert done.verdicts() == all_accepted()
    first, second = backend.batches
    assert len(first) == RECORDS
    assert 0 < len(second) <= RECORDS - 10
    assert len(backend.received) == 2 * RECORDS


async def test_a_backend_that_takes_no_compressed_batches_gets_plain_ones(bench: Bench, backend: Any) -> None:
    bench.fill(RECORDS)
    backend.answer_batch = whole(415)
    done = await bench.deliver(backend.endpoint, batch_records=10, gzip_batches=True)
    assert done.verdicts() == all_accepted()
    encodings = [headers.get("Content-Encoding") for _, headers, _ in backend.requests]
    assert encodings == ["gzip", None, None]
    assert bench.time.slept_s == []


async def test_a_batch_that_is_too_large_is_halved_at_once_and_from_then_on(
    bench: Bench, backend: Any
) -> None:
    bench.fill(RECORDS)
    backend.answer_batch = lambda documents, before: (
        each(entry)(documents, before) if len(documents) <= 5 else web.Response(status=413)
    )
    done = await bench.deliver(backend.endpoint, batch_records=20)
    assert [len(batch) for batch in backend.batches][:2] == [20, 10]
    assert done.verdicts() == all_accepted()
    assert [len(batch) for batch in backend.batches if len(batch) <= 5] == [5] * 4
    assert bench.time.slept_s == []


async def test_batches_that_are_never_small_enough_end_with_single_submits(
    bench: Bench, backend: Any
) -> None:
    bench.fill(RECORDS)
    backend.answer_batch = whole(*[413] * 100)
    done = await bench.deliver(backend.endpoint, batch_records=100)
    assert done.verdicts() == all_accepted()
    assert [len(batch) for batch in backend.batches][:2] == [20, 10]
    assert backend.requests[-1][0] == "/v1/pcs/submit"
    assert len(backend.batches) < RECORDS


# --- the request ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True])
async def test_a_batch_is_signed_as_a_whole_with_its_path(
    bench: Bench, backend: Any, *, compressed: bool
) -> None:
    bench.fill(RECORDS)
    key = entry_of_secret(b"a secret of the tests")
    assert key.message_key is not None
    signer = RequestSigner(message_hmac_key(b"a secret of the tests"), key.key_id, backend.endpoint)
    done = await bench.deliver(
        backend.endpoint, batch_records=100, request_signer=signer, gzip_batches=compressed
    )
    assert done.verdicts() == all_accepted()
    ((path, headers, body),) = backend.requests
    assert path == "/v1/pcs/batch"
    named = {name.lower(): value for name, value in headers.items()}
    message = Message("POST", named["host"], path, body)
    times = {"received_s": bench.time.now_s, "max_age_s": 60.0}
    assert verify_message(message, named, Keyring([key]), **times) is key
    with pytest.raises(BadSignatureError):
        verify_message(message._replace(path="/v1/pcs/submit"), named, Keyring([key]), **times)


async def test_a_compressed_batch_holds_the_same_records(bench: Bench, backend: Any) -> None:
    records = bench.fill(RECORDS)
    done = await bench.deliver(backend.endpoint, batch_records=100, gzip_batches=True)
    ((_, headers, body),) = backend.requests
    assert headers["Content-Encoding"] == "gzip"
    plain = gzip.decompress(body)
    assert [decode_record(line).pcs_id for line in plain.splitlines()] == [each.pcs_id for each in records]
    assert len(body) < len(plain) / 2
    assert done.verdicts() == all_accepted()


async def test_a_signature_of_a_record_in_a_batch_is_the_one_in_the_outbox(
    bench: Bench, backend: Any
) -> None:
    key = HmacKey(b"key")
    bench.outbox.append([sign_record(bench.make_record(epoch), key) for epoch in range(3)])
    backend.answer_batch = whole(503, Date="Tue, 14 Nov 2023 22:11:40 GMT")
    await bench.deliver(backend.endpoint, batch_records=3)
    assert [document["attempt"] for document in backend.received] == [1, 1, 1, 2, 2, 2]
    skews_ms = [document["ft"]["clock_skew_ms"] for document in backend.received]
    assert skews_ms[:4] == [0, 0, 0, 99_500]
    for document in backend.received:
        assert signer_of([key], decode_record(json.dumps(document).encode())) == key.key_id


async def test_resigning_holds_for_batches(bench: Bench, backend: Any) -> None:
    right = HmacKey(b"right")
    bench.outbox.append([sign_record(bench.make_record(epoch), HmacKey(b"wrong")) for epoch in range(3)])
    await bench.deliver(backend.endpoint, batch_records=3, resigner=right)
    (batch,) = backend.batches
    for document in batch:
        assert signer_of([right], decode_record(json.dumps(document).encode())) == right.key_id


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("http://127.0.0.1:8080/v1/pcs/submit", "http://127.0.0.1:8080/v1/pcs/batch"),
        ("https://u:p@h/a/submit?x=1", "https://u:p@h/a/batch?x=1"),
        ("https://h/submit", "https://h/batch"),
        ("https://h/v1/pcs/submit/", None),
        ("https://h/v1/pcs/resubmit", None),
        ("https://h/v1/pcs/Submit", None),
    ],
)
def test_where_batches_go(endpoint: str, expected: str | None) -> None:
    assert batch_url(endpoint) == expected
