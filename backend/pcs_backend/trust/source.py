"""Where trust comes from: the key file and the keys of the environment, read anew when they change.

A new file that cannot be used changes nothing: the old keys stay, and log and metrics say so.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import structlog

from pcs_backend.errors import ConfigError
from pcs_backend.trust.policy import Trust
from pcs_core.ports import Sleep

KEYS_CHECK_INTERVAL_S = 2.0
"""How often the key file is looked at."""

_log = structlog.get_logger(__name__)


class TrustSource:
    """What is trusted now.

    Attributes:
        current: The trust in force.
        is_stale: Whether the last file could not be used, so that older keys are in force.
    """

    def __init__(self, load: Callable[[], Trust], path: str) -> None:
        """Load for the first time.

        Args:
            load: Reads everything.
            path: The key file; empty if there is none.

        Raises:
            ConfigError: It cannot be used.
        """
        self._load = load
        self._path = path
        self._seen = self._stamp()
        self.current = load()
        self.is_stale = False

    def get(self) -> Trust:
        """Return what is trusted now."""
        return self.current

    def reload(self) -> bool:
        """Read everything anew. Returns whether it could be used; if not, what was trusted before still is."""
        self._seen = self._stamp()
        try:
            self.current = self._load()
        except ConfigError as error:
            self.is_stale = True
            _log.error("the keys were not reloaded, the old ones stay in force", error=str(error))
            return False
        self.is_stale = False
        _log.info("the keys were reloaded", keys=len(self.current.keyring.entries))
        return True

    async def watch(self, sleep: Sleep) -> None:
        """Reload whenever the key file changes, for ever."""
        last = self._seen
        while True:
            await sleep(KEYS_CHECK_INTERVAL_S)
            stamp = self._stamp()
            if self._path and stamp == last != self._seen:  # changed, and not being written any more
                self.reload()
            last = stamp

    def _stamp(self) -> tuple[int, int, int] | None:
        """Return what changes with the file's contents; `None` while it is missing, as in the middle of a replacement."""
        try:
            stat = os.stat(self._path)
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ino, stat.st_size
