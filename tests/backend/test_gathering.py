"""Callers put together: who goes when, and that nobody is forgotten whatever becomes of a call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from pcs_backend.errors import InboxUnavailableError
from pcs_backend.gathering import HAND_OVER_TURNS_MAX, Gathering


class Steps:
    """Two steps that a test ends, and what went through them."""

    def __init__(self, *, takes_turns: bool = True) -> None:
        self.gathering: Gathering[str, int, str] = Gathering(
            self.first, self.rest, len, takes_turns=takes_turns
        )
        self.begun: list[list[str]] = []
        self.written = asyncio.Semaphore(0)
        self.stored = asyncio.Semaphore(0)
        self.turns: list[int] = []  # of the loop, that each call looked for others
        self.hands_over, self.handing_over = True, False
        self._turn = 0
        self._count_turn()

    async def first(self, items: Sequence[str]) -> int:
        self.begun.append(list(items))
        await self.written.acquire()
        if "unwritable" in items:
            raise InboxUnavailableError("no")
        return len(self.begun)

    async def rest(self, items: Sequence[str], number: int) -> list[str]:
        if self.hands_over:
            began, self.handing_over = self._turn, True
            await self.gathering.hand_over(len(items))
            self.turns.append(self._turn - began)
        await self.stored.acquire()
        if "bad" in items:
            raise ValueError
        return [f"{item} in {number}" for item in items]

    def _count_turn(self) -> None:
        self._turn += 1
        asyncio.get_running_loop().call_soon(self._count_turn)

    def call(self, *items: str) -> asyncio.Task[list[str]]:
        return asyncio.create_task(self.gathering.run(items))


async def settle() -> None:
    """Let everything happen that needs nobody outside."""
    for _ in range(4 * HAND_OVER_TURNS_MAX):
        await asyncio.sleep(0)


async def test_who_finds_nobody_goes_at_once_and_who_comes_meanwhile_goes_together() -> None:
    steps = Steps()
    calls = [steps.call(each) for each in "abc"]
    await settle()
    assert steps.begun == [["a"]]
    steps.written.release()
    await settle()
    assert steps.begun == [["a"], ["b", "c"]]  # beside what the first still waits for
    steps.written.release()
    steps.stored.release()
    steps.stored.release()
    assert [await each for each in calls] == [["a in 1"], ["b in 2"], ["c in 2"]]


async def test_without_turns_the_next_go_when_the_first_step_is_free() -> None:
    steps = Steps(takes_turns=False)
    steps.hands_over = False
    first, second = steps.call("a"), steps.call("b")
    await settle()
    steps.written.release()
    await settle()
    assert steps.begun == [["a"], ["b"]]
    steps.written.release()
    steps.stored.release()
    steps.stored.release()
    assert [await first, await second] == [["a in 1"], ["b in 2"]]


async def test_the_next_go_when_a_call_hands_over_or_ends() -> None:
    steps = Steps()
    steps.hands_over = False
    first, second = steps.call("a"), steps.call("b")
    await settle()
    steps.written.release()
    await settle()
    assert steps.begun == [["a"]]
    steps.stored.release()
    assert await first == ["a in 1"]
    await settle()
    assert steps.begun == [["a"], ["b"]]
    steps.written.release()
    steps.stored.release()
    assert await second == ["b in 2"]


async def test_a_call_hands_over_when_as_many_wait_as_go() -> None:
    steps = Steps()
    first = steps.call("a", "b")
    await settle()
    others = [steps.call("c", "d")]
    await settle()
    steps.written.release()
    await settle()
    assert steps.begun == [["a", "b"], ["c", "d"]]
    steps.written.release()
    await settle()
    # The first found two waiting and waited for nobody; nobody came for the second, so it looked as often as it may.
    assert steps.turns == [0, HAND_OVER_TURNS_MAX]
    steps.stored.release()
    steps.stored.release()
    assert [await each for each in (first, *others)] == [["a in 1", "b in 1"], ["c in 2", "d in 2"]]


async def test_one_alone_looks_for_nobody() -> None:
    steps = Steps()
    call = steps.call("a")
    await settle()
    steps.written.release()
    await settle()
    assert steps.turns == [0]
    steps.stored.release()
    assert await call == ["a in 1"]


@pytest.mark.parametrize("odd", ["unwritable", "bad"])
async def test_a_call_that_fails_lets_the_next_go(odd: str) -> None:
    steps = Steps()
    steps.hands_over = False
    failing, next_one = steps.call(odd), steps.call("b")
    await settle()
    for _ in range(2):
        steps.written.release()
        steps.stored.release()
    with pytest.raises((InboxUnavailableError, ValueError)):
        await failing
    assert await next_one == ["b in 2"]


@pytest.mark.parametrize("is_written", [False, True])
async def test_a_call_that_is_cut_short_lets_the_next_go(*, is_written: bool) -> None:
    steps = Steps()
    steps.hands_over = False
    going = steps.call("a")
    await settle()
    if is_written:
        steps.written.release()
        await settle()
    next_one = steps.call("b")
    await settle()
    going.cancel()
    await settle()
    assert steps.begun == [["a"], ["b"]]
    steps.written.release()
    steps.stored.release()
    assert await next_one == ["b in 2"]


async def test_a_call_that_is_cut_short_while_it_hands_over_lets_the_next_go() -> None:
    steps = Steps()
    going = steps.call("a", "b")
    await settle()
    steps.written.release()
    while not steps.handing_over:
        await asyncio.sleep(0)
    next_one = steps.call("c")
    going.cancel()
    await settle()
    assert steps.turns == []
    assert steps.begun == [["a", "b"], ["c"]]
    steps.written.release()
    steps.stored.release()
    assert await next_one == ["c in 2"]


async def test_whose_turn_it_is_may_be_gone() -> None:
    steps = Steps()
    first, second, third = (steps.call(each) for each in "abc")
    await settle()
    second.cancel()
    steps.written.release()
    await settle()
    assert steps.begun == [["a"], ["c"]]
    steps.written.release()
    steps.stored.release()
    steps.stored.release()
    assert (await first, await third) == (["a in 1"], ["c in 2"])
