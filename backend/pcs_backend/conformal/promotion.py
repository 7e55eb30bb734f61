"""Bringing sets into force, and going back. What a set that is in force decides is another room's.

A set is kept before it is named, so that whoever reads a promotion finds its set. Versions are taken one after the
other: of two promotions at the same moment one is first, and the other is tried anew above it.
"""

from __future__ import annotations

import msgspec

from pcs_backend.conformal.calibration import CalibrationSet, Promotion, decode_set
from pcs_backend.conformal.store import PROMOTIONS_MAX, Calibrations
from pcs_backend.errors import BackendError

PROMOTION_TRIES_MAX = 8
"""Times a version is asked for while others take it."""


class PromotionError(BackendError):
    """A set cannot be brought into force; the message says why."""


async def set_in_force(store: Calibrations, scope: str) -> tuple[Promotion, CalibrationSet] | None:
    """Return the newest promotion of a scope and its set; `None` where there was none.

    Raises:
        PromotionError: The store has the promotion and not the set.
        StoreUnavailableError: The store is down.
    """
    newest = await store.list_promotions(scope, 1)
    if not newest:
        return None
    return newest[0], await fetch_set(store, newest[0].digest)


async def fetch_set(store: Calibrations, digest: str) -> CalibrationSet:
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
    store: Calibrations, calibration_set: CalibrationSet, *, by: str, note: str, now_ms: int
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


async def set_to_return_to(
    store: Calibrations, scope: str, version: int | None, now_ms: int
) -> tuple[CalibrationSet, int]:
    """Return a set that was in force, and its version.

    Args:
        store: Where promotions are.
        scope: A tenant, or `GLOBAL_SCOPE`.
        version: Whose set; 0 for one without scores, which leaves every decision to other sets and the fixed checks;
            `None` for the newest whose set is not the one in force.
        now_ms: Milliseconds since 1970.

    Raises:
        PromotionError: There was no such version, or its set is not kept any more.
        StoreUnavailableError: The store is down.
    """
    promotions = await store.list_promotions(scope, PROMOTIONS_MAX)
    if not promotions:
        raise PromotionError("no set was ever in force in this scope")
    if version == 0:
        last = await fetch_set(store, promotions[0].digest)
        return msgspec.structs.replace(last, benign=(), bad=(), trigger="by_hand", made_at_ms=now_ms), 0
    for each in promotions:
        if each.version == version or (version is None and each.digest != promotions[0].digest):
            return await fetch_set(store, each.digest), each.version
    if version is None:
        raise PromotionError("no other set was in force before; --to 0 goes back to none")
    raise PromotionError(f"version {version} is not among the promotions of this scope that are kept")
