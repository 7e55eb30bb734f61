"""`kill -9` under load: nothing acknowledged is lost or changed, nothing is doubled, for each store."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import aiohttp
import pytest

import pcs_records
from processes import HMAC_KEY, Answer, Backend, Client, run

pytestmark = [pytest.mark.slow]

KEY = HMAC_KEY.encode()
RECORDS = 600
CLIENTS = 48
KILL_AFTER = 150

WIDER = 'version = "wider"\ntol_d = 5.0\ntol_budget = 1.0\n'


def bodies() -> dict[str, bytes]:
    """Signed records by id; every third one fails a check."""
    documents = [
        pcs_records.document(epoch=epoch, **({"D_hat": 4.0} if epoch % 3 == 0 else {}))
        for epoch in range(RECORDS)
    ]
    return {each["pcs_id"]: pcs_records.body(pcs_records.sign(each, hmac_key=KEY)) for each in documents}


async def submit_until_killed(backend: Backend, records: dict[str, bytes]) -> dict[str, Answer]:
    """Send everything at once and kill the backend in the middle; return what was acknowledged before."""
    acknowledged: dict[str, Answer] = {}
    waiting = list(records.items())

    async def sender(client: Client) -> None:
        while waiting:
            pcs_id, body = waiting.pop()
            try:
                answer = await client.submit(body)
            except (aiohttp.ClientError, OSError):
                return
            assert answer.status in {200, 202}
            acknowledged[pcs_id] = answer
            if len(acknowledged) == KILL_AFTER:
                os.kill(backend.pid, signal.SIGKILL)

    async with Client(backend, CLIENTS) as client:
        await asyncio.gather(*(sender(client) for _ in range(CLIENTS)))
    return acknowledged


async def test_kill_under_load_then_restart_with_other_tolerances_and_one_more_key(
    tmp_path: Path, store_variables: dict[str, str], hmac_variables: dict[str, str]
) -> None:
    """L3, L4, L7, L19: replay works, the log survives, first outcomes keep their bytes."""
    records = bodies()
    backend = Backend(tmp_path / "data", **store_variables, **hmac_variables)
    with backend:
        acknowledged = await submit_until_killed(backend, records)
        backend.kill()
    assert KILL_AFTER <= len(acknowledged) < RECORDS

    params = tmp_path / "params.toml"
    params.write_text(WIDER)
    backend.variables |= {"PCS_PARAMS_FILE": str(params), "PCS_HMAC_KEYS": "one-more-key-of-the-tests"}
    with backend.start():
        async with Client(backend) as client:
            await client.wait_for_metric("flk_open_requests", 0)
            for pcs_id, answer in acknowledged.items():
                again = await client.submit(records[pcs_id])
                assert (again.status, again.body, again.replayed) == (answer.status, answer.body, True)
            # The others are judged now, or were when the backlog was settled: once each.
            others = {
                pcs_id: await client.submit(body)
                for pcs_id, body in records.items()
                if pcs_id not in acknowledged
            }
            assert {answer.status for answer in others.values()} <= {200, 202}
        escalated = sorted(
            pcs_id for pcs_id, answer in (acknowledged | others).items() if answer.status == 202
        )
        listing = run("pcs-backend", "escalations", "list", "--limit", "1000", "--json", **backend.variables)
        assert sorted(json.loads(line)["pcs_id"] for line in listing.stdout.splitlines()) == escalated
        assert backend.stop() == 0


async def test_answers_survive_many_restarts_and_snapshots(
    tmp_path: Path, hmac_variables: dict[str, str]
) -> None:
    """L4, L5: clean stops write the snapshot, kills leave it behind the log; both come back whole."""
    records = bodies()
    some = dict(list(records.items())[:40])
    backend = Backend(tmp_path / "data", **hmac_variables)
    answers: dict[str, bytes] = {}
    for turn in range(4):
        with backend.start():
            async with Client(backend) as client:
                for number, (pcs_id, body) in enumerate(some.items()):
                    if number < 10 * (turn + 1):
                        answer = await client.submit(body)
                        assert answer.replayed is (pcs_id in answers)
                        assert answers.setdefault(pcs_id, answer.body) == answer.body
            assert (backend.stop() if turn % 2 == 0 else backend.kill()) in {0, -signal.SIGKILL}


async def test_damaged_snapshot_beside_a_whole_log_is_rebuilt_from_it(
    tmp_path: Path, hmac_variables: dict[str, str]
) -> None:
    """L5: a corrupt snapshot is never ignored; the log still has everything, so nothing is counted as new."""
    body = next(iter(bodies().values()))
    backend = Backend(tmp_path / "data", **hmac_variables)
    with backend.start():
        async with Client(backend) as client:
            first = await client.submit(body)
        assert backend.stop() == 0
    snapshot = tmp_path / "data" / "memory" / "outcomes.snap"
    data = bytearray(snapshot.read_bytes())
    data[len(data) // 2] ^= 1
    snapshot.write_bytes(data)
    with backend.start():
        async with Client(backend) as client:
            again = await client.submit(body)
    assert (again.body, again.replayed) == (first.body, True)


async def test_damaged_snapshot_without_the_log_behind_it_refuses_the_start(
    tmp_path: Path, hmac_variables: dict[str, str]
) -> None:
    """L5: starting as if empty would answer known records anew."""
    backend = Backend(tmp_path / "data", **hmac_variables)
    with backend.start():
        async with Client(backend) as client:
            await client.submit(next(iter(bodies().values())))
        assert backend.stop() == 0
    for segment in (tmp_path / "data" / "wal" / "0").glob("*.wal"):
        segment.rename(segment.with_name("00000000000000000900.wal"))
    snapshot = tmp_path / "data" / "memory" / "outcomes.snap"
    snapshot.write_bytes(b"")
    refused = run("pcs-backend", "serve", **backend.variables)
    assert refused.returncode == 1
    assert b"snapshot cannot be used" in refused.stderr
    assert b"Traceback" not in refused.stderr


async def test_requests_of_a_worker_that_is_gone_are_judged(
    tmp_path: Path, hmac_variables: dict[str, str]
) -> None:
    """A folder that no worker owns is recovered too."""
    records = bodies()
    backend = Backend(tmp_path / "data", **hmac_variables, DEDUP_BACKEND="redis", REDIS_ADDR="127.0.0.1:1")
    with backend.start():
        async with Client(backend) as client:
            answers = [await client.submit(body) for body in list(records.values())[:5]]
            assert {answer.status for answer in answers} == {503}
        backend.kill()
    (tmp_path / "data" / "wal" / "0").rename(tmp_path / "data" / "wal" / "7")
    backend.variables |= {"DEDUP_BACKEND": "memory"}
    with backend.start():
        async with Client(backend) as client:
            await client.wait_for_metric("flk_open_requests", 0)
            assert sum((await client.counters())[2:]) == 5
            again = [await client.submit(body) for body in list(records.values())[:5]]
            assert [answer.replayed for answer in again] == [True] * 5


async def test_refused_requests_are_not_judged_again(tmp_path: Path, hmac_variables: dict[str, str]) -> None:
    """A 401 stays a 401 for that request, also when the key that would verify it comes later."""
    stranger = pcs_records.body(pcs_records.sign(pcs_records.document(), hmac_key=b"a key that comes later"))
    backend = Backend(tmp_path / "data", **hmac_variables)
    with backend.start():
        async with Client(backend) as client:
            assert (await client.submit(stranger)).status == 401
        backend.kill()
    backend.variables["PCS_HMAC_KEYS"] = "a key that comes later"
    with backend.start():
        async with Client(backend) as client:
            assert await client.counters() == (0, 0, 0, 0)
            assert (await client.metrics())["flk_open_requests"] == 0
            answer = await client.submit(stranger)
            assert (answer.status, answer.replayed) == (200, False)


async def test_second_process_on_the_same_folder_is_refused(
    tmp_path: Path, hmac_variables: dict[str, str]
) -> None:
    backend = Backend(tmp_path / "data", **hmac_variables)
    with backend.start():
        second = run("pcs-backend", "serve", **backend.variables)
    assert second.returncode == 2
    assert b"DATA_DIR" in second.stderr
