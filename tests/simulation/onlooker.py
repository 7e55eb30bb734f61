"""An operator who looks on: at verdicts as they come (`pcs-backend tap`) and at the log (`pcs-backend records`)."""

from __future__ import annotations

import asyncio
import contextlib

from pcs_backend.effects.tap import Filter, Listener, Sighting
from pcs_core.errors import WalError
from pcs_core.wal import read_newest_first
from simulation.machine import Process
from simulation.model import Model

READ_AFTER_S = 5.0
_OUTCOMES = {200, 202}


class Onlooker(Listener):
    """Sees everything, and keeps count.

    Attributes:
        firsts: First outcomes that were shown.
    """

    def __init__(self) -> None:
        super().__init__(Filter())
        self.firsts = 0

    def put(self, seen: Sighting) -> None:
        """As `Listener.put`; keeps no line."""
        self.firsts += seen.status in _OUTCOMES and not seen.replayed


async def read_beside(process: Process, folder: str, model: Model) -> None:
    """Read a log beside its owner, once: every number stands there once, newer segments before older ones."""
    await asyncio.sleep(READ_AFTER_S)
    lowest = float("inf")
    with contextlib.suppress(OSError, WalError):  # the disk refused, or the owner is not that far
        for frames in read_newest_first(folder, process.files):
            sequences = [frame.sequence for frame in frames]
            if sequences != sorted(set(sequences)) or any(each >= lowest for each in sequences):
                model.violate("doubled: numbers of a log that is read beside its owner:", sequences)
            lowest = min([lowest, *sequences])
