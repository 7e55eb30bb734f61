"""Snapshots: read back whole, or refused."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcs_core.errors import WalError
from pcs_core.wal import NewFrame, PosixFiles, read_snapshot, write_snapshot
from pcs_logs import SALT, FailingFiles, frame_of

FRAMES = [frame_of(0), frame_of(1)]


def save(path: Path, frames: list[NewFrame], files: PosixFiles | None = None) -> None:
    write_snapshot(files or PosixFiles(), lambda size: SALT[:size], str(path), frames)


def load(path: Path) -> list[NewFrame]:
    return [
        NewFrame(frame.kind, frame.envelope, frame.payload)
        for frame in read_snapshot(PosixFiles(), str(path))
    ]


@given(
    frames=st.lists(st.builds(NewFrame, st.integers(1, 255), st.binary(max_size=50), st.binary(max_size=50)))
)
def test_what_was_saved_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, frames: list[NewFrame]
) -> None:
    path = tmp_path_factory.getbasetemp() / "snapshot of the round trip"
    save(path, frames)
    assert load(path) == frames


def test_a_snapshot_with_any_byte_changed_is_refused(tmp_path: Path) -> None:
    """L5: a corrupt snapshot was ignored, and duplicates were counted as new."""
    path = tmp_path / "snapshot"
    save(path, FRAMES)
    whole = path.read_bytes()
    for offset in range(len(whole)):
        for mask in (0x01, 0xFF):
            changed = bytearray(whole)
            changed[offset] ^= mask
            path.write_bytes(changed)
            with pytest.raises(WalError, match=r"^the snapshot('s header)? is damaged( or cut short)?$"):
                load(path)


def test_a_snapshot_cut_short_at_any_byte_is_refused(tmp_path: Path) -> None:
    """L4, L5: `kill -9` left an empty file."""
    path = tmp_path / "snapshot"
    save(path, FRAMES)
    whole = path.read_bytes()
    for size_bytes in range(len(whole)):
        path.write_bytes(whole[:size_bytes])
        with pytest.raises(WalError):
            load(path)


@pytest.mark.parametrize("extra", [b"\x00", b"\x00" * 64, b"PCSF"])
def test_a_snapshot_with_more_after_its_seal_is_refused(tmp_path: Path, extra: bytes) -> None:
    """L5."""
    path = tmp_path / "snapshot"
    save(path, FRAMES)
    path.write_bytes(path.read_bytes() + extra)
    with pytest.raises(WalError):
        load(path)


def test_a_missing_snapshot_is_not_an_empty_one(tmp_path: Path) -> None:
    """L5."""
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "snapshot")


def test_a_disk_that_refuses_half_way_leaves_the_old_snapshot(tmp_path: Path) -> None:
    """L4."""
    path = tmp_path / "snapshot"
    save(path, FRAMES)
    files = FailingFiles()
    files.fail, files.prefix_bytes = {"append": errno.ENOSPC}, 7
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        save(path, [frame_of(9)], files)
    assert load(path) == FRAMES
