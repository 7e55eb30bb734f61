"""What outcomes name lives as long as they do: sets and parameters, over a real engine; and its reader over a log that refuses."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from calibrations import calibration_set, promotion
from inboxes import Clock, HeldFiles
from memory_stores import opened
from pcs_backend.app import real_ports
from pcs_backend.config import load_config
from pcs_backend.conformal.in_force import REFRESH_INTERVAL_S, Gates
from pcs_backend.conformal.provenance import encode_params
from pcs_backend.conformal.store import digest_of
from pcs_backend.engine import Engine, offline
from pcs_backend.errors import UnavailableError
from pcs_core.params import Params

DAY_S = 86_400
PARAMS = encode_params(Params())


@contextlib.asynccontextmanager
async def engine(folder: Path, clock: Clock, **variables: str) -> AsyncIterator[Engine]:
    config = load_config({"DATA_DIR": str(folder), "DEDUP_TTL_DAYS": "14", **variables})
    built = Engine(config, real_ports()._replace(now=clock, monotonic=clock))
    async with offline(built, must_exist=False):
        yield built


async def test_sets_and_parameters_stay_while_outcomes_may_name_them(tmp_path: Path) -> None:
    clock = Clock()
    former, present, elsewhere = (calibration_set(number) for number in range(3))
    async with engine(tmp_path, clock, ENABLE_CALIBRATION_LOGGING="true") as now:
        assert now.gates is not None
        await now.gates.load()
        await now.calibrations.keep([former.encoded, present.encoded, elsewhere.encoded])
        for version, each in enumerate((former, present), 1):
            at_ms = int(clock() * 1_000)
            assert await now.calibrations.promote(promotion(each, version, at_ms=at_ms))
            clock.move(3 * DAY_S)
        days = {"params": 0, "former": 0, "present": 0, "elsewhere": 0}
        digests = [digest_of(PARAMS), former.digest, present.digest, elsewhere.digest]
        for _ in range(40):
            await now.purge()
            found = await now.calibrations.fetch(digests)
            for name, each in zip(days, found, strict=True):
                days[name] += each is not None
            clock.move(DAY_S)
    # `elsewhere` was kept 6 days before the first of these days, `former` in force until 3 days before it. A lifetime of 14
    # days, and one more, follow, each with the day on which it ends.
    assert days == {"params": 40, "former": 13, "present": 40, "elsewhere": 10}


async def test_parameters_of_an_earlier_start_go_at_last(tmp_path: Path) -> None:
    clock = Clock()
    async with engine(tmp_path, clock, ENABLE_CALIBRATION_LOGGING="true") as now:
        assert now.gates is not None
        await now.gates.load()
    clock.move(14 * DAY_S)
    async with engine(tmp_path, clock) as now:
        assert now.gates is None
        await now.purge()
        assert await now.calibrations.fetch([digest_of(PARAMS)]) == [PARAMS]
        clock.move(2 * DAY_S)
        await now.purge()
        assert await now.calibrations.fetch([digest_of(PARAMS)]) == [None]


async def test_a_log_that_refuses_does_not_end_the_reader_of_sets(tmp_path: Path) -> None:
    """Its end would stop the process, where every submit is 503 until there is room again."""
    files, slept_s = HeldFiles(), []
    async with opened(tmp_path, Clock(), files) as store:
        gates = Gates(store.store.calibrations, Params(), decides=True)
        files.fail["append"] = errno.ENOSPC
        with pytest.raises(UnavailableError):
            await gates.load()

        async def sleep(seconds: float) -> None:
            slept_s.append(seconds)
            if len(slept_s) == 1:
                files.fail.clear()
            else:
                await asyncio.Event().wait()

        reading = asyncio.create_task(gates.keep_fresh(sleep))
        while len(slept_s) < 2:
            await asyncio.sleep(0)
            assert not reading.done()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert slept_s == [REFRESH_INTERVAL_S] * 2
        assert gates.gate("anyone").decides
        assert await store.store.calibrations.fetch([digest_of(PARAMS)]) == [PARAMS]
