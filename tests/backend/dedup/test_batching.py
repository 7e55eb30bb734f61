"""Concurrent callers' outcomes in one call: who is asked for when, and whose failure is whose."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from outcomes import outcome
from pcs_backend.dedup import batching
from pcs_backend.dedup.batching import BATCH_MAX, CALLS_MAX, Batches
from pcs_backend.dedup.store import Candidate, Placed
from pcs_backend.errors import OutcomeUnreadableError, StoreUnavailableError


class Calls:
    """What asks the store: each call waits until the test answers it."""

    def __init__(self) -> None:
        self.asked: list[tuple[Sequence[Candidate], asyncio.Future[None]]] = []
        self.unreadable: set[str] = set()
        self.batches = Batches(self._put_first)

    async def _put_first(self, candidates: Sequence[Candidate]) -> list[Placed]:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.asked.append((candidates, answer))
        await answer
        placed = [
            None if each.outcome.pcs_id in self.unreadable else Placed(each.outcome, True)
            for each in candidates
        ]
        if None in placed:
            raise OutcomeUnreadableError("cannot read", placed)
        return [each for each in placed if each is not None]

    @property
    def sizes(self) -> list[int]:
        return [len(candidates) for candidates, _ in self.asked]

    def answer(self, number: int) -> None:
        self.asked[number][1].set_result(None)

    def start(self, batch: Sequence[Candidate]) -> asyncio.Task[list[Placed]]:
        return asyncio.create_task(self.batches.put_first(batch))

    async def busy(self) -> list[asyncio.Task[list[Placed]]]:
        """Have as many calls under way as there may be, each of one outcome."""
        tasks = []
        for number in range(CALLS_MAX):
            tasks.append(self.start(numbered(number)))
            await turns()
        assert self.sizes == [1] * CALLS_MAX
        return tasks


def numbered(*numbers: int) -> list[Candidate]:
    return [Candidate(outcome(number), number) for number in numbers]


def won(*numbers: int) -> list[Placed]:
    return [Placed(outcome(number), True) for number in numbers]


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
async def calls() -> Calls:
    return Calls()


async def test_an_idle_store_is_asked_at_once(calls: Calls) -> None:
    task = calls.start(numbered(1))
    await turns()
    assert calls.sizes == [1]
    calls.answer(0)
    assert await task == won(1)
    assert await calls.batches.put_first([]) == []


async def test_what_comes_at_one_moment_goes_together_in_its_order(calls: Calls) -> None:
    tasks = [calls.start(numbered(number, number + 100)) for number in range(5)]
    await turns()
    assert calls.sizes == [10]
    calls.answer(0)
    assert await asyncio.gather(*tasks) == [won(number, number + 100) for number in range(5)]


async def test_what_waits_goes_together_into_the_next_call(calls: Calls) -> None:
    first = await calls.busy()
    waiting = [calls.start(numbered(10 + number)) for number in range(7)]
    await turns()
    assert len(calls.asked) == CALLS_MAX
    calls.answer(1)
    await turns()
    assert calls.sizes == [1, 1, 7]
    assert not first[0].done()
    calls.answer(2)
    assert await asyncio.gather(*waiting) == [won(10 + number) for number in range(7)]
    calls.answer(0)
    await asyncio.gather(*first)


async def test_a_call_takes_no_more_than_its_bound_and_a_larger_batch_goes_alone(calls: Calls) -> None:
    first = await calls.busy()
    sizes = [400, BATCH_MAX - 400, 1, BATCH_MAX + 5, 3]
    waiting = [calls.start(numbered(*range(size))) for size in sizes]
    await turns()
    for number in range(CALLS_MAX + 4):
        calls.answer(number)
        await turns()
    assert calls.sizes == [1, 1, BATCH_MAX, 1, BATCH_MAX + 5, 3]
    assert [len(await task) for task in waiting] == sizes
    await asyncio.gather(*first)


async def test_a_failure_is_told_to_the_callers_of_that_call_and_to_no_others(calls: Calls) -> None:
    first = await calls.busy()
    waiting = [calls.start(numbered(number)) for number in (10, 11)]
    calls.answer(0)
    await turns()
    later = calls.start(numbered(20))
    await turns()
    calls.asked[2][1].set_exception(StoreUnavailableError("down"))
    await turns()
    for task in waiting:
        with pytest.raises(StoreUnavailableError, match="down"):
            await task
    calls.answer(3)
    assert await later == won(20)
    calls.answer(1)
    await asyncio.gather(*first)


async def test_an_outcome_that_cannot_be_read_is_told_to_its_caller_alone(calls: Calls) -> None:
    calls.unreadable = {outcome(2).pcs_id}
    tasks = [calls.start(numbered(*numbers)) for numbers in [(0,), (1, 2, 3), (4, 5)]]
    await turns()
    calls.answer(0)
    assert await tasks[0] == won(0)
    with pytest.raises(OutcomeUnreadableError, match="cannot read") as error:
        await tasks[1]
    assert error.value.placed == [*won(1), None, *won(3)]
    assert await tasks[2] == won(4, 5)


async def test_a_caller_that_gives_up_takes_nothing_from_the_others(calls: Calls) -> None:
    first = await calls.busy()
    gone, stays = calls.start(numbered(10)), calls.start(numbered(11))
    await turns()
    gone.cancel()
    first[0].cancel()
    await turns()
    calls.answer(0)
    await turns()
    assert calls.asked[2][0] == numbered(11)
    calls.answer(2)
    assert await stays == won(11)
    calls.answer(1)
    assert await first[1] == won(1)
    assert (first[0].cancelled(), gone.cancelled()) == (True, True)


async def test_when_all_that_waits_has_given_up_the_store_is_not_asked(calls: Calls) -> None:
    first = await calls.busy()
    gone = calls.start(numbered(10))
    await turns()
    gone.cancel()
    calls.answer(0)
    calls.answer(1)
    await asyncio.gather(*first)
    await turns()
    assert len(calls.asked) == CALLS_MAX
    again = calls.start(numbered(11))
    await turns()
    calls.answer(2)
    assert await again == won(11)


async def test_no_more_than_a_bound_waits(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "WAITING_MAX", 3)
    first = await calls.busy()
    waiting = calls.start(numbered(10, 11))
    await turns()
    with pytest.raises(StoreUnavailableError, match="too many outcomes wait"):
        await calls.batches.put_first(numbered(12, 13))
    fits = calls.start(numbered(12))
    await turns()
    for number in range(3):
        calls.answer(number)
        await turns()
    assert (await waiting, await fits) == (won(10, 11), won(12))
    await asyncio.gather(*first)


async def test_closing_tells_everyone(calls: Calls) -> None:
    tasks = [*await calls.busy(), calls.start(numbered(10))]
    await turns()
    late = calls.start(numbered(11))
    await calls.batches.close()
    tasks.append(late)
    for task in tasks[:-1]:
        with pytest.raises(StoreUnavailableError, match="was closed"):
            await task
    # It asked after the end: a store that was opened again takes it.
    await turns()
    calls.answer(-1)
    assert await late == won(11)
