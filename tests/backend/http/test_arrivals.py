"""What arrives in one turn of the event loop is submitted in one call, and everybody gets an answer."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence

import orjson
import pytest

from pcs_backend.exchange import Envelope, Reply, Request
from pcs_backend.http import arrivals
from pcs_backend.http.arrivals import Arrivals

ENVELOPE = Envelope(received_at_ms=0, path="/", content_type="application/json")


class Submitter:
    """Answers with the body; breaks for one, waits for another."""

    def __init__(self) -> None:
        self.calls: list[list[bytes]] = []
        self.may_answer = asyncio.Event()

    async def submit(self, requests: Sequence[Request]) -> list[Reply]:
        bodies = [request.body for request in requests]
        self.calls.append(bodies)
        if b"break" in bodies:
            raise ValueError("secret")
        if b"wait" in bodies:
            await self.may_answer.wait()
        return [Reply(200, body) for body in bodies]


def request(body: bytes) -> Request:
    return Request(ENVELOPE, body)


async def test_one_turn_is_one_call_and_the_next_another() -> None:
    submitter = Submitter()
    submits = Arrivals(submitter)
    bodies = [b"1", b"2", b"3"]
    replies = await asyncio.gather(*(submits.submit(request(body)) for body in bodies))
    assert [reply.body for reply in replies] == bodies
    await submits.submit(request(b"4"))
    assert submitter.calls == [bodies, [b"4"]]


async def test_a_call_is_bounded() -> None:
    submitter = Submitter()
    submits = Arrivals(submitter)
    bodies = [b"%d" % number for number in range(arrivals.GROUP_REQUESTS_MAX + 3)]
    replies = await asyncio.gather(*(submits.submit(request(body)) for body in bodies))
    assert [reply.body for reply in replies] == bodies
    assert [len(call) for call in submitter.calls] == [arrivals.GROUP_REQUESTS_MAX, 3]


async def test_a_defect_is_503_for_its_group_and_says_nothing_of_what_it_held(
    debug_logs: io.StringIO,
) -> None:
    submits = Arrivals(Submitter())
    broken = await asyncio.gather(submits.submit(request(b"1")), submits.submit(request(b"break")))
    assert [(reply.status, reply.problem) for reply in broken] == [(503, "unavailable")] * 2
    assert (await submits.submit(request(b"2"))).body == b"2"
    (line,) = map(orjson.loads, debug_logs.getvalue().splitlines())
    assert (line["event"], line["error"]) == ("handling a request failed", "ValueError")
    assert "secret" not in debug_logs.getvalue()


async def test_a_slow_group_does_not_hold_the_next_one() -> None:
    submitter = Submitter()
    submits = Arrivals(submitter)
    slow = asyncio.create_task(submits.submit(request(b"wait")))
    while not submitter.calls:
        await asyncio.sleep(0)
    assert (await submits.submit(request(b"1"))).body == b"1"
    assert not slow.done()
    submitter.may_answer.set()
    assert (await slow).body == b"wait"


async def test_finish_waits_for_what_was_submitted() -> None:
    submitter = Submitter()
    submits = Arrivals(submitter)
    answered: list[bytes] = []
    submits.submit_soon(request(b"wait"), lambda reply: answered.append(reply.body))
    asyncio.get_running_loop().call_later(0.05, submitter.may_answer.set)
    await submits.finish(10.0)
    assert answered == [b"wait"]


async def test_finish_gives_up_after_its_time() -> None:
    submitter = Submitter()
    submits = Arrivals(submitter)
    answered: list[bytes] = []
    submits.submit_soon(request(b"wait"), lambda reply: answered.append(reply.body))
    await submits.finish(0.05)
    assert (submitter.calls, answered) == ([[b"wait"]], [])
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "submit"] == []


async def test_a_caller_that_is_cancelled_does_not_disturb_the_others() -> None:
    submitter = Submitter()
    submits = Arrivals(submitter)
    gone = asyncio.create_task(submits.submit(request(b"wait")))
    stays = asyncio.create_task(submits.submit(request(b"1")))
    while not submitter.calls:
        await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    submitter.may_answer.set()
    assert (await stays).body == b"1"
