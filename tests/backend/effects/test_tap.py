"""The tap: what a listener sees, what it loses, and that nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import pcs_records
from inboxes import running_rig, signed, statuses
from pcs_backend.effects.tap import (
    TAP_LISTENERS_MAX,
    TAP_QUEUE_LINES_MAX,
    Filter,
    Lost,
    Sighting,
    Tap,
    TooManyListenersError,
)
from pcs_backend.errors import StoreUnavailableError

DEGRADED = {"outbox_seq": 1, "degraded": True, "fallbacks": [], "clock_skew_ms": 0}


def seen(status: int = 200, **fields: object) -> Sighting:
    return Sighting(at_ms=1, status=status, **fields)


async def all_of(tap: Tap, batches: AsyncIterator[list[Sighting | Lost]]) -> list[Sighting | Lost]:
    """Close the tap and return what a listener still gets."""
    tap.close()
    return [line async for batch in batches for line in batch]


async def test_listener_gets_what_it_asked_for() -> None:
    tap = Tap()
    lines = [
        seen(200, tenant="plants", regime="sticky"),
        seen(202, tenant="plants", regime="mixed"),
        seen(202, tenant="mills", regime="sticky"),
        seen(401),
    ]
    for wanted, expected in (
        (Filter(), [0, 1, 2, 3]),
        (Filter(tenant="plants"), [0, 1]),
        (Filter(regime="sticky"), [0, 2]),
        (Filter(statuses=frozenset({202, 401})), [1, 2, 3]),
        (Filter("mills", "sticky", frozenset({202})), [2]),
        (Filter("mills", "mixed"), []),
    ):
        tap = Tap()
        with tap.listen(wanted) as listener:
            for line in lines:
                tap.show(line)
            assert await all_of(tap, listener.batches()) == [lines[index] for index in expected]


async def test_slow_listener_loses_lines_and_is_told_how_many_and_others_lose_none() -> None:
    tap = Tap()
    with tap.listen(Filter()) as slow, tap.listen(Filter()) as quick:
        slow_batches, quick_batches = slow.batches(), quick.batches()
        for number in range(TAP_QUEUE_LINES_MAX + 7):
            tap.show(seen(epoch=number))
            if number == 500:
                assert len(await anext(quick_batches)) == 501
        got = await anext(slow_batches)
        assert got == [*(seen(epoch=number) for number in range(TAP_QUEUE_LINES_MAX)), Lost(7)]
        assert len(await anext(quick_batches)) == TAP_QUEUE_LINES_MAX + 7 - 501
        tap.show(seen(epoch=0))
        assert await all_of(tap, slow_batches) == [seen(epoch=0)], "what was lost is told once"


async def test_listeners_are_bounded_and_leave_their_places() -> None:
    tap = Tap()
    with tap.listen(Filter()):
        places = [tap.listen(Filter()) for _ in range(TAP_LISTENERS_MAX - 1)]
        for place in places:
            place.__enter__()
        with pytest.raises(TooManyListenersError), tap.listen(Filter()):
            pass
        for place in places:
            place.__exit__(None, None, None)
    assert tap.listeners == ()


async def test_listener_of_a_closed_tap_ends_at_once() -> None:
    tap = Tap()
    tap.close()
    with tap.listen(Filter()) as listener:
        assert [batch async for batch in listener.batches()] == []


async def test_idle_listener_comes_round_with_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pcs_backend.effects.tap.TAP_IDLE_INTERVAL_S", 0.01)
    with Tap().listen(Filter()) as listener:
        async with asyncio.timeout(5):
            assert await anext(listener.batches()) == []


async def test_pipeline_shows_every_answer_and_judges_as_without_a_listener(tmp_path: Path) -> None:
    async with running_rig(tmp_path) as rig:
        tap = rig.pipeline._tap
        with tap.listen(Filter()) as listener:
            replies = await rig.submit(
                signed(epoch=1, shard_id="runs/anna.smith@example.org"),
                signed(epoch=2, ft=DEGRADED),
                signed(epoch=2, ft=DEGRADED, attempt=2, N_j={"2": 3, "4": 5, "8": 9, "16": 17, "32": 33}),
                b"{",
                pcs_records.body(pcs_records.document(epoch=3)),
            )
            rig.store.moods["put_first"] = StoreUnavailableError("the store is down")
            replies += await rig.submit(signed(epoch=4))
            del rig.store.moods["put_first"]
            await rig.settler().settle_batch()
            lines = await all_of(tap, listener.batches())
    shown = [line for line in lines if isinstance(line, Sighting)]
    assert shown == lines
    assert statuses(replies) == [200, 202, 202, 400, 401, 503]
    assert [line.status for line in shown] == [200, 202, 202, 400, 401, 503, 200]
    accepted, escalated, conflict, malformed, refused, put_off, settled = shown
    assert (malformed.problem, malformed.pcs_id, malformed.epoch) == ("malformed", "", None)
    assert (refused.problem, refused.reasons, refused.epoch) == ("bad-signature", ("no_key",), 3)
    assert (accepted.shard_id, accepted.tenant, accepted.regime) == ("runs/[email]", "default", "sticky")
    assert (escalated.reasons, escalated.replayed, escalated.conflict) == (("degraded",), False, False)
    assert (conflict.replayed, conflict.conflict, conflict.pcs_id) == (True, True, escalated.pcs_id)
    assert (put_off.problem, put_off.backlog) == ("unavailable", False)
    assert (settled.epoch, settled.backlog, settled.replayed) == (4, True, False)
