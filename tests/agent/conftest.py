"""What the agent's tests share: a clock that sleeping advances, a real HTTP backend that follows a script, outboxes."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
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


def outcome(document: dict[str, Any], *, status: int = 200) -> dict[str, Any]:
    accepted = status == 200
    return {
        "pcs_id": document["pcs_id"],
        "accepted": accepted,
        "escalated": not accepted,
        "reasons": [] if accepted else ["degraded"],
        "recomputed": {"D_hat": 1.0, "regime": "mixed", "budget": 0.5},
    }


def receipt(document: dict[str, Any], *, status: int = 200) -> web.Response:
    return web.json_response(outcome(document, status=status), status=status)


def take_all(documents: list[dict[str, Any]], before: int) -> web.StreamResponse:
    del before
    entries = [
        {"status": 200, "replayed": False, "conflict": False, "body": outcome(each)} for each in documents
    ]
    return web.Response(body=b"".join(json.dumps(entry).encode() + b"\n" for entry in entries))


class ScriptedBackend:
    """A real server whose answers a test chooses.

    Attributes:
        received: Every record that came, whether alone or in a batch.
        batches: Those of each batch.
        requests: Path, headers and body of every request.
        answer: Gets the decoded record and how many came before it.
        answer_batch: Gets the decoded records and how many batches came before.
        arrived: Awaited for every request before it is answered.
    """

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.batches: list[list[dict[str, Any]]] = []
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answer: Callable[[dict[str, Any], int], web.StreamResponse] = lambda document, _: receipt(
            document
        )
        self.answer_batch: Callable[[list[dict[str, Any]], int], web.StreamResponse] = take_all
        self.arrived: Callable[[], Awaitable[None]] = _at_once
        self.server = TestServer(self._make_app())

    @property
    def endpoint(self) -> str:
        return str(self.server.make_url("/v1/pcs/submit"))

    def attempts(self, pcs_id: str) -> int:
        return sum(document["pcs_id"] == pcs_id for document in self.received)

    def _make_app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/pcs/submit", self._submit)
        app.router.add_post("/v1/pcs/batch", self._batch)
        return app

    async def _submit(self, request: web.Request) -> web.StreamResponse:
        await self._note(request)
        document = await request.json()
        self.received.append(document)
        return self.answer(document, len(self.received) - 1)

    async def _batch(self, request: web.Request) -> web.StreamResponse:
        await self._note(request)
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        documents = [json.loads(line) for line in body.splitlines()]
        self.received += documents
        self.batches.append(documents)
        return self.answer_batch(documents, len(self.batches) - 1)

    async def _note(self, request: web.Request) -> None:
        self.requests.append((request.path, dict(request.headers), await request.read()))
        await self.arrived()


async def _at_once() -> None:
    """Let a request be answered when it comes."""


@pytest.fixture
async def backend() -> AsyncIterator[ScriptedBackend]:
    scripted = ScriptedBackend()
    await scripted.server.start_server(auto_decompress=False)
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
