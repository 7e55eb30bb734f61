"""A file system that is soon full: ext4 of its own on a loop device, or a quota below a folder where nobody is root."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from faulty_command import used_bytes

SIZE_BYTES = 48 * 1024 * 1024
BALLAST = "ballast"


class SmallDisk(NamedTuple):
    """A folder with little room.

    Attributes:
        folder: Where it is.
        level: Of what kind, in words.
        variables: What the launcher needs to know of it.
    """

    folder: Path
    level: str
    variables: dict[str, str]

    @property
    def free_bytes(self) -> int:
        if self.variables:
            return max(0, int(self.variables["QUOTA_BYTES"]) - used_bytes(str(self.folder)))
        return shutil.disk_usage(self.folder).free

    def fill(self, free_bytes: int) -> None:
        """Leave so much free, by a file that stands for what others keep on the disk."""
        self.relieve()
        with (self.folder / BALLAST).open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, self.free_bytes - free_bytes)

    def relieve(self) -> None:
        """Take that file away."""
        (self.folder / BALLAST).unlink(missing_ok=True)


@contextmanager
def small_disk(path: Path) -> Iterator[SmallDisk]:
    """Make one below a folder. Root gets a real file system; others get the reduced level, which says so."""
    folder = path / "small disk"
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        if os.geteuid() == 0 and _mount(path / "image", folder):
            stack.callback(_run, "umount", "--lazy", str(folder))
            yield SmallDisk(folder, f"ext4 of {SIZE_BYTES >> 20} MiB on a loop device", {})
            return
        variables = {"QUOTA_FOLDER": str(folder), "QUOTA_BYTES": str(SIZE_BYTES)}
        yield SmallDisk(folder, "reduced: a quota in the launcher, because mounting needs root", variables)


def _mount(image: Path, folder: Path) -> bool:
    with image.open("wb") as file:
        file.truncate(SIZE_BYTES)
    made = _run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
    return made and _run("mount", "-o", "loop", str(image), str(folder))


def _run(*command: str) -> bool:
    found = shutil.which(command[0], path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    return found is not None and subprocess.run([found, *command[1:]], check=False).returncode == 0
