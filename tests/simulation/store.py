"""A store that replicas share, as a server would be: one state, and a client for each process.

The server does each step at one moment, so a step is atomic. Between client and server lies a way on which a call may be lost,
answered late, or answered to nobody after it was done. The shipped `GuardedStore` stands before the client.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from pcs_backend.conformal.calibration import Labelled, Promotion
from pcs_backend.conformal.shelf import Shelf
from pcs_backend.conformal.store import FULL, Artifact, by_digest
from pcs_backend.dedup.store import CONFLICTS_MAX, Candidate, Conflict, Escalation, Placed
from pcs_backend.errors import StoreFullError, StoreUnavailableError
from pcs_backend.outcome import Key, Outcome
from pcs_core.ports import WallClock
from simulation.trace import Trace

T = TypeVar("T")

PURGE_MAX = 100
_JUDGING = ("get", "put_first", "note_conflicts")
FATES = ("call lost", "answer lost", "answer late", "call late", "broken off in the middle", "defect")


class StoreServer:
    """The state.

    Attributes:
        is_down: Whether nothing is answered.
        faults_share: Share of calls that something happens to.
        stored: Told of each outcome when it is stored.
    """

    def __init__(self, dice: random.Random, trace: Trace) -> None:
        self.dice = dice
        self.trace = trace
        self.is_down = False
        self.faults_share = 0.0
        self.stored: Callable[[Outcome], None] = lambda outcome: None
        self._outcomes: dict[Key, Outcome] = {}
        self._escalations: dict[Key, None] = {}
        self._conflicts: dict[str, dict[tuple[str, str], Conflict]] = {}
        self.shelf = Shelf()

    def forget_all(self) -> None:
        """Lose everything, as an emptied keyspace does."""
        self._outcomes.clear()
        self._escalations.clear()
        self._conflicts.clear()
        self.shelf = Shelf()

    def get(self, keys: Sequence[Key], now_ms: float) -> list[Outcome | None]:
        """Step of `DedupStore.get`."""
        return [self._unexpired(key, now_ms) for key in keys]

    def put_first(self, candidate: Candidate, now_ms: float) -> Placed:
        """Step of `DedupStore.put_first`, for one outcome."""
        known = self._unexpired(candidate.outcome.key, now_ms)
        if known is not None:
            return Placed(known, first=False)
        self.write(candidate.outcome)
        return Placed(candidate.outcome, first=True)

    def write(self, outcome: Outcome) -> None:
        """Store an outcome and its place in the queue."""
        self._forget(outcome.key)
        self._outcomes[outcome.key] = outcome
        if outcome.escalated:
            self._escalations[outcome.key] = None
        self.stored(outcome)

    def note_conflicts(self, conflicts: Sequence[Conflict]) -> None:
        """Step of `DedupStore.note_conflicts`."""
        for conflict in conflicts:
            own = self._conflicts.setdefault(conflict.tenant, {})
            own.setdefault((conflict.pcs_id, conflict.fingerprint), conflict)
            if len(own) > CONFLICTS_MAX:
                del own[next(iter(own))]

    def list_conflicts(self, tenant: str, limit: int) -> list[Conflict]:
        """Step of `DedupStore.list_conflicts`."""
        return list(reversed(self._conflicts.get(tenant, {}).values()))[:limit]

    def list_escalations(self, tenant: str, limit: int, now_ms: float) -> list[Escalation]:
        """Step of `DedupStore.list_escalations`."""
        found = [self._unexpired(key, now_ms) for key in self._escalations if key.tenant == tenant]
        entries = [
            Escalation(tenant=tenant, pcs_id=each.pcs_id, body=each.body, stored_at_ms=each.stored_at_ms)
            for each in found
            if each is not None
        ]
        return sorted(entries, key=lambda each: each.stored_at_ms)[:limit]

    def ack_escalations(self, keys: Sequence[Key], now_ms: float) -> list[bool]:
        """Step of `DedupStore.ack_escalations`."""
        return [self._ack(key, now_ms) for key in keys]

    def purge_expired(self, now_ms: float) -> int:
        """Step of `DedupStore.purge_expired`."""
        expired = [key for key, each in self._outcomes.items() if each.expires_at_ms <= now_ms][:PURGE_MAX]
        for key in expired:
            self._forget(key)
        return len(expired)

    def _ack(self, key: Key, now_ms: float) -> bool:
        is_open = key in self._escalations and self._unexpired(key, now_ms) is not None
        if is_open:
            del self._escalations[key]
        return is_open

    def _unexpired(self, key: Key, now_ms: float) -> Outcome | None:
        outcome = self._outcomes.get(key)
        return outcome if outcome is not None and outcome.expires_at_ms > now_ms else None

    def _forget(self, key: Key) -> None:
        self._outcomes.pop(key, None)
        self._escalations.pop(key, None)


class StoreClient:
    """One process' connection to the server; a `DedupStore`."""

    def __init__(self, server: StoreServer, now: WallClock) -> None:
        self._server = server
        self._now = now
        self._is_open = False
        self.calibrations = CalibrationsClient(server, self.ask, now)

    async def open(self) -> None:
        """As `DedupStore.open`."""
        if self._server.is_down:
            await self._travel()
            raise StoreUnavailableError("the simulated store is down")
        self._is_open = True

    async def close(self) -> None:
        """As `DedupStore.close`."""
        self._is_open = False

    async def ping(self) -> None:
        """As `DedupStore.ping`."""
        await self.ask("ping", lambda: None)

    async def get(self, keys: Sequence[Key]) -> list[Outcome | None]:
        """As `DedupStore.get`."""
        return await self.ask("get", lambda: self._server.get(keys, self._now_ms()))

    async def put_first(self, candidates: Sequence[Candidate]) -> list[Placed]:
        """As `DedupStore.put_first`: each record whole, a batch that is broken off perhaps in part."""
        placed: list[Placed] = []

        def put(limit: int | None = None) -> list[Placed]:
            placed.extend(self._server.put_first(each, self._now_ms()) for each in candidates[:limit])
            return placed

        return await self.ask("put_first", put, in_part=put)

    async def note_conflicts(self, conflicts: Sequence[Conflict]) -> None:
        """As `DedupStore.note_conflicts`."""
        await self.ask("note_conflicts", lambda: self._server.note_conflicts(conflicts))

    async def list_conflicts(self, tenant: str, limit: int) -> list[Conflict]:
        """As `DedupStore.list_conflicts`."""
        return await self.ask("list_conflicts", lambda: self._server.list_conflicts(tenant, limit))

    async def list_escalations(self, tenant: str, limit: int) -> list[Escalation]:
        """As `DedupStore.list_escalations`."""
        return await self.ask(
            "list_escalations", lambda: self._server.list_escalations(tenant, limit, self._now_ms())
        )

    async def ack_escalations(self, keys: Sequence[Key]) -> list[bool]:
        """As `DedupStore.ack_escalations`."""
        return await self.ask("ack_escalations", lambda: self._server.ack_escalations(keys, self._now_ms()))

    async def purge_expired(self) -> int:
        """As `DedupStore.purge_expired`."""
        return await self.ask("purge_expired", lambda: self._server.purge_expired(self._now_ms()))

    async def durability_warnings(self) -> list[str]:
        """As `DedupStore.durability_warnings`."""
        return await self.ask("durability_warnings", list)

    def _now_ms(self) -> float:
        return self._now() * 1_000

    async def ask(
        self, name: str, step: Callable[[], T], in_part: Callable[[int], object] | None = None
    ) -> T:
        """Have the server do a step, if the way and the server let it."""
        server, dice = self._server, self._server.dice
        if not self._is_open:
            raise StoreUnavailableError("the simulated store was not opened")
        fate = ""
        if dice.random() < server.faults_share:
            fate = FATES[dice.randrange(len(FATES))]
            server.trace.fault(f"store: {fate}", name)
        await self._travel()
        if server.is_down:
            raise StoreUnavailableError("the simulated store is down")
        match fate:
            case "call lost":
                await asyncio.Event().wait()
            case "call late":  # it is done long after whoever asked gave up
                asyncio.get_running_loop().call_later(dice.uniform(4.0, 20.0), step)
                await asyncio.Event().wait()
            case "defect" if name in _JUDGING:  # elsewhere it would rightly end the process
                raise RuntimeError("a simulated defect")
            case "broken off in the middle":
                if in_part is not None:
                    in_part(dice.randint(0, 3))
                raise StoreUnavailableError("the simulated store broke off")
        result = step()
        if fate == "answer lost":
            await asyncio.Event().wait()
        await (asyncio.sleep(dice.uniform(3.0, 9.0)) if fate == "answer late" else self._travel())
        return result

    async def _travel(self) -> None:
        await asyncio.sleep(self._server.dice.uniform(0.000_1, 0.005))


class CalibrationsClient:
    """What a client asks of calibrations; a `CalibrationStore`."""

    def __init__(
        self, server: StoreServer, ask: Callable[[str, Callable[[], T]], Awaitable[T]], now: WallClock
    ) -> None:
        self._server = server
        self._ask = ask
        self._now = now

    async def put_labels(self, labels: Sequence[Labelled]) -> None:
        """As `CalibrationStore.put_labels`."""
        await self._ask("put_labels", lambda: self._server.shelf.put_labels(labels))

    async def list_labels(self, tenant: str | None, *, since_ms: int, limit: int) -> list[Labelled]:
        """As `CalibrationStore.list_labels`."""
        return await self._ask("list_labels", lambda: self._server.shelf.list_labels(tenant, since_ms, limit))

    async def keep(self, artifacts: Sequence[bytes], *, always: bool = False) -> None:
        """As `CalibrationStore.keep`."""
        held = by_digest(artifacts)

        def step() -> None:
            shelf = self._server.shelf
            if not always and not shelf.has_room(sum(map(shelf.lacks, held))):
                raise StoreFullError(FULL)
            for data in held.values():
                shelf.keep(Artifact(data, int(self._now() * 1_000)))

        await self._ask("keep", step)

    async def fetch(self, digests: Sequence[str]) -> list[bytes | None]:
        """As `CalibrationStore.fetch`."""
        return await self._ask("fetch", lambda: self._server.shelf.fetch(digests))

    async def promote(self, promotion: Promotion) -> bool:
        """As `CalibrationStore.promote`."""

        def step() -> bool:
            if may := self._server.shelf.may_promote(promotion):
                self._server.shelf.promote(promotion)
            return may

        return await self._ask("promote", step)

    async def list_promotions(self, scope: str | None, limit: int) -> list[Promotion]:
        """As `CalibrationStore.list_promotions`."""
        return await self._ask("list_promotions", lambda: self._server.shelf.list_promotions(scope, limit))

    async def purge(self, before_ms: int) -> int:
        """As `CalibrationStore.purge`."""
        return await self._ask("purge", lambda: self._server.shelf.purge(before_ms))
