"""A disk that fills up under load, on a file system that is really small: 503 before it is full, nothing lost, and back.

As root on ext4 of its own; otherwise on a quota below a folder, which the summary of the run says.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pcs_records
from processes import HMAC_KEY, WAIT_TIMEOUT_S, Answer, Backend, Client
from servers import RedisServer
from small_disk import SmallDisk, small_disk

pytestmark = [pytest.mark.slow]

LAUNCHER = str(Path(__file__).parents[1] / "faulty_command.py")
CLIENTS = 8
RECORD_BYTES = 100_000
MIB = 1 << 20
WATERMARK_BYTES = 8 * MIB
FULL_ENOUGH = "the disk is nearly full"
TITLE = "a nearly full disk: test | level | free at the first refusal"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path) as found:
        yield found


def backend_on(disk: SmallDisk, **variables: str) -> Backend:
    """The shipped command, started by the launcher that makes segments small."""
    backend = Backend(disk.folder / "data", TEST_SEGMENT_BYTES=str(MIB), **disk.variables, **variables)
    backend.command = [sys.executable, LAUNCHER, "pcs-backend", "serve"]
    return backend


def large(epoch: int) -> bytes:
    """Return a record with much of what this version ignores."""
    document = pcs_records.document(epoch=epoch) | {"padding": "x" * RECORD_BYTES}
    return pcs_records.body(pcs_records.sign(document, hmac_key=HMAC_KEY.encode()))


class Load:
    """What clients sent and were answered."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.taken: dict[int, Answer] = {}
        self.kept: list[int] = []
        self.refused: list[str] = []
        self._epoch = 0

    async def send(self) -> str:
        """Send one more; returns why it was refused, or nothing."""
        self._epoch += 1
        epoch = self._epoch
        answer = await self._client.submit(large(epoch))
        if answer.status == 200:
            self.taken[epoch] = answer
            return ""
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        detail = str(answer.document["detail"])
        if "dedup store" in detail:
            self.kept.append(epoch)
            return ""
        self.refused.append(detail)
        return detail

    async def until_refused(self) -> None:
        """Send from many clients until each of them was refused."""

        async def sender() -> None:
            while not await self.send():
                pass

        async with asyncio.timeout(3 * WAIT_TIMEOUT_S):
            await asyncio.gather(*(sender() for _ in range(CLIENTS)))

    async def until_taken(self) -> None:
        async with asyncio.timeout(WAIT_TIMEOUT_S):
            while await self.send():
                pass

    async def assert_known(self, epochs: list[int]) -> None:
        for epoch in epochs:
            async with asyncio.timeout(WAIT_TIMEOUT_S):
                # Replays fill the disk too, perhaps faster than it is cleared.
                while (again := await self._client.submit(large(epoch))).status == 503:
                    assert again.document["detail"] == FULL_ENOUGH
            assert (again.status, again.replayed) == (200, True)
            if epoch in self.taken:
                assert again.body == self.taken[epoch].body


async def test_intake_stops_before_the_disk_is_full_and_resumes_when_space_returns(
    disk: SmallDisk, hmac_variables: dict[str, str], record_property: pytest.RecordProperty
) -> None:
    backend = backend_on(disk, DISK_FREE_MIN_BYTES=str(WATERMARK_BYTES), **hmac_variables)
    with backend.start():
        async with Client(backend) as client:
            load = Load(client)
            disk.fill(WATERMARK_BYTES + 6 * MIB)
            await load.until_refused()
            assert set(load.refused) == {FULL_ENOUGH}, "the disk itself never had to refuse"
            free_bytes = disk.free_bytes
            assert WATERMARK_BYTES / 2 < free_bytes < WATERMARK_BYTES
            assert len(load.taken) * RECORD_BYTES > 4 * MIB, "it was filled up by what was taken"
            ready = await client.get("/health/ready")
            assert (ready.status, ready.document["detail"]) == (503, FULL_ENOUGH)
            assert [await load.send() for _ in range(20)] == [FULL_ENOUGH] * 20
            assert disk.free_bytes >= free_bytes - MIB, "what is refused takes no room"
            disk.relieve()
            await load.until_taken()
            assert (await client.get("/health/ready")).status == 200
            await load.assert_known(list(load.taken))
        backend.kill()
    with backend.start():
        async with Client(backend) as client:
            load._client = client
            await load.assert_known(list(load.taken))
        assert backend.stop() == 0
    record_property(
        TITLE, f"watermark of {WATERMARK_BYTES >> 20} MiB | {disk.level} | {free_bytes / MIB:.1f} MiB"
    )


async def test_a_disk_that_is_full_to_the_brim_loses_nothing(
    disk: SmallDisk, hmac_variables: dict[str, str], record_property: pytest.RecordProperty
) -> None:
    """Without a watermark the disk itself refuses; that is 503 too, and what was written of it is cut off."""
    backend = backend_on(disk, DISK_FREE_MIN_BYTES="0", **hmac_variables)
    with backend.start():
        async with Client(backend) as client:
            load = Load(client)
            disk.fill(4 * MIB)
            await load.until_refused()
            free_bytes = disk.free_bytes
            assert all("No space left on device" in each for each in load.refused)
            for _ in range(20):
                await load.send()
            disk.relieve()
            await load.until_taken()
        backend.kill()
    with backend.start():
        async with Client(backend) as client:
            load._client = client
            await load.assert_known(list(load.taken))
            await load.until_taken()
        assert backend.stop() == 0
    assert b"damaged" not in backend.output
    record_property(TITLE, f"no watermark | {disk.level} | {free_bytes / MIB:.1f} MiB")


async def test_retention_never_takes_a_request_without_an_outcome_however_full_the_disk_is(
    disk: SmallDisk, hmac_variables: dict[str, str], record_property: pytest.RecordProperty
) -> None:
    """The store is down and the disk fills with what waits for it; when the store is back, the space comes back too."""
    with RedisServer(appendonly="yes", appendfsync="always") as redis:
        backend = backend_on(
            disk,
            DISK_FREE_MIN_BYTES=str(WATERMARK_BYTES),
            WAL_RETENTION_DAYS="0.000001",
            TEST_HOUSEKEEPING_S="0.1",
            DEDUP_BACKEND="redis",
            REDIS_ADDR=redis.address,
            **hmac_variables,
        )
        with backend.start():
            async with Client(backend) as client:
                load = Load(client)
                redis.stop()
                await client.wait_for_metric("flk_store_up", 0)
                disk.fill(WATERMARK_BYTES + 6 * MIB)
                await load.until_refused()
                assert set(load.refused) == {FULL_ENOUGH}
                free_bytes = disk.free_bytes
                assert len(load.kept) * RECORD_BYTES > 4 * MIB
                metrics = await client.metrics()
                assert metrics["flk_open_requests"] == len(load.kept)
                size_bytes = metrics["flk_wal_size_bytes"]
                for _ in range(10):  # housekeeping comes round several times
                    await asyncio.sleep(0.1)
                    metrics = await client.metrics()
                    assert metrics["flk_wal_size_bytes"] == size_bytes
                    assert metrics["flk_open_requests"] == len(load.kept)
                redis.start()
                await client.wait_for_metric("flk_open_requests", 0)
                await load.until_taken()
                async with asyncio.timeout(WAIT_TIMEOUT_S):
                    while disk.free_bytes < free_bytes + 3 * MIB:
                        await client.get("/health/live")
                await load.assert_known([*load.kept, *load.taken])
            assert backend.stop() == 0
    record_property(TITLE, f"store down, retention | {disk.level} | {free_bytes / MIB:.1f} MiB")
