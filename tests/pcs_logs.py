"""Logs for tests: a real disk, sometimes with a fault, and bytes laid out by hand.

The layout is written here from the package's docstring, with a CRC of its own, so that the tests do not read the log
with the code that wrote it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pcs_core.wal import Frame, NewFrame, Position, PosixFiles, Wal

HEADER_BYTES = 28
FRAME_HEADER_BYTES = 28
SALT = b"saltsalt"


def frame_of(index: int, size_bytes: int = 24) -> NewFrame:
    """Return a frame that can be told from its neighbours."""
    return NewFrame(
        1 + index % 5, f"envelope {index}".encode(), (f"payload {index} ".encode() * 9)[:size_bytes]
    )


@dataclass
class Opened:
    """A log and what was visited when it was opened."""

    wal: Wal
    visited: list[tuple[Position, Frame]] = field(default_factory=list)

    @property
    def frames(self) -> list[NewFrame]:
        return [NewFrame(frame.kind, frame.envelope, frame.payload) for _, frame in self.visited]

    @property
    def sequences(self) -> list[int]:
        return [frame.sequence for _, frame in self.visited]


@contextmanager
def opened(
    folder: Path,
    files: PosixFiles | None = None,
    *,
    salt: Callable[[int], bytes] = lambda _size: SALT,
    segment_bytes: int = 1 << 20,
) -> Iterator[Opened]:
    """Open the log of a folder and close it again."""
    wal = Wal(str(folder), files or PosixFiles(), salt, segment_bytes=segment_bytes)
    log = Opened(wal)
    try:
        wal.open(lambda position, frame: log.visited.append((position, frame)))
        yield log
    finally:
        wal.close()


def write(folder: Path, frames: Iterable[NewFrame], *, segment_bytes: int = 1 << 20) -> list[Position]:
    """Commit frames one by one in a run of their own."""
    with opened(folder, segment_bytes=segment_bytes) as log:
        return [log.wal.commit([frame])[0] for frame in frames]


def segments(folder: Path) -> list[Path]:
    """Return the segments of a log, oldest first."""
    return sorted(folder.glob("*.wal"))


def aside(folder: Path) -> list[bytes]:
    """Return the contents of what was kept aside, in the order of the names."""
    return [path.read_bytes() for path in sorted((folder / "aside").glob("*"))]


# The format, written a second time.


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of bytes, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def raw_segment_header(first_sequence: int, salt: bytes = SALT) -> bytes:
    """Return a segment's header as the package documents it."""
    header = b"PCSWAL01" + salt + struct.pack("<Q", first_sequence)
    return header + struct.pack("<I", crc32c(header))


def raw_frame(frame: NewFrame, sequence: int, salt: bytes = SALT) -> bytes:
    """Return a frame's bytes as the package documents them."""
    sizes = struct.pack("<II", len(frame.envelope), len(frame.payload))
    header = b"PCSF" + bytes((1, frame.kind, 0, 0)) + struct.pack("<Q", sequence) + sizes
    header_crc = struct.pack("<I", crc32c(salt + header))
    content = frame.envelope + frame.payload
    return header + header_crc + content + struct.pack("<I", crc32c(salt + header_crc + content))


# Disks that fail and disks that tell.


class Call(NamedTuple):
    """One call of the port, with the file's name."""

    name: str
    file: str


class RecordingFiles(PosixFiles):
    """The real disk, remembering what was asked of it in which order."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._names: dict[int, str] = {}

    def note(self, name: str, path: str) -> None:
        """Remember a call; the base for faults."""
        self.calls.append(Call(name, os.path.basename(path)))

    def open_append(self, path: str) -> int:
        self.note("open_append", path)
        handle = super().open_append(path)
        self._names[handle] = path
        return handle

    def append(self, handle: int, buffers: Sequence[bytes]) -> None:
        self.note("append", self._names.get(handle, "temporary"))
        super().append(handle, buffers)

    def sync_data(self, handle: int) -> None:
        self.note("sync_data", self._names[handle])
        super().sync_data(handle)

    def truncate(self, handle: int, size_bytes: int) -> None:
        self.note("truncate", self._names[handle])
        super().truncate(handle, size_bytes)

    def rewrite(self, path: str, data: bytes) -> None:
        self.note("rewrite", path)
        super().rewrite(path, data)

    def sync_folder(self, path: str) -> None:
        self.note("sync_folder", path)
        super().sync_folder(path)

    def replace(self, path: str, chunks: Iterable[bytes]) -> None:
        self.note("replace", path)
        super().replace(path, chunks)

    def remove(self, path: str) -> None:
        self.note("remove", path)
        super().remove(path)


class FailingFiles(RecordingFiles):
    """The real disk, failing where it is told to: `fail["append"] = errno.ENOSPC`. A failing write leaves a prefix."""

    def __init__(self) -> None:
        super().__init__()
        self.fail: dict[str, int] = {}
        self.prefix_bytes = 0

    def note(self, name: str, path: str) -> None:
        super().note(name, path)
        if name in self.fail and name != "append":
            raise OSError(self.fail[name], os.strerror(self.fail[name]))

    def append(self, handle: int, buffers: Sequence[bytes]) -> None:
        if "append" in self.fail:
            super().append(handle, [b"".join(buffers)[: self.prefix_bytes]])
            raise OSError(self.fail["append"], os.strerror(self.fail["append"]))
        super().append(handle, buffers)
