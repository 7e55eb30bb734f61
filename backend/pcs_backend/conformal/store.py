"""Where labels, sets and promotions are kept: the dedup store's own database (memory: its log and snapshot).

A store translates its driver's errors to `StoreUnavailableError`, as `dedup.store` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pcs_backend.conformal.calibration import Labelled, Promotion

LABELS_MAX = 10_000
"""Labels kept a tenant and class; the oldest go first."""

ARTIFACT_BYTES_MAX = 1 << 20
PROMOTIONS_MAX = 1_000
"""Promotions kept a scope; the oldest go first."""


class CalibrationStore(Protocol):
    """What the gate, labels and recalibration ask of a store. What a call wrote is as durable as outcomes are."""

    async def put_labels(self, labels: Sequence[Labelled]) -> None:
        """Keep labels, one a (tenant, pcs_id): a later one replaces an earlier one, and counts as new."""

    async def list_labels(self, tenant: str | None, *, since_ms: int, limit: int) -> list[Labelled]:
        """Return labels that came at or after a time, newest first.

        Args:
            tenant: Whose; `None` for those of all tenants.
            since_ms: Of `labelled_at_ms`.
            limit: How many at most, a class.
        """

    async def keep(self, artifacts: Sequence[bytes]) -> None:
        """Keep bytes under their SHA-256: sets and parameters. Known ones stay as they are."""

    async def fetch(self, digests: Sequence[str]) -> list[bytes | None]:
        """Return what is kept under each digest, in order."""

    async def promote(self, promotion: Promotion) -> bool:
        """Bring a set that is kept into force, if its version is the next one of its scope; else return false."""

    async def list_promotions(self, scope: str | None, limit: int) -> list[Promotion]:
        """Return promotions of a scope, newest first; of `None` the newest one of every scope."""
