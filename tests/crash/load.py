"""Clients that keep a backend busy until it dies, and know what was in flight at any instant."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from typing import Any

import aiohttp

import pcs_records
from crash.ledger import Ledger
from processes import HMAC_KEY, Answer, Client

CONNECTIONS = 64
AGAIN_SHARE = 0.1
"""Share of requests that repeat an acknowledged record."""

TWICE_SHARE = 0.05
"""Share of records that are sent on two connections at once."""

_ESCALATED_EVERY = 3
_KEY = HMAC_KEY.encode()
_GONE = (aiohttp.ClientError, OSError)


class Supply:
    """Signed records, no two alike; every third one is escalated."""

    def __init__(self) -> None:
        self._ready: deque[tuple[str, bytes]] = deque()
        self._epoch = 0

    def fill(self, count: int) -> None:
        """Have at least so many signed beforehand."""
        while len(self._ready) < count:
            self._epoch += 1
            doubtful: dict[str, Any] = {"D_hat": 4.0} if self._epoch % _ESCALATED_EVERY == 0 else {}
            document = pcs_records.document(epoch=self._epoch, shard_id="power", **doubtful)
            signed = pcs_records.sign(document, hmac_key=_KEY)
            self._ready.append((document["pcs_id"], pcs_records.body(signed)))

    def take(self) -> tuple[str, bytes]:
        """Return one."""
        self.fill(1)
        return self._ready.popleft()


class Load:
    """Sends until the backend is gone. A record that is refused for now (503) is sent again by and by.

    Attributes:
        acknowledged: Records that were acknowledged for the first time by this load.
    """

    def __init__(self, client: Client, ledger: Ledger, supply: Supply, choice: random.Random) -> None:
        self._client = client
        self._ledger = ledger
        self._supply = supply
        self._choice = choice
        self._spans: dict[object, tuple[float, float]] = {}
        self._again: deque[str] = deque()
        self._known: list[str] = []
        self._reached = asyncio.Condition()
        self._over = False
        self.acknowledged = 0
        self.sent = 0
        self._senders = [asyncio.create_task(self._send(), name=f"client {n}") for n in range(CONNECTIONS)]

    async def wait_for(self, *, acknowledged: int = 0, sent: int = 0) -> None:
        """Return when so many records were acknowledged and so many requests sent, or the backend is gone."""
        async with self._reached:
            await self._reached.wait_for(
                lambda: self._over or (self.acknowledged >= acknowledged and self.sent >= sent)
            )

    async def end(self) -> None:
        """Wait for the last client, after the backend's death.

        Raises:
            AssertionError: The backend had refused a good record.
        """
        await asyncio.gather(*self._senders)

    async def abandon(self) -> None:
        """Stop all clients at once; does nothing after `end`."""
        for sender in self._senders:
            sender.cancel()
        await asyncio.gather(*self._senders, return_exceptions=True)

    def in_flight(self, at_s: float) -> int:
        """Return how many requests had been sent and not been answered at that time."""
        begun = sum(begun_s <= at_s < ended_s for begun_s, ended_s in self._spans.values())
        return min(begun, CONNECTIONS)  # those above wait for a connection

    @property
    def over(self) -> bool:
        """Whether the backend is gone, or has answered what it must not."""
        return self._over

    async def _send(self) -> None:
        try:
            await self._send_until_over()
        finally:
            self._over = True
            async with self._reached:
                self._reached.notify_all()

    async def _send_until_over(self) -> None:
        while not self._over:
            if self._known and self._choice.random() < AGAIN_SHARE:
                await self._submit(self._choice.choice(self._known))
                continue
            if self._again:
                pcs_id = self._again.popleft()
            else:
                pcs_id, body = self._supply.take()
                self._ledger.send(pcs_id, body)
            if self._choice.random() < TWICE_SHARE:
                await asyncio.gather(self._submit(pcs_id), self._submit(pcs_id))
            else:
                await self._submit(pcs_id)

    async def _submit(self, pcs_id: str) -> None:
        token = object()
        begun_s = time.monotonic()
        self._spans[token] = (begun_s, float("inf"))
        self.sent += 1
        try:
            answer = await self._client.submit(self._ledger.bodies[pcs_id])
        except _GONE:
            self._over = True
        else:
            self._spans[token] = (begun_s, time.monotonic())
            if answer.status == 503 and pcs_id not in self._ledger.promises:
                self._again.append(pcs_id)
            if self._ledger.note_answer(pcs_id, answer):
                self.acknowledged += 1
                self._known.append(pcs_id)
        async with self._reached:
            self._reached.notify_all()


async def submit_all(client: Client, bodies: dict[str, bytes]) -> dict[str, Answer]:
    """Submit each body once. What got no answer, or 503, is left out."""
    answers: dict[str, Answer] = {}
    waiting = list(bodies.items())

    async def sender() -> None:
        while waiting:
            pcs_id, body = waiting.pop()
            try:
                answer = await client.submit(body)
            except _GONE:
                return
            if answer.status != 503:
                answers[pcs_id] = answer

    await asyncio.gather(*(sender() for _ in range(CONNECTIONS)))
    return answers
