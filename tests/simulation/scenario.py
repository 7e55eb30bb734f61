"""What one seed decides beforehand: stores, lifetimes, bounds, how long, how hostile.

Bounds are drawn small, so that a run of minutes reaches what takes a real service weeks: full segments, compaction, batches
that do not fit, a store that is full.
"""

from __future__ import annotations

import contextlib
import importlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from unittest import mock

from pcs_core.wal import Wal

DAY_S = 86_400.0


@dataclass(frozen=True)
class Scenario:
    """One run's settings.

    Attributes:
        store: In the process' memory; shared by two replicas; shared, and now and then emptied.
        ttl_s: Lifetime of an outcome.
        retention_s: Age from which settled requests may leave the inbox.
        outbox_retention_s: The same for delivered records in the outbox.
        deadline_s: From when on the agent gives a record up.
        busy_s: How long faults last.
        fault_gap_s: Mean time between two of them.
        network_share: Share of exchanges that something happens to, in ordinary times.
        store_share: The same for calls to the store.
        token_rate: Records a second, 0 for no limit.
        records_max: Outcomes a memory store holds.
        bounds: Module constants, by module and name.
        segment_bytes: Size of a segment of the inbox; the outbox' is a part of it.
        agent_batch_records: Records that the agent sends together.
        agent_batch_bytes: Bytes of them.
    """

    store: Literal["memory", "shared", "forgetful"]
    ttl_s: float
    retention_s: float
    outbox_retention_s: float
    deadline_s: float
    busy_s: float
    fault_gap_s: float
    network_share: float
    store_share: float
    token_rate: float
    records_max: int
    bounds: dict[tuple[str, str], float]
    segment_bytes: int
    agent_batch_records: int
    agent_batch_bytes: int

    @property
    def replicas(self) -> int:
        """How many backends there are."""
        return 1 if self.store == "memory" else 2


def draw(dice: random.Random) -> Scenario:
    """Draw a scenario."""
    ttl_s = dice.choice([600.0, 1_800.0, 6 * 3_600.0, DAY_S])
    # A queue must take at least the outcomes of one batch.
    queue_bytes, batch_requests = dice.choice([(4_000, 1), (1 << 20, 5), (1 << 20, 64)])
    return Scenario(
        store=dice.choices(["memory", "shared", "forgetful"], [10, 9, 1])[0],
        ttl_s=ttl_s,
        retention_s=dice.choice([5.0, 60.0, ttl_s]),
        outbox_retention_s=dice.choice([10.0, 1_800.0, DAY_S]),
        deadline_s=dice.choice([20.0, 120.0, 900.0]),
        busy_s=dice.uniform(30.0, 100.0),
        fault_gap_s=dice.uniform(1.0, 6.0),
        network_share=dice.choice([0.0, 0.02, 0.15]),
        store_share=dice.choice([0.0, 0.02, 0.1]),
        token_rate=dice.choice([0.0, 0.0, 0.0, 5.0]),
        records_max=dice.choice([1_000, 1_000, 1_000, 25]),
        bounds={
            ("pcs_backend.app", "DISK_CHECK_INTERVAL_S"): dice.choice([0.1, 1.0]),
            ("pcs_backend.app", "HOUSEKEEPING_INTERVAL_S"): dice.choice([1.0, 3.0, 20.0]),
            ("pcs_backend.inbox.group_commit", "BATCH_FRAMES_MAX"): dice.choice([2, 16, 1_024]),
            ("pcs_backend.inbox.group_commit", "QUEUE_BYTES_MAX"): queue_bytes,
            ("pcs_backend.inbox.inbox", "SETTLED_PER_FRAME_MAX"): dice.choice([2, 4_096]),
            ("pcs_backend.inbox.inbox", "OPEN_REQUESTS_MAX"): dice.choice([30, 1_000_000, 1_000_000]),
            ("pcs_backend.recovery", "BATCH_REQUESTS_MAX"): batch_requests,
            ("pcs_backend.dedup.memory_store", "PURGE_MAX"): dice.choice([3, 10_000]),
            ("pcs_agent.pipeline", "COMPACT_EVERY_WINDOWS"): dice.choice([2, 1_000]),
            ("pcs_agent.outbox.outbox", "CARRY_BYTES_MAX"): dice.choice([1_000, 1 << 20]),
            ("pcs_core.wal.folder", "ASIDE_TAILS_MAX"): dice.choice([1, 16]),
            ("pcs_core.wal.folder", "ASIDE_DAMAGED_FILES_MAX"): dice.choice([1, 1_000, 1_000]),
        },
        segment_bytes=dice.choice([1_200, 1_200, 3_000, 8_000, 50_000]),
        agent_batch_records=dice.choice([1, 2, 256, 256]),
        agent_batch_bytes=dice.choice([2_000, 1_000_000, 1_000_000]),
    )


@contextlib.contextmanager
def bounded(scenario: Scenario) -> Iterator[None]:
    """Put the scenario's bounds in place of the shipped ones."""
    with contextlib.ExitStack() as stack:
        batch_bytes = {("pcs_agent.deliver.courier", "BATCH_BYTES_MAX"): scenario.agent_batch_bytes}
        for (module, name), value in (scenario.bounds | batch_bytes).items():
            stack.enter_context(mock.patch.object(importlib.import_module(module), name, value))
        defaults = {"segment_bytes": scenario.segment_bytes}
        stack.enter_context(mock.patch.dict(Wal.__init__.__kwdefaults__, defaults))
        yield


def lift_bounds() -> None:
    """Let the backlog take what it may; old requests that only an operator would judge no longer keep new ones out."""
    importlib.import_module("pcs_backend.inbox.inbox").OPEN_REQUESTS_MAX = 1_000_000
