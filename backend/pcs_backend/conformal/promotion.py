"""Bringing sets into force, and going back. What a set that is in force decides is another room's.

A set is kept before it is named, so that whoever reads a promotion finds its set. Versions are taken one after the
other: of two promotions at the same moment one is first, and the other is tried anew above it.
"""

from __future__ import annotations

from pcs_backend.conformal.calibration import CalibrationSet, Promotion, decode_set
from pcs_backend.conformal.store import CalibrationStore
from pcs_backend.errors import BackendError

PROMOTION_TRIES_MAX = 8
"""Times a version is asked for while others take it."""


class PromotionError(BackendError):
    """A set cannot be brought into force; the message says why."""


async def set_in_force(store: CalibrationStore, scope: str) -> tuple[Promotion, CalibrationSet] | None:
    """Return the newest promotion of a scope and its set; `None` where there was none.

    Raises:
        PromotionError: The store has the promotion and not the set.
        StoreUnavailableError: The store is down.
    """
    newest = await store.list_promotions(scope, 1)
    if not newest:
        return None
    return newest[0], await fetch_set(store, newest[0].digest)


async def fetch_set(store: CalibrationStore, digest: str) -> CalibrationSet:
    """Return a set that is kept.

    Raises:
        PromotionError: It is not kept.
        StoreUnavailableError: The store is down.
    """
    (kept,) = await store.fetch([digest])
    if kept is None:
        raise PromotionError(f"the set {digest} is not kept any more")
    return decode_set(kept)


async def promote_set(
    store: CalibrationStore, calibration_set: CalibrationSet, *, by: str, note: str, now_ms: int
) -> Promotion:
    """Keep a set and bring it into force in its scope. On return both are as durable as outcomes are.

    Args:
        store: Where.
        calibration_set: The set.
        by: Who does it; empty for the service itself.
        note: Why, in a few words.
        now_ms: Milliseconds since 1970.

    Raises:
        PromotionError: Others kept taking the version that was asked for.
        StoreUnavailableError: The store is down; the set may be kept, and is not in force.
    """
    await store.keep([calibration_set.encoded])
    for _ in range(PROMOTION_TRIES_MAX):
        newest = await store.list_promotions(calibration_set.scope, 1)
        promotion = Promotion(
            scope=calibration_set.scope,
            version=newest[0].version + 1 if newest else 1,
            digest=calibration_set.digest,
            by=by,
            note=note,
            promoted_at_ms=now_ms,
        )
        if await store.promote(promotion):
            return promotion
    raise PromotionError("others promote in the same scope at the same time; nothing was promoted")
