"""Opening the engine that was asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from pcs_agent.engines.dask_cluster import DaskEngine
from pcs_agent.engines.local import LocalEngine
from pcs_agent.engines.port import Engine
from pcs_agent.engines.ray_cluster import RayEngine

T = TypeVar("T")
R = TypeVar("R")

ENGINES = ("local", "ray", "dask")
JOBS_MAX = 1_024


def count_cores() -> int:
    """Return how many cores this process may use."""
    return min(len(os.sched_getaffinity(0)), JOBS_MAX)


def open_engine(
    name: str, work: Callable[[T], R], *, jobs: int | None = None, cluster: str | None = None
) -> Engine[T, R]:
    """Return an engine, to be closed by the caller.

    Args:
        name: One of `ENGINES`.
        work: What is done with each task; a function of a module, which the workers import.
        jobs: Tasks worked on at once, 1 … `JOBS_MAX`; `None` for every core there is.
        cluster: Address of a cluster that runs; `None` for processes of this machine.

    Raises:
        ConfigError: The engine is not installed, or there is no such cluster.
    """
    if cluster is None:
        jobs = jobs or count_cores()
    if name == "ray":
        return RayEngine(work, jobs, cluster)
    if name == "dask":
        return DaskEngine(work, jobs, cluster)
    return LocalEngine(work, jobs or count_cores())
