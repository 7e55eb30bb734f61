"""The durable-write primitives: which system calls, in which order, and what a crash between two leaves.

They run over the real system calls and over the simulated ones of `tests/simulation`, which must not be told apart here.
"""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from pcs_core.errors import WalLockedError
from pcs_core.wal import Files, PosixFiles
from simulation.disk import Disk
from simulation.system import System, shipped_files

TRACED = ("fsync", "fdatasync", "ftruncate", "rename", "unlink", "mkdir")


class Ground(Protocol):
    """A folder on some disk. System calls are noted in order, with the file's name; one may be made to fail."""

    files: Files
    folder: str
    calls: list[str]
    fail_at: str

    def path(self, name: str) -> str: ...
    def write(self, name: str, data: bytes) -> None: ...
    def names(self) -> list[str]: ...
    def mode(self, name: str) -> int: ...
    def handles(self) -> int: ...
    def take_at_most(self, size_bytes: int) -> None:
        """From now on a write takes only so many bytes."""


class Traced:
    """What both grounds note."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.calls: list[str] = []
        self.fail_at = ""

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def note(self, call: str, path: str) -> int:
        """Note a call; returns its error number."""
        entry = f"{call} {os.path.basename(path)}"
        if entry == self.fail_at:
            return errno.EIO
        self.calls.append(entry)
        return 0


class RealGround(Traced):
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(str(folder))
        self.files = PosixFiles()
        self._monkeypatch = monkeypatch
        for name in TRACED[:3]:
            monkeypatch.setattr(os, name, self._by_handle(name, getattr(os, name)))
        for name in TRACED[3:]:
            monkeypatch.setattr(os, name, self._by_path(name, getattr(os, name)))

    def write(self, name: str, data: bytes) -> None:
        Path(self.path(name)).write_bytes(data)

    def names(self) -> list[str]:
        return sorted(os.listdir(self.folder))

    def mode(self, name: str) -> int:
        return stat.S_IMODE(os.stat(self.path(name)).st_mode)

    def handles(self) -> int:
        return len(os.listdir("/proc/self/fd"))

    def take_at_most(self, size_bytes: int) -> None:
        write = os.write
        self._monkeypatch.setattr(
            os, "writev", lambda handle, buffers: write(handle, b"".join(buffers)[:size_bytes])
        )
        self._monkeypatch.setattr(os, "write", lambda handle, data: write(handle, bytes(data)[:size_bytes]))

    def _by_handle(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def traced(handle: int, *rest: Any) -> Any:
            self._note_or_raise(name, os.readlink(f"/proc/self/fd/{handle}"))
            return call(handle, *rest)

        return traced

    def _by_path(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def traced(path: str, *rest: Any) -> Any:
            self._note_or_raise(name, path)
            return call(path, *rest)

        return traced

    def _note_or_raise(self, name: str, path: str) -> None:
        if code := self.note(name, path):
            raise OSError(code, os.strerror(code))


class SimulatedGround(Traced):
    def __init__(self) -> None:
        super().__init__("/simulated")
        self._disk = Disk(random.Random(0))
        self._system = System(self._disk, self._fault, random.Random(0))
        self._system.mkdir(self.folder)
        self.files = shipped_files(self._system)
        self.calls.clear()

    def write(self, name: str, data: bytes) -> None:
        handle = self._system.open(self.path(name), os.O_WRONLY | os.O_CREAT)
        self._system.write(handle, data)
        self._system.close(handle)

    def names(self) -> list[str]:
        return sorted(self._disk.find_folder(self.folder).cached)

    def mode(self, name: str) -> int:
        return self._disk.find(self.path(name)).mode

    def handles(self) -> int:
        return self._system.open_handles

    def take_at_most(self, size_bytes: int) -> None:
        self._system.write_bytes_max = size_bytes

    def _fault(self, call: str, path: str) -> int:
        return self.note(call, path) if call in TRACED else 0


@pytest.fixture(params=["real", "simulated"])
def ground(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    if request.param == "simulated":
        return SimulatedGround()
    folder = tmp_path / "ground"
    folder.mkdir()
    return RealGround(folder, monkeypatch)


def test_replacing_syncs_the_new_file_then_renames_then_syncs_the_folder(ground: Ground) -> None:
    """L4, L20."""
    path = ground.path("snapshot")
    ground.files.replace(path, [b"new ", b"bytes"])
    assert ground.files.read(path) == b"new bytes"
    folder = os.path.basename(ground.folder)
    assert ground.calls == ["fsync snapshot.tmp", "rename snapshot.tmp", f"fsync {folder}"]
    assert ground.names() == ["snapshot"]
    assert ground.mode("snapshot") == 0o600


@pytest.mark.parametrize("fail_at", ["fsync snapshot.tmp", "rename snapshot.tmp"])
def test_a_crash_before_the_rename_leaves_the_old_bytes(ground: Ground, fail_at: str) -> None:
    """L4, L20: `kill -9` left an empty file."""
    path = ground.path("snapshot")
    ground.files.replace(path, [b"old"])
    ground.fail_at = fail_at
    with pytest.raises(OSError, match="Input/output error"):
        ground.files.replace(path, [b"new"])
    assert ground.files.read(path) == b"old"
    ground.fail_at = ""
    ground.files.replace(path, [b"newer"])
    assert ground.files.read(path) == b"newer"
    assert ground.names() == ["snapshot"]


def test_a_source_that_fails_half_way_leaves_the_old_bytes(ground: Ground) -> None:
    """L4."""

    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError("the source failed")

    path = ground.path("snapshot")
    ground.files.replace(path, [b"old"])
    with pytest.raises(RuntimeError, match="the source failed"):
        ground.files.replace(path, chunks())
    assert ground.files.read(path) == b"old"


def test_a_leftover_of_an_earlier_crash_does_not_end_up_in_the_new_file(ground: Ground) -> None:
    ground.write("snapshot.tmp", b"x" * 1_000)
    ground.files.replace(ground.path("snapshot"), [b"new"])
    assert ground.files.read(ground.path("snapshot")) == b"new"


def test_a_failed_folder_sync_is_not_hidden(ground: Ground) -> None:
    """L20."""
    ground.fail_at = f"fsync {os.path.basename(ground.folder)}"
    with pytest.raises(OSError, match="Input/output error"):
        ground.files.replace(ground.path("snapshot"), [b"new"])


def test_removing_syncs_the_folder(ground: Ground) -> None:
    ground.write("old", b"x")
    ground.files.remove(ground.path("old"))
    assert ground.calls == ["unlink old", f"fsync {os.path.basename(ground.folder)}"]
    assert ground.names() == []


def test_what_is_missing_is_an_error(ground: Ground) -> None:
    with pytest.raises(FileNotFoundError):
        ground.files.remove(ground.path("none"))
    with pytest.raises(FileNotFoundError):
        ground.files.read(ground.path("none"))
    with pytest.raises(FileNotFoundError):
        ground.files.open_append(ground.path("none/log"))
    ground.write("file", b"x")
    with pytest.raises(NotADirectoryError):
        ground.files.open_append(ground.path("file/log"))


def test_every_new_folder_is_synced_in_its_parent(ground: Ground) -> None:
    folder, above = os.path.basename(ground.folder), os.path.basename(os.path.dirname(ground.folder))
    ground.files.make_folder(ground.path("a/b"))
    assert ground.calls == [f"fsync {above}", "mkdir a", f"fsync {folder}", "mkdir b", "fsync a"]
    assert ground.mode("a/b") == 0o700


def test_a_folder_that_is_there_is_synced_in_its_parent_again(ground: Ground) -> None:
    """Whoever made it may have died between the two; everything in it would hang on an entry that is not on disk."""
    ground.fail_at = f"fsync {os.path.basename(ground.folder)}"
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output error"):
            ground.files.make_folder(ground.path("a"))
    ground.fail_at = ""
    ground.calls.clear()
    ground.files.make_folder(ground.path("a"))
    assert ground.calls == [f"fsync {os.path.basename(ground.folder)}"]


def test_a_folder_below_one_that_may_not_be_read_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    open_file = os.open

    def refuse_parent(path: str, *rest: Any) -> int:
        if path == str(tmp_path):
            raise PermissionError(errno.EACCES, "refused")
        return open_file(path, *rest)

    monkeypatch.setattr(os, "open", refuse_parent)
    PosixFiles().make_folder(str(tmp_path / "a"))
    with pytest.raises(PermissionError):
        PosixFiles().make_folder(str(tmp_path / "new"))


@pytest.mark.parametrize("fail_at", ["fsync snapshot.tmp", "rename snapshot.tmp"])
def test_a_replacement_that_failed_leaves_no_half_file(ground: Ground, fail_at: str) -> None:
    """On a full disk it would take the space that the next attempt needs."""
    ground.fail_at = fail_at
    with pytest.raises(OSError, match="Input/output error"):
        ground.files.replace(ground.path("snapshot"), [b"new"])
    assert ground.names() == []


def test_data_is_synced_with_fdatasync(ground: Ground) -> None:
    handle = ground.files.open_append(ground.path("log"))
    ground.files.append(handle, [b"one", b"", b"two"])
    ground.files.sync_data(handle)
    ground.files.close(handle)
    assert ground.calls == ["fdatasync log"]
    assert ground.files.read(ground.path("log")) == b"onetwo"


@pytest.mark.parametrize("step", [1, 2, 3, 7, 10_000])
def test_a_write_that_takes_only_part_is_continued(ground: Ground, step: int) -> None:
    """L19: a short write, as on a disk that is nearly full, is not an error and must not tear a frame."""
    ground.take_at_most(step)
    path = ground.path("log")
    handle = ground.files.open_append(path)
    ground.files.append(handle, [b"abc", b"", b"defgh", b"i" * 30])
    ground.files.append(handle, [])
    ground.files.close(handle)
    whole = b"abcdefgh" + b"i" * 30
    assert ground.files.read(path) == whole
    ground.files.rewrite(path, whole)
    assert ground.files.read(path) == whole


def test_appending_goes_to_the_end_also_after_a_cut(ground: Ground) -> None:
    path, files = ground.path("log"), ground.files
    handle = files.open_append(path)
    files.append(handle, [b"0123456789"])
    files.truncate(handle, 4)
    files.append(handle, [b"ab"])
    files.close(handle)
    handle = files.open_append(path)
    files.append(handle, [b"!"])
    files.close(handle)
    assert files.read(path) == b"0123ab!"
    assert files.read_range(path, 2, 3) == b"23a"
    assert files.read_range(path, 5, 100) == b"b!"
    assert files.read_range(path, 100, 5) == b""


def test_a_file_is_rewritten_in_its_place_cut_and_synced(ground: Ground) -> None:
    ground.write("log", b"0123456789")
    ground.files.rewrite(ground.path("log"), b"0123456")
    assert ground.files.read(ground.path("log")) == b"0123456"
    assert ground.calls == ["ftruncate log", "fdatasync log"]
    assert ground.names() == ["log"]
    with pytest.raises(FileNotFoundError):
        ground.files.rewrite(ground.path("none"), b"")


def test_names_are_sorted_and_a_missing_folder_has_none(ground: Ground) -> None:
    for name in ("b", "a", "10", "9"):
        ground.write(name, b"")
    assert ground.files.list_names(ground.folder) == ["10", "9", "a", "b"]
    assert ground.files.list_names(ground.path("none")) == []


def test_handles_are_not_inherited_by_children(tmp_path: Path) -> None:
    files = PosixFiles()
    handles = [files.open_append(str(tmp_path / "log")), files.lock(str(tmp_path))]
    assert [os.get_inheritable(handle) for handle in handles] == [False, False]
    for handle in handles:
        files.close(handle)


def test_a_lock_is_held_until_it_is_closed_and_a_refused_one_leaks_no_handle(ground: Ground) -> None:
    handle = ground.files.lock(ground.folder)
    before = ground.handles()
    for _ in range(5):
        with pytest.raises(WalLockedError):
            ground.files.lock(ground.folder)
    assert ground.handles() == before
    ground.files.close(handle)
    ground.files.close(ground.files.lock(ground.folder))
    assert ground.handles() == before - 1
