"""Faults of the kind the project must not have, put in place of shipped code to show that the checker would see them.

Each is a patch or another port, here and nowhere in the product.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple
from unittest import mock

from pcs_agent.deliver import Sender
from pcs_agent.deliver.policy import Again, Taken
from pcs_agent.outbox import Outbox, Verdict
from pcs_agent.outbox.entry import AckEnvelope
from pcs_backend.dedup.memory_store import MemoryStore
from pcs_backend.dedup.store import Candidate, Placed
from pcs_backend.engine import Engine
from pcs_backend.inbox.frames import Refusal
from pcs_backend.inbox.inbox import Inbox
from pcs_backend.outcome import Outcome
from pcs_backend.recovery import Settler
from pcs_core.wal import Files, Frame, Ledger, Wal
from simulation.scenario import draw
from simulation.store import StoreClient, StoreServer
from simulation.system import System, shipped_files
from simulation.trace import Dice
from simulation.world import Result, World, run_seed

SEEDS_MAX = 300
"""Seeds of the default run within which each is caught."""


class Mutant(NamedTuple):
    """One of them.

    Attributes:
        stores: Kinds of stores it can show with.
        apply: Puts it in place while its context is open.
        shows: Pattern of what it breaks; anything else does not count as catching it.
    """

    stores: tuple[str, ...]
    apply: Callable[[World], AbstractContextManager[Any]]
    shows: str


class Caught(NamedTuple):
    """How a mutant was caught.

    Attributes:
        seeds: How many seeds it took.
        result: The one that caught it.
    """

    seeds: int
    result: Result


def catch(name: str) -> Caught | None:
    """Run a mutant on the first seeds until one breaks the promise it must break; `None` if none does."""
    mutant = MUTANTS[name]
    for seed in range(SEEDS_MAX):
        if draw(Dice(seed)("scenario")).store not in mutant.stores:
            continue
        result = run_seed(seed, changed=mutant.apply)
        if any(re.search(mutant.shows, violation) for violation in result.violations):
            return Caught(seed + 1, result)
    return None


def _early_acknowledgement(files: Files, system: System) -> None:
    del system
    files.sync_data = lambda handle: None


def _no_directory_fsync(files: Files, system: System) -> None:
    del system
    files.sync_folder = lambda path: None


def _rename_before_sync(files: Files, system: System) -> None:
    def replace(path: str, chunks: Any) -> None:  # the bytes follow some time after the name
        handle = system.open(f"{path}.tmp", system.O_WRONLY | system.O_CREAT | system.O_TRUNC, 0o600)
        for chunk in chunks:
            files.append(handle, [chunk])
        system.close(handle)
        system.rename(f"{path}.tmp", path)
        files.sync_folder(system.path.dirname(path))

    files.replace = replace


def _believe_the_cache(files: Files, system: System) -> None:
    def rewrite(path: str, data: bytes) -> None:
        handle = system.open(path, system.O_WRONLY)
        system.ftruncate(handle, len(data))
        system.fdatasync(handle)
        system.close(handle)

    files.rewrite = rewrite


async def _retire_before_the_snapshot(engine: Engine) -> None:
    await engine.inbox.retire(float("inf"))
    await engine._ports.sleep(5.0)
    await _SAVE(engine)


def _carry_without_sync(outbox: Outbox, entries: Sequence[Any]) -> None:
    with mock.patch.object(outbox._wal._files, "sync_data", return_value=None):
        _CARRY(outbox, entries)


def _retire_what_is_open(ledger: Ledger, sealed_segments: list[int], before_s: float) -> list[int]:
    del ledger, before_s
    return list(sealed_segments)


async def _look_then_write(client: StoreClient, candidates: Sequence[Candidate]) -> list[Placed]:
    known = await client.get([each.outcome.key for each in candidates])
    await client._travel()
    placed = []
    for candidate, outcome in zip(candidates, known, strict=True):
        if outcome is None:
            client._server.write(candidate.outcome)
        placed.append(Placed(outcome or candidate.outcome, outcome is None))
    return placed


def _write_without_queue(server: StoreServer, outcome: Outcome) -> None:
    _WRITE(server, outcome)
    if server.dice.random() < 0.2:  # a crash between the two writes
        server._escalations.pop(outcome.key, None)


def _replay_without_queue(store: MemoryStore, sequence: int, frame: Frame) -> None:
    before = dict(store._escalations)
    _REPLAY(store, sequence, frame)
    for key in store._escalations.keys() - before.keys():
        del store._escalations[key]


def _open_one_below(wal: Wal, visit: Any) -> None:
    _OPEN(wal, visit)
    if wal._last_good_sequence > 1:
        wal._next_sequence = wal._last_good_sequence


def _go_on_after_a_failed_sync(wal: Wal, what: str, error: OSError) -> Exception:
    failure = _FAIL(wal, what, error)
    if what == "sync":
        wal._failure = None
    return failure


async def _refuse_without_a_note(inbox: Inbox, refusals: Sequence[Refusal]) -> None:
    for refusal in refusals:
        inbox._ledger.close(refusal.request)


def _ack_in_memory(outbox: Outbox, answers: Sequence[tuple[int, Any]]) -> None:
    with outbox._guard:
        for seq, verdict in answers:
            entry = outbox._index[seq]
            outbox._index.note_ack(AckEnvelope(seq, outbox._clock(), verdict), entry.position)


async def _take_a_batch_as_one(sender: Sender, outgoing: Sequence[Any]) -> list[Any]:
    decisions = await _SEND_BATCH(sender, outgoing)
    is_answered = not any(isinstance(each, Again) for each in decisions)
    return [Taken(Verdict.ACCEPTED)] * len(decisions) if is_answered else decisions


_SEND_BATCH = Sender._send_batch
_SAVE, _CARRY, _WRITE, _REPLAY = Engine.save_snapshot, Outbox._carry, StoreServer.write, MemoryStore.replay
_OPEN, _FAIL = Wal.open, Wal._fail
_MEMORY, _SHARED = ("memory",), ("shared",)
_ANY = _MEMORY + _SHARED


def _files(change: Callable[[Files, System], None]) -> Callable[[World], AbstractContextManager[Any]]:
    """Return what gives every process other files."""

    def apply(world: World) -> AbstractContextManager[Any]:
        def new_files(system: System) -> Files:
            files = shipped_files(system)
            change(files, system)
            return files

        for operator in world.operators:
            operator.machine.new_files = new_files
        return contextlib.nullcontext()

    return apply


def _patch(owner: type, name: str, value: Any) -> Callable[[World], AbstractContextManager[Any]]:
    """Return what patches a method."""
    return lambda world: mock.patch.object(owner, name, value)


MUTANTS = {
    "early acknowledgement": Mutant(_ANY, _files(_early_acknowledgement), "lost: frame"),
    "no directory fsync": Mutant(_ANY, _files(_no_directory_fsync), "lost: frame"),
    "rename before sync": Mutant(
        _MEMORY, _files(_rename_before_sync), "lost: frame|DataError the memory store's snapshot"
    ),
    "early compaction of the inbox": Mutant(
        _MEMORY,
        _patch(Engine, "save_snapshot", _retire_before_the_snapshot),
        "doubled: a second first outcome|DataError the memory store's snapshot",
    ),
    "early compaction of the outbox": Mutant(_ANY, _patch(Outbox, "_carry", _carry_without_sync), "lost: "),
    "retention of open requests": Mutant(
        _ANY, _patch(Ledger, "retirable", _retire_what_is_open), "lost: retention removes open request"
    ),
    "non-atomic dedup": Mutant(
        _SHARED, _patch(StoreClient, "put_first", _look_then_write), "doubled: a second first outcome"
    ),
    "lost escalation in the store": Mutant(
        _SHARED, _patch(StoreServer, "write", _write_without_queue), "lost: an escalated record"
    ),
    "lost escalation at recovery": Mutant(
        _MEMORY, _patch(MemoryStore, "replay", _replay_without_queue), "lost: an escalated record"
    ),
    "reused sequence number": Mutant(_ANY, _patch(Wal, "open", _open_one_below), "sequence number reused"),
    "replay past the lifetime": Mutant(
        _ANY,
        _patch(Settler, "_young_enough", lambda settler, received: received),
        "doubled: an outcome of a request past the lifetime",
    ),
    "going on after a failed sync": Mutant(
        _ANY, _patch(Wal, "_fail", _go_on_after_a_failed_sync), "doubled: a second first outcome"
    ),
    "believing the cache after a failed sync": Mutant(_ANY, _files(_believe_the_cache), "lost: frame"),
    "refusal without a note": Mutant(
        _ANY,
        _patch(Inbox, "refuse", _refuse_without_a_note),
        "doubled: an outcome of a request that was refused",
    ),
    "a batch taken as one": Mutant(
        _ANY,
        _patch(Sender, "_send_batch", _take_a_batch_as_one),
        "lost: acknowledged in agent without an outcome",
    ),
    "delivery noted in memory alone": Mutant(
        _ANY, _patch(Outbox, "ack", _ack_in_memory), "lost: in the outbox"
    ),
}
