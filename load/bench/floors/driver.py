"""What a driver alone reaches, `python -m bench.floors.driver KIND ADDRESS BODIES COUNT BATCH CALLS`. Prints JSON.

Everything that is sent is made before the clock starts; CALLS are under way at a time. The store must be empty, and its
schema there.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson
import uvloop
from redis.asyncio import Redis

from bench.floors.statements import PUT_ROWS, PUT_VALUES, columns, connect, read_answers, script_arguments

Answers = Sequence[tuple[str, bytes]]


async def measure(calls: Sequence[Callable[[], Awaitable[Any]]], at_once: int) -> tuple[float, float]:
    """Make calls, some at a time; returns seconds and CPU seconds of this process."""
    waiting = iter(calls)

    async def work() -> None:
        for call in waiting:
            await call()

    began_s, cpu_s = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work() for _ in range(at_once)))
    return time.perf_counter() - began_s, time.process_time() - cpu_s


async def postgres(dsn: str, parts: Sequence[Answers], at_once: int) -> tuple[float, float, int]:
    """The product's statement by asyncpg; returns how many rows are there too."""
    async with await connect(dsn, at_once) as pool:
        arguments = [columns(part) for part in parts]
        await asyncio.gather(
            *(pool.fetchval("SELECT pg_sleep(0.05)") for _ in range(at_once))
        )  # all connected
        took = await measure([lambda each=each: pool.fetch(PUT_ROWS, *each) for each in arguments], at_once)  # type: ignore[misc]
        return *took, await pool.fetchval("SELECT count(*) FROM pcs_outcomes")


async def redis(address: str, parts: Sequence[Answers], at_once: int) -> tuple[float, float, int]:
    """The product's script by redis-py; returns how many keys are there too."""
    client = Redis.from_url(f"redis://{address}", protocol=2)
    digest = await client.script_load(PUT_VALUES)
    assert digest == hashlib.sha1(PUT_VALUES.encode(), usedforsecurity=False).hexdigest()
    calls = []
    for part in parts:
        keys, arguments = script_arguments(part)
        calls.append((digest, len(keys), *keys, *arguments))
    took = await measure([lambda each=each: client.evalsha(*each) for each in calls], at_once)  # type: ignore[misc]
    count = await client.dbsize()
    await client.aclose()
    return *took, count


def main() -> None:
    """Run one of them."""
    kind, address, path, count, batch, at_once = sys.argv[1:]
    answers = read_answers(path, int(count))
    size = int(batch)
    parts = [answers[at : at + size] for at in range(0, len(answers), size)]
    run = {"postgres": postgres, "redis": redis}[kind]
    seconds, cpu_s, kept = uvloop.run(run(address, parts, int(at_once)))
    if kept != len(answers):
        raise SystemExit(f"the store has {kept} records of {len(answers)}")
    found = {"rate": len(answers) / seconds, "cpu_us": cpu_s / len(answers) * 1e6}
    sys.stdout.buffer.write(orjson.dumps(found))


if __name__ == "__main__":
    main()
