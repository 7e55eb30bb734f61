"""The one Protocol over all dedup stores, and the values that cross it.

Every operation takes a batch. The only write of outcomes is "put these first, tell me the winners": a store has no way
to change an outcome. An outcome, its escalation entry and its expiry are written in one atomic step.

A store translates its driver's errors to `StoreUnavailableError`, so that nothing above knows a driver; the message
holds neither a value nor a connection string. A store that is down fails closed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from pcs_backend.conformal.store import CalibrationStore
from pcs_backend.outcome import Key, Outcome

CONFLICTS_MAX = 10_000
"""Conflicts kept a tenant; the oldest go first."""

LIST_MAX = 1_000
"""Entries one listing returns at most."""


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """An outcome that wants to be first.

    Attributes:
        outcome: What would be answered.
        request_sequence: The request's frame in this process's inbox, or `None` for one of another worker's. A store
            that keeps its outcomes in the inbox (memory) names it beside the outcome.
    """

    outcome: Outcome
    request_sequence: int | None


class Placed(msgspec.Struct, frozen=True, gc=False):
    """What became of a candidate.

    Attributes:
        winner: The outcome that counts: the candidate's own if it was first.
        first: Whether this call stored it.
    """

    winner: Outcome
    first: bool


class Conflict(msgspec.Struct, frozen=True, kw_only=True):
    """One stream summarised in two ways: a known `pcs_id` with another fingerprint."""

    tenant: str
    pcs_id: str
    fingerprint: str
    seen_at_ms: int


class Escalation(msgspec.Struct, frozen=True, kw_only=True):
    """An open entry of the escalation queue: one a (tenant, pcs_id), until acknowledged or expired."""

    tenant: str
    pcs_id: str
    body: bytes
    stored_at_ms: int


class DedupStore(Protocol):
    """What the pipeline asks of a store. All times come from the injected clock, expiry included."""

    @property
    def calibrations(self) -> CalibrationStore:
        """What verdicts are calibrated with, in the same database."""

    async def open(self) -> None:
        """Connect and prepare. May be called again after it failed.

        Raises:
            StoreUnavailableError: The store is down.
        """

    async def close(self) -> None:
        """Give connections back. Safe after a failed `open` and when called twice."""

    async def ping(self) -> None:
        """Check that the store answers.

        Raises:
            StoreUnavailableError: It does not.
        """

    async def get(self, keys: Sequence[Key]) -> list[Outcome | None]:
        """Return the unexpired outcome of each key, in order."""

    async def put_first(self, candidates: Sequence[Candidate]) -> list[Placed]:
        """Store each outcome unless its key has an unexpired one; return the winners in order.

        Of equal keys within the batch the first wins. An outcome with status 202 enters the escalation queue in the
        same atomic step. On return what was stored is as durable as the store is configured to be.

        Raises:
            OutcomeUnreadableError: An outcome that was there first cannot be read; its `placed` tells of the others,
                which are stored all the same.
            StoreUnavailableError: The store is down. Some may be stored, each of them whole.
        """

    async def note_conflicts(self, conflicts: Sequence[Conflict]) -> None:
        """Keep conflicts, once a (tenant, pcs_id, fingerprint), at most `CONFLICTS_MAX` a tenant."""

    async def list_conflicts(self, tenant: str, limit: int) -> list[Conflict]:
        """Return up to `limit` conflicts, newest first."""

    async def list_escalations(self, tenant: str, limit: int) -> list[Escalation]:
        """Return up to `limit` open escalations, oldest first."""

    async def ack_escalations(self, keys: Sequence[Key]) -> list[bool]:
        """Take entries off the queue; returns for each whether it was there. The outcome stays."""

    async def purge_expired(self) -> int:
        """Remove what has expired, a bounded number a call; returns how many outcomes went."""

    async def durability_warnings(self) -> list[str]:
        """Say which of the store's own settings break durability, one sentence each; empty if none does."""
