"""The shipped commands in a process of the harness: small segments, frequent housekeeping, and a cutter in between.

The process is forked from a server that has imported everything, because importing takes longer than a whole cut.
"""

from __future__ import annotations

import functools
import io
import os
import pickle
import signal
import socket
import sys
import threading
from typing import Any

import pcs_agent.cli
import pcs_agent.outbox.outbox
import pcs_agent.pipeline
import pcs_backend.app
import pcs_backend.cli
import pcs_backend.dedup.memory_store
import pcs_core.wal.files
from crash.cutter import Cutter, WatchedOs
from crash.mutants import MUTANTS
from crash.plan import Orders, Place
from pcs_agent.outbox import Outbox
from pcs_backend.recovery import Settler
from pcs_core.wal import PosixFiles, Wal


def run(
    orders: Orders,
    control: socket.socket,
    stdin: socket.socket,
    stdout: socket.socket,
    stderr: socket.socket,
) -> None:
    """Become the program. Entry point of the forked process."""
    for number, stream in enumerate((stdin, stdout, stderr)):
        os.dup2(stream.fileno(), number)
    # The objects know of the files that were there when the server of forks started.
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.BufferedWriter(io.FileIO(number, "w", closefd=False)), line_buffering=True)
        for number in (1, 2)
    )
    os.environ.clear()
    os.environ.update(orders.variables)
    sys.argv = [f"pcs-{orders.program}", *orders.arguments]
    cutter = Cutter(control, orders.cut_folder)
    threading.Thread(target=_obey, args=(control, cutter), daemon=True).start()
    if orders.mutant:
        MUTANTS[orders.mutant]()
    watch_files(cutter)
    if orders.gated:
        _gate(cutter)
    if orders.program == "backend":
        prepare_backend(orders, cutter)
        pcs_backend.cli.main()
    else:
        prepare_agent(orders, cutter)
        pcs_agent.cli.main()


def _obey(control: socket.socket, cutter: Cutter) -> None:
    """Arm when told so; die with the harness, so that nothing stays behind when it is killed."""
    with control.makefile("rb") as lines:
        for line in lines:
            plan, others = pickle.loads(bytes.fromhex(line.decode()))
            cutter.arm(plan, others)
    os.kill(os.getpid(), signal.SIGKILL)


def watch_files(cutter: Cutter) -> None:
    files: Any = pcs_core.wal.files
    files.os = WatchedOs(cutter, files.os)
    for name in ("read", "read_range"):
        setattr(PosixFiles, name, cutter.watched("read", getattr(PosixFiles, name)))


def _gate(cutter: Cutter) -> None:
    opening = Wal.open

    @functools.wraps(opening)
    def wait_and_open(*args: Any, **kwargs: Any) -> None:
        cutter.armed.wait()
        opening(*args, **kwargs)

    Wal.open = wait_and_open  # type: ignore[method-assign]


def prepare_backend(orders: Orders, cutter: Cutter) -> None:
    Wal.__init__.__kwdefaults__["segment_bytes"] = orders.segment_bytes  # type: ignore[attr-defined]
    pcs_backend.app.HOUSEKEEPING_INTERVAL_S = orders.interval_s
    memory_store: Any = pcs_backend.dedup.memory_store
    memory_store.write_snapshot = cutter.place_of(Place.SNAPSHOT, memory_store.write_snapshot)
    _place(cutter, Wal, "remove_oldest", Place.COMPACTION)
    _place(cutter, Wal, "_rotate", Place.ROTATION)
    _place(cutter, Wal, "open", Place.REPLAY)
    commit, settle_batch, young_enough = Wal.commit, Settler.settle_batch, Settler._young_enough
    settling = threading.Event()

    # What a backlog writes while it is settled belongs to the replay; `settle_batch` waits for one first.
    def note_settling(self: Settler, received: Any) -> Any:
        settling.set()
        return young_enough(self, received)

    async def settle_and_note(self: Settler) -> Any:
        try:
            return await settle_batch(self)
        finally:
            settling.clear()

    def commit_in_place(self: Wal, frames: Any) -> Any:
        with cutter.at(Place.REPLAY if settling.is_set() else Place.APPEND):
            return commit(self, frames)

    Settler._young_enough = note_settling  # type: ignore[method-assign]
    Settler.settle_batch = settle_and_note  # type: ignore[method-assign]
    Wal.commit = commit_in_place  # type: ignore[method-assign]


def prepare_agent(orders: Orders, cutter: Cutter) -> None:
    Outbox.__init__.__kwdefaults__["segment_bytes"] = orders.segment_bytes  # type: ignore[attr-defined]
    pcs_agent.pipeline.COMPACT_EVERY_WINDOWS = orders.compact_every
    _place(cutter, Outbox, "compact", Place.OUTBOX_COMPACTION)
    _place(cutter, Wal, "_rotate", Place.OUTBOX_ROTATION)
    _place(cutter, Wal, "open", Place.OUTBOX_REPLAY)
    commit = Wal.commit

    def commit_in_place(self: Wal, frames: Any) -> Any:
        with cutter.at(cutter.here or Place.OUTBOX_APPEND):  # what compaction carries over belongs to it
            return commit(self, frames)

    Wal.commit = commit_in_place  # type: ignore[method-assign]


def _place(cutter: Cutter, owner: type, name: str, place: Place) -> None:
    setattr(owner, name, cutter.place_of(place, getattr(owner, name)))
