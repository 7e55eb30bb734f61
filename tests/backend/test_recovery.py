"""Settling what is on disk without an outcome: after a restart, after an outage, within a lifetime."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pcs_records
from inboxes import DEDUP_TTL_S, NOW_S, Rig, request, running_inbox, running_rig, signed, turn
from pcs_backend.dedup.store import Candidate, Placed
from pcs_backend.errors import OutcomeUnreadableError, StoreUnavailableError
from pcs_backend.outcome import Key
from pcs_backend.recovery import BATCH_REQUESTS_MAX, RETRY_FIRST_S, RETRY_MAX_S

DOWN = StoreUnavailableError("the store is down")


async def leave_behind(folder: Path, *contents: bytes, received_at_s: float = NOW_S) -> None:
    """Put requests on disk and die before they are judged."""
    async with running_inbox(folder) as inbox:
        await inbox.append([request(body, received_at_s=received_at_s) for body in contents])


class Sleeps:
    """A sleep that takes no time and remembers; after `heal_after` of them the store is up again."""

    def __init__(self, rig: Rig, heal_after: int) -> None:
        self.delays: list[float] = []
        self._rig = rig
        self._heal_after = heal_after

    async def __call__(self, delay_s: float) -> None:
        self.delays.append(delay_s)
        if len(self.delays) == self._heal_after:
            self._rig.store.moods.clear()
        await asyncio.sleep(0)


class TestBacklog:
    async def test_each_request_left_behind_is_judged_once(self, tmp_path: Path) -> None:
        """L3: replay is called, and counts what became of each."""
        contents = [
            signed(epoch=1),
            b"not JSON",
            signed(epoch=2, D_hat=9.0),
            signed(epoch=1, attempt=2),
            pcs_records.body(pcs_records.document()),
        ]
        await leave_behind(tmp_path, *contents)
        async with running_rig(tmp_path) as rig:
            assert await rig.settler().settle_batch() == {
                "accepted": 1,
                "refused": 2,
                "escalated": 1,
                "replayed": 1,
            }
            assert rig.counts()[1:] == (1, 1, 0)
        async with running_rig(tmp_path) as rig:
            assert (rig.inbox.open_requests, rig.inbox.has_deferred) == (0, False)
            (reply,) = await rig.submit(signed(epoch=1))
            assert reply.headers["Idempotent-Replayed"] == "true"

    async def test_backlog_is_taken_in_bounded_batches(self, tmp_path: Path) -> None:
        count = BATCH_REQUESTS_MAX + 5
        await leave_behind(tmp_path, *(signed(epoch=epoch) for epoch in range(count)))
        async with running_rig(tmp_path) as rig:
            settler = rig.settler()
            assert await settler.settle_batch() == {"accepted": BATCH_REQUESTS_MAX}
            assert await settler.settle_batch() == {"accepted": 5}
            assert rig.inbox.open_requests == 0

    async def test_new_requests_are_taken_while_the_backlog_waits(self, tmp_path: Path) -> None:
        await leave_behind(tmp_path, signed(epoch=1))
        async with running_rig(tmp_path) as rig:
            assert [reply.status for reply in await rig.submit(signed(epoch=1, attempt=2))] == [200]
            assert await rig.settler().settle_batch() == {"replayed": 1}
            assert rig.counts()[1] == 1


class TestAge:
    async def test_request_older_than_the_lifetime_is_left_without_force(self, tmp_path: Path) -> None:
        """Its first outcome may have been forgotten: judged now, it would count twice."""
        await leave_behind(tmp_path, signed(epoch=1), received_at_s=NOW_S - DEDUP_TTL_S)
        await leave_behind(tmp_path, signed(epoch=2), received_at_s=NOW_S - DEDUP_TTL_S + 0.001)
        async with running_rig(tmp_path) as rig:
            settler = rig.settler()
            assert await settler.settle_batch() == {"accepted": 1}
            assert settler.too_old == 1
            assert (rig.inbox.open_requests, rig.inbox.has_deferred) == (1, False)
            keys = [Key("default", pcs_records.document(epoch=epoch)["pcs_id"]) for epoch in (1, 2)]
            assert [each is None for each in await rig.store.get(keys)] == [True, False]

    async def test_request_older_than_the_lifetime_is_judged_with_force(self, tmp_path: Path) -> None:
        await leave_behind(tmp_path, signed(), received_at_s=NOW_S - 10 * DEDUP_TTL_S)
        async with running_rig(tmp_path) as rig:
            settler = rig.settler(force=True)
            assert await settler.settle_batch() == {"accepted": 1}
            assert (settler.too_old, rig.inbox.open_requests) == (0, 0)

    async def test_batch_of_nothing_but_old_requests_asks_no_store(self, tmp_path: Path) -> None:
        await leave_behind(tmp_path, signed(), b"x", received_at_s=0)
        async with running_rig(tmp_path) as rig:
            settler = rig.settler()
            assert await settler.settle_batch() == {}
            assert (settler.too_old, rig.store.calls) == (2, [])


class TestOutage:
    async def test_deferred_requests_are_tried_again_with_growing_waits(self, tmp_path: Path) -> None:
        async with running_rig(tmp_path) as rig:
            rig.store.moods["put_first"] = DOWN
            await rig.submit(signed(epoch=1), signed(epoch=2))
            sleep = Sleeps(rig, heal_after=7)
            settling = asyncio.create_task(rig.settler(sleep=sleep).run())
            while rig.inbox.open_requests:
                await turn()
            assert sleep.delays == [RETRY_FIRST_S, 0.5, 1.0, 2.0, 4.0, RETRY_MAX_S, RETRY_MAX_S]
            assert rig.counts() == (0, 2, 0, 0)

            rig.store.moods["put_first"] = DOWN  # a second outage begins with a short wait again
            sleep.delays.clear()
            sleep._heal_after = 2
            await rig.submit(signed(epoch=3))
            while rig.inbox.open_requests:
                await turn()
            assert sleep.delays == [RETRY_FIRST_S, 0.5]
            settling.cancel()
            await asyncio.gather(settling, return_exceptions=True)

    async def test_outcome_that_cannot_be_read_keeps_no_other_waiting(self, tmp_path: Path) -> None:
        unreadable = Key("default", pcs_records.document(epoch=0)["pcs_id"])
        await leave_behind(tmp_path, *(signed(epoch=epoch) for epoch in range(5)))
        async with running_rig(tmp_path) as rig:
            put_first = rig.store.put_first

            async def put_unless_unreadable(candidates: list[Candidate]) -> list[Placed]:
                if unreadable in [candidate.outcome.key for candidate in candidates]:
                    raise OutcomeUnreadableError("the store holds an outcome that this version cannot read")
                return await put_first(candidates)

            rig.store.put_first = put_unless_unreadable
            assert await rig.settler().settle_batch() == {"accepted": 4, "deferred": 1}
            assert (rig.inbox.open_requests, rig.inbox.backlog_requests) == (1, 1)

    async def test_request_that_cannot_be_judged_keeps_no_other_waiting(self, tmp_path: Path) -> None:
        broken = Key("default", pcs_records.document(epoch=0)["pcs_id"])
        await leave_behind(tmp_path, *(signed(epoch=epoch) for epoch in range(5)))
        async with running_rig(tmp_path) as rig:
            put_first = rig.store.put_first

            async def put_unless_broken(candidates: list[Candidate]) -> list[Placed]:
                if broken in [candidate.outcome.key for candidate in candidates]:
                    raise ZeroDivisionError
                return await put_first(candidates)

            rig.store.put_first = put_unless_broken
            assert await rig.settler().settle_batch() == {"accepted": 4, "deferred": 1}
            assert (rig.inbox.open_requests, rig.inbox.has_deferred) == (1, True)
