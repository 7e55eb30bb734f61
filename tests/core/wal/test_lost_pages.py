"""What a failed sync leaves: bytes that every reader finds and no disk has.

On the simulated disk, because no real one does it when asked to.
"""

from __future__ import annotations

import errno
import random

import pytest

from pcs_core.errors import WalFailedError
from pcs_core.wal import NewFrame, Wal
from pcs_logs import SALT, frame_of
from simulation.disk import Disk
from simulation.system import System, shipped_files

FOLDER = "/simulated/log"


class LosingDisk:
    """A disk whose syncs fail while `failing` names the call; a failed one has written nothing."""

    def __init__(self) -> None:
        self.disk = Disk(_Never())
        self.failing = ""
        self.frames: list[NewFrame] = []

    def open(self, *, segment_bytes: int = 1 << 20) -> Wal:
        """Open the log in a process of its own; what it shows is in `frames`."""
        system = System(self.disk, lambda call, _: errno.EIO if call == self.failing else 0, random.Random(0))
        wal = Wal(FOLDER, shipped_files(system), lambda _: SALT, segment_bytes=segment_bytes)
        self.frames = []
        wal.open(lambda _, frame: self.frames.append(NewFrame(frame.kind, frame.envelope, frame.payload)))
        return wal


class _Never(random.Random):
    """Dice of a disk that keeps nothing it need not keep."""

    def random(self) -> float:
        return 0.0


@pytest.fixture
def losing() -> LosingDisk:
    losing = LosingDisk()
    system = System(losing.disk, lambda call, path: 0, random.Random(0))
    system.mkdir("/simulated")
    losing.disk.sync_all()
    return losing


@pytest.mark.parametrize("segment_bytes", [1 << 20, 1])
def test_what_a_failed_sync_left_in_memory_is_on_disk_once_it_was_shown(
    losing: LosingDisk, segment_bytes: int
) -> None:
    """Found by the simulation: the next process was shown the frames, synced nothing, and a power cut took them."""
    wal = losing.open(segment_bytes=segment_bytes)
    wal.commit([frame_of(0)])
    losing.failing = "fdatasync"
    with pytest.raises(WalFailedError, match="Input/output error"):
        wal.commit([frame_of(1)])
    wal.close()
    losing.failing = ""
    again = losing.open(segment_bytes=segment_bytes)
    shown = losing.frames
    assert shown == [frame_of(0), frame_of(1)][: 2 if segment_bytes > 1 else 1]
    again.commit([frame_of(2)])
    again.close()
    losing.disk.cut()
    losing.open()
    assert losing.frames == [*shown, frame_of(2)]


def test_a_disk_that_still_refuses_shows_nothing(losing: LosingDisk) -> None:
    wal = losing.open()
    wal.commit([frame_of(0)])
    losing.failing = "fdatasync"
    with pytest.raises(WalFailedError):
        wal.commit([frame_of(1)])
    wal.close()
    with pytest.raises(OSError, match="Input/output error"):
        losing.open()
