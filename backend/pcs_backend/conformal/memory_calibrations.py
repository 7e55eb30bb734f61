"""The calibration store of one process without a database: a shelf, kept on disk by the inbox WAL and the snapshot.

What is written is in the WAL, synced, before it is on the shelf. The dedup store's snapshot has all of the shelf, and
covers its frames as it covers those of outcomes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from pcs_backend.conformal.calibration import Labelled, Promotion
from pcs_backend.conformal.shelf import Contents, Shelf
from pcs_backend.conformal.store import FULL, Artifact, by_digest
from pcs_backend.errors import StoreFullError
from pcs_backend.inbox.frames import FrameKind, decode_artifact, decode_labels, decode_promotion
from pcs_core.ports import WallClock
from pcs_core.wal import Frame


class CalibrationJournal(Protocol):
    """Where the store keeps what it must not lose. Each write returns when it is on disk."""

    async def write_labels(self, labels: Sequence[Labelled]) -> None: ...  # noqa: D102 - the class says it
    async def write_artifacts(self, artifacts: Sequence[Artifact]) -> None: ...  # noqa: D102
    async def write_promotion(self, promotion: Promotion) -> None: ...  # noqa: D102


class MemoryCalibrations:
    """As `CalibrationStore`. A log that refuses is an `InboxUnavailableError`."""

    def __init__(
        self,
        *,
        now: WallClock,
        journal: CalibrationJournal,
        writing: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Start empty.

        Args:
            now: Says when an artifact was kept.
            journal: Makes writes durable.
            writing: Entered around a write and what follows from it in memory.
        """
        self._now = now
        self._journal = journal
        self._writing = writing
        self._shelf = Shelf()
        # One after the other: what a promotion was checked against must still hold when it is on disk.
        self._turn = asyncio.Lock()

    async def put_labels(self, labels: Sequence[Labelled]) -> None:
        """As `CalibrationStore.put_labels`. On return they are in the WAL, synced."""
        if labels:
            with self._writing():
                await self._journal.write_labels(labels)
                self._shelf.put_labels(labels)

    async def list_labels(self, tenant: str | None, *, since_ms: int, limit: int) -> list[Labelled]:
        """As `CalibrationStore.list_labels`."""
        return self._shelf.list_labels(tenant, since_ms, limit)

    async def keep(self, artifacts: Sequence[bytes], *, always: bool = False) -> None:
        """As `CalibrationStore.keep`. On return they are in the WAL, synced."""
        by_their_digest = by_digest(artifacts)
        async with self._turn:
            now_ms = int(self._now() * 1_000)
            new = [digest for digest in by_their_digest if self._shelf.wants_word_of(digest, now_ms)]
            if not always and not self._shelf.has_room(sum(map(self._shelf.lacks, new))):
                raise StoreFullError(FULL)
            if new:
                with self._writing():
                    kept = [Artifact(by_their_digest[digest], now_ms) for digest in new]
                    await self._journal.write_artifacts(kept)
                    for artifact in kept:
                        self._shelf.keep(artifact)

    async def fetch(self, digests: Sequence[str]) -> list[bytes | None]:
        """As `CalibrationStore.fetch`."""
        return self._shelf.fetch(digests)

    async def promote(self, promotion: Promotion) -> bool:
        """As `CalibrationStore.promote`. On return it is in the WAL, synced."""
        async with self._turn:
            if not self._shelf.may_promote(promotion):
                return False
            with self._writing():
                await self._journal.write_promotion(promotion)
                self._shelf.promote(promotion)
            return True

    async def list_promotions(self, scope: str | None, limit: int) -> list[Promotion]:
        """As `CalibrationStore.list_promotions`."""
        return self._shelf.list_promotions(scope, limit)

    async def purge(self, before_ms: int) -> int:
        """As `CalibrationStore.purge`. Not in the WAL: what a restart brings back goes again."""
        async with self._turn:
            return self._shelf.purge(before_ms)

    def replay(self, frame: Frame) -> None:
        """Apply a frame of the log or the snapshot; one of another kind is passed over."""
        match frame.kind:
            case FrameKind.LABELS:
                self._shelf.put_labels(decode_labels(frame))
            case FrameKind.ARTIFACT:
                self._shelf.keep(decode_artifact(frame))
            case FrameKind.PROMOTION:
                self._shelf.promote(decode_promotion(frame))

    def contents(self) -> Contents:
        """Return what a snapshot is to hold."""
        return self._shelf.contents()
