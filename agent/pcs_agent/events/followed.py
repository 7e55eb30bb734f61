"""A file that is still written to, read like one without end: what is appended comes as soon as its line is complete.

Read from its start, by name, until the input is ended (Ctrl-C). At the end of what is there it is looked at again every
`POLL_INTERVAL_S`, which is a wait that the end interrupts:

=========================  =======================================================================================
what happened meanwhile    then
=========================  =======================================================================================
bytes were appended        they are read. A line counts when its end is there
another file has its name  the old one is read to its end, a last line without an end included, and then the new one
(rotation by renaming)     from its start
it became shorter          it is read from its start again; what was read of an unfinished line is dropped, with a
(truncation)               warning. If it has grown beyond the old place by then, that cannot be seen
its name is gone           the old file is read on until a file has the name again
the input is ended         the rest of what is there is read; an unfinished last line is left out, with a warning
=========================  =======================================================================================

So the same command run again makes the same windows of the same bytes. What a rotation took away is not read again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import BinaryIO

POLL_INTERVAL_S = 0.2
"""How often the end of the file is looked at."""


class FollowedFile:
    """Lines of a file that grows. Holds one file open; `close` gives it back."""

    def __init__(
        self, name: str, path: str, file: BinaryIO, ended: threading.Event, warn: Callable[[str], None]
    ) -> None:
        """Take the open file.

        Args:
            name: Redacted name for messages.
            path: Where it was opened.
            file: Buffered, at its start; closed by `close`.
            ended: Set when the input is to end.
            warn: Told of what is dropped.
        """
        self._name = name
        self._path = path
        self._file = file
        self._ended = ended
        self._warn = warn
        self._held = b""

    def readline(self, size: int) -> bytes:
        """Return the next line with its end, or `size` bytes of a longer one; nothing when the input has ended.

        Raises:
            OSError: The disk refused.
        """
        while True:
            ended = self._ended.is_set()  # before the read: what was written before the end is read
            self._held += self._file.readline(size - len(self._held))
            if self._held.endswith(b"\n") or len(self._held) >= size:
                return self._take()
            renewed = self._renew()
            if renewed is not None:
                # The last of the old file may have been written between the read above and the renaming.
                self._held += self._file.readline(size - len(self._held))
                if self._held.endswith(b"\n") or len(self._held) >= size:
                    renewed.close()
                    return self._take()
                self._file.close()
                self._file = renewed
                if self._held:
                    return self._take()
            elif ended:
                if self._held:
                    self._warn(f"{self._name}: the last line has no end yet and is left out")
                return b""
            else:
                self._ended.wait(POLL_INTERVAL_S)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _take(self) -> bytes:
        line, self._held = self._held, b""
        return line

    def _renew(self) -> BinaryIO | None:
        """Go back to the start of a file that was cut; return the file that has the name now, if it is another."""
        here = os.fstat(self._file.fileno())
        if here.st_size < self._file.tell():
            self._file.seek(0)
            if self._held:
                self._held = b""
                self._warn(f"{self._name}: it was cut in the middle of a line, which is left out")
            return None
        try:
            there = os.stat(self._path)
            if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
                return None
            return open(self._path, "rb")
        except FileNotFoundError:
            return None
