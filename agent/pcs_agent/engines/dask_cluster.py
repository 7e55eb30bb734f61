"""The engine over Dask, which is imported only here (extra `dask`): a scheduler that runs already, or one of this machine.

A cluster of its own listens on loopback alone and ends with the engine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from pcs_agent.engines.cluster import TASKS_PER_CORE_MAX, Arrivals
from pcs_agent.engines.port import Done, Lost
from pcs_agent.errors import ConfigError
from pcs_agent.threads import ONE_THREAD

T = TypeVar("T")
R = TypeVar("R")

CONNECT_TIMEOUT_S = 30
"""To reach a scheduler, or to start one and its workers."""

_LOOPBACK = "127.0.0.1"


class DaskEngine(Generic[T, R]):
    """`Engine` over Dask."""

    def __init__(self, work: Callable[[T], R], jobs: int | None, address: str | None) -> None:
        """Join or start a cluster.

        Args:
            work: As `LocalEngine`; the package is installed where it runs.
            jobs: Tasks worked on at once; `None` for as many as the cluster has threads.
            address: Of a scheduler that runs; `None` starts one with `jobs` workers of one thread.

        Raises:
            ConfigError: Dask is not installed, or there is no such scheduler.
        """
        dask, distributed = _import_dask()
        self._work = work
        self._client: Any = None
        self._cluster: Any = None
        problem = ""
        try:
            with dask.config.set(
                {
                    "distributed.nanny.pre-spawn-environ": ONE_THREAD,
                    "distributed.scheduler.allowed-failures": 0,  # `in_order` tries again
                    "distributed.comm.timeouts.connect": f"{CONNECT_TIMEOUT_S}s",
                }
            ):
                if address is None:
                    self._cluster = distributed.LocalCluster(
                        n_workers=jobs,
                        threads_per_worker=1,
                        processes=True,
                        host=_LOOPBACK,
                        dashboard_address=f"{_LOOPBACK}:0",
                        silence_logs=logging.CRITICAL,
                    )
                self._client = distributed.Client(self._cluster or address, timeout=CONNECT_TIMEOUT_S)
        except (OSError, RuntimeError, ValueError, TimeoutError) as error:
            problem = type(error).__name__
        if problem:
            self._end()
            raise ConfigError(
                f"--engine: the Dask cluster cannot be used: {problem}; allowed: the address of one that runs"
            )
        self._jobs = jobs or max(1, sum(self._client.nthreads().values()))
        self._futures: dict[int, Any] = {}  # Dask forgets a task that nobody holds
        self._arrivals: Arrivals[R] = Arrivals()

    @property
    def slots(self) -> int:
        """As `Engine.slots`."""
        return self._jobs * TASKS_PER_CORE_MAX

    def submit(self, number: int, task: T) -> None:
        """As `Engine.submit`."""

        def note(future: Any) -> None:  # noqa: ANN401  # Dask's types are not checked
            if future.status == "finished":
                self._arrivals.put(number, future.result())
            else:
                reason = type(future.exception()).__name__ if future.status == "error" else future.status
                self._arrivals.put(number, Lost(reason))

        future = self._client.submit(self._work, task, pure=False, retries=0)
        self._futures[number] = future
        future.add_done_callback(note)

    def wait(self) -> Done[R]:
        """As `Engine.wait`."""
        done = self._arrivals.get()
        self._futures.pop(done.number, None)
        return done

    def close(self) -> None:
        """As `Engine.close`: ends a cluster of its own, or takes its tasks back from the other."""
        if not self._arrivals.closed:
            self._arrivals.close()
            if self._cluster is None:
                self._client.cancel(list(self._futures.values()), force=True)
            self._end()

    def _end(self) -> None:
        for each in (self._client, self._cluster):
            if each is not None:
                each.close()


def _import_dask() -> tuple[Any, Any]:
    try:
        import dask  # noqa: PLC0415
        import distributed  # noqa: PLC0415
    except ImportError:
        pass
    else:
        return dask, distributed
    raise ConfigError(
        "--engine: found dask, which is not installed; allowed: local, or dask with pcs-verification[dask]"
    )
