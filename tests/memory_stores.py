"""A memory store over a real inbox, opened as the engine does."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from inboxes import Clock, running_inbox
from pcs_backend.dedup.memory_store import MemoryStore
from pcs_backend.dedup.store import Candidate, Placed
from pcs_backend.inbox.inbox import Inbox
from pcs_backend.offload import ThreadOffload
from pcs_backend.outcome import Outcome
from pcs_core.wal import Files, PosixFiles


class Opened:
    """A store, the inbox it writes to, and where its snapshot lies."""

    def __init__(self, store: MemoryStore, inbox: Inbox, files: Files, path: str) -> None:
        self.store = store
        self.inbox = inbox
        self._files = files
        self._path = path

    async def save(self) -> None:
        offload = ThreadOffload("snapshot")
        try:
            await self.store.save_snapshot(self._files, os.urandom, offload, self._path)
        finally:
            offload.close()

    async def put(self, *outcomes: Outcome) -> list[Placed]:
        return await self.store.put_first([Candidate(each, None) for each in outcomes])


@asynccontextmanager
async def opened(
    folder: Path,
    clock: Clock,
    files: Files | None = None,
    *,
    records_max: int = 1_000,
    segment_bytes: int = 1 << 20,
) -> AsyncIterator[Opened]:
    """Open a store as the engine does: snapshot, then log, then the check that nothing is missing."""
    files = files or PosixFiles()
    path = str(folder / "outcomes.snap")
    early: list[tuple] = []  # the store needs the inbox, which is read while it is opened
    async with running_inbox(
        folder / "log",
        files,
        visit=lambda sequence, frame: early.append((sequence, frame)),
        segment_bytes=segment_bytes,
    ) as inbox:
        store = MemoryStore(now=clock, journal=inbox, records_max=records_max)
        problem = store.restore_snapshot(files, path)
        for sequence, frame in early:
            store.replay(sequence, frame)
        store.check_restored(problem, log_begins_at=inbox.first_sequence)
        yield Opened(store, inbox, files, path)
