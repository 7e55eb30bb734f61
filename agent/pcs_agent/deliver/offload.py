"""Running blocking calls off the event loop, on threads that do not keep the process from ending.

The executor of asyncio waits for its threads at exit; one that waits for standard input would never let go. What a
call was about to write when the process ends is lost as in a crash, which outbox and backend are made for.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class ThreadOffload:
    """`pcs_core.ports.Offload` on a daemon thread per call."""

    async def run(self, call: Callable[[], T]) -> T:
        """Return what `call()` returns, or raise what it raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]  # no error, so it is a result

        def work() -> None:
            result: T | None = None
            failure: BaseException | None = None
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001  # raised again where it is awaited
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, result, failure)

        threading.Thread(target=work, name="pcs-agent-offload", daemon=True).start()
        return await future
