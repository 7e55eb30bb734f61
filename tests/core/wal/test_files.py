"""The durable-write primitives: which system calls, in which order, and what a crash between two leaves."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pcs_core.errors import WalLockedError
from pcs_core.wal import PosixFiles


class Trace:
    """System calls in the order they were made, with the file's name; one of them may be made to fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.fail_at = ""
        for name in ("fsync", "fdatasync", "ftruncate"):
            monkeypatch.setattr(os, name, self._by_handle(name, getattr(os, name)))
        for name in ("rename", "unlink", "mkdir"):
            monkeypatch.setattr(os, name, self._by_path(name, getattr(os, name)))

    def _by_handle(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def traced(handle: int, *rest: Any) -> Any:
            self._note(name, os.readlink(f"/proc/self/fd/{handle}"))
            return call(handle, *rest)

        return traced

    def _by_path(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def traced(path: str, *rest: Any) -> Any:
            self._note(name, path)
            return call(path, *rest)

        return traced

    def _note(self, name: str, path: str) -> None:
        entry = f"{name} {os.path.basename(path)}"
        if entry == self.fail_at:
            raise OSError(5, "refused")
        self.calls.append(entry)


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch) -> Trace:
    return Trace(monkeypatch)


def test_replacing_syncs_the_new_file_then_renames_then_syncs_the_folder(
    tmp_path: Path, trace: Trace
) -> None:
    """L4, L20."""
    path = tmp_path / "snapshot"
    PosixFiles().replace(str(path), [b"new ", b"bytes"])
    assert path.read_bytes() == b"new bytes"
    assert trace.calls == ["fsync snapshot.tmp", "rename snapshot.tmp", f"fsync {tmp_path.name}"]
    assert os.listdir(tmp_path) == ["snapshot"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("fail_at", ["fsync snapshot.tmp", "rename snapshot.tmp"])
def test_a_crash_before_the_rename_leaves_the_old_bytes(tmp_path: Path, trace: Trace, fail_at: str) -> None:
    """L4, L20: `kill -9` left an empty file."""
    path = tmp_path / "snapshot"
    PosixFiles().replace(str(path), [b"old"])
    trace.fail_at = fail_at
    with pytest.raises(OSError, match="refused"):
        PosixFiles().replace(str(path), [b"new"])
    assert path.read_bytes() == b"old"
    trace.fail_at = ""
    PosixFiles().replace(str(path), [b"newer"])
    assert path.read_bytes() == b"newer"
    assert os.listdir(tmp_path) == ["snapshot"]


def test_a_source_that_fails_half_way_leaves_the_old_bytes(tmp_path: Path) -> None:
    """L4."""

    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError("the source failed")

    path = tmp_path / "snapshot"
    PosixFiles().replace(str(path), [b"old"])
    with pytest.raises(RuntimeError, match="the source failed"):
        PosixFiles().replace(str(path), chunks())
    assert path.read_bytes() == b"old"


def test_a_leftover_of_an_earlier_crash_does_not_end_up_in_the_new_file(tmp_path: Path) -> None:
    (tmp_path / "snapshot.tmp").write_bytes(b"x" * 1_000)
    PosixFiles().replace(str(tmp_path / "snapshot"), [b"new"])
    assert (tmp_path / "snapshot").read_bytes() == b"new"


def test_a_failed_folder_sync_is_not_hidden(tmp_path: Path, trace: Trace) -> None:
    """L20."""
    trace.fail_at = f"fsync {tmp_path.name}"
    with pytest.raises(OSError, match="refused"):
        PosixFiles().replace(str(tmp_path / "snapshot"), [b"new"])


def test_removing_syncs_the_folder(tmp_path: Path, trace: Trace) -> None:
    (tmp_path / "old").write_bytes(b"x")
    PosixFiles().remove(str(tmp_path / "old"))
    assert trace.calls == ["unlink old", f"fsync {tmp_path.name}"]
    assert os.listdir(tmp_path) == []


def test_every_new_folder_is_synced_in_its_parent(tmp_path: Path, trace: Trace) -> None:
    PosixFiles().make_folder(str(tmp_path / "a" / "b"))
    above = f"fsync {tmp_path.parent.name}"
    assert trace.calls == [above, "mkdir a", f"fsync {tmp_path.name}", "mkdir b", "fsync a"]
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


def test_a_folder_that_is_there_is_synced_in_its_parent_again(tmp_path: Path, trace: Trace) -> None:
    """Whoever made it may have died between the two; everything in it would hang on an entry that is not on disk."""
    trace.fail_at = f"fsync {tmp_path.name}"
    with pytest.raises(OSError, match="refused"):
        PosixFiles().make_folder(str(tmp_path / "a"))
    assert (tmp_path / "a").is_dir()
    trace.fail_at = ""
    trace.calls.clear()
    PosixFiles().make_folder(str(tmp_path / "a"))
    assert trace.calls == [f"fsync {tmp_path.name}"]


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
def test_a_replacement_that_failed_leaves_no_half_file(tmp_path: Path, trace: Trace, fail_at: str) -> None:
    """On a full disk it would take the space that the next attempt needs."""
    trace.fail_at = fail_at
    with pytest.raises(OSError, match="refused"):
        PosixFiles().replace(str(tmp_path / "snapshot"), [b"new"])
    assert os.listdir(tmp_path) == []


def test_data_is_synced_with_fdatasync(tmp_path: Path, trace: Trace) -> None:
    files = PosixFiles()
    handle = files.open_append(str(tmp_path / "log"))
    files.append(handle, [b"one", b"", b"two"])
    files.sync_data(handle)
    files.close(handle)
    assert trace.calls == ["fdatasync log"]
    assert files.read(str(tmp_path / "log")) == b"onetwo"


@pytest.mark.parametrize("step", [1, 2, 3, 7, 10_000])
def test_a_write_that_takes_only_part_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """L19: a short write, as on a disk that is nearly full, is not an error and must not tear a frame."""
    write = os.write
    monkeypatch.setattr(os, "writev", lambda handle, buffers: write(handle, b"".join(buffers)[:step]))
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, bytes(data)[:step]))
    files = PosixFiles()
    handle = files.open_append(str(tmp_path / "log"))
    files.append(handle, [b"abc", b"", b"defgh", b"i" * 30])
    files.append(handle, [])
    files.close(handle)
    assert files.read(str(tmp_path / "log")) == b"abcdefgh" + b"i" * 30


def test_appending_goes_to_the_end_also_after_a_cut(tmp_path: Path) -> None:
    files = PosixFiles()
    path = str(tmp_path / "log")
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


def test_names_are_sorted_and_a_missing_folder_has_none(tmp_path: Path) -> None:
    for name in ("b", "a", "10", "9"):
        (tmp_path / name).touch()
    assert PosixFiles().list_names(str(tmp_path)) == ["10", "9", "a", "b"]
    assert PosixFiles().list_names(str(tmp_path / "none")) == []


def test_handles_are_not_inherited_by_children(tmp_path: Path) -> None:
    files = PosixFiles()
    handles = [files.open_append(str(tmp_path / "log")), files.lock(str(tmp_path))]
    assert [os.get_inheritable(handle) for handle in handles] == [False, False]
    for handle in handles:
        files.close(handle)


def test_a_lock_is_held_until_it_is_closed_and_a_refused_one_leaks_no_handle(tmp_path: Path) -> None:
    files = PosixFiles()
    handle = files.lock(str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(WalLockedError):
            files.lock(str(tmp_path))
    assert len(os.listdir("/proc/self/fd")) == before
    files.close(handle)
    files.close(files.lock(str(tmp_path)))
