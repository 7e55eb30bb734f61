"""A disk with a page cache: what was written, what is durable, and what a power cut makes of the difference.

The model is the weakest that POSIX and common file systems allow:

- Bytes are durable after fdatasync or fsync of their file; before, a cut keeps any part of them, in any order, sector by
  sector, and may leave zeros where a later byte was kept and an earlier one was not.
- A name is durable after fsync of its folder; before, a cut keeps any part of the changes. Syncing a file does nothing for
  its name. A rename is one change: a cut leaves the old name or the new one, never neither.
- A sync that fails drops what it did not write, and later reads still show it: the next sync succeeds without it.
- The process that dies loses nothing that it wrote.

The dice decide; dice that only ever draw 0 lose everything that may be lost.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator

SECTOR_BYTES = 512
NODE_BYTES = 64
"""What a file or folder costs besides its bytes."""

PLENTY_BYTES = 1 << 40
"""Capacity of a disk that is never full."""


class Inode:
    """A file.

    Attributes:
        cached: What a read returns.
        durable: What a cut leaves at least.
        pending: Writes since the last sync: offset and bytes, or a size and `None` for a truncation.
    """

    __slots__ = ("cached", "durable", "mode", "pending")

    def __init__(self, mode: int) -> None:
        self.cached = bytearray()
        self.durable = bytearray()
        self.pending: list[tuple[int, bytes | None]] = []
        self.mode = mode

    def write(self, offset: int, data: bytes) -> None:
        """Write into the cache."""
        _put(self.cached, offset, data)
        self.pending.append((offset, data))

    def truncate(self, size_bytes: int) -> None:
        """Cut or extend the cache."""
        _resize(self.cached, size_bytes)
        self.pending.append((size_bytes, None))

    def sync(self) -> None:
        """Make durable what is pending."""
        for offset, data in self.pending:
            _apply(self.durable, offset, data)
        self.pending.clear()

    def drop(self, dice: random.Random) -> None:
        """A sync failed: some of what was pending is durable, the rest is forgotten but still in the cache."""
        for offset, data in self.pending:
            if dice.random() > 0.7:
                _apply(self.durable, offset, data)
        self.pending.clear()

    def evict(self) -> None:
        """Take the bytes of a failed sync out of the cache, as memory pressure may: reads show what is durable."""
        if not self.pending:
            self.cached = bytearray(self.durable)

    def cut(self, dice: random.Random) -> None:
        """The power is gone."""
        how = dice.random()
        if how < 0.3:
            kept = []
        elif how < 0.45:
            kept = self.pending
        elif how < 0.75:
            kept = _torn(self.pending, dice)
        else:
            kept = _scattered(self.pending, dice)
        for offset, data in kept:
            _apply(self.durable, offset, data)
        self.pending.clear()
        self.cached = bytearray(self.durable)


class Folder:
    """A folder: names and what they stand for, with the changes since its last sync."""

    __slots__ = ("cached", "durable", "mode", "pending")

    def __init__(self, mode: int = 0o755) -> None:
        self.cached: dict[str, Inode | Folder] = {}
        self.durable: dict[str, Inode | Folder] = {}
        self.pending: list[dict[str, Inode | Folder | None]] = []
        self.mode = mode

    def change(self, names: dict[str, Inode | Folder | None]) -> None:
        """Change names in one step; `None` takes a name away."""
        _rename(self.cached, names)
        self.pending.append(names)

    def sync(self) -> None:
        """Make every change durable."""
        for names in self.pending:
            _rename(self.durable, names)
        self.pending.clear()

    def cut(self, dice: random.Random) -> None:
        """The power is gone, here and in everything below that is still reachable."""
        how = dice.random()
        if how < 0.4:
            kept = []
        elif how < 0.8:
            kept = self.pending[: dice.randint(0, len(self.pending))]
        else:
            kept = [names for names in self.pending if dice.random() < 0.5]
        for names in kept:
            _rename(self.durable, names)
        self.pending.clear()
        self.cached = dict(self.durable)
        for node in self.cached.values():
            node.cut(dice)


class Disk:
    """One disk, from its root.

    Attributes:
        capacity_bytes: What it holds at most.
        locks: Files that are locked, and by which open file.
    """

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._root = Folder()
        self.capacity_bytes = PLENTY_BYTES
        self.locks: dict[Inode, object] = {}

    @property
    def is_bounded(self) -> bool:
        """Whether it can be full at all."""
        return self.capacity_bytes < PLENTY_BYTES

    @property
    def free_bytes(self) -> int:
        """Bytes left."""
        return self.capacity_bytes - sum(NODE_BYTES + len(each.cached) for _, each in self.files())

    def find(self, path: str) -> Inode | Folder:
        """Return what a path names.

        Raises:
            OSError: Nothing, or there is no way to it.
        """
        node: Inode | Folder = self._root
        for name in path.split("/"):
            if name:
                if not isinstance(node, Folder):
                    raise error_of(errno.ENOTDIR, path)
                if name not in node.cached:
                    raise error_of(errno.ENOENT, path)
                node = node.cached[name]
        return node

    def find_file(self, path: str) -> Inode:
        """As `find`, of a file."""
        node = self.find(path)
        if isinstance(node, Folder):
            raise error_of(errno.EISDIR, path)
        return node

    def find_folder(self, path: str) -> Folder:
        """As `find`, of a folder."""
        node = self.find(path)
        if isinstance(node, Inode):
            raise error_of(errno.ENOTDIR, path)
        return node

    def files(self, path: str = "/") -> Iterator[tuple[str, Inode]]:
        """Every file below a folder, with its path, by name."""
        for name, node in sorted(self.find_folder(path).cached.items()):
            below = os.path.join(path, name)
            if isinstance(node, Inode):
                yield below, node
            else:
                yield from self.files(below)

    def sync_all(self) -> None:
        """Make everything durable, as an operator's `sync` does."""
        stack: list[Inode | Folder] = [self._root]
        while stack:
            node = stack.pop()
            node.sync()
            if isinstance(node, Folder):
                stack += node.cached.values()

    def cut(self) -> None:
        """Cut the power."""
        self._root.cut(self._dice)
        self.locks.clear()

    def drop(self, inode: Inode) -> None:
        """Let a sync of a file fail."""
        inode.drop(self._dice)

    def evict(self) -> None:
        """Forget cached bytes of failed syncs."""
        for _, inode in self.files():
            inode.evict()


def error_of(code: int, path: str) -> OSError:
    """Return the error a system call raises."""
    return OSError(code, os.strerror(code), path)


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _resize(content: bytearray, size_bytes: int) -> None:
    if size_bytes < len(content):
        del content[size_bytes:]
    else:
        content.extend(bytes(size_bytes - len(content)))


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        _resize(content, offset)
    else:
        _put(content, offset, data)


def _rename(entries: dict[str, Inode | Folder], names: dict[str, Inode | Folder | None]) -> None:
    for name, node in names.items():
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


def _torn(pending: list[tuple[int, bytes | None]], dice: random.Random) -> list[tuple[int, bytes | None]]:
    """Keep the first writes, the last of them in part."""
    count = dice.randint(0, len(pending))
    kept = pending[:count]
    if count < len(pending) and pending[count][1] is not None:
        offset, data = pending[count]
        kept.append((offset, data[: dice.randint(0, len(data))]))
    return kept


def _scattered(
    pending: list[tuple[int, bytes | None]], dice: random.Random
) -> list[tuple[int, bytes | None]]:
    """Keep any sectors of any writes."""
    kept: list[tuple[int, bytes | None]] = []
    for offset, data in pending:
        if data is None:
            if dice.random() < 0.5:
                kept.append((offset, None))
            continue
        start = 0
        while start < len(data):
            end = min(len(data), start + SECTOR_BYTES - (offset + start) % SECTOR_BYTES)
            if dice.random() < 0.5:
                kept.append((offset + start, data[start:end]))
            start = end
    return kept
