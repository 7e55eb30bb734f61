"""What a process knows of the sets in force: read once before anything is decided, and anew after a promotion."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from calibrations import promotion
from gates import set_of
from inboxes import Clock
from memory_stores import opened
from pcs_backend.conformal.calibration import CLASS_SCORES_MIN, GLOBAL_SCOPE, CalibrationSet
from pcs_backend.conformal.gate import Gate
from pcs_backend.conformal.in_force import Gates
from pcs_backend.conformal.store import CalibrationStore
from pcs_core.params import Params

ENOUGH = [0.5] * CLASS_SCORES_MIN


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[CalibrationStore]:
    async with opened(tmp_path, Clock()) as memory:
        yield memory.store.calibrations


async def promote(store: CalibrationStore, found: CalibrationSet, version: int) -> None:
    await store.keep([found.encoded])
    assert await store.promote(promotion(found, version)) is True


def named(gate: Gate) -> tuple[tuple[str, int] | None, tuple[str, int] | None]:
    """Return the scope and version of both sides."""
    sides = [
        None if each is None else (each.scope, each.set_name.version) for each in (gate.benign, gate.bad)
    ]
    return sides[0], sides[1]


async def test_each_tenant_has_the_sides_that_its_set_gives_and_else_the_global_ones(
    store: CalibrationStore,
) -> None:
    await promote(store, set_of(ENOUGH, ENOUGH), 1)
    await promote(store, set_of(ENOUGH, ENOUGH[1:], scope="plants"), 1)
    gates = Gates(store, Params(), decides=True)
    await gates.load()
    assert named(gates.gate("plants")) == (("tenant", 1), ("global", 1))
    assert named(gates.gate("others")) == (("global", 1), ("global", 1))
    await promote(store, set_of(ENOUGH, ENOUGH, scope="plants"), 2)
    await gates.load()
    assert named(gates.gate("plants")) == (("tenant", 1), ("global", 1)), "what was read once stays"
    await gates.refresh()
    assert named(gates.gate("plants")) == (("tenant", 2), ("tenant", 2))


async def test_a_set_that_is_not_what_the_store_calls_it_gives_nothing_and_is_named_once(
    store: CalibrationStore,
) -> None:
    await promote(store, set_of(ENOUGH, ENOUGH), 1)
    odd = CalibrationSet(
        scope="plants", score="of another version", alpha=0.1, delta=0.1, benign=(), bad=(), made_at_ms=1
    )
    await promote(store, odd, 1)
    gates = Gates(store, Params(), decides=True)
    with capture_logs() as logs:
        await gates.refresh()
        await gates.refresh()
    assert [(each["event"], each["scope"], each["version"]) for each in logs] == [
        ("a calibration set cannot be used", "plants", 1)
    ]
    assert named(gates.gate("plants")) == (("global", 1), ("global", 1))
    assert sorted(gates.sets) == [GLOBAL_SCOPE]


async def test_a_set_is_named_by_the_stores_digest_also_if_it_was_written_in_another_way(
    store: CalibrationStore,
) -> None:
    found = set_of(ENOUGH, ENOUGH)
    other_spelling = json.dumps(json.loads(found.encoded), indent=1).encode()
    await store.keep([other_spelling])
    digest = hashlib.sha256(other_spelling).hexdigest()
    assert await store.promote(msgspec.structs.replace(promotion(found, 1), digest=digest)) is True
    gates = Gates(store, Params(), decides=True)
    await gates.load()
    side = gates.gate("anybody").benign
    assert side is not None
    assert side.set_name.digest == digest != found.digest
