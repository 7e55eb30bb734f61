"""The inbox of one worker: a log of requests and what became of them, and the backlog of those without an outcome.

It owns the log and the ledger of open requests. It does not judge. What it guarantees:

- `append` returns when the requests are on disk; `refuse` and the journal's writes likewise.
- A request stays open, and its segment on disk, until it is refused or settled.
- A request that could not be judged is deferred, and comes back from `take_deferred`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from pcs_backend.conformal.calibration import Labelled, Promotion
from pcs_backend.conformal.store import Artifact
from pcs_backend.dedup.store import Candidate, Conflict
from pcs_backend.errors import InboxUnavailableError
from pcs_backend.exchange import Received, Request
from pcs_backend.inbox.frames import (
    OUTCOME_KINDS,
    FrameKind,
    Refusal,
    ack_frame,
    artifact_frame,
    conflict_frame,
    decode_refusal,
    decode_request,
    decode_settled,
    labels_frame,
    outcomes_frame,
    promotion_frame,
    refusal_frame,
    request_frame,
    requests_closed,
    settled_frame,
    stored_at_ms,
)
from pcs_backend.inbox.group_commit import GroupCommit
from pcs_backend.outcome import Key
from pcs_core.errors import WalError
from pcs_core.ports import Offload
from pcs_core.wal import Damage, Frame, Ledger, NewFrame, Position, Wal

OPEN_REQUESTS_MAX = 1_000_000
"""Requests that may be without an outcome; beyond it intake stops. About 300 bytes of memory each."""

SETTLED_PER_FRAME_MAX = 4_096
LABELS_PER_FRAME_MAX = 1_024

FrameVisitor = Callable[[int, Frame], None]
"""Called with sequence number and frame."""


class Inbox:
    """One worker's inbox. Call `open`, then let `run` run as a task.

    Attributes:
        unreadable_requests: Open requests whose frames were damaged after they were written.
        finished: Set when `run` has written everything after `stop`.
    """

    def __init__(
        self,
        wal: Wal,
        offload: Offload,
        time_sync: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Take a log that is not yet open, the thread that writes it, and what times its syncs."""
        self._wal = wal
        self._offload = offload
        self._ledger = Ledger()
        self._commits = GroupCommit(wal, offload, self._take_settled, time_sync)
        self._settled: list[int] = []
        self._deferred: deque[int] = deque()
        self._has_deferred = asyncio.Event()
        self.unreadable_requests = 0
        self.finished = asyncio.Event()

    async def open(self, visit: FrameVisitor) -> None:
        """Read the log back. Every request without outcome or refusal becomes deferred.

        Args:
            visit: Called in the offload thread with every good frame, for what the inbox itself does not keep.

        Raises:
            WalError: The folder is locked by another process.
            OSError: The disk refused.
        """
        await self._offload.run(
            lambda: self._wal.open(lambda position, frame: self._recover(position, frame, visit))
        )
        self.defer(list(self._ledger))

    async def run(self) -> None:
        """Write what callers commit, until `stop`."""
        await self._commits.run()
        self.finished.set()

    def stop(self) -> None:
        """Take nothing more; `run` returns when what waits is on disk."""
        self._commits.close()

    async def close(self) -> None:
        """Give the log back, after `run` returned."""
        await self._offload.run(self._wal.close)

    @property
    def failure(self) -> str | None:
        """Why the log takes nothing any more."""
        return self._wal.failure

    @property
    def damages(self) -> list[Damage]:
        """What was damaged at opening."""
        return self._wal.damages

    @property
    def torn_bytes(self) -> int:
        """Length of the torn tail cut off at opening."""
        return self._wal.torn_bytes

    @property
    def size_bytes(self) -> int:
        """Bytes of the log on disk."""
        return self._wal.size_bytes

    @property
    def appended_bytes(self) -> int:
        """Bytes written since the opening; it never shrinks."""
        return self._wal.appended_bytes

    @property
    def open_requests(self) -> int:
        """Requests without an outcome, those being judged included."""
        return len(self._ledger)

    @property
    def synced_sequence(self) -> int:
        """Highest sequence number known to be on disk; what is written later comes after it."""
        return self._wal.synced_sequence

    @property
    def has_deferred(self) -> bool:
        """Whether requests wait in the backlog."""
        return bool(self._deferred)

    @property
    def backlog_requests(self) -> int:
        """Requests that wait in the backlog, those being judged at this moment excluded."""
        return len(self._deferred)

    @property
    def first_sequence(self) -> int:
        """The lowest number the log may still hold; 1 as long as nothing was removed from it."""
        return self._wal.first_segment

    async def append(self, requests: Sequence[Request]) -> list[Received]:
        """Put requests on disk (contract §4 step 3).

        Raises:
            InboxUnavailableError: Nothing was accepted.
        """
        if len(self._ledger) + len(requests) > OPEN_REQUESTS_MAX:
            raise InboxUnavailableError("too many requests wait for their outcome")
        positions = await self._commits.commit([request_frame(request) for request in requests])
        for position, request in zip(positions, requests, strict=True):
            self._ledger.open(position.sequence, position, request.envelope.received_at_ms / 1_000)
        return [
            Received(position.sequence, request)
            for position, request in zip(positions, requests, strict=True)
        ]

    async def refuse(self, refusals: Sequence[Refusal]) -> None:
        """Note that requests were refused for good; on return it is on disk and recovery will not judge them.

        Raises:
            InboxUnavailableError: It is not noted.
        """
        await self._commits.commit([refusal_frame(refusal) for refusal in refusals])
        for refusal in refusals:
            self._ledger.close(refusal.request)

    def settle(self, sequences: Sequence[int]) -> None:
        """Note that the outcome of requests is stored. Written with the next commit; nobody waits for it."""
        self._settled += [sequence for sequence in sequences if self._ledger.close(sequence)]

    async def write_outcomes(self, entries: Sequence[Candidate]) -> None:
        """Keep outcomes in the log itself, for a store that has no disk of its own. On return they are on disk.

        Raises:
            InboxUnavailableError: They are not.
        """
        if not entries:
            return
        closed = [entry.request_sequence for entry in entries if entry.request_sequence is not None]
        await self._commits.commit([outcomes_frame([entry.outcome for entry in entries], closed)])
        for request in closed:
            self._ledger.close(request)

    async def write_acks(self, keys: Sequence[Key]) -> None:
        """Keep acknowledgements of escalations. On return they are on disk."""
        await self._commits.commit([ack_frame(key) for key in keys])

    async def write_conflicts(self, conflicts: Sequence[Conflict]) -> None:
        """Keep conflicts. On return they are on disk."""
        await self._commits.commit([conflict_frame(conflict) for conflict in conflicts])

    async def write_labels(self, labels: Sequence[Labelled]) -> None:
        """Keep labels. On return they are on disk."""
        chunks = range(0, len(labels), LABELS_PER_FRAME_MAX)
        await self._commits.commit(
            [labels_frame(labels[first : first + LABELS_PER_FRAME_MAX]) for first in chunks]
        )

    async def write_artifacts(self, artifacts: Sequence[Artifact]) -> None:
        """Keep calibration sets and parameters. On return they are on disk."""
        await self._commits.commit([artifact_frame(artifact) for artifact in artifacts])

    async def write_promotion(self, promotion: Promotion) -> None:
        """Keep that a set came into force. On return it is on disk."""
        await self._commits.commit([promotion_frame(promotion)])

    def defer(self, sequences: Sequence[int]) -> None:
        """Put open requests off until they can be judged."""
        self._deferred += [sequence for sequence in sequences if sequence in self._ledger]
        if self._deferred:
            self._has_deferred.set()

    async def take_deferred(self, limit: int) -> list[Received]:
        """Wait for deferred requests and return up to `limit` of them, oldest first, read back from disk.

        One whose bytes can no longer be read is left out: it stays open, and so on disk, and counts as unreadable.
        """
        await self._has_deferred.wait()
        sequences = [self._deferred.popleft() for _ in range(min(limit, len(self._deferred)))]
        if not self._deferred:
            self._has_deferred.clear()
        positions = [position for each in sequences if (position := self._ledger.position(each)) is not None]
        frames = await self._offload.run(lambda: [self._read(position) for position in positions])
        self.unreadable_requests += frames.count(None)
        return [
            Received(frame.sequence, decode_request(frame.envelope, frame.payload))
            for frame in frames
            if frame is not None
        ]

    async def retire(self, before_s: float, covered_sequence: int | None = None) -> int:
        """Remove the oldest segments that hold nothing open and nothing as new as `before_s`.

        Args:
            before_s: Seconds since 1970.
            covered_sequence: If given, a segment goes only when all of it is at or below: what a snapshot covers.

        Returns:
            How many segments went.
        """
        sealed = self._wal.removable_segments
        # A segment is sealed only after the commits in it were answered; one turn of the loop lets every caller that was
        # answered enter its requests in the ledger.
        await asyncio.sleep(0)
        ends = [*self._wal.sealed_segments[1:], self._wal.next_sequence]
        removed = 0
        for segment, end in zip(self._ledger.retirable(sealed, before_s), ends, strict=False):
            if covered_sequence is not None and end - 1 > covered_sequence:
                break
            await self._offload.run(lambda segment=segment: self._wal.remove_oldest(segment))  # type: ignore[misc]
            self._ledger.forget(segment)
            removed += 1
        return removed

    def _read(self, position: Position) -> Frame | None:
        try:
            return self._wal.read(position)
        except (WalError, OSError):
            return None

    def _take_settled(self) -> list[NewFrame]:
        settled, self._settled = self._settled, []
        return [
            settled_frame(settled[first : first + SETTLED_PER_FRAME_MAX])
            for first in range(0, len(settled), SETTLED_PER_FRAME_MAX)
        ]

    def _recover(self, position: Position, frame: Frame, visit: FrameVisitor) -> None:
        match frame.kind:
            case FrameKind.REQUEST:
                envelope = decode_request(frame.envelope, frame.payload).envelope
                self._ledger.open(frame.sequence, position, envelope.received_at_ms / 1_000)
            case FrameKind.REFUSAL:
                self._ledger.close(decode_refusal(frame.envelope).request)
            case FrameKind.SETTLED:
                for sequence in decode_settled(frame.envelope):
                    self._ledger.close(sequence)
            case kind if kind in OUTCOME_KINDS:
                self._ledger.note_time(position.segment, stored_at_ms(frame) / 1_000)
                for request in requests_closed(frame):
                    self._ledger.close(request)
        visit(frame.sequence, frame)
