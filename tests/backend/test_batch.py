"""Batches: every record as if it had come alone, one request frame, one answer."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pcs_records
from inboxes import BATCH_BYTES_MAX, RECORD_BYTES_MAX, running_inbox, running_rig, signed, statuses
from pcs_backend.batch import BATCH_PATH, BATCH_RECORDS_MAX, split_records
from pcs_backend.dedup.store import Candidate, Placed
from pcs_backend.errors import OutcomeUnreadableError, StoreUnavailableError, TooLargeError
from pcs_backend.exchange import JSON_TYPE, NDJSON_TYPE, Envelope, Reply, Request
from pcs_backend.inbox.frames import FrameKind
from pcs_core.errors import MalformedError

DEGRADED = {"outbox_seq": 1, "degraded": True, "fallbacks": ["no_input"], "clock_skew_ms": 0}
RECORDS = {
    "good": signed(epoch=1),
    "good twin": signed(epoch=1, attempt=2),
    "other good": signed(epoch=2),
    "other counts": signed(epoch=1, N_j={"2": 3, "4": 5, "8": 9, "16": 17, "32": 33}),
    "escalated": signed(epoch=3, ft=DEGRADED),
    "no record": b"{}",
    "no object": b"[]",
    "bad signature": pcs_records.body(pcs_records.document(epoch=4)),
    "foreign id": signed(epoch=6, pcs_id="0" * 64),
}
LINES = RECORDS | {"not JSON": b"{", "not UTF-8": b'{"a":"\xff"}'}
NOW_MS = 1_790_000_000_000


def batch(*records: bytes, content_type: str = NDJSON_TYPE) -> Request:
    """Return a batch of these records."""
    body = b"\n".join(records) + b"\n" if content_type == NDJSON_TYPE else b"[" + b",".join(records) + b"]"
    return raw_batch(body, content_type)


def raw_batch(body: bytes, content_type: str = NDJSON_TYPE) -> Request:
    return Request(Envelope(received_at_ms=NOW_MS, path=BATCH_PATH, content_type=content_type), body)


def entries(reply: Reply) -> list[dict[str, object]]:
    """Return the entries of an answer, each body as the bytes it stands in."""
    assert reply.status == 200
    if reply.content_type == NDJSON_TYPE:
        assert reply.body.endswith(b"\n")
        return [orjson.loads(line) for line in reply.body.splitlines()]
    return orjson.loads(reply.body)


def as_entry(reply: Reply) -> bytes:
    """Return the entry that a batch has for what a single submit answered."""
    marks = ("Idempotent-Replayed" in reply.headers, "PCS-Conflict" in reply.headers)
    replayed, conflict = (b"true" if mark else b"false" for mark in marks)
    return b'{"status":%d,"replayed":%b,"conflict":%b,"body":%b}' % (
        reply.status,
        replayed,
        conflict,
        reply.body,
    )


class TestEntries:
    @given(names=st.lists(st.sampled_from(sorted(LINES)), min_size=1, max_size=12))
    @settings(max_examples=60, deadline=None)
    async def test_each_is_what_a_single_submit_answers(self, names: list[str]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with running_rig(Path(folder) / "alone") as rig:
                alone = [(await rig.submit(LINES[name]))[0] for name in names]
                counted_alone = rig.counts()
            async with running_rig(Path(folder) / "batch") as rig:
                (reply,) = await rig.pipeline.submit([batch(*(LINES[name] for name in names))])
                assert rig.counts() == counted_alone
                # One was counted when the request came, before the pipeline.
                assert rig.metrics.registry.get_sample_value("flk_ingest_total") == len(names) - 1
                assert rig.inbox.open_requests == 0
        assert reply.body == b"".join(as_entry(each) + b"\n" for each in alone)

    async def test_array_and_lines_say_the_same(self, tmp_path: Path) -> None:
        async with running_rig(tmp_path / "lines") as rig:
            (lines,) = await rig.pipeline.submit([batch(*RECORDS.values())])
        async with running_rig(tmp_path / "array") as rig:
            (array,) = await rig.pipeline.submit([batch(*RECORDS.values(), content_type=JSON_TYPE)])
        assert (lines.content_type, array.content_type) == (NDJSON_TYPE, JSON_TYPE)
        assert entries(lines) == entries(array)

    async def test_blank_lines_and_carriage_returns_are_no_records(self, tmp_path: Path) -> None:
        async with running_rig(tmp_path) as rig:
            body = b"\n\r\n" + RECORDS["good"] + b"\r\n \n" + RECORDS["other good"]
            (reply,) = await rig.pipeline.submit([raw_batch(body)])
            assert [each["status"] for each in entries(reply)] == [200, 200]

    async def test_record_beyond_its_size_harms_no_neighbour(self, tmp_path: Path) -> None:
        async with running_rig(tmp_path) as rig:
            large = RECORDS["good"] + b" " * RECORD_BYTES_MAX
            (reply,) = await rig.pipeline.submit([batch(large, RECORDS["other good"])])
            assert [each["status"] for each in entries(reply)] == [413, 200]

    async def test_singles_and_batches_that_come_together(self, tmp_path: Path) -> None:
        async with running_rig(tmp_path) as rig:
            single = Request(
                Envelope(received_at_ms=NOW_MS, path="/v1/pcs/submit", content_type=JSON_TYPE),
                RECORDS["good"],
            )
            replies = await rig.pipeline.submit([single, batch(*LINES.values()), single, batch(b"{")])
            assert statuses(replies) == [200, 200, 200, 200]
            assert [each["replayed"] for each in entries(replies[1])][:3] == [True, True, False]
            assert rig.counts() == (4, 2, 1, 1)


class TestWhole:
    @pytest.mark.parametrize(
        ("body", "content_type"),
        [
            (b"", NDJSON_TYPE),
            (b"\n \n", NDJSON_TYPE),
            (b"[]", JSON_TYPE),
            (b"", JSON_TYPE),
            (b"{}", JSON_TYPE),
            (b"[{}", JSON_TYPE),
            (b"[{}]]", JSON_TYPE),
        ],
    )
    async def test_what_holds_no_records_is_400(self, tmp_path: Path, body: bytes, content_type: str) -> None:
        async with running_rig(tmp_path) as rig:
            (reply,) = await rig.pipeline.submit([raw_batch(body, content_type)])
            assert (reply.status, reply.problem) == (400, "malformed")
            assert rig.inbox.open_requests == 0

    @pytest.mark.parametrize("content_type", [NDJSON_TYPE, JSON_TYPE])
    async def test_one_record_too_many_is_413(self, tmp_path: Path, content_type: str) -> None:
        async with running_rig(tmp_path) as rig:
            (reply,) = await rig.pipeline.submit(
                [batch(*[b"{}"] * BATCH_RECORDS_MAX, content_type=content_type)]
            )
            assert len(entries(reply)) == BATCH_RECORDS_MAX
            (reply,) = await rig.pipeline.submit(
                [batch(*[b"{}"] * (BATCH_RECORDS_MAX + 1), content_type=content_type)]
            )
            assert (reply.status, reply.problem) == (413, "too-large")
            assert rig.inbox.open_requests == 0

    def test_a_flood_of_blank_lines_is_not_looked_at(self) -> None:
        with pytest.raises(TooLargeError):
            split_records(b"\n" * (2 * BATCH_RECORDS_MAX + 1), NDJSON_TYPE)

    def test_problem_quotes_nothing_of_the_body(self) -> None:
        with pytest.raises(MalformedError) as raised:
            split_records(b'["canary', JSON_TYPE)
        assert "canary" not in str(raised.value)
        assert raised.value.__context__ is None


class TestEncodings:
    async def test_gzip_says_the_same_and_is_logged_as_it_came(self, tmp_path: Path) -> None:
        plain = batch(*LINES.values())
        packed = Request(
            msgspec.structs.replace(plain.envelope, content_encoding="gzip"), gzip.compress(plain.body)
        )
        async with running_rig(tmp_path / "plain") as rig:
            (expected,) = await rig.pipeline.submit([plain])
        async with running_rig(tmp_path / "gzip") as rig:
            (reply,) = await rig.pipeline.submit([packed])
        assert reply == expected
        payloads: list[bytes] = []
        async with running_inbox(
            tmp_path / "gzip", visit=lambda _sequence, frame: payloads.append(frame.payload)
        ):
            pass
        assert payloads[0] == packed.body

    @pytest.mark.parametrize(
        ("body", "status"), [(b"no gzip", 400), (gzip.compress(b" " * (BATCH_BYTES_MAX + 1)), 413)]
    )
    async def test_what_is_none_or_too_large_is_refused(
        self, tmp_path: Path, body: bytes, status: int
    ) -> None:
        envelope = msgspec.structs.replace(batch().envelope, content_encoding="gzip")
        async with running_rig(tmp_path) as rig:
            (reply,) = await rig.pipeline.submit([Request(envelope, body)])
            assert reply.status == status
            assert rig.inbox.open_requests == 0


class TestDurability:
    async def test_one_request_frame_and_one_of_outcomes(self, tmp_path: Path) -> None:
        async with running_rig(tmp_path) as rig:
            await rig.pipeline.submit([batch(RECORDS["good"], RECORDS["other good"], RECORDS["escalated"])])
        kinds: list[int] = []
        async with running_inbox(tmp_path, visit=lambda _sequence, frame: kinds.append(frame.kind)):
            pass
        assert kinds == [FrameKind.REQUEST, FrameKind.OUTCOMES, FrameKind.SETTLED]

    async def test_batch_without_outcomes_is_judged_at_the_next_start(self, tmp_path: Path) -> None:
        async with running_inbox(tmp_path) as inbox:
            await inbox.append([batch(*LINES.values())])
        async with running_rig(tmp_path) as rig:
            assert await rig.settler().settle_batch() == {
                "accepted": 2,
                "escalated": 1,
                "replayed": 2,
                "refused": 6,
            }
            assert rig.inbox.open_requests == 0
        async with running_rig(tmp_path) as rig:
            assert rig.inbox.has_deferred is False
            (reply,) = await rig.pipeline.submit([batch(RECORDS["good"])])
            assert entries(reply)[0]["replayed"] is True

    async def test_batch_with_refused_records_is_not_judged_again(self, tmp_path: Path) -> None:
        async with running_rig(tmp_path) as rig:
            await rig.pipeline.submit([batch(RECORDS["bad signature"], RECORDS["good"])])
            await rig.inbox.append([batch(RECORDS["other good"])])
        async with running_rig(tmp_path) as rig:
            assert await rig.settler().settle_batch() == {"accepted": 1}


class TestStoreDown:
    async def test_whole_batch_is_503_and_judged_later(self, tmp_path: Path) -> None:
        async with running_rig(tmp_path) as rig:
            rig.store.moods["put_first"] = StoreUnavailableError("the store is down")
            (reply,) = await rig.pipeline.submit([batch(RECORDS["good"], RECORDS["other good"])])
            assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
            assert (rig.inbox.open_requests, rig.inbox.backlog_requests) == (1, 1)
            rig.store.moods.clear()
            assert await rig.settler().settle_batch() == {"accepted": 2}
            assert rig.inbox.open_requests == 0

    async def test_nothing_is_refused_beside_a_record_that_cannot_be_judged(self, tmp_path: Path) -> None:
        """Recovery judges the batch again, and must not find otherwise what was answered for good."""
        unreadable = orjson.loads(RECORDS["good"])["pcs_id"]
        async with running_rig(tmp_path) as rig:
            put_first = rig.store.put_first

            async def put_unless_unreadable(candidates: list[Candidate]) -> list[Placed]:
                if unreadable in [candidate.outcome.pcs_id for candidate in candidates]:
                    raise OutcomeUnreadableError("the store holds an outcome that this version cannot read")
                return await put_first(candidates)

            rig.store.put_first = put_unless_unreadable
            records = (RECORDS["good"], RECORDS["bad signature"], RECORDS["other good"])
            (reply,) = await rig.pipeline.submit([batch(*records)])
            assert [each["status"] for each in entries(reply)] == [503, 503, 200]
            assert (rig.inbox.open_requests, rig.inbox.backlog_requests) == (1, 1)
            rig.store.put_first = put_first
            assert await rig.settler().settle_batch() == {"accepted": 1, "refused": 1, "replayed": 1}
            assert rig.inbox.open_requests == 0

    async def test_outcome_that_cannot_be_read_leaves_its_neighbours_theirs_of_the_same_call(
        self, tmp_path: Path
    ) -> None:
        """Asked for again one by one, they would be found stored: replays, and nobody's first outcomes."""
        unreadable = orjson.loads(RECORDS["good"])["pcs_id"]
        calls = []
        async with running_rig(tmp_path) as rig:
            put_first = rig.store.put_first

            async def put_all_but_unreadable(candidates: list[Candidate]) -> list[Placed]:
                calls.append(len(candidates))
                is_readable = [each.outcome.pcs_id != unreadable for each in candidates]
                stored = iter(
                    await put_first([each for each, ok in zip(candidates, is_readable, strict=True) if ok])
                )
                raise OutcomeUnreadableError(
                    "cannot read", [next(stored) if ok else None for ok in is_readable]
                )

            rig.store.put_first = put_all_but_unreadable
            (reply,) = await rig.pipeline.submit([batch(RECORDS["good"], RECORDS["other good"])])
            assert [(each["status"], each["replayed"]) for each in entries(reply)] == [
                (503, False),
                (200, False),
            ]
            assert rig.metrics.registry.get_sample_value("flk_accepted_total") == 1
            assert calls == [2]
            rig.store.put_first = put_first
            assert await rig.settler().settle_batch() == {"accepted": 1, "replayed": 1}
