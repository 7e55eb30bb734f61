"""The thread for what blocks: order, errors, cancellation and its end."""

from __future__ import annotations

import asyncio
import threading

import pytest

from pcs_backend.offload import ThreadOffload


async def test_calls_run_in_order_on_one_thread_of_its_name() -> None:
    offload = ThreadOffload("log")
    seen: list[int] = []

    def note(number: int) -> tuple[int, str]:
        seen.append(number)
        return number, threading.current_thread().name

    calls = [offload.run(lambda number=number: note(number)) for number in range(50)]  # type: ignore[misc]
    assert await asyncio.gather(*calls) == [(number, "log") for number in range(50)]
    assert seen == list(range(50))
    offload.close()


async def test_what_a_call_raises_is_raised_where_it_is_waited_for() -> None:
    offload = ThreadOffload("log")
    with pytest.raises(ZeroDivisionError):
        await offload.run(lambda: 1 // 0)
    assert await offload.run(lambda: 7) == 7
    offload.close()


async def test_a_call_whose_caller_gave_up_runs_to_its_end_before_the_next() -> None:
    offload = ThreadOffload("log")
    began, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    ended: list[str] = []

    def work() -> None:
        loop.call_soon_threadsafe(began.set)
        go_on.wait()
        ended.append("first")

    waiting = asyncio.create_task(offload.run(work))
    await began.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go_on.set()
    await offload.run(lambda: ended.append("second"))
    assert ended == ["first", "second"]
    offload.close()


async def test_closing_waits_for_what_was_given_and_takes_nothing_more() -> None:
    offload = ThreadOffload("log")
    done: list[int] = []
    calls = [asyncio.create_task(offload.run(lambda: done.append(1))) for _ in range(3)]
    await asyncio.sleep(0)  # each has handed its call over
    offload.close()
    offload.close()
    assert done == [1, 1, 1]
    await asyncio.gather(*calls)
    with pytest.raises(RuntimeError, match="the thread has ended"):
        await offload.run(lambda: 1)


def test_a_call_that_outlives_its_loop_does_not_end_the_thread() -> None:
    offload = ThreadOffload("log")
    go_on = threading.Event()

    async def give_up() -> None:
        waiting = asyncio.create_task(offload.run(go_on.wait))
        await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(give_up())
    go_on.set()
    assert asyncio.run(_run(offload)) == 1
    offload.close()


async def _run(offload: ThreadOffload) -> int:
    return await offload.run(lambda: 1)
