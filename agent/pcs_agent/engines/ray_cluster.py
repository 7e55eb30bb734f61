"""The engine over Ray, which is imported only here (extra `ray`): a cluster that runs already, or one of this machine.

A cluster of its own listens on loopback alone, has no dashboard, sends no usage statistics, and ends with the engine.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from pcs_agent.engines.cluster import TASKS_PER_CORE_MAX, Arrivals
from pcs_agent.engines.port import Done, Lost
from pcs_agent.errors import ConfigError
from pcs_agent.threads import ONE_THREAD

T = TypeVar("T")
R = TypeVar("R")

CONNECT_TIMEOUT_S = 120
"""To reach a cluster, or to start one, which took 5 to 40 seconds. Ray itself tries for longer."""

_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0"}
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray's name for: this node is one of its own and has the address 127.0.0.1. Without it every port is on all interfaces."""


class RayEngine(Generic[T, R]):
    """`Engine` over Ray."""

    def __init__(self, work: Callable[[T], R], jobs: int | None, address: str | None) -> None:
        """Join or start a cluster.

        Args:
            work: As `LocalEngine`; the package is installed where it runs.
            jobs: Tasks worked on at once; `None` for as many as the cluster has cores.
            address: Of a cluster that runs; `None` starts one with `jobs` cores.

        Raises:
            ConfigError: Ray is not installed, or there is no such cluster.
        """
        # Ray reads them when it is imported, and its processes inherit them.
        os.environ.update(_SETTINGS if address else _SETTINGS | _LOOPBACK)
        self._ray = _import_ray()
        logging.getLogger("ray").setLevel(logging.ERROR)
        self._problem = ""
        self._begun, self._closing = threading.Event(), threading.Event()
        # The processes of a cluster of its own die with the thread that started them (the kernel's parent death
        # signal), so that one lives as long as the engine.
        self._holder = threading.Thread(target=self._hold, args=(jobs, address), name="ray", daemon=True)
        self._holder.start()
        if not self._begun.wait(CONNECT_TIMEOUT_S):
            self._problem = f"no answer in {CONNECT_TIMEOUT_S} seconds"
        if self._problem:
            raise ConfigError(
                f"--engine: the Ray cluster cannot be used: {self._problem}; allowed: the address of one that runs"
            )
        self._jobs = jobs or int(self._ray.cluster_resources().get("CPU", 1))
        self._remote = self._ray.remote(work).options(num_cpus=1, max_retries=0)
        self._arrivals: Arrivals[R] = Arrivals()

    @property
    def slots(self) -> int:
        """As `Engine.slots`."""
        return self._jobs * TASKS_PER_CORE_MAX

    def submit(self, number: int, task: T) -> None:
        """As `Engine.submit`."""

        def note(future: Any) -> None:  # noqa: ANN401  # Ray's types are not checked
            error = future.exception()
            self._arrivals.put(number, future.result() if error is None else Lost(type(error).__name__))

        self._remote.remote(task).future().add_done_callback(note)

    def wait(self) -> Done[R]:
        """As `Engine.wait`."""
        return self._arrivals.get()

    def close(self) -> None:
        """As `Engine.close`: ends a cluster of its own, or leaves the other and what is under way there."""
        if not self._arrivals.closed:
            self._arrivals.close()
            self._closing.set()
            self._holder.join()

    def _hold(self, jobs: int | None, address: str | None) -> None:
        try:
            self._ray.init(
                address=address or "local",
                num_cpus=None if address else jobs,
                include_dashboard=None if address else False,
                log_to_driver=False,
                configure_logging=False,
                runtime_env={"env_vars": ONE_THREAD},
            )
        except Exception as error:  # noqa: BLE001  # of Ray's many kinds each means the same; it may quote the address
            self._problem = type(error).__name__
            self._begun.set()
            return
        self._begun.set()
        self._closing.wait()
        self._ray.shutdown()


def _import_ray() -> Any:  # noqa: ANN401  # as above
    try:
        import ray  # noqa: PLC0415
    except ImportError:
        pass
    else:
        return ray
    raise ConfigError(
        "--engine: found ray, which is not installed; allowed: local, or ray with pcs-verification[ray]"
    )
