"""The durable-write primitives: every write, sync, rename and removal of the project goes through here.

Each states what is on disk when it returns. `Files` is the port that a simulated disk implements; `PosixFiles` is the
real one. Folders are made with mode 0700, files with 0600.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from pcs_core.errors import WalLockedError

_FILE_MODE = 0o600
_FOLDER_MODE = 0o700
_BUFFERS_PER_WRITE_MAX = 1024  # IOV_MAX on Linux
TEMPORARY_SUFFIX = ".tmp"
LOCK_NAME = "lock"


def name_of(error: OSError) -> str:
    """Return the kind of the error without the path, which may be a user's string."""
    return os.strerror(error.errno) if error.errno else type(error).__name__


class Files(Protocol):
    """What the log asks of a disk. Handles are opaque integers; errors are `OSError`."""

    def make_folder(self, path: str) -> None:
        """Make a folder and its missing parents. On return its directory entry is on disk, also if it was there already."""

    def list_names(self, path: str) -> list[str]:
        """Names in a folder, sorted; empty if there is no such folder."""

    def read(self, path: str) -> bytes:
        """All bytes of a file."""

    def read_range(self, path: str, offset: int, size_bytes: int) -> bytes:
        """Up to `size_bytes` bytes from `offset`; fewer at the end of the file."""

    def open_append(self, path: str) -> int:
        """Open a file for appending, made if missing. Nothing is on disk yet."""

    def append(self, handle: int, buffers: Sequence[bytes]) -> None:
        """Write all buffers at the end. Nothing is on disk before `sync_data`; on error any prefix may be."""

    def sync_data(self, handle: int) -> None:
        """On return the file's bytes and its size are on disk."""

    def truncate(self, handle: int, size_bytes: int) -> None:
        """Cut the file. Not on disk before `sync_data`."""

    def rewrite(self, path: str, data: bytes) -> None:
        """Make a file's bytes these, which it holds already, and no more. On return they are on disk.

        A sync that fails may leave bytes in memory alone, where every reader finds them and a further sync has nothing
        to do. Only bytes that are written anew are known to be on disk after the next one.
        """

    def close(self, handle: int) -> None:
        """Give the handle back."""

    def sync_folder(self, path: str) -> None:
        """On return the folder's entries — files made, renamed or removed in it — are on disk."""

    def replace(self, path: str, chunks: Iterable[bytes]) -> None:
        """Replace a file whole. On return the new bytes are on disk; an error or a crash before leaves the old ones.

        An error gives the space back that the new bytes took. One of the last step alone, the sync of the folder, leaves
        the new bytes in place, though not yet for certain on disk.
        """

    def remove(self, path: str) -> None:
        """Remove a file. On return its entry is gone from disk."""

    def lock(self, folder: str) -> int:
        """Take the folder for this process until `close` or its death.

        Raises:
            WalLockedError: Another process has it.
        """


class PosixFiles:
    """The real disk."""

    def make_folder(self, path: str) -> None:
        """As `Files.make_folder`."""
        path = os.path.abspath(path)
        parent = os.path.dirname(path)
        if os.path.isdir(path):
            # Whoever made it may have died before this sync. A parent that may not be read is another's, and so is it.
            with contextlib.suppress(PermissionError):
                self.sync_folder(parent)
            return
        self.make_folder(parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, _FOLDER_MODE)
        self.sync_folder(parent)

    def list_names(self, path: str) -> list[str]:
        """As `Files.list_names`."""
        try:
            return sorted(os.listdir(path))
        except FileNotFoundError:
            return []

    def read(self, path: str) -> bytes:
        """As `Files.read`."""
        with open(path, "rb") as file:
            return file.read()

    def read_range(self, path: str, offset: int, size_bytes: int) -> bytes:
        """As `Files.read_range`."""
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(size_bytes)

    def open_append(self, path: str) -> int:
        """As `Files.open_append`."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _FILE_MODE)

    def append(self, handle: int, buffers: Sequence[bytes]) -> None:
        """As `Files.append`."""
        for first in range(0, len(buffers), _BUFFERS_PER_WRITE_MAX):
            batch = buffers[first : first + _BUFFERS_PER_WRITE_MAX]
            written = os.writev(handle, batch)
            if written != sum(map(len, batch)):
                rest = memoryview(b"".join(batch))[written:]
                while rest:
                    rest = rest[os.write(handle, rest) :]

    def sync_data(self, handle: int) -> None:
        """As `Files.sync_data`. fdatasync flushes a changed size too, because it is needed to read the bytes back."""
        os.fdatasync(handle)

    def truncate(self, handle: int, size_bytes: int) -> None:
        """As `Files.truncate`."""
        os.ftruncate(handle, size_bytes)

    def rewrite(self, path: str, data: bytes) -> None:
        """As `Files.rewrite`. The same bytes go to the same places, so a crash half-way changes none of them."""
        handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.ftruncate(handle, len(data))
            os.fdatasync(handle)
        finally:
            os.close(handle)

    def close(self, handle: int) -> None:
        """As `Files.close`."""
        os.close(handle)

    def sync_folder(self, path: str) -> None:
        """As `Files.sync_folder`."""
        with _folder(path) as handle:
            os.fsync(handle)

    def replace(self, path: str, chunks: Iterable[bytes]) -> None:
        """As `Files.replace`: temporary file, fsync, rename, fsync of the folder."""
        temporary = path + TEMPORARY_SUFFIX
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _FILE_MODE)
            try:
                for chunk in chunks:
                    self.append(handle, [chunk])
                os.fsync(handle)
            finally:
                os.close(handle)
            os.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)  # half a snapshot would make a full disk fuller
            raise
        self.sync_folder(os.path.dirname(os.path.abspath(path)))

    def remove(self, path: str) -> None:
        """As `Files.remove`."""
        os.unlink(path)
        self.sync_folder(os.path.dirname(os.path.abspath(path)))

    def lock(self, folder: str) -> int:
        """As `Files.lock`, by flock on a file of its own: the kernel lets go when the process dies."""
        handle = os.open(os.path.join(folder, LOCK_NAME), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
        except OSError:
            os.close(handle)
            raise
        else:
            return handle
        raise WalLockedError("the folder is locked by another process")


@contextlib.contextmanager
def _folder(path: str) -> Iterator[int]:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)
