"""The stages of a request over a real inbox and a real memory store, in batches of every mixture."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pcs_records
from inboxes import (
    DEDUP_TTL_S,
    KEY,
    NOW_S,
    WAIT_S,
    HeldFiles,
    build_pipeline,
    request,
    running_inbox,
    running_rig,
    signed,
    statuses,
    turn,
)
from pcs_backend.dedup.store import Candidate, Placed
from pcs_backend.errors import StoreUnavailableError
from pcs_backend.exchange import Received, Reply, Request
from pcs_backend.outcome import Key
from pcs_core.signing import HmacKey

CANARY = "canary-5be0cd19"

DEGRADED = {"outbox_seq": 1, "degraded": True, "fallbacks": ["no_input"], "clock_skew_ms": 0}
KINDS = {
    "good": (signed(epoch=1), 200),
    "good twin": (signed(epoch=1, attempt=2), 200),
    "other good": (signed(epoch=2), 200),
    "other counts": (signed(epoch=1, N_j={"2": 3, "4": 5, "8": 9, "16": 17, "32": 33}), 200),
    "escalated": (signed(epoch=3, ft=DEGRADED), 202),
    "not JSON": (b"{", 400),
    "no record": (b"{}", 400),
    "empty": (b"", 400),
    "bad signature": (pcs_records.body(pcs_records.document(epoch=4)), 401),
    "other key": (pcs_records.body(pcs_records.sign(pcs_records.document(epoch=5), hmac_key=b"x")), 401),
    "foreign id": (signed(epoch=6, pcs_id="0" * 64), 400),
}


def headers(replies: list[Reply]) -> list[str]:
    """Say of each reply whether it replays (R) and conflicts (C)."""
    names = (("Idempotent-Replayed", "R"), ("PCS-Conflict", "C"))
    return ["".join(mark for name, mark in names if reply.headers.get(name) == "true") for reply in replies]


class TestBatches:
    async def test_replies_come_in_order_and_bad_records_harm_no_neighbour(self, tmp_path: Path) -> None:
        async with running_rig(tmp_path) as rig:
            replies = await rig.submit(*(body for body, _ in KINDS.values()))
            assert statuses(replies) == [status for _, status in KINDS.values()]
            assert headers(replies) == ["", "R", "", "RC", "", "", "", "", "", "", ""]
            assert [reply.problem for reply in replies] == [
                *[""] * 5,
                *["malformed"] * 3,
                *["bad-signature"] * 2,
                "identity-mismatch",
            ]
            assert rig.counts() == (2, 2, 1, 1)
            assert rig.count("escalated_reason", reason="degraded") == 1
            assert rig.inbox.open_requests == 0
            assert replies[0].body == replies[1].body == replies[3].body

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.sampled_from(sorted(KINDS)), max_size=12))
    def test_any_mixture_is_answered_as_one_by_one(self, kinds: list[str]) -> None:
        """A batch is a sequence of submits and nothing else: same statuses, bodies and counts, in order."""

        async def answers(folder: str, *, together: bool) -> tuple:
            async with running_rig(Path(folder)) as rig:
                contents = [KINDS[kind][0] for kind in kinds]
                if together:
                    replies = await rig.submit(*contents)
                else:
                    replies = [reply for body in contents for reply in await rig.submit(body)]
                return replies, rig.counts(), rig.inbox.open_requests

        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
            batch = asyncio.run(answers(one, together=True))
            single = asyncio.run(answers(other, together=False))
        assert statuses(batch[0]) == [KINDS[kind][1] for kind in kinds]
        assert batch == single

    async def test_empty_batch_has_no_answers(self, tmp_path: Path) -> None:
        async with running_rig(tmp_path) as rig:
            assert await rig.submit() == []

    async def test_copies_at_once_have_one_first(self, tmp_path: Path) -> None:
        """L7."""
        async with running_rig(tmp_path) as rig:
            batches = await asyncio.gather(*(rig.submit(signed(), signed()) for _ in range(20)))
            replies = [reply for batch in batches for reply in batch]
            assert headers(replies).count("") == 1
            assert {reply.body for reply in replies} == {replies[0].body}
            assert rig.counts() == (39, 1, 0, 0)


class TestDurability:
    async def test_nothing_is_parsed_before_the_request_is_on_disk(self, tmp_path: Path) -> None:
        files = HeldFiles()
        async with running_rig(tmp_path, files) as rig:
            files.hold()
            submitting = asyncio.create_task(rig.submit(b"not JSON", signed()))
            await files.reached()
            await turn()
            assert (rig.store.calls, rig.inbox.open_requests) == ([], 0)
            files.release()
            assert statuses(await submitting) == [400, 200]

    @pytest.mark.parametrize(
        ("body", "status"), [(signed(), 200), (signed(ft=DEGRADED), 202), (b"not JSON", 400)]
    )
    async def test_no_answer_leaves_before_its_frame_is_on_disk(
        self, tmp_path: Path, body: bytes, status: int
    ) -> None:
        files = HeldFiles()
        async with running_rig(tmp_path, files) as rig:
            files.hold()
            submitting = asyncio.create_task(rig.submit(body))
            await files.reached()  # the request
            files.let_one_through()
            await files.reached()  # the outcome, or the refusal
            await turn()
            assert submitting.done() is False
            files.release()
            assert statuses(await submitting) == [status]

    async def test_a_refusal_that_is_being_synced_keeps_nobody_from_the_log(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files, appended = HeldFiles(), asyncio.Semaphore(0)
        async with running_rig(tmp_path, files) as rig:
            append = rig.inbox.append

            async def note_append(requests: Sequence[Request]) -> list[Received]:
                appended.release()
                return await append(requests)

            monkeypatch.setattr(rig.inbox, "append", note_append)
            files.hold()
            refused = asyncio.create_task(rig.submit(b"not JSON"))
            await files.reached()  # the request
            files.let_one_through()
            await files.reached()  # the refusal
            good = asyncio.create_task(rig.submit(signed()))
            for _ in range(2):
                await asyncio.wait_for(appended.acquire(), WAIT_S)
            assert refused.done() is False
            files.release()
            assert statuses([*await refused, *await good]) == [400, 200]

    async def test_request_that_the_disk_refuses_is_503_and_not_judged(self, tmp_path: Path) -> None:
        files = HeldFiles()
        async with running_rig(tmp_path, files) as rig:
            files.fail["append"] = errno.ENOSPC
            replies = await rig.submit(signed(), b"not JSON")
            assert statuses(replies) == [503, 503]
            assert {reply.headers["Retry-After"] for reply in replies} == {"1"}
            assert (rig.store.calls, rig.inbox.open_requests) == ([], 0)
            files.fail.clear()
            assert headers(await rig.submit(signed())) == [""]

    @pytest.mark.parametrize("body", [signed(), b"not JSON"])
    async def test_answer_that_the_disk_refuses_is_503_and_the_request_is_judged_later(
        self, tmp_path: Path, body: bytes
    ) -> None:
        """L15: a failed write of the outcome is never ignored."""
        files = HeldFiles()
        async with running_rig(tmp_path, files) as rig:
            files.hold()
            submitting = asyncio.create_task(rig.submit(body))
            await files.reached()
            files.let_one_through()
            await files.reached()
            files.fail["sync_data"] = errno.EIO
            files.release()
            (reply,) = await submitting
            assert (reply.status, reply.problem, reply.headers["Retry-After"]) == (503, "unavailable", "1")
            assert (rig.inbox.open_requests, rig.inbox.has_deferred) == (1, True)
            assert rig.counts() == (0, 0, 0, 0)


class TestStoreDown:
    async def test_503_and_the_request_is_kept_and_judged_later(self, tmp_path: Path) -> None:
        """L15: fail closed."""
        async with running_rig(tmp_path) as rig:
            rig.store.moods["put_first"] = StoreUnavailableError("the store is down")
            replies = await rig.submit(signed(epoch=1), signed(epoch=2))
            assert statuses(replies) == [503, 503]
            assert {reply.headers["Retry-After"] for reply in replies} == {"1"}
            assert (rig.inbox.open_requests, rig.inbox.backlog_requests) == (2, 2)
            assert rig.counts() == (0, 0, 0, 0)
            rig.store.moods.clear()
            assert await rig.settler().settle_batch() == {"accepted": 2}
            assert (rig.inbox.open_requests, rig.inbox.backlog_requests) == (0, 0)
            assert rig.counts() == (0, 2, 0, 0)

    async def test_what_is_refused_needs_no_store(self, tmp_path: Path) -> None:
        async with running_rig(tmp_path) as rig:
            rig.store.moods["put_first"] = StoreUnavailableError("the store is down")
            assert statuses(await rig.submit(b"not JSON")) == [400]
            assert rig.inbox.has_deferred is False

    async def test_conflict_that_cannot_be_kept_is_judged_again(self, tmp_path: Path) -> None:
        """L9: kept before the answer leaves, and counted only then."""
        async with running_rig(tmp_path) as rig:
            await rig.submit(signed())
            rig.store.moods["note_conflicts"] = StoreUnavailableError("the store is down")
            altered = signed(N_j={"2": 3, "4": 5, "8": 9, "16": 17, "32": 33})
            assert statuses(await rig.submit(altered)) == [503]
            assert rig.counts() == (0, 1, 0, 0)
            rig.store.moods.clear()
            assert await rig.settler().settle_batch() == {"replayed": 1}
            assert rig.counts() == (0, 1, 0, 1)
            assert len(await rig.store.list_conflicts("default", 10)) == 1

    async def test_full_memory_store_is_503(self, tmp_path: Path) -> None:
        async with running_rig(tmp_path) as rig:
            rig.store._records_max = 1
            assert statuses(await rig.submit(signed(epoch=1))) == [200]
            assert statuses(await rig.submit(signed(epoch=2))) == [503]
            assert headers(await rig.submit(signed(epoch=1))) == ["R"]

    async def test_full_memory_store_answers_the_known_and_takes_what_fits(self, tmp_path: Path) -> None:
        async with running_rig(tmp_path) as rig:
            await rig.submit(signed(epoch=1))
            rig.store._records_max = 2
            replies = await rig.submit(*(signed(epoch=epoch) for epoch in (3, 1, 4, 3, 4)))
            assert statuses(replies) == [200, 200, 503, 200, 503]
            assert headers(replies) == ["", "R", "", "R", ""]
            assert (rig.inbox.open_requests, rig.inbox.backlog_requests) == (2, 2)


class TestDefects:
    async def test_unforeseen_exception_loses_no_request_and_tells_nothing(
        self, tmp_path: Path, debug_logs: io.StringIO
    ) -> None:
        async with running_rig(tmp_path) as rig:
            rig.store.moods["put_first"] = RuntimeError(f"{CANARY} of a record")
            (reply,) = await rig.submit(signed(shard_id=CANARY))
            assert (reply.status, reply.problem) == (503, "unavailable")
            assert CANARY.encode() not in reply.body
            assert rig.inbox.open_requests == 1
            (line,) = [json.loads(line) for line in debug_logs.getvalue().splitlines()]
            assert (line["event"], line["error"]) == ("judging failed", "RuntimeError")
            assert line["place"].startswith("inboxes.py:")
            assert CANARY not in debug_logs.getvalue()
            rig.store.moods.clear()
            assert await rig.settler().settle_batch() == {"accepted": 1}

    async def test_record_that_breaks_the_judge_harms_no_neighbour(self, tmp_path: Path) -> None:
        """Judged together again and again, a batch would never get past the one that breaks it."""
        broken = Key("default", pcs_records.document(epoch=2)["pcs_id"])
        async with running_rig(tmp_path) as rig:
            put_first = rig.store.put_first

            async def put_unless_broken(candidates: list[Candidate]) -> list[Placed]:
                if broken in [candidate.outcome.key for candidate in candidates]:
                    raise ZeroDivisionError
                return await put_first(candidates)

            rig.store.put_first = put_unless_broken
            replies = await rig.submit(signed(epoch=1), signed(epoch=2), b"not JSON", signed(epoch=3))
            assert statuses(replies) == [200, 503, 400, 200]
            assert rig.inbox.open_requests == 1
            assert rig.counts() == (0, 2, 0, 0)


class TestOutcomes:
    async def test_what_is_stored_names_parameters_key_and_lifetime(self, tmp_path: Path) -> None:
        async with running_rig(tmp_path) as rig:
            (reply,) = await rig.submit(signed())
            document = pcs_records.document()
            (stored,) = await rig.store.get([Key("default", document["pcs_id"])])
            assert stored is not None
            assert stored.body == reply.body
            assert (stored.status, stored.tenant, stored.params_version) == (200, "default", "0.1")
            assert stored.key_id == HmacKey(KEY).key_id
            assert stored.stored_at_ms == NOW_S * 1_000
            assert stored.expires_at_ms == (NOW_S + DEDUP_TTL_S) * 1_000
            assert json.loads(reply.body)["pcs_id"] == document["pcs_id"]

    @pytest.mark.parametrize(
        ("overrides", "conflicts"),
        [
            ({"attempt": 9, "sent_at": "2031-01-01T00:00:00Z", "seed": 7, "v_star": []}, False),
            ({"ft": DEGRADED}, False),
            ({"regime": "mixed"}, False),
            ({"D_hat": 0.86, "budget": 0.443}, True),
            ({"coh_star": 0.84}, True),
            ({"r": 0.5}, True),
            ({"budget": 0.444}, True),
            ({"N_j": {"2": 3, "4": 5, "8": 9, "16": 17, "32": 31}}, True),
            ({"scales": [2, 4, 8, 16], "N_j": {"2": 3, "4": 5, "8": 9, "16": 17}}, True),
        ],
    )
    async def test_conflict_is_another_signed_subset_or_other_counts(
        self, tmp_path: Path, overrides: dict[str, object], conflicts: bool
    ) -> None:
        """L9: what may differ between two deliveries of one record, and what may not."""
        first = pcs_records.document()
        again = first | overrides
        async with running_rig(tmp_path) as rig:
            bodies = [pcs_records.body(pcs_records.sign(each, hmac_key=KEY)) for each in (first, again)]
            replies = await rig.submit(*bodies)
            assert headers(replies) == ["", "RC" if conflicts else "R"]
            assert replies[0].body == replies[1].body

    async def test_known_record_keeps_its_bytes_until_its_lifetime_ends(self, tmp_path: Path) -> None:
        async with running_rig(tmp_path) as rig:
            (first,) = await rig.submit(signed())
            rig.clock.move(DEDUP_TTL_S - 0.001)
            (again,) = await rig.submit(signed())
            assert (again.body, headers([again])) == (first.body, ["R"])
            rig.clock.move(0.001)
            replies = await rig.submit(signed(), signed())
            assert headers(replies) == ["", "R"]
            assert rig.counts() == (2, 2, 0, 0)
            rig.clock.move(DEDUP_TTL_S - 1)
            assert headers(await rig.submit(signed())) == ["R"]

    async def test_first_outcomes_survive_a_restart(self, tmp_path: Path) -> None:
        async with running_rig(tmp_path) as rig:
            first = await rig.submit(signed(epoch=1), signed(epoch=2, ft=DEGRADED))
        async with running_rig(tmp_path) as rig:
            again = await rig.submit(signed(epoch=1), signed(epoch=2, ft=DEGRADED))
            assert [(reply.status, reply.body) for reply in again] == [
                (reply.status, reply.body) for reply in first
            ]
            assert headers(again) == ["R", "R"]
            assert rig.counts() == (2, 0, 0, 0)

    async def test_outcome_of_another_workers_request_names_no_frame_here(self, tmp_path: Path) -> None:
        """Numbers of two logs are alike: settled under its number, a request of one's own would be lost."""
        async with running_rig(tmp_path / "0") as rig, running_inbox(tmp_path / "7") as other:
            (mine,) = await rig.inbox.append([request(signed(epoch=1))])
            pipeline = build_pipeline(other, rig.store, rig.metrics, rig.clock, inbox_is_own=False)
            (reply,) = await pipeline.submit([request(signed(epoch=2))])
            assert reply.status == 200
            assert (rig.inbox.open_requests, other.open_requests) == (1, 0)
        async with running_inbox(tmp_path / "0") as inbox:
            (left,) = await inbox.take_deferred(9)
            assert left.sequence == mine.sequence


FINITE = st.floats(allow_nan=False, allow_infinity=False)
SCALES = st.lists(st.integers(1, 10_000), min_size=2, max_size=32, unique=True).map(sorted)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, object]:
    """Records within the contract's ranges, however odd."""
    scales = draw(SCALES)
    counts = {str(scale): draw(st.integers(1, 2**53 - 1)) for scale in scales}
    return pcs_records.document(
        scales=scales,
        N_j=counts,
        epoch=draw(st.integers(0, 2**53 - 1)),
        seed=draw(st.integers(0, 2**63 - 1)),
        D_hat=draw(FINITE),
        coh_star=draw(FINITE),
        r=draw(FINITE),
        budget=draw(st.floats(0, 1)),
        regime=draw(st.sampled_from(["sticky", "mixed", "non_sticky"])),
        v_star=draw(st.lists(FINITE, max_size=4)),
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(documents(), min_size=1, max_size=4))
def test_every_record_within_its_ranges_is_accepted_or_escalated(batch: list[dict[str, object]]) -> None:
    """L12: odd values escalate; none of them is a defect of ours."""

    async def check(folder: str) -> None:
        async with running_rig(Path(folder)) as rig:
            contents = [pcs_records.body(pcs_records.sign(each, hmac_key=KEY)) for each in batch]
            replies = await rig.submit(*contents)
            assert set(statuses(replies)) <= {200, 202}
            for reply in replies:
                recomputed = json.loads(reply.body)["recomputed"]
                assert 0 <= recomputed["budget"] <= 1
                assert isinstance(recomputed["D_hat"], float)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(check(folder))
