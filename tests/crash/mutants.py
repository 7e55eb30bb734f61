"""What the product would do if it were broken, to prove that the cuts would show it.

Patches, applied in the process under test alone.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pcs_core.wal.files
from pcs_backend.dedup.memory_store import MemoryStore
from pcs_backend.dedup.store import Candidate, Placed
from pcs_backend.inbox.inbox import Inbox
from pcs_backend.outcome import Key, Outcome
from pcs_core.wal import PosixFiles

LATE_S = 0.02


def _no_sync() -> None:
    PosixFiles.sync_data = lambda _self, _handle: None  # type: ignore[method-assign]


def _early_acknowledgement() -> None:
    """The sync comes, and nobody waits for it."""

    def sync_later(_self: PosixFiles, handle: int) -> None:
        def sync(copy: int = os.dup(handle)) -> None:
            os.fdatasync(copy)
            os.close(copy)

        timer = threading.Timer(LATE_S, sync)
        timer.daemon = True
        timer.start()

    PosixFiles.sync_data = sync_later  # type: ignore[method-assign]


def _sync_before_write() -> None:
    """Each batch is synced by the next one, on a disk that is slow enough for its answers to have been read by then."""
    append = PosixFiles.append
    files: Any = pcs_core.wal.files

    def sync_and_append(self: PosixFiles, handle: int, buffers: Any) -> None:
        time.sleep(LATE_S)
        files.os.fdatasync(handle)  # looked up now: a cut may fall here
        append(self, handle, buffers)

    PosixFiles.append = sync_and_append  # type: ignore[method-assign]
    _no_sync()


def _rename_before_sync() -> None:
    """A file is replaced by one whose bytes are not on disk; its folder is synced."""
    real: Any = pcs_core.wal.files.os

    class Unsynced:
        def fsync(self, handle: int) -> None:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                real.fsync(handle)

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    pcs_core.wal.files.os = Unsynced()


def _no_folder_sync() -> None:
    PosixFiles.sync_folder = lambda _self, _path: None  # type: ignore[method-assign]


def _early_compaction() -> None:
    """Segments go that no snapshot covers."""
    retire = Inbox.retire

    async def retire_everything(self: Inbox, before_s: float, covered_sequence: int | None = None) -> int:
        del covered_sequence
        return await retire(self, before_s, None)

    Inbox.retire = retire_everything  # type: ignore[method-assign]


def _no_dedup() -> None:
    """Every arrival is the first."""

    async def get(_self: MemoryStore, keys: Sequence[Key]) -> list[Outcome | None]:
        return [None] * len(keys)

    async def put(self: MemoryStore, candidates: Sequence[Candidate]) -> list[Placed]:
        await self._journal.write_outcomes(candidates)
        self._keep({(each.outcome.tenant, each.outcome.pcs_id): each.outcome for each in candidates})
        return [Placed(candidate.outcome, first=True) for candidate in candidates]

    MemoryStore.get = get  # type: ignore[method-assign]
    MemoryStore.put_first = put  # type: ignore[method-assign]


MUTANTS: dict[str, Callable[[], None]] = {
    "no-sync": _no_sync,
    "early-acknowledgement": _early_acknowledgement,
    "sync-before-write": _sync_before_write,
    "rename-before-sync": _rename_before_sync,
    "no-folder-sync": _no_folder_sync,
    "early-compaction": _early_compaction,
    "no-dedup": _no_dedup,
}
