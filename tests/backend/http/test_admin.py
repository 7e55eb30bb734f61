"""The tap over the administration socket: a reader that stands still keeps its connection, and loses it at a stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from aiohttp import web

from inboxes import Clock
from pcs_backend.dedup.memory_store import MemoryStore
from pcs_backend.effects.metrics import Metrics
from pcs_backend.effects.tap import Sighting, Tap
from pcs_backend.http import protocol
from pcs_backend.http.admin import AdminRoutes
from pcs_backend.http.intake import Intake
from pcs_backend.http.protocol import ProblemProtocol, ProblemServer
from pcs_backend.http.whole import Alone

TIMEOUT_S = 10.0
CHECKS = 20


class Healthy:
    def not_started(self) -> str | None:
        return None

    def not_ready(self) -> str | None:
        return None


class Rig(NamedTuple):
    """A socket with a tap behind it, and one client."""

    tap: Tap
    routes: AdminRoutes
    runner: web.ServerRunner
    reader: asyncio.StreamReader

    async def block(self) -> None:
        """Show lines until one of them finds no room on the way to the client."""
        async with asyncio.timeout(TIMEOUT_S):
            turns_blocked = 0
            while turns_blocked < CHECKS:
                self.tap.show(Sighting(at_ms=1, status=200, shard_id="s" * 100))
                turns_blocked = turns_blocked + 1 if self.routes._streams._writing else 0
                await asyncio.sleep(0)


@asynccontextmanager
async def listening(folder: Path) -> AsyncIterator[Rig]:
    tap = Tap()
    store = MemoryStore(now=Clock(), journal=None, records_max=1)
    routes = AdminRoutes(store, store.calibrations, tap, Alone(Metrics(), Healthy()))
    runner = web.ServerRunner(
        ProblemServer(routes.handle, Intake(connections_max=4, shared_bytes_max=1 << 20)), shutdown_timeout=60
    )
    await runner.setup()
    await web.UnixSite(runner, str(folder / "admin.sock")).start()
    reader, writer = await asyncio.open_unix_connection(str(folder / "admin.sock"), limit=1_024)
    try:
        writer.write(b"GET /tap HTTP/1.1\r\nHost: admin\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        yield Rig(tap, routes, runner, reader)
    finally:
        routes.close()
        writer.close()
        await runner.cleanup()


async def test_tap_may_stay_unread_for_longer_than_other_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = asyncio.Semaphore(0)
    check = ProblemProtocol.check

    def counted(self: ProblemProtocol, transport: asyncio.Transport, now_s: float) -> None:
        check(self, transport, now_s)
        checks.release()

    monkeypatch.setattr(ProblemProtocol, "check", counted)
    monkeypatch.setattr(protocol, "ANSWER_TIMEOUT_S", 0.01)
    monkeypatch.setattr(protocol, "CONNECTION_CHECK_INTERVAL_S", 0.01)
    async with listening(tmp_path) as rig, asyncio.timeout(TIMEOUT_S):
        await rig.block()
        for _ in range(CHECKS):
            await checks.acquire()
        rig.tap.close()
        everything = await rig.reader.read(-1)
        assert everything.endswith(b"0\r\n\r\n"), "it came to its end and was not cut off"


async def test_at_a_stop_nobody_waits_for_a_reader_that_stands_still(tmp_path: Path) -> None:
    async with listening(tmp_path) as rig:
        await rig.block()
        rig.routes.close()
        async with asyncio.timeout(TIMEOUT_S):
            await rig.runner.cleanup()
