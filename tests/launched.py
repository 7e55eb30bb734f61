"""The shipped commands as a test wants them: under a wall clock it moves, and stopping in a place of the product it names.

    clock = MovedClock(tmp_path / "clock")
    backend.command = launched(["pcs-backend", "serve"], clock=clock)
    clock.set(YEAR_S)                                   # also while it runs

    with Pause(tmp_path) as pause:
        backend.command = launched(["pcs-backend", "serve"], pause=pause.at(Place.ROTATION, "fsync"))
        ...
        pause.reached()                                 # the process stands still just before that system call
        pause.go_on()

As a program it is the launcher: it changes the world of the command, never the command, and then runs it.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import socket
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

REACH_TIMEOUT_S = 30.0
SEGMENT_BYTES = 64 * 1024 * 1024
INTERVAL_S = 60.0


class MovedClock:
    """A file that says how many seconds a launched process's wall clock is ahead."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(struct.pack("<d", 0.0))

    def set(self, ahead_s: float) -> None:
        """Let the clock jump. On return it has."""
        with self.path.open("r+b") as file, mmap.mmap(file.fileno(), 8) as shared:
            shared[:] = struct.pack("<d", ahead_s)


class Pause:
    """Where a launched process tells that it has reached its place, and waits."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "pause.sock"
        self._listener = socket.socket(socket.AF_UNIX)
        self._process: socket.socket | None = None

    def __enter__(self) -> Self:
        self._listener.bind(str(self._path))
        self._listener.listen()
        self._listener.settimeout(REACH_TIMEOUT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.go_on()
        self._listener.close()
        self._path.unlink()

    def at(self, place: str, call: str, nth: int = 1) -> dict[str, object]:
        """Say where to stop: before the nth such system call in that place."""
        return {"socket": str(self._path), "place": place, "call": call, "nth": nth}

    def reached(self) -> dict[str, Any]:
        """Wait until the process stands there; returns what it tells of the place."""
        self._process = self._listener.accept()[0]
        self._process.settimeout(REACH_TIMEOUT_S)
        told: dict[str, Any] = json.loads(self._process.makefile("rb").readline())
        return told

    def go_on(self) -> None:
        """Let it go on. Does nothing when nobody waits."""
        if self._process is not None:
            self._process.close()
            self._process = None


def launched(
    command: Sequence[str],
    *,
    clock: MovedClock | None = None,
    pause: dict[str, object] | None = None,
    segment_bytes: int = SEGMENT_BYTES,
    interval_s: float = INTERVAL_S,
) -> list[str]:
    """Return the command line that runs an installed command in such a world.

    Args:
        command: Its name and arguments.
        clock: Its wall clock.
        pause: Where it stops, once.
        segment_bytes: Size of its log's segments.
        interval_s: The backend's interval of housekeeping.
    """
    orders = {
        "clock": None if clock is None else str(clock.path),
        "pause": pause,
        "segment_bytes": segment_bytes,
        "interval_s": interval_s,
    }
    return [sys.executable, __file__, json.dumps(orders), *command]


def _move_clock(path: str) -> None:
    """Put a clock in the place of the wall clock before anything has taken hold of it."""
    real = time.time
    with open(path, "rb") as file:
        shared = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)

    def moved() -> float:
        ahead_s: float = struct.unpack("<d", shared)[0]
        return real() + ahead_s

    time.time = moved


def _main() -> None:
    orders = json.loads(sys.argv[1])
    sys.argv = sys.argv[2:]
    if orders["clock"] is not None:
        _move_clock(orders["clock"])

    from crash.cutter import Cutter
    from crash.launcher import prepare_agent, prepare_backend, watch_files
    from crash.plan import Moment, Orders, Place, Plan

    class Stopper(Cutter):
        """Stands still where a cutter would cut, and nowhere else however long that place does not come."""

        def __init__(self, line: socket.socket) -> None:
            super().__init__(line, None)
            self._line = line

        def arm(self, plan: Plan, others: Sequence[int]) -> None:
            super().arm(plan, others)
            self._patient_until_s = math.inf

        def _cut(self, plan: Plan, name: str) -> None:
            self._line.sendall(json.dumps({"place": plan.place, "call": name}).encode() + b"\n")
            self._line.recv(1)

    program = sys.argv[0].removeprefix("pcs-")
    control = socket.socket(socket.AF_UNIX)
    stopper = Stopper(control)
    if (pause := orders["pause"]) is not None:
        control.connect(pause["socket"])
        stopper.arm(Plan(Place(pause["place"]), pause["call"], pause["nth"], Moment.BEFORE, 0.0), ())
    watch_files(stopper)
    said = Orders(
        program=program,
        arguments=(),
        variables={},
        cut_folder=None,
        segment_bytes=orders["segment_bytes"],
        interval_s=orders["interval_s"],
        compact_every=2,
    )
    if program == "backend":
        import pcs_backend.cli

        prepare_backend(said, stopper)
        pcs_backend.cli.main()
    else:
        import pcs_agent.cli

        prepare_agent(said, stopper)
        pcs_agent.cli.main()


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(__file__))
    _main()
