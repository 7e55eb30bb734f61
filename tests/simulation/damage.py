"""Damage at rest: bytes that change, end, move or vanish while nobody writes them; and what is promised no more after it."""

from __future__ import annotations

import os
import random
import re
from itertools import pairwise
from typing import TYPE_CHECKING

from pcs_core.wal.folder import ANCHOR
from pcs_core.wal.frame import SALT_BYTES, SEGMENT_HEADER_BYTES
from simulation.backend import SNAPSHOT_PATH
from simulation.disk import Folder, Inode
from simulation.logs import Kept, outbox_seq_of
from simulation.machine import Machine

if TYPE_CHECKING:
    from simulation.world import World

HEAD_BYTES = 60
SALT_OFFSET = 8
HOLE_BYTES_MAX = 512
KINDS_TRIED_MAX = 6
_SEGMENT = re.compile(r"\d{20}\.wal")
_TO_THE_END = 1 << 62


class Damager:
    """Damages files of a machine, each segment once."""

    def __init__(self, world: World, dice: random.Random) -> None:
        self._world = world
        self._dice = dice
        self._done: set[str] = set()
        self._kinds = {
            self._flip: 6,
            self._flip_in_the_head: 3,
            self._truncate: 4,
            self._punch_hole: 3,
            self._swap_frames: 3,
            self._cut_out_a_frame: 2,
            self._lose_bytes: 2,
            self._misdirect: 2,
            self._write_foreign_header: 2,
            self._flip_every_salt: 2,
            self._vanish: 2,
            self._flip_anchor: 2,
            self._flip_snapshot: 5,
        }

    def strike(self, machine: Machine) -> None:
        """Do one kind of damage; another, if nothing may be damaged that way."""
        events = self._world.trace.events
        for kind in self._dice.choices(list(self._kinds), list(self._kinds.values()), k=KINDS_TRIED_MAX):
            kind(machine)
            if self._world.trace.events > events:
                return

    def _flip(self, machine: Machine) -> None:
        if path := self._sealed_segment(machine):
            self._change(machine, path, self._dice.randrange(len(machine.disk.find_file(path).cached)))

    def _flip_in_the_head(self, machine: Machine) -> None:
        if path := self._sealed_segment(machine):
            size_bytes = len(machine.disk.find_file(path).cached)
            self._change(machine, path, self._dice.randrange(min(HEAD_BYTES, size_bytes)))

    def _flip_every_salt(self, machine: Machine) -> None:
        """One byte of the salt changes wherever it stands: nothing is lost by that."""
        folder = os.path.dirname(self._sealed_segment(machine) or "")
        if not folder:
            return
        paths = [path for path, _ in machine.disk.files(folder) if os.path.dirname(path) == folder]
        paths = [
            path
            for path in paths
            if _SEGMENT.fullmatch(os.path.basename(path)) or path.endswith(f"/{ANCHOR}")
        ]
        if any(path in self._done or not _has_a_frame(machine, path) for path in paths):
            return
        for path in paths:
            offset = SALT_OFFSET + self._dice.randrange(SALT_BYTES)
            self._invert(machine, path, offset)
            if not path.endswith(f"/{ANCHOR}"):
                self._note(machine, "salt", path, offset, offset)

    def _change(self, machine: Machine, path: str, offset: int) -> None:
        self._invert(machine, path, offset)
        self._note(machine, "flip", path, offset, offset + 1)

    def _invert(self, machine: Machine, path: str, offset: int) -> None:
        change = self._dice.randint(1, 255)
        inode = machine.disk.find_file(path)
        for content in (inode.cached, inode.durable):
            content[offset] ^= change

    def _truncate(self, machine: Machine) -> None:
        if path := self._sealed_segment(machine):
            inode = machine.disk.find_file(path)
            starts = [kept.position.offset for kept in self._world.logs.frames_in(machine, path)]
            start = self._dice.choice([self._dice.randrange(len(inode.cached)), *starts[:1], *starts[-1:]])
            for content in (inode.cached, inode.durable):
                del content[start:]
            self._note(machine, "truncation", path, start, _TO_THE_END)

    def _punch_hole(self, machine: Machine) -> None:
        if path := self._sealed_segment(machine):
            inode = machine.disk.find_file(path)
            start = self._dice.randrange(len(inode.cached))
            end = min(len(inode.cached), start + self._dice.randint(1, HOLE_BYTES_MAX))
            if any(inode.cached[start:end]):
                for content in (inode.cached, inode.durable):
                    content[start:end] = bytes(end - start)
                self._note(machine, "hole", path, start, end)

    def _swap_frames(self, machine: Machine) -> None:
        """Two neighbours change places: both are good, in the wrong order."""
        if not (path := self._sealed_segment(machine)):
            return
        inode = machine.disk.find_file(path)
        frames = self._world.logs.frames_in(machine, path)
        pairs = [pair for pair in pairwise(frames) if _touch(*pair)]
        if pairs:
            first, second = (each.position for each in self._dice.choice(pairs))
            start, middle, end = first.offset, second.offset, second.offset + second.size_bytes
            for content in (inode.cached, inode.durable):
                content[start:end] = content[middle:end] + content[start:middle]
            self._note(machine, "swap", path, start, start)

    def _cut_out_a_frame(self, machine: Machine) -> None:
        """A whole frame is gone and what follows has moved up."""
        if not (path := self._sealed_segment(machine)):
            return
        inode = machine.disk.find_file(path)
        if frames := self._world.logs.frames_in(machine, path):
            position = self._dice.choice(frames).position
            start, end = position.offset, position.offset + position.size_bytes
            for content in (inode.cached, inode.durable):
                del content[start:end]
            self._note(machine, "frame gone", path, start, end)

    def _lose_bytes(self, machine: Machine) -> None:
        """Some bytes of the start are gone and everything has moved up."""
        if path := self._sealed_segment(machine):
            inode = machine.disk.find_file(path)
            start = self._dice.randrange(SEGMENT_HEADER_BYTES)
            end = start + self._dice.randint(1, SEGMENT_HEADER_BYTES)
            for content in (inode.cached, inode.durable):
                del content[start:end]
            self._note(machine, "bytes gone", path, start, end)

    def _write_foreign_header(self, machine: Machine) -> None:
        """The header or the anchor of another log stands where this one's should."""
        other = self._dice.choice([each.machine for each in self._world.operators])
        path, source = self._sealed_segment(machine), self._sealed_segment(other)
        if other is machine or not path or not source:
            return
        header = other.disk.find_file(source).cached[:SEGMENT_HEADER_BYTES]
        anchor = os.path.join(os.path.dirname(path), ANCHOR)
        for target in (path, anchor):
            if self._dice.random() < 0.7 and _is_at_rest(inode := machine.disk.find_file(target)):
                for content in (inode.cached, inode.durable):
                    content[: len(header)] = header
                if target == path:
                    self._note(machine, "foreign header", path, 0, len(header))
                else:
                    self._tell(machine, "foreign anchor", target)

    def _misdirect(self, machine: Machine) -> None:
        """A block of one segment was written over another's start."""
        path, source = self._sealed_segment(machine), self._sealed_segment(machine)
        if not path or os.path.dirname(path) != os.path.dirname(source) or path == source:
            return
        inode = machine.disk.find_file(path)
        block = machine.disk.find_file(source).cached[
            : self._dice.choice([SEGMENT_HEADER_BYTES, HOLE_BYTES_MAX])
        ]
        block = block[: len(inode.cached)]
        for content in (inode.cached, inode.durable):
            content[: len(block)] = block
        self._note(machine, "misdirected write", path, 0, len(block))

    def _vanish(self, machine: Machine) -> None:
        """A sealed segment is gone, where the log is not the store's only memory."""
        is_inbox = machine is not self._world.agent.machine
        if is_inbox and self._world.store is None:
            return
        if path := self._sealed_segment(machine):
            folder = machine.disk.find_folder(os.path.dirname(path))
            for entries in (folder.cached, folder.durable):
                entries.pop(os.path.basename(path), None)
            self._note(machine, "segment gone", path, 0, _TO_THE_END)
            self._world.logs.miss(machine, path)

    def _flip_anchor(self, machine: Machine) -> None:
        anchors = [
            path for path, inode in machine.disk.files() if path.endswith(f"/{ANCHOR}") and _is_at_rest(inode)
        ]
        if anchors:
            path = self._dice.choice(anchors)
            self._invert(machine, path, self._dice.randrange(len(machine.disk.find_file(path).cached)))
            self._tell(machine, "anchor", path)

    def _flip_snapshot(self, machine: Machine) -> None:
        """The memory store's snapshot changes. A start that it stops is made possible again from a backup."""
        if (operator := self._world.backend_of(machine)) is None:
            return
        before = operator.snapshot()
        if before in {b"", operator.damaged} or not _is_at_rest(machine.disk.find(SNAPSHOT_PATH)):
            return
        offset = self._dice.randrange(min(len(before), self._dice.choice([HEAD_BYTES, _TO_THE_END])))
        self._invert(machine, SNAPSHOT_PATH, offset)
        operator.backup, operator.damaged = before, operator.snapshot()
        self._tell(machine, "snapshot", offset)

    def _sealed_segment(self, machine: Machine) -> str:
        by_folder: dict[str, list[str]] = {}
        for path, _ in machine.disk.files():
            if _SEGMENT.fullmatch(os.path.basename(path)):
                by_folder.setdefault(os.path.dirname(path), []).append(path)
        sealed = [
            path
            for paths in by_folder.values()
            for path in paths[:-1]
            if path not in self._done and _is_at_rest(machine.disk.find_file(path))
        ]
        return self._dice.choice(sealed) if sealed else ""

    def _note(self, machine: Machine, kind: str, path: str, start: int, end: int) -> None:
        self._tell(machine, kind, path, start)
        self._done.add(path)
        frames = self._world.logs.excuse(machine, path, start, end)
        if machine is self._world.agent.machine:
            self._world.boxes.excuse(machine, {outbox_seq_of(frame) for frame in frames})

    def _tell(self, machine: Machine, kind: str, *more: object) -> None:
        machine.is_damaged = True
        self._world.trace.fault(f"damage: {kind}", machine.name, *more)


def _is_at_rest(node: Inode | Folder) -> bool:
    return isinstance(node, Inode) and bool(node.cached) and node.cached == node.durable


def _has_a_frame(machine: Machine, path: str) -> bool:
    inode = machine.disk.find_file(path)
    return _is_at_rest(inode) and (
        path.endswith(f"/{ANCHOR}") or len(inode.cached) > 2 * SEGMENT_HEADER_BYTES
    )


def _touch(first: Kept, second: Kept) -> bool:
    return first.position.offset + first.position.size_bytes == second.position.offset
