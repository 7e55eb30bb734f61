"""Running named tasks until a stop: what ends them, in which order, and what is said of one that died."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from pcs_backend.errors import AbandonedError, BackendError

CANCEL_AGAIN_S = 1.0
"""A task that has not ended so long after it was cancelled is cancelled again."""


async def run_unless(
    stop: asyncio.Event,
    name: str,
    work: Coroutine[Any, Any, None],
    give_up: Callable[[asyncio.Task[None]], object],
) -> bool:
    """Run something to its end, unless `stop` is set before.

    Args:
        stop: Ends it early.
        name: Of its task.
        work: What runs. It may raise, and its error is passed on.
        give_up: Called when it is to end early; makes it raise `AbandonedError`, or cancels it.

    Returns:
        Whether it came to its end.
    """
    working = asyncio.create_task(work, name=name)
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if not working.done():
            give_up(working)
        await asyncio.gather(working, stopping, return_exceptions=True)
    if working.cancelled() or isinstance(working.exception(), AbandonedError):
        return False
    working.result()
    return True


async def run_until(
    stop: asyncio.Event,
    tasks: list[tuple[str, Coroutine[Any, Any, None]]],
    drain: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    """Run named tasks until `stop` is set, then drain and cancel what is left. A task that dies stops everything.

    Args:
        stop: Ends it.
        tasks: What runs.
        drain: Called once after `stop`, while the tasks still run.

    Raises:
        BackendError: A task died; the message names it and the kind of its error, not what the error says.
    """
    running = [asyncio.create_task(coroutine, name=name) for name, coroutine in tasks]
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        done, _ = await asyncio.wait([stopping, *running], return_when=asyncio.FIRST_COMPLETED)
        dead = [task.get_name() for task in done if task is not stopping]
        await drain()
    finally:
        await _cancel([stopping, *running])
        results = await asyncio.gather(stopping, *running, return_exceptions=True)
    if dead:
        kinds = sorted({type(result).__name__ for result in results if isinstance(result, Exception)})
        raise BackendError(f"task {', '.join(dead)} ended ({', '.join(kinds) or 'without an error'})")


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:  # Any: what they return is not looked at
    """Cancel tasks and wait until they have ended, also one whose library took the cancellation for its own."""
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=CANCEL_AGAIN_S)
