"""What the agent's tests share: a clock that sleeping advances, a real HTTP backend that follows a script, outboxes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pcs_agent.build import build_record
from pcs_agent.outbox import Outbox
from pcs_agent.signals import SignalSettings, compute_signals
from pcs_core.identity import ShardId
from pcs_core.params import Params
from pcs_core.record import Record
from pcs_core.wal import PosixFiles

START_S = 1_700_000_000.0


class FakeTime:
    """A clock of both kinds; sleeping advances it at once."""

    def __init__(self) -> None:
        self.now_s = START_S
        self.slept_s: list[float] = []

    def clock(self) -> float:
        return self.now_s

    def monotonic(self) -> float:
        return self.now_s - START_S

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)


def receipt(document: dict[str, Any], *, status: int = 200) -> web.Response:
    accepted = status == 200
    body = {
        "pcs_id": document["pcs_id"],
        "accepted": accepted,
        "escalated": not accepted,
        "reasons": [] if accepted else ["degraded"],
        "recomputed": {"D_hat": 1.0, "regime": "mixed", "budget": 0.5},
    }
    return web.json_response(body, status=status)


class ScriptedBackend:
    """A real server whose answers a test chooses. `answer` gets the decoded record and how many came before it."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.answer: Callable[[dict[str, Any], int], web.StreamResponse] = lambda document, _: receipt(
            document
        )
        self.server = TestServer(self._make_app())

    @property
    def endpoint(self) -> str:
        return str(self.server.make_url("/v1/pcs/submit"))

    def attempts(self, pcs_id: str) -> int:
        return sum(document["pcs_id"] == pcs_id for document in self.received)

    def _make_app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/pcs/submit", self._submit)
        return app

    async def _submit(self, request: web.Request) -> web.StreamResponse:
        document = await request.json()
        self.received.append(document)
        return self.answer(document, len(self.received) - 1)


@pytest.fixture
async def backend() -> AsyncIterator[ScriptedBackend]:
    scripted = ScriptedBackend()
    await scripted.server.start_server()
    yield scripted
    await scripted.server.close()


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def make_record() -> Callable[[int], Record]:
    def make(epoch: int, shard_id: str = "shard-a") -> Record:
        settings = SignalSettings()
        events = np.random.default_rng(epoch).random((16, 2))
        return build_record(
            compute_signals(events, settings),
            settings,
            shard_id=ShardId(shard_id),
            epoch=epoch,
            params=Params(),
            sent_at_s=START_S,
        )

    return make


@pytest.fixture
def open_outbox(tmp_path: Path, fake_time: FakeTime) -> Iterator[Callable[..., Outbox]]:
    """Open the test's outbox; what is still open in the end is closed."""
    opened: list[Outbox] = []

    def open_one(**changes: Any) -> Outbox:
        settings = {"clock": fake_time.clock, "random_bytes": os.urandom, "retention_days": 14.0} | changes
        outbox = Outbox(str(tmp_path / "outbox"), PosixFiles(), **settings)
        outbox.open()
        opened.append(outbox)
        return outbox

    yield open_one
    for outbox in opened:
        outbox.close()
