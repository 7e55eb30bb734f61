"""Wall clocks that jump by a year, forward and back, under load and across restarts, at the backend and at the agent.

Nothing acknowledged is lost and nothing has two first outcomes at a time. What a jump does change is what is documented:
an outcome lives for `DEDUP_TTL_DAYS` by the service's clock, so a clock that jumps ahead by more makes it forgotten, and
a backlog is too old by the same clock.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import re
import time
from pathlib import Path

import pytest

from launched import MovedClock, launched
from processes import Answer, Backend, Client, clean_environment, run
from replicas import records
from servers import RedisServer

pytestmark = [pytest.mark.slow]

DAY_S = 86_400.0
YEAR_S = 365 * DAY_S
SERVE = ["pcs-backend", "serve"]
EARLY, DURING = 40, 240
SENDERS = 16
SLACK_S = 60.0
WAIT_S = 20.0


@pytest.fixture
def clock(tmp_path: Path) -> MovedClock:
    return MovedClock(tmp_path / "clock")


async def submit(client: Client, body: bytes) -> Answer:
    answer = await client.submit(body)
    assert answer.status in {200, 202}, answer
    return answer


async def check_known(
    client: Client, bodies: dict[str, bytes], answers: dict[str, Answer], known: bool
) -> None:
    """Ask for everything again: the same bytes, as a replay or as a new first outcome; then as a replay."""
    for pcs_id, answer in answers.items():
        again = await client.submit(bodies[pcs_id])
        assert (again.status, again.body, again.replayed) == (answer.status, answer.body, known)
        if not known:
            assert (await client.submit(bodies[pcs_id])).replayed


async def check_says_time(client: Client, ahead_s: float) -> None:
    """Probes and metrics go on, and `Date` is the moved clock's."""
    ready = await client.get("/health/ready")
    assert ready.status == 200
    said_s = email.utils.parsedate_to_datetime(ready.headers["Date"]).timestamp()
    assert abs(said_s - time.time() - ahead_s) < SLACK_S


async def wait_until_settled(client: Client, too_old_max: int = 0) -> None:
    """Wait until nothing is open but what is too old by this clock."""
    async with asyncio.timeout(WAIT_S):
        while True:
            metrics = await client.metrics()
            if metrics["flk_open_requests"] == metrics["flk_too_old_requests"]:
                break
            await asyncio.sleep(0.02)
    assert metrics["flk_too_old_requests"] <= too_old_max


@pytest.mark.parametrize("ahead_s", [YEAR_S, -YEAR_S], ids=["forward", "back"])
async def test_backend_clock_that_jumps_under_load_and_is_put_right_after_a_kill(
    tmp_path: Path,
    clock: MovedClock,
    store_variables: dict[str, str],
    hmac_variables: dict[str, str],
    ahead_s: float,
) -> None:
    bodies = records(EARLY + DURING)
    backend = Backend(tmp_path / "data", **store_variables, **hmac_variables)
    backend.command = launched(SERVE, clock=clock)
    early: dict[str, Answer] = {}
    late: dict[str, Answer] = {}
    waiting = list(bodies)[EARLY:]

    async def sender(client: Client) -> None:
        while waiting:
            pcs_id = waiting.pop()
            jumped_before = len(waiting) < DURING // 2 - SENDERS
            answer = await submit(client, bodies[pcs_id])
            assert not answer.replayed
            if jumped_before:
                late[pcs_id] = answer
            if len(waiting) == DURING // 2:
                clock.set(ahead_s)

    with backend.start():
        async with Client(backend, SENDERS) as client:
            for pcs_id in list(bodies)[:EARLY]:
                early[pcs_id] = await submit(client, bodies[pcs_id])
            await asyncio.gather(*(sender(client) for _ in range(SENDERS)))
            await check_says_time(client, ahead_s)
            await wait_until_settled(client)
            assert sum((await client.counters())[2:]) == len(bodies)
            # What was stored after the jump is known; what was stored before has expired by a clock a year ahead.
            await check_known(client, bodies, late, known=True)
            forgotten = ahead_s > 0
            await check_known(client, bodies, early, known=not forgotten)
            judged_again = len(early) if forgotten else 0
            assert sum((await client.counters())[2:]) == len(bodies) + judged_again
        backend.kill()
    with backend.start():  # the same clock
        async with Client(backend) as client:
            await wait_until_settled(client)
            await check_known(client, bodies, early | late, known=True)
        backend.kill()
    clock.set(0.0)
    with backend.start():
        async with Client(backend) as client:
            # That a request has its outcome is noted with the commit after it; a kill leaves the last one open, and by
            # the right clock it may be a year old.
            await wait_until_settled(client, too_old_max=0 if ahead_s > 0 else 1)
            await check_says_time(client, 0.0)
            await check_known(client, bodies, early, known=True)
            # A clock that was behind made outcomes that are a year old now, and so forgotten.
            await check_known(client, bodies, late, known=ahead_s > 0)
        listing = run("pcs-backend", "escalations", "list", "--limit", "1000", "--json", **backend.variables)
        queued = [json.loads(line)["pcs_id"] for line in listing.stdout.splitlines()]
        escalated = {pcs_id for pcs_id, answer in (early | late).items() if answer.status == 202}
        assert len(queued) == len(set(queued))
        assert escalated - set(queued) == set()
        assert backend.stop() == 0


async def test_backlog_is_too_old_by_the_clock_and_one_from_the_future_is_not(
    tmp_path: Path,
    clock: MovedClock,
    redis_server: RedisServer,
    redis_address: str,
    hmac_variables: dict[str, str],
) -> None:
    """Requests that a store outage left open, received by a clock that was ahead or behind, and judged by the right one."""
    bodies = records(10)
    future, past = list(bodies)[:5], list(bodies)[5:]
    backend = Backend(tmp_path / "data", DEDUP_BACKEND="redis", REDIS_ADDR=redis_address, **hmac_variables)
    backend.command = launched(SERVE, clock=clock)
    try:
        redis_server.stop()
        with backend.start():
            async with Client(backend) as client:
                for ahead_s, ids in ((YEAR_S, future), (-YEAR_S, past)):
                    clock.set(ahead_s)
                    for pcs_id in ids:
                        assert (await client.submit(bodies[pcs_id])).status == 503
                clock.set(0.0)
                redis_server.start()
                await client.wait_for_metric("flk_open_requests", len(past))
                await client.wait_for_metric("flk_too_old_requests", len(past))
                assert sum((await client.counters())[2:]) == len(future)
                for pcs_id in future:
                    assert (await client.submit(bodies[pcs_id])).replayed
            assert backend.stop() == 0
        left = run("pcs-backend", "replay", **backend.variables)
        assert left.returncode == 1
        assert b"too old" in left.stdout + left.stderr
        forced = run("pcs-backend", "replay", "--force", **backend.variables)
        assert forced.returncode == 0, forced.stdout + forced.stderr
        with backend.start():
            async with Client(backend) as client:
                metrics = await client.metrics()
                assert (metrics["flk_open_requests"], metrics["flk_too_old_requests"]) == (0, 0)
                for pcs_id in past:
                    assert (await client.submit(bodies[pcs_id])).replayed
            assert backend.stop() == 0
    finally:
        redis_server.start()


async def test_retention_under_a_clock_that_is_ahead_removes_only_what_has_its_outcome(
    tmp_path: Path, clock: MovedClock, hmac_variables: dict[str, str]
) -> None:
    """Segments go and outcomes expire as after a year. What is stored then is there after the clock was put right."""
    bodies = records(150)
    before, after = list(bodies)[:100], list(bodies)[100:]
    backend = Backend(tmp_path / "data", **hmac_variables)
    backend.command = launched(SERVE, clock=clock, segment_bytes=40_000, interval_s=0.2)
    folder = backend.data_dir / "wal" / "0"
    snapshot = backend.data_dir / "memory" / "outcomes.snap"
    answers: dict[str, Answer] = {}
    with backend.start():
        async with Client(backend) as client:
            for pcs_id in before:
                answers[pcs_id] = await submit(client, bodies[pcs_id])
            first = min(path.name for path in folder.glob("*.wal"))
            clock.set(YEAR_S)
            async with asyncio.timeout(WAIT_S):
                while min(path.name for path in folder.glob("*.wal")) == first:
                    await asyncio.sleep(0.05)
            snapshot_ns = snapshot.stat().st_mtime_ns
            for pcs_id in after:
                answers[pcs_id] = await submit(client, bodies[pcs_id])
            async with asyncio.timeout(WAIT_S):  # what is written now no longer has what expired
                while snapshot.stat().st_mtime_ns == snapshot_ns:
                    await asyncio.sleep(0.05)
        backend.kill()
    clock.set(0.0)
    with backend.start():
        async with Client(backend) as client:
            await client.wait_for_metric("flk_open_requests", 0)
            await check_known(client, bodies, {pcs_id: answers[pcs_id] for pcs_id in after}, known=True)
            await check_known(client, bodies, {pcs_id: answers[pcs_id] for pcs_id in before}, known=False)
        assert backend.stop() == 0


async def test_agent_whose_clock_jumps_delivers_everything_once_and_says_how_far_it_is_off(
    tmp_path: Path, clock: MovedClock, hmac_variables: dict[str, str]
) -> None:
    """`sent_at` and skew are recorded and never judged; the outbox keeps what waits whatever time it is."""
    stream = tmp_path / "stream.csv"
    windows = 12
    stream.write_text("x,y\n" + "".join(f"{row},{row * row % 97}\n" for row in range(10 * windows)))
    arguments = ["run", str(stream), "--shard-id", "s", "--epoch", "0", "--window", "10", "--json"]

    async def agent(ahead_s: float, **more: str) -> tuple[int, list[dict[str, object]]]:
        clock.set(ahead_s)
        process = await asyncio.create_subprocess_exec(
            *launched(["pcs-agent", *arguments], clock=clock),
            env=clean_environment(**(variables | more)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        stdout, stderr = await process.communicate()
        assert b"Traceback" not in stderr
        assert process.returncode is not None, stderr
        return process.returncode, [json.loads(line) for line in stdout.splitlines()]

    backend = Backend(tmp_path / "data", **hmac_variables)
    variables = hmac_variables | {"OUTBOX_DIR": str(tmp_path / "outbox"), "DELIVERY_DEADLINE_S": "0.2"}
    # Built a year ahead, and dead because nobody listens there; put back, and delivered by a clock a year behind.
    nobody = {"ENDPOINT": "http://127.0.0.1:9/v1/pcs/submit"}
    code, said = await agent(YEAR_S, **nobody)
    assert (code, {each["verdict"] for each in said}) == (1, {"dead"})
    assert run("pcs-agent", "dlq", "redrive", **variables).returncode == 0
    with backend.start():
        variables |= {"ENDPOINT": f"{backend.url}/v1/pcs/submit", "DELIVERY_DEADLINE_S": "30"}
        code, said = await agent(-YEAR_S)
        assert code == 0, said
        assert sorted(each["epoch"] for each in said) == list(range(windows))
        for ahead_s in (YEAR_S, 0.0):  # delivered a year ago, or in a year: not a second time by counts
            code, said = await agent(ahead_s)
            assert (code, len(said)) == (0, windows)
        async with Client(backend) as client:
            assert (await client.counters())[2:] == (windows, 0)
            assert (await client.metrics())["flk_conflicts_total"] == 0
        assert backend.stop() == 0
    # Built without a word of the backend; the later ones of that run say what its `Date` told of the clocks.
    kept = b"".join(path.read_bytes() for path in (backend.data_dir / "wal" / "0").glob("*.wal"))
    skews_s = [int(match) / 1_000 for match in re.findall(rb'"clock_skew_ms":(-?\d+)', kept)]
    measured_s = [skew_s for skew_s in skews_s if skew_s]
    assert len(measured_s) > 0
    assert max(min(abs(skew_s + YEAR_S), abs(skew_s - YEAR_S)) for skew_s in measured_s) < SLACK_S
