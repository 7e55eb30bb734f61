"""Inboxes of the backend over a real disk, for tests below HTTP: opened with their writer, a disk that can be held."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from pcs_backend.exchange import Envelope, Received, Reply, Request
from pcs_backend.inbox.inbox import FrameVisitor, Inbox
from pcs_backend.offload import ThreadOffload
from pcs_core.wal import Files, PosixFiles, Wal
from pcs_logs import FailingFiles

NOW_S = 1_750_000_000.0
WAIT_S = 10.0
SALT = b"8 octets"


class Clock:
    """A wall clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s

    def move(self, seconds: float) -> None:
        self.now_s += seconds


class HeldFiles(FailingFiles):
    """The real disk; while it is held, each sync waits for a permit."""

    def __init__(self) -> None:
        super().__init__()
        self.syncs = 0
        self._held = False
        self._reached = threading.Semaphore(0)
        self._permits = threading.Semaphore(0)

    def hold(self) -> None:
        """From now on syncs wait."""
        self._held = True

    async def reached(self) -> None:
        """Wait until one more sync waits."""
        assert await asyncio.to_thread(self._reached.acquire, timeout=WAIT_S)

    def let_one_through(self) -> None:
        """Give one permit."""
        self._permits.release()

    def release(self) -> None:
        """Hold no more."""
        self._held = False
        self._permits.release(1_000)

    def sync_data(self, handle: int) -> None:
        if self._held:
            self._reached.release()
            assert self._permits.acquire(timeout=WAIT_S)
        super().sync_data(handle)
        self.syncs += 1


async def turn() -> None:
    """Let every task that can run do so."""
    for _ in range(20):
        await asyncio.sleep(0)


def request(body: bytes = b"{}", *, received_at_s: float = NOW_S) -> Request:
    envelope = Envelope(
        received_at_ms=int(received_at_s * 1_000), path="/v1/pcs/submit", content_type="application/json"
    )
    return Request(envelope, body)


def bodies(received: Sequence[Received]) -> list[bytes]:
    return [each.request.body for each in received]


def statuses(replies: Sequence[Reply]) -> list[int]:
    return [reply.status for reply in replies]


def ignore_frames(sequence: int, frame: object) -> None:
    """Visit nothing."""


@asynccontextmanager
async def running_inbox(
    folder: Path,
    files: Files | None = None,
    *,
    visit: FrameVisitor = ignore_frames,
    segment_bytes: int = 1 << 20,
) -> AsyncIterator[Inbox]:
    """Open an inbox with its writer running; at the end what was given to it is on disk and the folder is free."""
    offload = ThreadOffload("inbox")
    wal = Wal(str(folder), files or PosixFiles(), lambda _size: SALT, segment_bytes=segment_bytes)
    inbox = Inbox(wal, offload)
    try:
        await inbox.open(visit)
        writer = asyncio.create_task(inbox.run())
        try:
            yield inbox
        finally:
            inbox.stop()
            await writer
    finally:
        await inbox.close()
        offload.close()
