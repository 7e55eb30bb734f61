"""Group commit: concurrent callers share one write and one fdatasync.

While one sync runs, callers queue; the next sync takes all of them. So an idle server syncs at once, and a busy one
pays a sync per batch rather than per request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from pcs_backend.errors import InboxUnavailableError
from pcs_core.errors import WalFailedError
from pcs_core.ports import Offload
from pcs_core.wal import NewFrame, Position, Wal

BATCH_FRAMES_MAX = 1_024
"""Frames one sync covers at most."""

QUEUE_BYTES_MAX = 64 * 1024 * 1024
"""Bytes that may wait for a sync; beyond it callers are refused at once."""


class _Waiting(NamedTuple):
    frames: Sequence[NewFrame]
    size_bytes: int
    done: asyncio.Future[list[Position]]


class GroupCommit:
    """The only writer of a log. `run` is its task."""

    def __init__(
        self,
        wal: Wal,
        offload: Offload,
        extra_frames: Callable[[], Sequence[NewFrame]],
        time_sync: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Take the log.

        Args:
            wal: Open by the time `run` starts.
            offload: Where write and sync run; one thread is enough and keeps the order.
            extra_frames: Asked before each write for frames that may ride along and that nobody waits for.
            time_sync: Entered for each write and sync, the wait for the thread included; nothing is timed by default.
        """
        self._wal = wal
        self._offload = offload
        self._extra_frames = extra_frames
        self._time_sync = time_sync
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0
        self._wake = asyncio.Event()
        self._closing = False

    async def commit(self, frames: Sequence[NewFrame]) -> list[Position]:
        """Return where the frames stand, once they are on disk.

        Raises:
            InboxUnavailableError: The disk refused, the queue is full, or the process is stopping. None of the frames
                counts as written.
        """
        size_bytes = sum(len(frame.envelope) + len(frame.payload) for frame in frames)
        if self._closing:
            raise InboxUnavailableError("the service is stopping")
        if self._waiting_bytes + size_bytes > QUEUE_BYTES_MAX:
            raise InboxUnavailableError("the queue before the log is full")
        done: asyncio.Future[list[Position]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(frames, size_bytes, done))
        self._waiting_bytes += size_bytes
        self._wake.set()
        return await done

    async def run(self) -> None:
        """Write and sync what waits, until `close` was called and nothing waits any more."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._commit_batch(self._take_batch())
            if self._closing:
                if extra := self._extra_frames():
                    await self._commit_batch([_Waiting(extra, 0, asyncio.get_running_loop().create_future())])
                return

    def close(self) -> None:
        """Take nothing more; `run` returns when what waits is on disk."""
        self._closing = True
        self._wake.set()

    def _take_batch(self) -> list[_Waiting]:
        count = frames = 0
        for waiting in self._waiting:
            frames += len(waiting.frames)
            if count and frames > BATCH_FRAMES_MAX:
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    async def _commit_batch(self, batch: list[_Waiting]) -> None:
        frames = [frame for waiting in batch for frame in waiting.frames]
        own = len(frames)
        frames += self._extra_frames()
        try:
            with self._time_sync():
                positions = await self._offload.run(lambda: self._wal.commit(frames))
        except WalFailedError as error:
            may_be_written = self._wal.failure is not None  # otherwise the write was cut off again
            for waiting in batch:
                if not waiting.done.done():
                    waiting.done.set_exception(
                        InboxUnavailableError(f"the log refuses: {error}", may_be_written=may_be_written)
                    )
                    waiting.done.exception()  # a caller that went away leaves nobody to ask for it
        else:
            remaining = positions[:own]
            for waiting in batch:
                mine, remaining = remaining[: len(waiting.frames)], remaining[len(waiting.frames) :]
                if not waiting.done.done():
                    waiting.done.set_result(mine)
        self._waiting_bytes -= sum(waiting.size_bytes for waiting in batch)
