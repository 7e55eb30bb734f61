"""Settling the backlog: requests that are on disk without an outcome, at start or after a store outage."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import structlog

from pcs_backend.exchange import Received
from pcs_backend.inbox.inbox import Inbox
from pcs_backend.pipeline import Pipeline, is_replay
from pcs_core.ports import Sleep, WallClock

BATCH_REQUESTS_MAX = 64
"""Requests judged in one go."""

RETRY_FIRST_S, RETRY_MAX_S = 0.25, 5.0
"""Wait after a batch that could not be judged; doubled while nothing succeeds."""

_log = structlog.get_logger(__name__)


class Settler:
    """Judges deferred requests of one inbox, in order, while new ones are taken.

    Attributes:
        too_old: Requests left open because they are older than the dedup lifetime: their first outcome may have been
            forgotten, and judging them would count them twice. `pcs-backend replay --force` judges them.
    """

    def __init__(
        self,
        inbox: Inbox,
        pipeline: Pipeline,
        *,
        now: WallClock,
        sleep: Sleep,
        dedup_ttl_s: float,
        force: bool = False,
    ) -> None:
        """Wire it.

        Args:
            inbox: Where the requests lie.
            pipeline: Over the same inbox.
            now: Judges their age.
            sleep: Waits while the store is down.
            dedup_ttl_s: Lifetime of an outcome.
            force: Whether to judge requests older than that as well.
        """
        self._inbox = inbox
        self._pipeline = pipeline
        self._now = now
        self._sleep = sleep
        self._dedup_ttl_s = dedup_ttl_s
        self._force = force
        self.too_old = 0

    async def run(self) -> None:
        """Settle what is deferred, for ever."""
        delay_s = RETRY_FIRST_S
        while True:
            results = await self.settle_batch()
            if results["deferred"]:
                await self._sleep(delay_s)
                delay_s = min(2 * delay_s, RETRY_MAX_S)
            else:
                delay_s = RETRY_FIRST_S

    async def settle_batch(self) -> Counter[str]:
        """Wait for deferred requests and judge up to `BATCH_REQUESTS_MAX`.

        Returns:
            How many records were `accepted`, `escalated`, `replayed`, `refused` or `deferred` again. Those too old are counted
            in `too_old` alone.
        """
        received = self._young_enough(await self._inbox.take_deferred(BATCH_REQUESTS_MAX))
        results: Counter[str] = Counter()
        answers = await self._pipeline.judge(received) if received else []
        for reply in itertools.chain.from_iterable(answer.records for answer in answers):
            if reply.status == 503:
                results["deferred"] += 1
            elif reply.problem:
                results["refused"] += 1
            elif is_replay(reply):
                results["replayed"] += 1
            else:
                results["accepted" if reply.status == 200 else "escalated"] += 1
        if results.total() > results["deferred"]:
            _log.info("backlog settled", **results)
        return results

    def _young_enough(self, received: Sequence[Received]) -> list[Received]:
        if self._force:
            return list(received)
        oldest_ms = (self._now() - self._dedup_ttl_s) * 1_000
        young = [each for each in received if each.request.envelope.received_at_ms > oldest_ms]
        if len(young) < len(received):
            self.too_old += len(received) - len(young)
            _log.warning(
                "requests older than the dedup lifetime are left for `pcs-backend replay --force`",
                count=len(received) - len(young),
            )
        return young
