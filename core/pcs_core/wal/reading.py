"""Reading a log that another process may be writing: no lock is taken, and nothing is changed.

What is being written at that moment may be missing at the end, and what its owner removes meanwhile at the beginning.
"""

from __future__ import annotations

from collections.abc import Iterator

from pcs_core.errors import WalError
from pcs_core.wal.files import Files, name_of
from pcs_core.wal.folder import LogFolder
from pcs_core.wal.frame import Frame
from pcs_core.wal.scan import SegmentScan, segment_name

IDENTIFY_TRIES_MAX = 5
"""Times the folder is looked at again because its oldest segments went meanwhile."""


def read_newest_first(folder: str, files: Files) -> Iterator[Iterator[Frame]]:
    """Yield the good frames of each segment in order, the newest segment first. Holds one segment at a time.

    Args:
        folder: Of the log.
        files: The disk.

    Raises:
        WalError, OSError: The disk does not give it.
    """
    log = LogFolder(folder, files)
    segments, salt = _identify(log)
    next_first = None
    for first in reversed(segments):
        try:
            data = files.read(log.path_of(first))
        except FileNotFoundError:  # removed by its owner, and so is what is older
            return
        except OSError as error:
            raise WalError(f"segment {segment_name(first)}: cannot be read: {name_of(error)}") from error
        scan = SegmentScan(segment_name(first), data, salt, first, next_first=next_first)
        yield (found.frame for found in scan)
        next_first = first


def _identify(log: LogFolder) -> tuple[list[int], bytes]:
    """Return the segments there are, and the salt of the log."""
    for _ in range(IDENTIFY_TRIES_MAX - 1):
        segments = log.segments()
        try:
            return segments, log.identify(segments).salt or b""
        except WalError:
            if log.segments() == segments:
                raise
    segments = log.segments()
    return segments, log.identify(segments).salt or b""
