"""The inbox: what is open after a restart, what retention may remove, and bodies of every kind."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pcs_records
from inboxes import NOW_S, HeldFiles, bodies, request, running_inbox, turn
from pcs_backend.dedup.store import Candidate
from pcs_backend.errors import InboxUnavailableError
from pcs_backend.inbox import inbox as inbox_module
from pcs_backend.inbox.frames import FrameKind, Refusal
from pcs_backend.inbox.inbox import Inbox
from pcs_backend.outcome import Outcome, WholeOutcome
from pcs_core.errors import WalLockedError
from pcs_core.wal import Frame
from pcs_logs import raw_frame, segments

BODIES = {
    "empty": b"",
    "compact": pcs_records.body(pcs_records.document()),
    "pretty-printed": b'{\n  "a": 1,\n\n  "b": [\n    2\n  ]\n}\n',
    "newlines": b"\n\r\n\n" * 50,
    "larger than 64 KiB": b'{"x": "' + b"y" * 200_000 + b'"}',
    "binary": bytes(range(256)) * 3,
    "frame magic": b"PCSF" * 40 + b"PCSWAL01",
    "zeros": b"\x00" * 5_000,
    "a frame of its own": raw_frame(inbox_module.settled_frame([1, 2, 3]), 2),
}


def outcome(number: int = 0, *, stored_at_s: float = NOW_S) -> Outcome:
    stored_at_ms = int(stored_at_s * 1_000)
    return WholeOutcome(
        tenant="default",
        pcs_id=f"{number:064x}",
        status=200,
        body=b"{}",
        fingerprint="f",
        params_version="defaults-1",
        key_id="",
        stored_at_ms=stored_at_ms,
        expires_at_ms=stored_at_ms + 1_000_000,
    ).outcome


async def append(inbox: Inbox, *contents: bytes, received_at_s: float = NOW_S) -> list[int]:
    requests = [request(body, received_at_s=received_at_s) for body in contents]
    return [each.sequence for each in await inbox.append(requests)]


async def take(inbox: Inbox) -> list[bytes]:
    """Return the bodies that are deferred now; none if there are none."""
    return bodies(await inbox.take_deferred(1_000)) if inbox.has_deferred else []


class TestBodies:
    @pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
    async def test_any_body_comes_back_whole_after_a_restart(self, tmp_path: Path, body: bytes) -> None:
        """L3: pretty-printed JSON spanned lines, records over 64 KiB broke the reader, replay was never called."""
        async with running_inbox(tmp_path) as inbox:
            (received,) = await inbox.append([request(body)])
        async with running_inbox(tmp_path) as inbox:
            assert await inbox.take_deferred(10) == [received]
            assert received.request == request(body)

    async def test_all_kinds_of_bodies_side_by_side_come_back_in_order(self, tmp_path: Path) -> None:
        """L3, and no body passes for a frame."""
        async with running_inbox(tmp_path, segment_bytes=4_096) as inbox:
            for body in BODIES.values():
                await append(inbox, body)
        async with running_inbox(tmp_path, segment_bytes=4_096) as inbox:
            assert await take(inbox) == list(BODIES.values())
            assert (inbox.damages, inbox.unreadable_requests) == ([], 0)


class TestRecovery:
    async def test_open_requests_come_back_deferred_and_closed_ones_do_not(self, tmp_path: Path) -> None:
        async with running_inbox(tmp_path) as inbox:
            refused, settled, judged, left = await append(inbox, b"refused", b"settled", b"judged", b"left")
            await inbox.refuse([Refusal(refused, "malformed")])
            inbox.settle([settled])
            await inbox.write_outcomes([Candidate(outcome(), judged)])
            assert inbox.open_requests == 1
        async with running_inbox(tmp_path) as inbox:
            assert inbox.open_requests == 1
            (received,) = await inbox.take_deferred(10)
            assert (received.sequence, received.request.body) == (left, b"left")

    async def test_each_frame_is_visited_once_in_order(self, tmp_path: Path) -> None:
        visited: list[tuple[int, int]] = []

        def visit(sequence: int, frame: Frame) -> None:
            visited.append((sequence, frame.kind))

        async with running_inbox(tmp_path, segment_bytes=200) as inbox:
            (first,) = await append(inbox, b"1")
            await inbox.write_outcomes([Candidate(outcome(), first)])
            (second,) = await append(inbox, b"2")
            await inbox.refuse([Refusal(second, "malformed")])
        async with running_inbox(tmp_path, visit=visit):
            pass
        assert [kind for _, kind in visited] == [
            FrameKind.REQUEST,
            FrameKind.OUTCOMES,
            FrameKind.REQUEST,
            FrameKind.REFUSAL,
        ]
        assert [sequence for sequence, _ in visited] == sorted({sequence for sequence, _ in visited})

    async def test_outcome_of_another_workers_request_closes_nothing_here(self, tmp_path: Path) -> None:
        async with running_inbox(tmp_path) as inbox:
            await append(inbox, b"mine")
            await inbox.write_outcomes([Candidate(outcome(), None)])
        async with running_inbox(tmp_path) as inbox:
            assert await take(inbox) == [b"mine"]

    async def test_many_settled_requests_are_noted_in_bounded_frames(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(inbox_module, "SETTLED_PER_FRAME_MAX", 3)
        async with running_inbox(tmp_path) as inbox:
            sequences = await append(inbox, *[b"%d" % number for number in range(8)])
            inbox.settle(sequences)
            inbox.settle(sequences)  # a second time: nothing
        kinds: list[int] = []
        async with running_inbox(tmp_path, visit=lambda _sequence, frame: kinds.append(frame.kind)) as inbox:
            assert kinds.count(FrameKind.SETTLED) == 3
            assert inbox.open_requests == 0

    async def test_settled_frame_lost_in_a_crash_leaves_the_request_open(self, tmp_path: Path) -> None:
        """The store is asked again then, and knows the record."""
        async with running_inbox(tmp_path / "log") as inbox:
            (sequence,) = await append(inbox, b"judged")
            (segment,) = segments(tmp_path / "log")
            at_crash = segment.read_bytes()
            inbox.settle([sequence])
        (tmp_path / "crashed").mkdir()
        (tmp_path / "crashed" / segment.name).write_bytes(at_crash)
        async with running_inbox(tmp_path / "crashed") as inbox:
            assert await take(inbox) == [b"judged"]

    async def test_second_process_on_the_same_folder_is_refused(self, tmp_path: Path) -> None:
        async with running_inbox(tmp_path):
            with pytest.raises(WalLockedError):
                async with running_inbox(tmp_path):
                    raise AssertionError("both have it")

    @settings(max_examples=25, deadline=None)
    @given(
        runs=st.lists(
            st.lists(st.sampled_from(["append", "refuse", "settle", "outcome", "defer"]), max_size=12),
            min_size=1,
            max_size=4,
        ),
        choices=st.randoms(use_true_random=False),
    )
    def test_whatever_happened_the_open_requests_come_back(
        self, runs: list[list[str]], choices: random.Random
    ) -> None:
        """A dictionary is the model: what was appended and not closed is open, over any number of restarts."""

        async def check(folder: Path) -> None:
            model: dict[int, bytes] = {}
            count = 0
            for operations in runs:
                async with running_inbox(folder, segment_bytes=300) as inbox:
                    received = await inbox.take_deferred(100) if inbox.has_deferred else []
                    assert {each.sequence: each.request.body for each in received} == model
                    assert [each.sequence for each in received] == sorted(model)
                    for operation in operations:
                        chosen = choices.sample(sorted(model), min(2, len(model)))
                        if operation == "append":
                            new = [b"%d" % (count + each) for each in range(3)]
                            count += 3
                            model |= zip(await append(inbox, *new), new, strict=True)
                            continue
                        if operation == "defer":
                            inbox.defer(chosen)
                            assert await take(inbox) == [model[each] for each in chosen]
                            continue
                        if operation == "refuse":
                            await inbox.refuse([Refusal(each, "malformed") for each in chosen])
                        elif operation == "settle":
                            inbox.settle(chosen)
                        else:
                            await inbox.write_outcomes([Candidate(outcome(each), each) for each in chosen])
                        for each in chosen:
                            del model[each]
                        assert inbox.open_requests == len(model)

        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(check(Path(folder)))


class TestDeferral:
    async def test_oldest_come_first_and_a_few_at_a_time(self, tmp_path: Path) -> None:
        async with running_inbox(tmp_path) as inbox:
            sequences = await append(inbox, *[b"%d" % number for number in range(5)])
            inbox.defer(sequences)
            assert bodies(await inbox.take_deferred(2)) == [b"0", b"1"]
            assert inbox.has_deferred is True
            assert bodies(await inbox.take_deferred(9)) == [b"2", b"3", b"4"]
            assert inbox.has_deferred is False

    async def test_taker_waits_until_something_is_deferred(self, tmp_path: Path) -> None:
        async with running_inbox(tmp_path) as inbox:
            sequences = await append(inbox, b"late")
            taker = asyncio.create_task(inbox.take_deferred(9))
            await turn()
            assert taker.done() is False
            inbox.defer(sequences)
            assert bodies(await taker) == [b"late"]

    async def test_closed_request_is_not_deferred(self, tmp_path: Path) -> None:
        async with running_inbox(tmp_path) as inbox:
            settled, refused, left = await append(inbox, b"settled", b"refused", b"left")
            inbox.settle([settled])
            await inbox.refuse([Refusal(refused, "malformed")])
            inbox.defer([settled, refused, left, 99])
            assert await take(inbox) == [b"left"]

    async def test_request_closed_after_it_was_deferred_is_not_taken(self, tmp_path: Path) -> None:
        async with running_inbox(tmp_path) as inbox:
            first, second = await append(inbox, b"first", b"second")
            inbox.defer([first, second])
            inbox.settle([first])
            assert await take(inbox) == [b"second"]

    async def test_unreadable_request_stays_open_and_blocks_no_other(self, tmp_path: Path) -> None:
        async with running_inbox(tmp_path) as inbox:
            sequences = await append(inbox, b"one", b"damaged on the disk", b"three")
            (segment,) = segments(tmp_path)
            segment.write_bytes(segment.read_bytes().replace(b"damaged on", b"DAMAGED ON"))
            inbox.defer(sequences)
            assert await take(inbox) == [b"one", b"three"]
            assert (inbox.unreadable_requests, inbox.open_requests) == (1, 3)
        async with running_inbox(tmp_path) as inbox:
            assert await take(inbox) == [b"one", b"three"]
            assert [damage.what for damage in inbox.damages] == ["frames"]


class TestIntake:
    async def test_failed_sync_opens_nothing(self, tmp_path: Path) -> None:
        files = HeldFiles()
        async with running_inbox(tmp_path, files) as inbox:
            files.fail["sync_data"] = errno.EIO
            with pytest.raises(InboxUnavailableError):
                await append(inbox, b"1")
            assert inbox.open_requests == 0
            assert inbox.failure == "sync failed: Input/output error"
            with pytest.raises(InboxUnavailableError):
                await inbox.refuse([Refusal(1, "malformed")])

    async def test_refusal_that_is_not_on_disk_leaves_the_request_open(self, tmp_path: Path) -> None:
        files = HeldFiles()
        async with running_inbox(tmp_path, files) as inbox:
            (sequence,) = await append(inbox, b"1")
            files.fail["append"] = errno.ENOSPC
            with pytest.raises(InboxUnavailableError, match="No space left on device"):
                await inbox.refuse([Refusal(sequence, "malformed")])
            assert inbox.open_requests == 1
            files.fail.clear()
            await inbox.refuse([Refusal(sequence, "malformed")])
            assert inbox.open_requests == 0

    async def test_too_many_open_requests_stop_the_intake(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(inbox_module, "OPEN_REQUESTS_MAX", 2)
        async with running_inbox(tmp_path) as inbox:
            (first, _) = await append(inbox, b"1", b"2")
            with pytest.raises(InboxUnavailableError, match=r"\Atoo many requests wait for their outcome\Z"):
                await append(inbox, b"3")
            inbox.settle([first])
            assert len(await append(inbox, b"3")) == 1

    async def test_stopped_inbox_takes_nothing(self, tmp_path: Path) -> None:
        async with running_inbox(tmp_path) as inbox:
            inbox.stop()
            with pytest.raises(InboxUnavailableError, match="stopping"):
                await append(inbox, b"1")
            await inbox.finished.wait()


class TestRetention:
    """Segments of a few requests each; what is removed is seen by what is left on the disk."""

    SEGMENT_BYTES = 1_000

    async def fill(self, inbox: Inbox, count: int = 12) -> list[int]:
        return [(await append(inbox, b"x" * 200, received_at_s=NOW_S + number))[0] for number in range(count)]

    async def test_segment_with_an_open_request_is_never_removed(self, tmp_path: Path) -> None:
        async with running_inbox(tmp_path, segment_bytes=self.SEGMENT_BYTES) as inbox:
            sequences = await self.fill(inbox)
            before = segments(tmp_path)
            assert len(before) >= 4
            inbox.settle(sequences[1:])
            assert await inbox.retire(NOW_S + 1_000) == 0
            assert segments(tmp_path) == before
            inbox.settle(sequences[:1])
            assert await inbox.retire(NOW_S + 1_000) == len(before) - 1
            assert segments(tmp_path) == before[-1:]

    async def test_segment_behind_an_open_one_stays_too(self, tmp_path: Path) -> None:
        """A frame that closes another comes after it: removed out of order, a closed request would reopen."""
        async with running_inbox(tmp_path, segment_bytes=self.SEGMENT_BYTES) as inbox:
            sequences = await self.fill(inbox)
            open_one = sequences[len(sequences) // 2]
            inbox.settle([each for each in sequences if each != open_one])
            await inbox.retire(NOW_S + 1_000)
        async with running_inbox(tmp_path, segment_bytes=self.SEGMENT_BYTES) as inbox:
            (received,) = await inbox.take_deferred(99)
            assert received.sequence == open_one

    async def test_only_what_is_old_enough_is_removed(self, tmp_path: Path) -> None:
        async with running_inbox(tmp_path, segment_bytes=self.SEGMENT_BYTES) as inbox:
            inbox.settle(await self.fill(inbox))
            before = segments(tmp_path)
            assert await inbox.retire(NOW_S) == 0
            assert await inbox.retire(NOW_S + 2) == 1
            assert segments(tmp_path) == before[1:]

    async def test_outcome_is_as_young_as_it_was_stored(self, tmp_path: Path) -> None:
        """The answer of an old request that was judged late must outlive its own lifetime, not the request's."""
        async with running_inbox(tmp_path, segment_bytes=self.SEGMENT_BYTES) as inbox:
            sequences = await self.fill(inbox, 3)
            late = [Candidate(outcome(each, stored_at_s=NOW_S + 5_000), each) for each in sequences]
            await inbox.write_outcomes(late)
            inbox.settle(await self.fill(inbox))
        async with running_inbox(tmp_path, segment_bytes=self.SEGMENT_BYTES) as inbox:
            before = segments(tmp_path)
            await inbox.retire(NOW_S + 5_000)
            assert any(b"defaults-1" in each.read_bytes() for each in segments(tmp_path))
            assert await inbox.retire(NOW_S + 6_000) >= 1
            assert segments(tmp_path) == before[-1:]

    async def test_only_what_a_snapshot_covers_is_removed(self, tmp_path: Path) -> None:
        """L20: the log goes only after its replacement is durable."""
        async with running_inbox(tmp_path, segment_bytes=self.SEGMENT_BYTES) as inbox:
            inbox.settle(await self.fill(inbox))
            before = segments(tmp_path)
            second = int(before[1].stem)
            assert await inbox.retire(NOW_S + 1_000, covered_sequence=0) == 0
            assert await inbox.retire(NOW_S + 1_000, covered_sequence=second - 2) == 0
            assert await inbox.retire(NOW_S + 1_000, covered_sequence=second - 1) == 1
            assert segments(tmp_path) == before[1:]
            assert inbox.first_sequence > 1

    async def test_what_is_left_opens_without_damage(self, tmp_path: Path) -> None:
        async with running_inbox(tmp_path, segment_bytes=self.SEGMENT_BYTES) as inbox:
            sequences = await self.fill(inbox)
            inbox.settle(sequences[:-1])
            assert await inbox.retire(NOW_S + 1_000) >= 2
        async with running_inbox(tmp_path, segment_bytes=self.SEGMENT_BYTES) as inbox:
            assert (inbox.damages, inbox.open_requests) == ([], 1)
            assert inbox.size_bytes == sum(os.path.getsize(each) for each in segments(tmp_path))
