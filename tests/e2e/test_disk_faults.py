"""Running processes on a disk that fails: what they answer and say, how they end, and what is there afterwards."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

import pcs_records
from processes import HMAC_KEY, WAIT_TIMEOUT_S, Answer, Backend, Client, clean_environment

pytestmark = [pytest.mark.slow]

LAUNCHER = str(Path(__file__).parents[1] / "faulty_command.py")
CLIENTS = 16
RECORDS = 400


def signed(epoch: int) -> bytes:
    document = pcs_records.document(epoch=epoch)
    return pcs_records.body(pcs_records.sign(document, hmac_key=HMAC_KEY.encode()))


class FaultyBackend(Backend):
    """A backend whose disk fails at one call while a file is there."""

    def __init__(self, tmp_path: Path, call: str, error: str, **variables: str) -> None:
        self.trigger = tmp_path / "the disk is bad"
        fault = {"FAULT_CALL": call, "FAULT_ERROR": error, "FAULT_WHEN": str(self.trigger)}
        super().__init__(tmp_path / "data", **fault, **variables)
        self.command = [sys.executable, LAUNCHER, "pcs-backend", "serve"]

    def on_a_healthy_disk(self) -> Backend:
        """Return the shipped command over the same data."""
        return Backend(self.data_dir, **{k: v for k, v in self.variables.items() if "FAULT" not in k})


async def assert_known(backend: Backend, answers: dict[int, Answer]) -> None:
    """Start it and check that each record that was answered 200 is answered the same again."""
    with backend.start():
        async with Client(backend) as client:
            await client.wait_for_metric("flk_open_requests", 0)
            for epoch, first in answers.items():
                again = await client.submit(signed(epoch))
                assert (again.status, again.body, again.replayed) == (200, first.body, True)
            assert (await client.submit(signed(10_000))).status == 200
        assert backend.stop() == 0
    assert b"damaged" not in backend.output


async def load(
    client: Client, backend: FaultyBackend, break_after: int
) -> tuple[dict[int, Answer], list[Answer]]:
    """Send records from many clients; after some answers the disk is bad. Returns what was answered 200, and the rest."""
    waiting = list(range(RECORDS))
    taken: dict[int, Answer] = {}
    refused: list[Answer] = []

    async def sender() -> None:
        while waiting:
            epoch = waiting.pop()
            answer = await client.submit(signed(epoch))
            if answer.status == 200:
                taken[epoch] = answer
            else:
                refused.append(answer)
            if len(taken) == break_after:
                backend.trigger.touch()

    await asyncio.gather(*(sender() for _ in range(CLIENTS)))
    return taken, refused


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
async def test_after_a_failed_sync_nothing_is_acknowledged_and_readiness_says_why(
    tmp_path: Path, hmac_variables: dict[str, str], error: str
) -> None:
    why = {"EIO": "Input/output error", "ENOSPC": "No space left on device"}[error]
    backend = FaultyBackend(tmp_path, "fdatasync", error, **hmac_variables)
    with backend.start():
        async with Client(backend) as client:
            taken, refused = await load(client, backend, break_after=100)
            assert 100 <= len(taken) < RECORDS
            assert {answer.status for answer in refused} == {503}
            assert {answer.headers["Retry-After"] for answer in refused} == {"1"}
            assert any(why.encode() in answer.body for answer in refused)
            backend.trigger.unlink()  # the disk is well again; what it did with the bytes is still unknown
            detail = f"the log takes nothing: sync failed: {why}"
            for _ in range(3):
                after = await client.submit(signed(0))
                assert (after.status, after.document["detail"]) == (503, detail)
            ready = await client.get("/health/ready")
            assert (ready.status, ready.document["detail"]) == (503, detail)
            assert (await client.get("/health/live")).status == 200
            metrics = await client.metrics()
            assert (metrics["flk_ready"], metrics["flk_accepted_total"]) == (0, len(taken))
        assert backend.stop() == 0
    assert b"Traceback" not in backend.output
    await assert_known(backend.on_a_healthy_disk(), taken)


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
async def test_a_failed_write_is_refused_and_cut_off_and_intake_goes_on_by_itself(
    tmp_path: Path, hmac_variables: dict[str, str], error: str
) -> None:
    backend = FaultyBackend(tmp_path, "writev", error, **hmac_variables)
    with backend.start():
        async with Client(backend) as client:
            taken, refused = await load(client, backend, break_after=100)
            assert 100 <= len(taken) < RECORDS
            assert {answer.status for answer in refused} == {503}
            assert all(b"write failed" in answer.body for answer in refused)
            backend.trigger.unlink()
            assert (await client.get("/health/ready")).status == 200
            taken[RECORDS] = await client.submit(signed(RECORDS))
            assert taken[RECORDS].status == 200
        backend.kill()
    await assert_known(backend.on_a_healthy_disk(), taken)


async def test_a_disk_that_is_full_at_a_rotation_does_not_stop_the_intake_for_good(
    tmp_path: Path, hmac_variables: dict[str, str]
) -> None:
    backend = FaultyBackend(
        tmp_path,
        "writev",
        "ENOSPC",
        FAULT_PLACE="log.Wal._make_segment",
        TEST_SEGMENT_BYTES="20000",
        **hmac_variables,
    )
    with backend.start():
        async with Client(backend) as client:
            taken, refused = await load(client, backend, break_after=20)
            assert {answer.status for answer in refused} == {503}
            assert any(b"rotation failed: No space left on device" in answer.body for answer in refused)
            backend.trigger.unlink()
            taken[RECORDS] = await client.submit(signed(RECORDS))
            assert taken[RECORDS].status == 200
        assert backend.stop() == 0
    await assert_known(backend.on_a_healthy_disk(), taken)


async def test_a_snapshot_that_cannot_be_written_costs_nothing(
    tmp_path: Path, hmac_variables: dict[str, str]
) -> None:
    backend = FaultyBackend(tmp_path, "rename", "EIO", TEST_HOUSEKEEPING_S="0.2", **hmac_variables)
    with backend.start():
        async with Client(backend) as client:
            backend.trigger.touch()
            taken = {epoch: await client.submit(signed(epoch)) for epoch in range(5)}
            assert {answer.status for answer in taken.values()} == {200}
            async with asyncio.timeout(WAIT_TIMEOUT_S):
                while b"the snapshot was not written" not in backend.output:
                    await client.get("/health/live")
            assert (await client.get("/health/ready")).status == 200
        assert backend.stop() == 0
    assert not (backend.data_dir / "memory" / "outcomes.snap").exists()
    assert list((backend.data_dir / "memory").iterdir()) == []
    await assert_known(backend.on_a_healthy_disk(), taken)


@pytest.mark.parametrize("call", ["open", "mkdir", "writev", "fdatasync", "fsync"])
async def test_a_start_that_the_disk_refuses_says_so_and_leaves_nothing_half_done(
    tmp_path: Path, hmac_variables: dict[str, str], call: str
) -> None:
    backend = FaultyBackend(tmp_path, call, "EIO", **hmac_variables)
    backend.trigger.touch()
    refused = subprocess.run(
        backend.command,
        env=clean_environment(**backend.variables),
        capture_output=True,
        timeout=WAIT_TIMEOUT_S,
        check=False,
    )
    said = refused.stderr.decode().splitlines()[-1]
    if call in {"open", "mkdir", "fsync"}:
        assert refused.returncode == 2
        assert said == (
            "pcs-backend: DATA_DIR: found a path that cannot be used (Input/output error); allowed: a folder"
        )
    else:
        assert refused.returncode == 1
        assert said == "pcs-backend: the disk refused while the logs were opened: Input/output error"
    assert b"Traceback" not in refused.stderr
    await assert_known(backend.on_a_healthy_disk(), {})


async def test_a_segment_that_cannot_be_read_is_named(tmp_path: Path, hmac_variables: dict[str, str]) -> None:
    backend = FaultyBackend(
        tmp_path, "open", "EIO", FAULT_PLACE="folder.LogFolder.read_segment", **hmac_variables
    )
    with backend.start():
        assert backend.stop() == 0
    backend.trigger.touch()
    for name in ("serve", "fsck"):
        refused = subprocess.run(
            [*backend.command[:-1], name],
            env=clean_environment(**backend.variables),
            capture_output=True,
            timeout=WAIT_TIMEOUT_S,
            check=False,
        )
        assert refused.returncode == 1
        assert refused.stderr.decode().splitlines()[-1] == (
            "pcs-backend: segment 00000000000000000001.wal: cannot be read: Input/output error"
        )


class Agent:
    """`pcs-agent` in a folder, delivering to a backend, its disk perhaps bad."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.folder = folder
        self._variables = {
            "ENDPOINT": endpoint,
            "OUTBOX_DIR": str(folder / "outbox"),
            "PCS_SIGN_ALG": "hmac",
            "PCS_HMAC_KEY": HMAC_KEY,
        }
        (folder / "a.csv").write_text("x\n" + "".join(f"{index}\n" for index in range(12)), encoding="utf-8")

    def __call__(self, *arguments: str, **fault: str) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [sys.executable, LAUNCHER, "pcs-agent", *arguments],
            env=clean_environment(**self._variables, **fault),
            cwd=self.folder,
            capture_output=True,
            timeout=3 * WAIT_TIMEOUT_S,
            check=False,
        )
        assert b"Traceback" not in done.stderr
        return done

    def run(self, **fault: str) -> subprocess.CompletedProcess[bytes]:
        stream = ("a.csv", "--shard-id", "s", "--epoch", "0", "--window", "4", "--json")
        return self("run", *stream, **fault)

    def states(self) -> list[str]:
        listed = self("outbox", "list", "--json")
        return sorted(json.loads(line)["state"] for line in listed.stdout.splitlines())


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
class TestAgent:
    """`pcs-agent run` over three windows."""

    @pytest.mark.parametrize(
        ("call", "place", "said"),
        [
            ("writev", "log.Wal._write", "write failed"),
            ("fdatasync", "log.Wal.commit", "sync failed"),
        ],
    )
    @pytest.mark.parametrize("skip", [0, 3])
    async def test_an_outbox_that_cannot_be_written_ends_the_run_and_nothing_is_lost_or_doubled(
        self,
        tmp_path: Path,
        hmac_variables: dict[str, str],
        error: str,
        call: str,
        place: str,
        said: str,
        skip: int,
    ) -> None:
        """The first append, or what comes in the middle of delivery: an append or an acknowledgement."""
        why = {"EIO": "Input/output error", "ENOSPC": "No space left on device"}[error]
        with Backend(tmp_path / "data", **hmac_variables) as backend:
            agent = Agent(tmp_path, f"{backend.url}/v1/pcs/submit")
            failed = agent.run(FAULT_CALL=call, FAULT_PLACE=place, FAULT_ERROR=error, FAULT_SKIP=str(skip))
            assert failed.returncode == 1
            assert failed.stderr.decode().splitlines()[-1] == (
                f"Error: outbox: {said}: {why}; nothing unsynced was sent"
            )
            async with Client(backend) as client:
                ingested = (await client.counters())[0]
                assert ingested <= skip, "each record is synced before it is sent"
                again = agent.run()
                assert again.returncode == 0, again.stderr
                assert agent.states() == ["acked"] * 3
                assert sum((await client.counters())[2:]) == 3
            assert backend.stop() == 0

    async def test_an_outbox_that_cannot_be_opened_is_a_configuration_error(
        self, tmp_path: Path, error: str
    ) -> None:
        why = {"EIO": "Input/output error", "ENOSPC": "No space left on device"}[error]
        agent = Agent(tmp_path, "http://127.0.0.1:9/v1/pcs/submit")
        for call in ("mkdir", "open", "fsync", "fdatasync"):
            refused = agent.run(FAULT_CALL=call, FAULT_ERROR=error)
            assert refused.returncode == 2
            assert refused.stderr.decode().splitlines()[-1] == f"Error: OUTBOX_DIR: cannot be used: {why}"
