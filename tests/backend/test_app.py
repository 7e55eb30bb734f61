"""The service between its states: real HTTP over a disk that the test holds where a start or a stop takes long."""

from __future__ import annotations

import asyncio
import stat
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from inboxes import WAIT_S, HeldFiles, signed
from pcs_backend.app import Service, real_ports
from pcs_backend.config import load_config
from pcs_backend.errors import BackendError
from pcs_backend.running import run_until
from pcs_core.wal import Files, PosixFiles

pytestmark = [pytest.mark.slow]

STARTING = "starting: the log is being read"


class SlowToOpen(HeldFiles):
    """A disk on which reading the log takes until the test lets it end."""

    def __init__(self) -> None:
        super().__init__()
        self.may_open = threading.Event()

    def lock(self, folder: str) -> int:
        if Path(folder).name == "0":  # the log's folder, locked off the event loop
            assert self.may_open.wait(WAIT_S)
        return super().lock(folder)


class Serving:
    """A service in this process."""

    def __init__(self, data_dir: Path, files: Files, **variables: str) -> None:
        config = load_config({"DATA_DIR": str(data_dir), "PORT": "0", **variables})
        self.service = Service(config, real_ports()._replace(files=files))
        self.stop = asyncio.Event()
        self.url = ""
        self._listening = asyncio.Event()
        self.task = asyncio.create_task(self.service.run(self.stop, self._announce))

    def _announce(self, url: str) -> None:
        self.url = url
        self._listening.set()

    async def listening(self) -> None:
        await asyncio.wait_for(self._listening.wait(), WAIT_S)

    async def ready(self) -> None:
        await self.listening()
        async with asyncio.timeout(WAIT_S):
            while self.service.not_ready() is not None:
                await asyncio.sleep(0)


@asynccontextmanager
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=WAIT_S)) as session:
        yield session


async def get(session: aiohttp.ClientSession, url: str) -> tuple[int, str]:
    async with session.get(url) as response:
        document = await response.json(content_type=None)
        return response.status, document.get("detail", "")


async def submit(session: aiohttp.ClientSession, url: str, body: bytes) -> tuple[int, str]:
    headers = {"Content-Type": "application/json"}
    async with session.post(f"{url}/v1/pcs/submit", data=body, headers=headers) as response:
        document = await response.json(content_type=None)
        return response.status, document.get("detail", "")


async def test_ready_is_red_until_the_log_is_read(tmp_path: Path) -> None:
    """Contract §5: alive at once, and nothing is taken before the WAL was scanned."""
    files = SlowToOpen()
    serving = Serving(tmp_path, files)
    await serving.listening()
    async with client() as session:
        assert await get(session, f"{serving.url}/health/live") == (200, "")
        assert await get(session, f"{serving.url}/health/startup") == (503, STARTING)
        assert await get(session, f"{serving.url}/health/ready") == (503, STARTING)
        assert await submit(session, serving.url, signed()) == (503, STARTING)
        files.may_open.set()
        await serving.ready()
        assert await get(session, f"{serving.url}/health/startup") == (200, "")
        assert await get(session, f"{serving.url}/health/ready") == (200, "")
        assert (await submit(session, serving.url, signed()))[0] == 200
    serving.stop.set()
    await serving.task


async def test_stopping_answers_what_is_judged_and_takes_nothing_more(tmp_path: Path) -> None:
    files = HeldFiles()
    serving = Serving(tmp_path, files)
    await serving.ready()
    async with client() as session:
        files.hold()
        judging = asyncio.create_task(submit(session, serving.url, signed()))
        await files.reached()
        serving.stop.set()
        async with asyncio.timeout(WAIT_S):
            while serving.service.not_ready() != "the service is stopping":
                await asyncio.sleep(0)
        with pytest.raises(aiohttp.ClientConnectorError):
            await get(session, f"{serving.url}/health/ready")
        assert judging.done() is False
        files.release()
        assert (await judging)[0] == 200
        await serving.task


async def test_stop_that_the_disk_holds_up_ends_with_a_reason(tmp_path: Path) -> None:
    files = HeldFiles()
    serving = Serving(tmp_path, files, DRAIN_TIMEOUT_S="0.2")
    await serving.ready()
    async with client() as session:
        files.hold()
        judging = asyncio.create_task(submit(session, serving.url, signed()))
        await files.reached()
        serving.stop.set()
        releasing = asyncio.get_running_loop().call_later(1, files.release)
        with pytest.raises(BackendError, match=r"\Athe disk did not take the last frames"):
            await serving.task
        releasing.cancel()
        files.release()
        with pytest.raises(aiohttp.ClientError):
            await judging


async def test_log_that_failed_turns_ready_red_and_takes_nothing(tmp_path: Path) -> None:
    files = HeldFiles()
    serving = Serving(tmp_path, files)
    await serving.ready()
    async with client() as session:
        files.fail["sync_data"] = 5
        assert (await submit(session, serving.url, signed()))[0] == 503
        files.fail.clear()
        reason = "the log takes nothing: sync failed: Input/output error"
        assert await get(session, f"{serving.url}/health/ready") == (503, reason)
        assert await submit(session, serving.url, signed()) == (503, reason)
        assert await get(session, f"{serving.url}/health/live") == (200, "")
    serving.stop.set()
    await serving.task


async def test_administration_socket_is_its_owners_alone(tmp_path: Path) -> None:
    serving = Serving(tmp_path, PosixFiles())
    await serving.ready()
    async with asyncio.timeout(WAIT_S):
        while not (tmp_path / "admin.sock").exists():  # made after the logs were read
            await asyncio.sleep(0)
    mode = (tmp_path / "admin.sock").stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    serving.stop.set()
    await serving.task
    assert not (tmp_path / "admin.sock").exists()


async def test_free_space_is_watched_while_serving(tmp_path: Path) -> None:
    free_bytes = [10**9]
    turns = asyncio.Queue()

    async def sleep(_delay_s: float) -> None:
        await asyncio.sleep(0)  # or one task alone would take every turn that waits
        await turns.get()

    config = load_config({"DATA_DIR": str(tmp_path), "PORT": "0", "DISK_FREE_MIN_BYTES": "1000"})
    ports = real_ports()._replace(free_bytes=lambda _path: free_bytes[0], sleep=sleep)
    service, stop = Service(config, ports), asyncio.Event()
    running = asyncio.create_task(service.run(stop, lambda _url: None))
    async with asyncio.timeout(WAIT_S):
        for free, reason in ((10**9, None), (999, "the disk is nearly full"), (1_000, None)):
            free_bytes[0] = free
            while service.not_ready() != reason:
                turns.put_nowait(None)
                await asyncio.sleep(0)
    stop.set()
    await running


async def test_stop_ends_also_a_task_whose_library_takes_the_cancellation_for_its_own() -> None:
    taken: list[str] = []

    async def ping_for_ever() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if taken:
                    raise
                taken.append("as a time limit of its own")

    async def drain() -> None:
        """Nothing is under way."""

    stop = asyncio.Event()
    asyncio.get_running_loop().call_soon(stop.set)
    async with asyncio.timeout(WAIT_S):
        await run_until(stop, [("pings", ping_for_ever())], drain)
    assert taken == ["as a time limit of its own"]


async def test_last_snapshot_that_takes_longer_than_a_stop_may_is_left_out(tmp_path: Path) -> None:
    """What it would have held is in the log: the next start knows the record."""

    class SlowSnapshots(HeldFiles):
        def replace(self, path: str, chunks: Iterable[bytes]) -> None:
            if not path.endswith(".snap"):
                return super().replace(path, chunks)
            return super().replace(path, self.slowly(chunks))

        def slowly(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
            for number, chunk in enumerate(chunks):
                if number == 1:
                    too_late.wait(WAIT_S)
                yield chunk

    too_late = threading.Event()
    serving = Serving(tmp_path, SlowSnapshots(), DRAIN_TIMEOUT_S="0.2")
    await serving.ready()
    asyncio.get_running_loop().call_later(1.0, too_late.set)
    async with client() as session:
        assert (await submit(session, serving.url, signed()))[0] == 200
    serving.stop.set()
    await serving.task
    assert [path.name for path in (tmp_path / "memory").iterdir()] == []
    again = Serving(tmp_path, PosixFiles())
    await again.ready()
    async with (
        client() as session,
        session.post(
            f"{again.url}/v1/pcs/submit", data=signed(), headers={"Content-Type": "application/json"}
        ) as response,
    ):
        assert response.headers["Idempotent-Replayed"] == "true"
    again.stop.set()
    await again.task
