"""What is run: each item by its name. Floors stand beside what is measured against them, so that noise hits both."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import orjson
import uvloop

from bench.rig import Figures, Load, Rig, Setup, figures_of
from pcs_backend.dedup.postgres_store import PostgresStore

SINGLE_CONNECTIONS = 64
BATCH_CONNECTIONS = {100: 8, 1_000: 4}
"""How many batches are under way a process, by their size."""

NOMINAL_RATE = 100.0
"""Records a second at which the time to a verdict is an objective."""

STORES = ("memory", "redis", "postgres")


class Item(NamedTuple):
    """One thing that is measured.

    Attributes:
        name: Of the row.
        run: Measures it once.
    """

    name: str
    run: Callable[[Rig], Figures]


class Sizes(NamedTuple):
    """How many of each a run sends, checks or syncs.

    Attributes:
        constant: Requests to F1.
        single: Single submits.
        batch: Records in batches, by algorithm.
        driver: Records a driver stores.
        checks: Records of F2.
        signatures: Signatures of F3.
        syncs: Syncs of F4.
        nominal_s: Seconds at the nominal rate.
    """

    constant: int
    single: int
    batch: dict[str, int]
    driver: int
    checks: int
    signatures: int
    syncs: int
    nominal_s: float


FULL = Sizes(
    constant=40_000,
    single=15_000,
    batch={"hmac": 100_000, "ed25519": 50_000},
    driver=40_000,
    checks=60_000,
    signatures=10_000,
    syncs=1_000,
    nominal_s=10.0,
)
QUICK = Sizes(
    constant=3_000,
    single=1_500,
    batch={"hmac": 12_000, "ed25519": 12_000},
    driver=3_000,
    checks=5_000,
    signatures=1_000,
    syncs=100,
    nominal_s=1.0,
)

F1 = "F1 aiohttp, constant answer"
F2 = "F2 checks in a bare loop"
F3 = "F3 PyNaCl verify"
F4 = "F4 append and fdatasync"
NOMINAL = f"open loop {NOMINAL_RATE:g}/s hmac memory"


def single(algorithm: str, store: str, workers: int) -> str:
    """Return the name of an item of single submits."""
    return f"single {algorithm} {store} {workers}w"


def batch(size: int, algorithm: str, store: str, workers: int, services: int = 1) -> str:
    """Return the name of an item of batches."""
    shared = f" {services} services" if services > 1 else ""
    return f"batch {size} {algorithm} {store} {workers}w{shared}"


def gated(name: str) -> str:
    """Return the name of an item with the calibrated gate on."""
    return f"{name} gate"


def driver(size: int, store: str) -> str:
    """Return the name of the floor of a store."""
    return f"driver alone, {store}, {size}"


def bare(size: int, processes: int) -> str:
    """Return the name of the floor of several processes."""
    return f"{processes}w bare checks and statement, {size}"


def plan(sizes: Sizes) -> list[Item]:
    """Return everything that is measured in rounds, in order."""
    items = [
        Item(F4, lambda rig: _syncs(rig, sizes.syncs)),
        Item(F1, lambda rig: _http(rig, sizes.constant)),
        _single(sizes, "hmac", "memory", 1),
        _gate(single("hmac", "memory", 1), _singles(sizes)),
        Item(F2, lambda rig: _loop(rig, "F2", sizes.checks, str(rig.pool("hmac").bodies))),
        _batch(sizes, 100, "hmac", "memory", 1),
        _gate(batch(100, "hmac", "memory", 1), _batches(sizes, 100, "hmac", 1)),
        _batch(sizes, 1_000, "hmac", "memory", 1),
        _gate(batch(1_000, "hmac", "memory", 1), _batches(sizes, 1_000, "hmac", 1)),
        _driver(sizes, 100, "redis"),
        _batch(sizes, 100, "hmac", "redis", 1),
        _driver(sizes, 100, "postgres"),
        _batch(sizes, 100, "hmac", "postgres", 1),
        _driver(sizes, 1_000, "redis"),
        _batch(sizes, 1_000, "hmac", "redis", 1),
        _driver(sizes, 1_000, "postgres"),
        _batch(sizes, 1_000, "hmac", "postgres", 1),
        Item(F3, lambda rig: _loop(rig, "F3", sizes.signatures)),
        _bare(sizes, 100, 2),
        _batch(sizes, 100, "ed25519", "postgres", 2),
        _bare(sizes, 1_000, 2),
        _batch(sizes, 1_000, "ed25519", "postgres", 2),
        _bare(sizes, 100, 1),
        _batch(sizes, 100, "ed25519", "postgres", 1),
        _batch(sizes, 100, "ed25519", "postgres", 1, services=2),
        Item(NOMINAL, lambda rig: _nominal(rig, sizes.nominal_s)),
    ]
    # The rest of the table; no target stands on these.
    named = {item.name for item in items}
    workers = {"memory": (1,), "redis": (1, 2), "postgres": (1, 2)}
    for store in STORES:
        for algorithm in ("hmac", "ed25519"):
            for count in workers[store]:
                items += [
                    _single(sizes, algorithm, store, count),
                    _batch(sizes, 100, algorithm, store, count),
                    _batch(sizes, 1_000, algorithm, store, count),
                ]
    return [*items[: len(named)], *(item for item in items[len(named) :] if item.name not in named)]


QUICK_ITEMS = (
    F4,
    F1,
    single("hmac", "memory", 1),
    F2,
    batch(100, "hmac", "memory", 1),
    F3,
    driver(100, "redis"),
    batch(100, "hmac", "redis", 1),
    NOMINAL,
)
"""What a few seconds are enough for."""


def _single(sizes: Sizes, algorithm: str, store: str, workers: int) -> Item:
    setup = Setup(algorithm, store, workers)
    return Item(single(algorithm, store, workers), lambda rig: rig.run(setup, _singles(sizes)))


def _batch(sizes: Sizes, size: int, algorithm: str, store: str, workers: int, *, services: int = 1) -> Item:
    setup = Setup(algorithm, store, workers, services)
    load = _batches(sizes, size, algorithm, workers * services)
    return Item(batch(size, algorithm, store, workers, services), lambda rig: rig.run(setup, load))


def _gate(name: str, load: Load) -> Item:
    """The gate beside a service without it, in turn: what it costs is less than the machine's noise between two runs."""
    return Item(gated(name), lambda rig: rig.run_in_turn(Setup(gated=True), Setup(), load))


def _singles(sizes: Sizes) -> Load:
    return Load(sizes.single, connections=SINGLE_CONNECTIONS)


def _batches(sizes: Sizes, size: int, algorithm: str, processes: int) -> Load:
    return Load(sizes.batch[algorithm], batch=size, connections=BATCH_CONNECTIONS[size] * processes)


def _nominal(rig: Rig, seconds: float) -> Figures:
    return rig.run(Setup(), Load(int(NOMINAL_RATE * seconds), rate=NOMINAL_RATE))


def _http(rig: Rig, count: int) -> Figures:
    with rig.floor_server("bench.floors.http") as server:
        load = Load(count, connections=SINGLE_CONNECTIONS)
        return figures_of(rig.drive([server], rig.pool("hmac"), load, constant=True))


def _bare(sizes: Sizes, size: int, processes: int) -> Item:
    def run(rig: Rig) -> Figures:
        with contextlib.ExitStack() as stack:
            dsn = stack.enter_context(rig.store("postgres"))["POSTGRES_DSN"]
            uvloop.run(_make_schema(dsn))
            servers = [stack.enter_context(rig.floor_server("bench.floors.bare", dsn, "0"))]
            port = servers[0].url.rpartition(":")[2]
            servers += [
                stack.enter_context(rig.floor_server("bench.floors.bare", dsn, port))
                for _ in range(processes - 1)
            ]
            load = _batches(sizes, size, "ed25519", processes)
            return figures_of(rig.drive(servers, rig.pool("ed25519"), load, constant=True))

    return Item(bare(size, processes), run)


def _driver(sizes: Sizes, size: int, store: str) -> Item:
    def run(rig: Rig) -> Figures:
        with rig.store(store) as variables:
            address = variables.get("REDIS_ADDR") or variables["POSTGRES_DSN"]
            if store == "postgres":
                uvloop.run(_make_schema(address))
            arguments = (
                str(rig.pool("hmac").bodies),
                str(sizes.driver),
                str(size),
                str(BATCH_CONNECTIONS[size]),
            )
            found = orjson.loads(rig.python("bench.floors.driver", store, address, *arguments))
        return Figures(rate=found["rate"], cpu_us=found["cpu_us"])

    return Item(driver(size, store), run)


async def _make_schema(dsn: str) -> None:
    store = PostgresStore(dsn, now=lambda: 0.0)
    await store.open()
    await store.close()


def _syncs(rig: Rig, count: int) -> Figures:
    with rig.scratch() as folder:
        return _loop(rig, "F4", count, str(folder / "file"))


def _loop(rig: Rig, name: str, count: int, *arguments: str) -> Figures:
    found = orjson.loads(rig.python("bench.floors.loop", name, str(count), *arguments))
    return Figures(rate=found.pop("rate"), cpu_us=found.pop("cpu_us"), more=found)
