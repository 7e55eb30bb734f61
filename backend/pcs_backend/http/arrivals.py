"""Requests that arrive in one turn of the event loop are submitted in one call, so that they share every stage.

Whatever the event loop found ready in one turn is one group: an idle service submits at once, a busy one submits many
requests in one call, and nobody waits for a group to fill.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from pcs_backend.errors import place_of
from pcs_backend.exchange import Reply, Request
from pcs_backend.problems import unavailable_reply

GROUP_REQUESTS_MAX = 256
"""Requests submitted in one call: they wait for each other's checks."""

_log = structlog.get_logger(__name__)


class Submitter(Protocol):
    """What takes requests in: the pipeline."""

    async def submit(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer requests in order."""
        ...


class Arrivals:
    """Groups requests. Its tasks are its own; `finish` waits for them."""

    def __init__(self, submitter: Submitter, requests_max: int = GROUP_REQUESTS_MAX) -> None:
        """Take what answers.

        Args:
            submitter: Answers a group.
            requests_max: Requests of one group.
        """
        self._submitter = submitter
        self._requests_max = requests_max
        self._waiting: list[tuple[Request, Callable[[Reply], None]]] = []
        self._groups: set[asyncio.Task[None]] = set()

    def submit_soon(self, request: Request, answer: Callable[[Reply], None]) -> None:
        """Submit a request with those that come in this turn of the event loop.

        Args:
            request: What is submitted.
            answer: Called once with its reply. It must not raise.
        """
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._submit_waiting)
        self._waiting.append((request, answer))

    async def submit(self, request: Request) -> Reply:
        """Submit a request and wait for its reply."""
        replied: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def answer(reply: Reply) -> None:
            if not replied.done():  # it is cancelled when a stop took too long
                replied.set_result(reply)

        self.submit_soon(request, answer)
        return await replied

    async def finish(self, timeout_s: float) -> None:
        """Wait until everything that was submitted is answered, and give up what takes longer than a time.

        Args:
            timeout_s: Seconds.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while self._waiting or self._groups:
                    await asyncio.wait({*self._groups, asyncio.create_task(asyncio.sleep(0), name="turn")})
        except TimeoutError:
            for group in self._groups:
                group.cancel()
            await asyncio.gather(*self._groups, return_exceptions=True)

    def _submit_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for first in range(0, len(waiting), self._requests_max):
            group = waiting[first : first + self._requests_max]
            task = asyncio.create_task(self._submit_group(group), name="submit")
            self._groups.add(task)
            task.add_done_callback(self._groups.discard)

    async def _submit_group(self, group: Sequence[tuple[Request, Callable[[Reply], None]]]) -> None:
        try:
            replies = await self._submitter.submit([request for request, _ in group])
        except Exception as error:  # noqa: BLE001 - a defect must not leave clients without an answer
            _log.error("handling a request failed", error=type(error).__name__, place=place_of(error))
            replies = [unavailable_reply("the request could not be handled")] * len(group)
        for (_, answer), reply in zip(group, replies, strict=True):
            answer(reply)
