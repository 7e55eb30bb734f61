"""What a run needs: pools, folders on the real disk, servers, the service itself, the client, and the check afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import msgspec
import orjson
import uvloop

from bench.job import Found, Job, Turns
from bench.pool import ED25519_PUBLIC_B64, HMAC_SECRET, Pool, make_pool
from gates import promote, set_of
from pcs_backend.engine import SNAPSHOT
from pcs_core.signing import SigningAlgorithm
from processes import Backend, clean_environment
from servers import PostgresServer, RedisServer

SUBMIT_PATH = "/v1/pcs/submit"
BATCH_PATH = "/v1/pcs/batch"
CLIENT_TIMEOUT_S = 900.0

GATE_SET = set_of([at * 0.000735 for at in range(1_000)], [0.6922 + at * 0.0001 for at in range(1_000)])
"""As large as sets are by default, α and δ 0.05 as they are. About 95 % of the records of the pools are accepted."""

_LOAD_FOLDER = Path(__file__).resolve().parents[1]
_PYTHONPATH = os.pathsep.join([str(_LOAD_FOLDER), str(_LOAD_FOLDER.parent / "tests")])


class Setup(NamedTuple):
    """How the service is run.

    Attributes:
        algorithm: `hmac` or `ed25519`.
        store: `memory`, `redis` or `postgres`.
        workers: Processes of one service.
        services: Services that share the store, each with a data folder of its own.
        gated: Whether the calibrated gate is on, with a set in force.
    """

    algorithm: str = "hmac"
    store: str = "memory"
    workers: int = 1
    services: int = 1
    gated: bool = False


class Load(msgspec.Struct, frozen=True):
    """What is sent to it.

    Attributes:
        count: Records.
        batch: Records a request; 0 is single submits.
        connections: Open at once, or at most.
        rate: Records a second of the open loop; 0 is the closed one.
        first: First record of the pool.
        warmup: Share that is not measured.
        may_refuse: Whether 503 with Retry-After is an answer.
    """

    count: int
    batch: int = 0
    connections: int = 64
    rate: float = 0.0
    first: int = 0
    warmup: float = 0.1
    may_refuse: bool = False


class Figures(msgspec.Struct, kw_only=True):
    """What one run gave.

    Attributes:
        rate: Records a second.
        latency_ms: Quantiles of `bench.job.QUANTILES`.
        cpu_us: CPU time of the service a record, all its processes.
        records_a_sync: Records a sync of the log; 0 where there is no log.
        client_cpu: Share of a core the client used.
        refused: Records answered 503.
        more: What else an item has to tell.
        wrong: What was wrong, in few words, and how often.
    """

    rate: float
    latency_ms: list[float] = []
    cpu_us: float = 0.0
    records_a_sync: float = 0.0
    client_cpu: float = 0.0
    refused: int = 0
    more: dict[str, float] = {}
    wrong: dict[str, int] = {}


class Rig:
    """Everything that lives longer than one run; a context manager."""

    def __init__(self, folder: Path, pools: Path, pool_counts: Mapping[str, int]) -> None:
        """Choose the places; nothing is made yet.

        Args:
            folder: Below it, on the disk that is measured, each run has a folder of its own.
            pools: Where pools are kept.
            pool_counts: Records the pool of an algorithm has at least.
        """
        self.folder = folder
        self._pools = pools
        self._pool_counts = pool_counts
        self._stack = contextlib.ExitStack()
        self._redis: RedisServer | None = None
        self._postgres: PostgresServer | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def pool(self, algorithm: str) -> Pool:
        """Return the records, made when first asked for."""
        return make_pool(self._pools, SigningAlgorithm(algorithm), self._pool_counts[algorithm])

    @property
    def redis(self) -> RedisServer:
        """Redis with every write synced, started when first asked for."""
        if self._redis is None:
            self._redis = self._stack.enter_context(RedisServer())
        return self._redis

    @property
    def postgres(self) -> PostgresServer:
        """PostgreSQL, started when first asked for."""
        if self._postgres is None:
            self._postgres = self._stack.enter_context(PostgresServer())
        return self._postgres

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a new folder on the measured disk."""
        path = Path(tempfile.mkdtemp(prefix="run-", dir=self.folder))
        try:
            yield path
        finally:
            shutil.rmtree(path)

    @contextlib.contextmanager
    def store(self, kind: str) -> Iterator[dict[str, str]]:
        """Give the variables that name an empty store."""
        if kind == "redis":
            self.redis.flush()
            yield {"DEDUP_BACKEND": "redis", "REDIS_ADDR": self.redis.address}
            self.redis.flush()
        elif kind == "postgres":
            dsn = self.postgres.create_database()
            yield {"DEDUP_BACKEND": "postgres", "POSTGRES_DSN": dsn}
            self.postgres.drop_database(dsn)
        else:
            yield {"DEDUP_BACKEND": "memory"}

    @contextlib.contextmanager
    def services(self, setup: Setup, folder: Path, **variables: str) -> Iterator[list[Backend]]:
        """Give running services, new to everything; they are killed at the end, so that only their logs can tell."""
        keys = {"PCS_SIGN_ALG": "hmac", "PCS_HMAC_KEY": HMAC_SECRET}
        if setup.algorithm == SigningAlgorithm.ED25519:
            keys = {"PCS_SIGN_ALG": "ed25519", "PCS_ED25519_PUB_B64": ED25519_PUBLIC_B64}
        if setup.gated:
            variables["ENABLE_CONFORMAL_GATE"] = "true"
        with contextlib.ExitStack() as stack:
            store = stack.enter_context(self.store(setup.store))
            services = []
            for number in range(setup.services):
                service = Backend(folder / f"data-{number}", LOG_LEVEL="INFO", **store, **keys, **variables)
                service.command = [sys.executable, "-m", "pcs_backend", "serve"]
                if setup.workers > 1:
                    service.command += ["--workers", str(setup.workers)]
                if setup.gated:
                    uvloop.run(promote(service.variables, GATE_SET))
                services.append(stack.enter_context(service))
                _check_started(service)
            yield services

    def run(self, setup: Setup, load: Load, **variables: str) -> Figures:
        """Run the service under a load, then look for every answered record."""
        with self.scratch() as folder, self.services(setup, folder, **variables) as services:
            answers = folder / "answers"
            found = self.drive(services, self.pool(setup.algorithm), load, answers)
            figures = figures_of(found, syncs(services))
            kill(services)
            figures.wrong |= self.replay(services, answers)
        return figures

    def run_in_turn(self, setup: Setup, beside: Setup, load: Load) -> Figures:
        """Run two services beside each other under the same load in turn, then look for every answered record.

        Returns:
            The figures of the first; `more` has the second's, and the ratio of the rates.
        """
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(self.scratch())
            sides: list[tuple[list[Backend], Path]] = []
            for number, each in enumerate((setup, beside)):
                home = folder / str(number)
                home.mkdir()
                sides.append((stack.enter_context(self.services(each, home)), home / "answers"))
            jobs = [
                self._job(services, self.pool(setup.algorithm), load, answers) for services, answers in sides
            ]
            output = self.python("bench.turns", stdin=msgspec.json.encode(jobs))
            found = msgspec.json.decode(output, type=Turns)
            first, second = found.sides
            figures = Figures(
                rate=first.rate,
                latency_ms=first.latency_ms,
                cpu_us=first.cpu_us,
                records_a_sync=first.records / syncs(sides[0][0]),
                more={
                    "ratio": found.ratio,
                    "beside_rate": second.rate,
                    "beside_cpu_us": second.cpu_us,
                },
                wrong=first.wrong | second.wrong,
            )
            for services, answers in sides:
                kill(services)
                figures.wrong |= self.replay(services, answers)
        return figures

    def drive(
        self,
        services: list[Backend],
        pool: Pool,
        load: Load,
        answers: Path | None = None,
        *,
        constant: bool = False,
    ) -> Found:
        """Run the client in a process of its own."""
        job = self._job(services, pool, load, answers, constant=constant)
        return msgspec.json.decode(self.python("bench.client", stdin=msgspec.json.encode(job)), type=Found)

    def _job(
        self,
        services: list[Backend],
        pool: Pool,
        load: Load,
        answers: Path | None = None,
        *,
        constant: bool = False,
    ) -> Job:
        return Job(
            ports=[urlsplit(service.url).port or 0 for service in services],
            path=BATCH_PATH if load.batch and not constant else SUBMIT_PATH,
            bodies=str(pool.bodies),
            ids=str(pool.ids),
            pool_count=pool.count,
            pids=[service.pid for service in services],
            answers="" if answers is None else str(answers),
            constant=constant,
            **msgspec.structs.asdict(load),
        )

    def replay(self, services: list[Backend], *answers: Path) -> dict[str, int]:
        """Return what is missing of the answers, once the services are gone."""
        logs = [str(service.data_dir) for service in services]
        compared = orjson.loads(
            self.python("bench.replay", *map(str, answers), "--logs", *logs, variables=services[0].variables)
        )
        del compared["answered"]
        return {name: count for name, count in compared.items() if count}

    def python(
        self,
        module: str,
        *arguments: str,
        stdin: bytes = b"",
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> bytes:
        """Run a module of this package to its end; returns its standard output.

        Raises:
            RuntimeError: It failed.
        """
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            input=stdin,
            env=clean_environment(**variables, PYTHONPATH=_PYTHONPATH),
            capture_output=True,
            timeout=CLIENT_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{module}: {done.stderr.decode()[-4_000:]}")
        return done.stdout

    @contextlib.contextmanager
    def floor_server(self, module: str, *arguments: str, **variables: str) -> Iterator[Backend]:
        """Give a floor's server process."""
        server = Backend(self.folder, PYTHONPATH=_PYTHONPATH, **variables)
        server.command = [sys.executable, "-m", module, *arguments]
        with contextlib.ExitStack() as stack:
            stack.push(server)
            server.start(wait_ready=False)
            _check_started(server)
            yield server


def figures_of(found: Found, sync_count: float = 0.0) -> Figures:
    """Return what a client found, with what the service says of its log."""
    return Figures(
        rate=found.rate,
        latency_ms=found.latency_ms,
        cpu_us=found.cpu_us,
        records_a_sync=found.records / sync_count if sync_count else 0.0,
        client_cpu=found.client_cpu,
        refused=found.refused,
        more={"behind_ms": found.behind_ms},
        wrong=found.wrong,
    )


def _check_started(server: Backend) -> None:
    if not server.url:
        raise RuntimeError(f"{' '.join(server.command)}: {server.output.decode()[-4_000:]}")


def kill(services: list[Backend]) -> None:
    """Kill services and take away the memory store's snapshots: their logs alone must tell everything."""
    for service in services:
        service.kill()
        (service.data_dir / SNAPSHOT).unlink(missing_ok=True)


def syncs(services: list[Backend]) -> float:
    """Return how often the services synced their logs."""
    return sum(metrics(service)["flk_wal_sync_seconds_count"] for service in services)


def metrics(service: Backend) -> dict[str, float]:
    """Return a service's samples."""
    with urllib.request.urlopen(f"{service.url}/metrics", timeout=10.0) as response:
        text = response.read().decode()
    lines: list[Any] = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}
