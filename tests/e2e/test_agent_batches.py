"""The agent's batches between the commands as installed: what waits together, old backends, bad records, crashes."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from faulty_proxy import FaultyProxy
from processes import HMAC_KEY, Backend, Client, clean_environment, command, run

pytestmark = [pytest.mark.slow]

SUBMIT, NOWHERE = "/v1/pcs/submit", "/v0/pcs/submit"
BATCH_LINE = b"POST /v1/pcs/batch"
WINDOWS, ROWS = 60, 3
HMAC = {"PCS_SIGN_ALG": "hmac", "PCS_HMAC_KEY": HMAC_KEY}
END_TIMEOUT_S = 60.0


def write_stream(path: Path, windows: int) -> Path:
    generator = random.Random(11)
    rows = [f"{generator.random()},{generator.random()}" for _ in range(windows * ROWS)]
    path.write_text("x,y\n" + "\n".join(rows) + "\n")
    return path


def leave_waiting(
    folder: Path, url: str, windows: int = WINDOWS, *, shard: str = "batch", **changes: str
) -> dict[str, str]:
    """Fill an outbox with records that wait, because their first endpoint was wrong; returns the agent's variables."""
    variables = {**HMAC, "OUTBOX_DIR": str(folder / "outbox"), "ENDPOINT": url + SUBMIT}
    stream = write_stream(folder / f"{shard}.csv", windows)
    arguments = ("run", str(stream), "--shard-id", shard, "--epoch", "0", "--window", str(ROWS), "--json")
    waits = run("pcs-agent", *arguments, **variables | {"ENDPOINT": url + NOWHERE} | changes)
    assert waits.returncode == 1, waits.stderr.decode()
    assert {json.loads(line)["verdict"] for line in waits.stdout.splitlines()} == {"pending"}
    return variables


def flush(variables: dict[str, str]) -> tuple[int, list[dict[str, Any]]]:
    done = run("pcs-agent", "outbox", "flush", "--json", **variables)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


@asynccontextmanager
async def flushing(variables: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a flush beside the test."""
    process = await asyncio.create_subprocess_exec(
        *(command("pcs-agent"), "outbox", "flush", "--json"),
        env=clean_environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, list[dict[str, Any]]]:
    async with asyncio.timeout(END_TIMEOUT_S):
        stdout, _ = await process.communicate()
    return process.returncode, [json.loads(line) for line in stdout.splitlines()]


async def taken(client: Client, least: int) -> None:
    """Wait until the backend has stored so many outcomes."""
    async with asyncio.timeout(END_TIMEOUT_S):
        while (await client.metrics())["flk_accepted_total"] < least:
            await asyncio.sleep(0.005)


async def test_what_waits_goes_in_one_request_and_is_judged_record_by_record(
    tmp_path: Path, store_variables: dict[str, str]
) -> None:
    """Signed as a whole, too, which the backend demands."""
    demands = {"REQUIRE_MESSAGE_SIGNATURE": "true"}
    with (
        Backend(tmp_path / "data", **store_variables, **HMAC, **demands) as backend,
        FaultyProxy("127.0.0.1", int(backend.url.rpartition(":")[2])) as proxy,
    ):
        variables = leave_waiting(tmp_path, backend.url)
        proxy.set(matching=BATCH_LINE)
        endpoint = f"http://127.0.0.1:{proxy.port}{SUBMIT}"
        code, outcomes = flush(variables | {"ENDPOINT": endpoint})
        assert (code, proxy.counts.matched_to_server) == (0, 1)
        assert [each["verdict"] for each in outcomes] == ["accepted"] * WINDOWS
        assert sorted(each["epoch"] for each in outcomes) == list(range(WINDOWS))
        async with Client(backend) as client:
            assert await client.counters() == (WINDOWS, 0, WINDOWS, 0)


@pytest.mark.parametrize(("records", "requests"), [("256", 1), ("20", 3), ("1", 0)])
async def test_batch_records_says_how_many_go_together(tmp_path: Path, records: str, requests: int) -> None:
    with (
        Backend(tmp_path / "data", **HMAC) as backend,
        FaultyProxy("127.0.0.1", int(backend.url.rpartition(":")[2])) as proxy,
    ):
        variables = leave_waiting(tmp_path, backend.url)
        proxy.set(matching=BATCH_LINE)
        endpoint = f"http://127.0.0.1:{proxy.port}{SUBMIT}"
        code, outcomes = flush(variables | {"ENDPOINT": endpoint, "BATCH_RECORDS": records})
        assert (code, len(outcomes)) == (0, WINDOWS)
        assert proxy.counts.matched_to_server == requests
        async with Client(backend) as client:
            assert await client.counters() == (WINDOWS, 0, WINDOWS, 0)


async def test_compressed_batches_arrive_whole_and_signed(tmp_path: Path) -> None:
    demands = {"REQUIRE_MESSAGE_SIGNATURE": "true"}
    with (
        Backend(tmp_path / "data", **HMAC, **demands) as backend,
        FaultyProxy("127.0.0.1", int(backend.url.rpartition(":")[2])) as proxy,
    ):
        variables = leave_waiting(tmp_path, backend.url)
        proxy.set(matching=BATCH_LINE)
        endpoint = f"http://127.0.0.1:{proxy.port}{SUBMIT}"
        code, outcomes = flush(variables | {"ENDPOINT": endpoint, "BATCH_GZIP": "true"})
        assert (code, len(outcomes)) == (0, WINDOWS)
        assert proxy.counts.matched_to_server == 1  # no second try without
        assert proxy.counts.to_server < WINDOWS * 400
        async with Client(backend) as client:
            assert await client.counters() == (WINDOWS, 0, WINDOWS, 0)


@pytest.mark.parametrize(("path", "batches"), [(SUBMIT, 1), ("/intake", 0)])
async def test_a_backend_without_batches_gets_single_submits(tmp_path: Path, path: str, batches: int) -> None:
    """As of 0.1.0: a real server that knows its submit path alone. Of another path nothing says where batches would go."""
    seen: list[str] = []
    epochs: list[int] = []

    async def note(request: web.Request, handler: Any) -> web.StreamResponse:
        seen.append(request.path)
        response: web.StreamResponse = await handler(request)
        return response

    async def submit(request: web.Request) -> web.Response:
        document = await request.json()
        epochs.append(document["epoch"])
        receipt = {"pcs_id": document["pcs_id"], "accepted": True, "escalated": False, "reasons": []}
        return web.json_response(receipt)

    app = web.Application(middlewares=[web.middleware(note)])
    app.router.add_post(path, submit)
    with Backend(tmp_path / "data", **HMAC) as elsewhere:
        variables = leave_waiting(tmp_path, elsewhere.url)
    async with (
        TestServer(app) as server,
        flushing(variables | {"ENDPOINT": str(server.make_url(path))}) as process,
    ):
        code, outcomes = await ended(process)
    assert code == 0
    assert [each["verdict"] for each in outcomes] == ["accepted"] * WINDOWS
    assert sorted(epochs) == list(range(WINDOWS))
    assert seen == [*["/v1/pcs/batch"] * batches, *[path] * WINDOWS]


async def test_one_bad_record_in_a_batch_harms_no_other(tmp_path: Path) -> None:
    with Backend(tmp_path / "data", **HMAC) as backend:
        leave_waiting(tmp_path, backend.url, 1, shard="bad", PCS_HMAC_KEY="not the backend's key")
        variables = leave_waiting(tmp_path, backend.url)
        code, outcomes = flush(variables)
        assert code == 1
        verdicts = sorted((each["verdict"], each["reason"]) for each in outcomes)
        assert verdicts == [
            *[("accepted", "")] * WINDOWS,
            ("dead", "refused 3 times while others were taken: status 401"),
        ]
        async with Client(backend) as client:
            assert (await client.counters())[1:] == (0, WINDOWS, 0)


@pytest.mark.parametrize("answers", ["reset", "drop"])
async def test_a_lost_answer_to_a_batch_doubles_nothing(tmp_path: Path, answers: Any) -> None:
    with (
        Backend(tmp_path / "data", **HMAC) as backend,
        FaultyProxy("127.0.0.1", int(backend.url.rpartition(":")[2])) as proxy,
    ):
        variables = leave_waiting(tmp_path, backend.url)
        proxy.set(answers=answers, matching=BATCH_LINE)
        async with (
            Client(backend) as client,
            flushing(variables | {"ENDPOINT": f"http://127.0.0.1:{proxy.port}{SUBMIT}"}) as process,
        ):
            await taken(client, WINDOWS)
            proxy.set()
            proxy.reset()
            code, outcomes = await ended(process)
            assert code == 0
            assert [each["verdict"] for each in outcomes] == ["accepted"] * WINDOWS
            assert {each["attempts"] for each in outcomes} == {2}
            assert await client.counters() == (2 * WINDOWS, WINDOWS, WINDOWS, 0)


async def test_a_backend_killed_in_the_middle_of_batches_loses_and_doubles_nothing(
    tmp_path: Path, store_variables: dict[str, str]
) -> None:
    backend = Backend(tmp_path / "data", **store_variables, **HMAC)
    with backend.start():
        port = backend.url.rpartition(":")[2]
        with FaultyProxy("127.0.0.1", int(port)) as proxy:
            variables = leave_waiting(tmp_path, backend.url) | {
                "SIGN_REQUESTS": "false",
                "BATCH_RECORDS": "5",
            }
            proxy.set(latency_s=0.05)
            async with flushing(
                variables | {"ENDPOINT": f"http://127.0.0.1:{proxy.port}{SUBMIT}"}
            ) as process:
                async with Client(backend) as client:
                    await taken(client, 5)
                backend.kill()
                backend.variables["PORT"] = port
                with backend.start():
                    code, outcomes = await ended(process)
                    assert code == 0
                    assert [each["verdict"] for each in outcomes] == ["accepted"] * WINDOWS
                    async with Client(backend) as client:
                        await client.wait_for_metric("flk_open_requests", 0)
                        before = await client.counters()
                        again = run(
                            "pcs-agent", "run", str(tmp_path / "batch.csv"), "--shard-id", "batch", "--epoch", "0",
                            "--window", str(ROWS), **variables | {"OUTBOX_DIR": str(tmp_path / "another")},
                        )  # fmt: skip
                        assert again.returncode == 0
                        after = await client.counters()
                        assert after[1] - before[1] == WINDOWS  # every record is known
                        assert after[2:] == before[2:]


async def test_an_agent_killed_in_the_middle_of_batches_loses_and_doubles_nothing(tmp_path: Path) -> None:
    with (
        Backend(tmp_path / "data", **HMAC) as backend,
        FaultyProxy("127.0.0.1", int(backend.url.rpartition(":")[2])) as proxy,
    ):
        variables = leave_waiting(tmp_path, backend.url) | {"BATCH_RECORDS": "5"}
        proxy.set(to_client_latency_s=0.1)
        async with Client(backend) as client:
            async with flushing(
                variables | {"ENDPOINT": f"http://127.0.0.1:{proxy.port}{SUBMIT}"}
            ) as process:
                await taken(client, 10)
                process.kill()
            listed = run("pcs-agent", "outbox", "list", "--json", **variables)
            waiting = [
                each
                for line in listed.stdout.splitlines()
                if (each := json.loads(line))["state"] == "pending"
            ]
            assert 0 < len(waiting) <= WINDOWS
            code, outcomes = flush(variables)
            assert (code, len(outcomes)) == (0, len(waiting))
            _, hits, accepted, escalated = await client.counters()
            assert (accepted, escalated) == (WINDOWS, 0)
            assert hits > 0  # what had been taken and not noted was sent again
