"""The backend below HTTP over a real disk: inboxes with their writer, pipelines, a disk that can be held."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pcs_records
from pcs_backend.conformal.watch import Watch
from pcs_backend.dedup.memory_store import Journal, MemoryStore
from pcs_backend.dedup.store import Candidate, Conflict, DedupStore, Placed
from pcs_backend.effects.metrics import Metrics
from pcs_backend.effects.tap import Tap
from pcs_backend.exchange import Envelope, Received, Reply, Request
from pcs_backend.inbox.inbox import FrameVisitor, Inbox
from pcs_backend.offload import ThreadOffload
from pcs_backend.outcome import Key, Outcome
from pcs_backend.pipeline import Pipeline
from pcs_backend.recovery import Settler
from pcs_backend.trust.limits import TenantLimiter
from pcs_backend.trust.policy import Trust
from pcs_backend.trust.token_bucket import TokenBucket
from pcs_core.keyring import Keyring, entry_of_secret
from pcs_core.params import Params
from pcs_core.ports import Sleep
from pcs_core.wal import Files, Frame, PosixFiles, Wal
from pcs_logs import FailingFiles

NOW_S = 1_750_000_000.0
WAIT_S = 10.0
SALT = b"8 octets"
KEY = b"a key of the tests below HTTP"
RECORD_BYTES_MAX = 262_144
BATCH_BYTES_MAX = 1_048_576
DEDUP_TTL_S = 1_000.0


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


class MoodyStore(MemoryStore):
    """A memory store that raises what `moods` says for a method, as often as asked."""

    def __init__(self, *, now: Clock, journal: Journal, records_max: int = 10_000) -> None:
        super().__init__(now=now, journal=journal, records_max=records_max)
        self.moods: dict[str, Exception] = {}
        self.calls: list[str] = []

    def feel(self, name: str) -> None:
        self.calls.append(name)
        if name in self.moods:
            raise self.moods[name]

    async def get(self, keys: Sequence[Key]) -> list[Outcome | None]:
        self.feel("get")
        return await super().get(keys)

    async def put_first(self, candidates: Sequence[Candidate]) -> list[Placed]:
        self.feel("put_first")
        return await super().put_first(candidates)

    async def note_conflicts(self, conflicts: Sequence[Conflict]) -> None:
        self.feel("note_conflicts")
        await super().note_conflicts(conflicts)


class Rig(NamedTuple):
    """A pipeline and what it is made of."""

    pipeline: Pipeline
    inbox: Inbox
    store: MoodyStore
    metrics: Metrics
    clock: Clock

    async def submit(self, *contents: bytes) -> list[Reply]:
        return await self.pipeline.submit([request(body, received_at_s=self.clock()) for body in contents])

    def count(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"flk_{name}_total", labels)

    def counts(self) -> tuple[float | None, ...]:
        """Return dedup hits, accepted, escalated, conflicts."""
        return tuple(map(self.count, ("dedup_hits", "accepted", "escalated", "conflicts")))

    def settler(self, *, sleep: Sleep = asyncio.sleep, force: bool = False) -> Settler:
        return Settler(
            self.inbox, self.pipeline, now=self.clock, sleep=sleep, dedup_ttl_s=DEDUP_TTL_S, force=force
        )


@asynccontextmanager
async def running_rig(
    folder: Path, files: Files | None = None, *, clock: Clock | None = None
) -> AsyncIterator[Rig]:
    """A pipeline over a real inbox and a memory store that is restored from it; records are signed with `KEY`."""
    clock = clock or Clock()
    early: list[tuple[int, Frame]] = []
    async with running_inbox(
        folder, files, visit=lambda sequence, frame: early.append((sequence, frame))
    ) as inbox:
        store = MoodyStore(now=clock, journal=inbox)
        for sequence, frame in early:
            store.replay(sequence, frame)
        metrics = Metrics()
        yield Rig(build_pipeline(inbox, store, metrics, clock), inbox, store, metrics, clock)


def build_pipeline(
    inbox: Inbox, store: DedupStore, metrics: Metrics, clock: Clock, *, inbox_is_own: bool = True
) -> Pipeline:
    trust = Trust(keyring=Keyring([entry_of_secret(KEY)]))
    return Pipeline(
        inbox=inbox,
        store=store,
        trust=lambda: trust,
        limiter=TenantLimiter(dict, clock, clock),
        token_bucket=TokenBucket(0, clock),
        params=Params(),
        gates=None,
        watch=Watch(metrics.calibration),
        metrics=metrics,
        tap=Tap(),
        now=clock,
        monotonic=clock,
        dedup_ttl_s=DEDUP_TTL_S,
        record_bytes_max=RECORD_BYTES_MAX,
        batch_bytes_max=BATCH_BYTES_MAX,
        offload=ThreadOffload("inflate"),
        inbox_is_own=inbox_is_own,
        outcomes_in_inbox=True,
    )


def signed(**overrides: object) -> bytes:
    """Return the body of a record signed with `KEY`."""
    return pcs_records.body(pcs_records.sign(pcs_records.document(**overrides), hmac_key=KEY))
