"""A disk whose power can be cut: an ext4 file system on a loop device. Needs root.

`FS_IOC_SHUTDOWN` without a flush of the journal forgets what was not synced, directory entries too, as a power cut does.
`noauto_da_alloc` and a long `commit` keep ext4 from syncing on its own what the program forgot to sync. What this cannot
show: a drive's own cache, torn sectors, and a missing sync of a folder, because ext4's journal is one sequence: the next
sync of any file brings every directory entry made before it along.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

IMAGE_BYTES = 1 << 30
"""Size of the file system; the file behind it is sparse."""

_FS_IOC_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2
_OPTIONS = "noauto_da_alloc,commit=300"
_TOOLS = ("losetup", "mkfs.ext4", "mount", "umount", "unshare")
_MEMORY = "/dev/shm"
_UNMOUNT_TIMEOUT_S = 10.0
_POLL_S = 0.005


class Disk(Protocol):
    """Where the services under test write.

    Attributes:
        path: A folder that everybody may enter.
        device: What it lies on; empty for a folder of this machine's own.
        loses_power: Whether a cut takes the disk along, or only the processes.
    """

    path: Path
    device: str
    loses_power: bool

    def power_on(self) -> None:
        """Make the disk usable again after a cut, with what was on it."""

    def sync(self) -> None:
        """Bring everything written so far to the disk: what the tests need and do not test."""


class ImageError(Exception):
    """The disk cannot be made or mounted on this machine."""


class Folder:
    """A folder that outlives the processes: what a kill leaves, the kernel's caches included."""

    device = ""
    loses_power = False

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="pcs-crash-"))
        self.path.chmod(0o755)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path)

    def power_on(self) -> None:
        """As `Disk.power_on`: there is nothing to do."""

    def sync(self) -> None:
        """As `Disk.sync`: a kill takes nothing along."""


class Image:
    """An ext4 file system on a loop device of its own.

    Nothing of it can stay behind: the file behind the device has no name, and the device goes when its last user does.
    """

    loses_power = True

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="pcs-crash-"))
        self._loop: int | None = None
        self.device = ""
        self._mounted = False

    def __enter__(self) -> Self:
        try:
            self._attach()
            _run("mkfs.ext4", "-q", "-F", self.device)
            self._mount()
            self.path.chmod(0o755)
            self.sync()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def power_on(self) -> None:
        """As `Disk.power_on`: unmount, mount, and so replay the journal."""
        self._unmount()
        self._mount()

    def sync(self) -> None:
        """As `Disk.sync`."""
        _run("sync", "--file-system", str(self.path))

    def close(self) -> None:
        """Unmount and give the device back."""
        if self._mounted:
            self._unmount()
        if self._loop is not None:
            os.close(self._loop)
            self._loop = None
        self.path.rmdir()

    def _attach(self) -> None:
        with tempfile.NamedTemporaryFile(
            prefix="pcs-crash-", suffix=".ext4", dir=_folder_of_images()
        ) as file:
            file.truncate(IMAGE_BYTES)
            self.device = _run("losetup", "--find", "--show", file.name).strip()
        self._loop = os.open(self.device, os.O_RDWR)
        # While the device is open this only marks it: it detaches when the last user closes it.
        _run("losetup", "--detach", self.device)

    def _mount(self) -> None:
        _run("mount", "-t", "ext4", "-o", _OPTIONS, self.device, str(self.path))
        self._mounted = True

    def _unmount(self) -> None:
        deadline_s = time.monotonic() + _UNMOUNT_TIMEOUT_S
        while True:
            try:
                _run("umount", str(self.path))
            except ImageError:  # a process that was killed just now may still hold a file
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(_POLL_S)
            else:
                self._mounted = False
                return


def cut_power(folder: int) -> None:
    """Shut the file system down that holds an open folder: nothing more reaches its disk, its journal is not flushed.

    Whoever writes to it must be dead already. A sync that the shutdown overtakes may return without an error (51 of them
    in 120 shutdowns under load): a machine without power could tell nobody, a live process would acknowledge.
    """
    fcntl.ioctl(folder, _FS_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))


def why_unavailable() -> str | None:
    """Return in a few words why this machine cannot cut power, `None` if it can."""
    if os.geteuid() != 0:
        return "needs root"
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        return f"needs {', '.join(missing)}"
    try:
        with Image():
            return None
    except ImageError as error:
        return f"needs loop devices and mount ({error})"


def _folder_of_images() -> str | None:
    """Memory, if there is enough: what a cut leaves is decided in ext4 above it, and a real disk only makes it slow."""
    try:
        return _MEMORY if shutil.disk_usage(_MEMORY).free > 2 * IMAGE_BYTES else None
    except OSError:
        return None


def _run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise ImageError(f"{command[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode()
