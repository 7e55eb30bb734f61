"""What the two objectives and the disk are measured by: which answers and which syncs are timed."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from pathlib import Path

import pytest

from inboxes import SALT, Clock, HeldFiles, request, running_rig, signed, statuses
from pcs_backend.dedup.store import Candidate, Placed
from pcs_backend.effects.metrics import Metrics
from pcs_backend.errors import InboxUnavailableError, StoreUnavailableError
from pcs_backend.inbox.inbox import Inbox
from pcs_backend.offload import ThreadOffload
from pcs_core.wal import Wal


def timed(metrics: Metrics, name: str) -> tuple[float | None, float | None]:
    """Return how often and how long in all."""
    value = metrics.registry.get_sample_value
    return value(f"flk_{name}_seconds_count"), value(f"flk_{name}_seconds_sum")


async def test_outcomes_are_timed_replays_included_and_refusals_are_not(tmp_path: Path) -> None:
    async with running_rig(tmp_path) as rig:
        put_first = rig.store.put_first

        async def put_slowly(candidates: Sequence[Candidate]) -> list[Placed]:
            rig.clock.move(0.25)
            return await put_first(candidates)

        rig.store.put_first = put_slowly
        assert statuses(await rig.submit(signed(epoch=1), b"{", signed(epoch=2))) == [200, 400, 200]
        assert timed(rig.metrics, "verify") == (2, 0.5)
        assert statuses(await rig.submit(signed(epoch=1))) == [200]
        assert timed(rig.metrics, "verify") == (3, 0.75)
        rig.store.moods["put_first"] = StoreUnavailableError("the store is down")
        assert statuses(await rig.submit(signed(epoch=3))) == [503]
        assert timed(rig.metrics, "verify") == (3, 0.75)


async def test_objective_is_a_bucket(tmp_path: Path) -> None:
    async with running_rig(tmp_path) as rig:
        await rig.submit(signed())
        assert rig.metrics.registry.get_sample_value("flk_verify_seconds_bucket", {"le": "0.2"}) == 1


async def test_syncs_of_the_log_are_timed_unless_they_fail(tmp_path: Path) -> None:
    files, clock, metrics, offload = HeldFiles(), Clock(), Metrics(), ThreadOffload("log")
    inbox = Inbox(Wal(str(tmp_path), files, lambda _size: SALT), offload, lambda: metrics.time_sync(clock))
    await inbox.open(lambda _position, _frame: None)
    writing = asyncio.create_task(inbox.run())
    files.hold()
    appending = asyncio.create_task(inbox.append([request(), request()]))
    await files.reached()
    clock.move(0.5)
    files.release()
    await appending
    assert timed(metrics, "wal_sync") == (1, 0.5)
    files.fail["sync_data"] = errno.EIO
    with pytest.raises(InboxUnavailableError):
        await inbox.append([request()])
    assert timed(metrics, "wal_sync") == (1, 0.5)
    inbox.stop()
    await writing
    await inbox.close()
    offload.close()
