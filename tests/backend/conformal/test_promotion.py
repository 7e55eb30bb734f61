"""Sets coming into force: versions one after the other, the set kept before it is named, and the way back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from calibrations import calibration_set
from inboxes import running_rig
from outcomes import NOW_MS
from pcs_backend.conformal.calibration import CalibrationSet, Promotion
from pcs_backend.conformal.promotion import PromotionError, promote_set, set_in_force, set_to_return_to
from pcs_backend.conformal.store import CalibrationStore

SCOPE = "default"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[CalibrationStore]:
    async with running_rig(tmp_path / "wal") as rig:
        yield rig.store.calibrations


async def promote(store: CalibrationStore, found: CalibrationSet) -> Promotion:
    return await promote_set(store, found, by="anna", note="why", now_ms=NOW_MS)


async def test_set_is_in_force_with_the_next_version_and_is_found_again(store: CalibrationStore) -> None:
    assert await set_in_force(store, SCOPE) is None
    for version in (1, 2):
        promotion = await promote(store, calibration_set(version))
        assert (promotion.version, promotion.by, promotion.note) == (version, "anna", "why")
        assert await set_in_force(store, SCOPE) == (promotion, calibration_set(version))
    assert await set_in_force(store, "other") is None


async def test_of_many_at_the_same_moment_each_has_a_version_of_its_own(store: CalibrationStore) -> None:
    promotions = await asyncio.gather(*(promote(store, calibration_set(number)) for number in range(6)))
    assert sorted(each.version for each in promotions) == [1, 2, 3, 4, 5, 6]
    newest = max(promotions, key=lambda each: each.version)
    assert (await store.list_promotions(SCOPE, 1)) == [newest]


async def test_way_back_is_to_the_set_before_or_a_named_one_or_none(store: CalibrationStore) -> None:
    with pytest.raises(PromotionError, match="no set was ever in force"):
        await set_to_return_to(store, SCOPE, None, NOW_MS)
    await promote(store, calibration_set(1))
    with pytest.raises(PromotionError, match="--to 0"):
        await set_to_return_to(store, SCOPE, None, NOW_MS)
    await promote(store, calibration_set(2))
    await promote(store, calibration_set(2))  # again: going back passes both
    assert await set_to_return_to(store, SCOPE, None, NOW_MS) == (calibration_set(1), 1)
    assert await set_to_return_to(store, SCOPE, 2, NOW_MS) == (calibration_set(2), 2)
    with pytest.raises(PromotionError, match="version 9 is not among"):
        await set_to_return_to(store, SCOPE, 9, NOW_MS)
    nothing, version = await set_to_return_to(store, SCOPE, 0, NOW_MS + 7)
    assert (nothing, version) == (
        msgspec.structs.replace(calibration_set(2), benign=(), bad=(), made_at_ms=NOW_MS + 7),
        0,
    )
