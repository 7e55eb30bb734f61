"""The system calls that `pcs_core.wal.files` makes, on a simulated disk; and that module, bound to them.

The shipped module is executed again with `os`, `fcntl` and `open` standing for one process' `System`: every line of
`PosixFiles` runs as it is, so the order of its syncs and renames is part of what is simulated.
"""

from __future__ import annotations

import errno
import importlib.util
import io
import os
import random
import types
from collections.abc import Callable, Sequence

from pcs_core.wal import Files
from simulation.disk import NODE_BYTES, Disk, Folder, Inode, error_of


class Gone(BaseException):
    """The process that made a system call has died; nothing of it runs on."""


class _Open:
    """An open file: what it is, and where the next write goes; at the end if it was opened so."""

    def __init__(self, node: Inode | Folder, path: str, *, appends: bool) -> None:
        self.node = node
        self.path = path
        self.appends = appends
        self.offset = 0


Fault = Callable[[str, str], int]
"""Asked before each call with its name and path; returns an error number, or 0."""


class System:
    """What one process sees of its machine's disk. Used in place of the modules `os` and `fcntl`.

    Attributes:
        alive: Whether it may still make calls.
        full: Calls refused because the disk was full.
        write_bytes_max: What one write takes at most, if there is a limit.
    """

    O_RDONLY, O_WRONLY, O_RDWR = os.O_RDONLY, os.O_WRONLY, os.O_RDWR
    O_CREAT, O_TRUNC, O_APPEND, O_EXCL = os.O_CREAT, os.O_TRUNC, os.O_APPEND, os.O_EXCL
    O_CLOEXEC, O_DIRECTORY = os.O_CLOEXEC, os.O_DIRECTORY
    LOCK_EX, LOCK_NB, LOCK_UN = 2, 4, 8
    strerror = staticmethod(os.strerror)

    def __init__(self, disk: Disk, fault: Fault, dice: random.Random) -> None:
        self._disk = disk
        self._fault = fault
        self._dice = dice
        self._handles: dict[int, _Open] = {}
        self._next_handle = 3
        self.path = _Paths(self)
        self.alive = True
        self.full = 0
        self.write_bytes_max: int | None = None

    def die(self) -> None:
        """Give every handle and lock back, and make no call any more."""
        self.alive = False
        for file in self._handles.values():
            self._unlock(file)
        self._handles.clear()

    @property
    def open_handles(self) -> int:
        """Handles that were not closed."""
        return len(self._handles)

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        """As `os.open`."""
        self._enter("open", path)
        try:
            node = self._disk.find(path)
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
            self._require_room(path)
            node = Inode(mode)
            self._parent(path).change({os.path.basename(path): node})
        if isinstance(node, Folder) and flags & (os.O_WRONLY | os.O_RDWR):
            raise error_of(errno.EISDIR, path)
        if isinstance(node, Inode) and flags & os.O_DIRECTORY:
            raise error_of(errno.ENOTDIR, path)
        if isinstance(node, Inode) and flags & os.O_TRUNC and node.cached:
            node.truncate(0)
        handle = self._next_handle
        self._next_handle += 1
        self._handles[handle] = _Open(node, path, appends=bool(flags & os.O_APPEND))
        return handle

    def close(self, handle: int) -> None:
        """As `os.close`; a lock goes with it."""
        if not self.alive:
            return
        self._unlock(self._file_of(handle))
        del self._handles[handle]

    def writev(self, handle: int, buffers: Sequence[bytes]) -> int:
        """As `os.writev`. A full disk takes a part."""
        file = self._file_of(handle)
        node, path = file.node, file.path
        data = b"".join(buffers)[: self.write_bytes_max]
        failure: OSError | None = None
        try:
            self._enter("write", path)
        except OSError as error:
            failure, data = error, data[: self._dice.randint(0, len(data))]
        offset = len(node.cached) if file.appends else file.offset
        if self._disk.is_bounded:
            data = data[: max(0, self._disk.free_bytes + len(node.cached) - offset)]
        node.write(offset, data)
        file.offset = offset + len(data)
        if failure is not None:
            raise failure
        if not data and any(buffers):
            raise self._full(path)
        return len(data)

    def write(self, handle: int, data: bytes) -> int:
        """As `os.write`."""
        return self.writev(handle, [bytes(data)])

    def ftruncate(self, handle: int, size_bytes: int) -> None:
        """As `os.ftruncate`."""
        file = self._file_of(handle)
        node, path = file.node, file.path
        self._enter("ftruncate", path)
        if size_bytes != len(node.cached):
            node.truncate(size_bytes)

    def fdatasync(self, handle: int) -> None:
        """As `os.fdatasync`: bytes and size. One that fails loses what was not yet written."""
        self._sync("fdatasync", handle)

    def fsync(self, handle: int) -> None:
        """As `os.fsync`. A folder's changes outlive a failed sync, as a journal's do."""
        self._sync("fsync", handle)

    def rename(self, source: str, target: str) -> None:
        """As `os.rename` within one folder."""
        self._enter("rename", source)
        node = self._disk.find(source)
        folder = self._parent(source)
        if self._parent(target) is not folder:
            raise error_of(errno.EXDEV, target)
        folder.change({os.path.basename(target): node, os.path.basename(source): None})

    def unlink(self, path: str) -> None:
        """As `os.unlink`."""
        self._enter("unlink", path)
        self._disk.find_file(path)
        self._parent(path).change({os.path.basename(path): None})

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        """As `os.mkdir`."""
        self._enter("mkdir", path)
        parent = self._parent(path)
        if os.path.basename(path) in parent.cached:
            raise error_of(errno.EEXIST, path)
        self._require_room(path)
        parent.change({os.path.basename(path): Folder(mode)})

    def listdir(self, path: str) -> list[str]:
        """As `os.listdir`."""
        self._enter("listdir", path)
        return list(self._disk.find_folder(path).cached)

    def flock(self, handle: int, operation: int) -> None:
        """As `fcntl.flock`, exclusive and without waiting."""
        del operation
        file = self._file_of(handle)
        if self._disk.locks.setdefault(file.node, file) is not file:
            raise error_of(errno.EWOULDBLOCK, file.path)

    def open_file(self, path: str, mode: str) -> io.BytesIO:
        """As `open(path, "rb")`."""
        assert mode == "rb", mode
        self._enter("open", path)
        return io.BytesIO(bytes(self._disk.find_file(path).cached))

    def _unlock(self, file: _Open) -> None:
        if self._disk.locks.get(file.node) is file:
            del self._disk.locks[file.node]

    def _sync(self, call: str, handle: int) -> None:
        file = self._file_of(handle)
        node, path = file.node, file.path
        try:
            self._enter(call, path)
        except OSError:
            if isinstance(node, Inode):
                self._disk.drop(node)
            raise
        node.sync()

    def _enter(self, call: str, path: str) -> None:
        if not self.alive:
            raise Gone
        code = self._fault(call, path)
        if not self.alive:  # the fault was the end of the process
            raise Gone
        if code:
            raise error_of(code, path)

    def _file_of(self, handle: int) -> _Open:
        if not self.alive:
            raise Gone
        if handle not in self._handles:
            raise error_of(errno.EBADF, "")
        return self._handles[handle]

    def _parent(self, path: str) -> Folder:
        return self._disk.find_folder(os.path.dirname(path))

    def _require_room(self, path: str) -> None:
        if self._disk.is_bounded and self._disk.free_bytes < NODE_BYTES:
            raise self._full(path)

    def _full(self, path: str) -> OSError:
        self.full += 1
        return error_of(errno.ENOSPC, path)


class _Paths:
    """Stands for `os.path`."""

    abspath = staticmethod(os.path.abspath)
    basename = staticmethod(os.path.basename)
    dirname = staticmethod(os.path.dirname)
    join = staticmethod(os.path.join)

    def __init__(self, system: System) -> None:
        self._system = system

    def isdir(self, path: str) -> bool:
        """As `os.path.isdir`."""
        try:
            return isinstance(self._system._disk.find(path), Folder)
        except OSError:
            return False


_SPEC = importlib.util.find_spec("pcs_core.wal.files")
_CODE = _SPEC.loader.get_code(_SPEC.name)


def shipped_files(system: System) -> Files:
    """Return the shipped `PosixFiles` over simulated system calls."""
    module = types.ModuleType(_SPEC.name)
    exec(_CODE, module.__dict__)
    module.__dict__.update(os=system, fcntl=system, open=system.open_file)
    return module.PosixFiles()
