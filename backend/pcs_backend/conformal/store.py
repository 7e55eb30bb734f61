"""Where labels, sets and promotions are kept: the dedup store's own database (memory: its log and snapshot).

A store translates its driver's errors to `StoreUnavailableError`, as `dedup.store` says. Every call may raise an
`UnavailableError`: what it was to write may be kept then, in part, and the same call again does no harm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from heapq import merge
from itertools import islice
from typing import NamedTuple, Protocol

from pcs_backend.conformal.calibration import Labelled, Promotion

LABELS_MAX = 10_000
"""Labels kept a tenant and class; the oldest go first."""

ARTIFACT_BYTES_MAX = 1 << 20

ARTIFACTS_MAX = 2_000
"""Artifacts kept; beyond it new ones are refused, because outcomes may name each of the others."""

ARTIFACT_RENEWED_MS = 24 * 3_600_000
"""How old the word that an artifact is needed must be for the next word to be written down."""

PROMOTIONS_MAX = 1_000
"""Promotions kept a scope; the oldest go first."""

FULL = "the store holds as many calibration sets as it may"


class Artifact(NamedTuple):
    """Bytes that are kept under their SHA-256.

    Attributes:
        data: The bytes.
        needed_ms: When they were last known to be needed, milliseconds since 1970: kept, brought into force, or in force
            until then.
    """

    data: bytes
    needed_ms: int


class Calibrations(Protocol):
    """What the gate, labels and recalibration ask of a store. What a call wrote is as durable as outcomes are."""

    async def put_labels(self, labels: Sequence[Labelled]) -> None:
        """Keep labels, one a (tenant, pcs_id): a later one replaces an earlier one, and counts as new.

        Later is what is put later. Which are the oldest is by `labelled_at_ms`.
        """

    async def list_labels(self, tenant: str | None, *, since_ms: int, limit: int) -> list[Labelled]:
        """Return labels that came at or after a time, newest first; of equal times by tenant and pcs_id, backwards.

        Args:
            tenant: Whose; `None` for those of all tenants.
            since_ms: Of `labelled_at_ms`.
            limit: How many at most, a class.
        """

    async def keep(self, artifacts: Sequence[bytes], *, always: bool = False) -> None:
        """Keep bytes under their SHA-256: sets and parameters. Known ones stay as they are, and count as kept now.

        Who needs bytes that no promotion in force names keeps them again now and then, within the lifetime of outcomes.

        Args:
            artifacts: The bytes.
            always: Whether beyond the bound too: parameters, without which nothing can be judged. Only a start with other
                ones makes more of them.

        Raises:
            StoreFullError: There are `ARTIFACTS_MAX` already; the new ones are not kept.
            ValueError: One is larger than `ARTIFACT_BYTES_MAX`.
        """

    async def fetch(self, digests: Sequence[str]) -> list[bytes | None]:
        """Return what is kept under each digest, in order."""

    async def promote(self, promotion: Promotion) -> bool:
        """Bring a set that is kept into force, if its version is the next one of its scope; else return false."""

    async def list_promotions(self, scope: str | None, limit: int) -> list[Promotion]:
        """Return promotions of a scope, newest first; of `None` the newest one of every scope, in order of scopes."""


class CalibrationStore(Calibrations, Protocol):
    """That, and what housekeeping asks."""

    async def purge(self, before_ms: int) -> int:
        """Remove artifacts that are not in force and were last needed before a time; returns how many went."""


def digest_of(artifact: bytes) -> str:
    """Return what an artifact is kept under: its SHA-256, 64 hex digits."""
    return hashlib.sha256(artifact).hexdigest()


def by_digest(artifacts: Iterable[bytes]) -> dict[str, bytes]:
    """Return artifacts by what they are kept under.

    Raises:
        ValueError: One is larger than `ARTIFACT_BYTES_MAX`.
    """
    found = {digest_of(each): each for each in artifacts}
    size_bytes = max(map(len, found.values()), default=0)
    if size_bytes > ARTIFACT_BYTES_MAX:
        raise ValueError(f"artifact: found {size_bytes} bytes; allowed: up to {ARTIFACT_BYTES_MAX}")
    return found


def newest_first(listings: Iterable[Iterable[Labelled]], limit: int | None = None) -> list[Labelled]:
    """Return the labels of several listings, each newest first, as one such listing."""
    return list(islice(merge(*listings, key=_age, reverse=True), limit))


def _age(label: Labelled) -> tuple[int, str, str]:
    return label.labelled_at_ms, label.tenant, label.pcs_id
