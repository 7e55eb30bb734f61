"""Which writes are under way, for a snapshot that must not claim to cover them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from pcs_backend.errors import InboxUnavailableError


class WritesInFlight:
    """Remembers where the log stood before each write, until memory has what was written."""

    def __init__(self, synced_sequence: Callable[[], int]) -> None:
        """Take what tells the highest frame on disk; what is written next comes after it."""
        self._synced_sequence = synced_sequence
        self._before: dict[object, int] = {}

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Remember a write and what follows from it in memory.

        A write whose fate is unknown is remembered for good: no snapshot of this process claims to cover its frames.
        """
        token = object()
        self._before[token] = self._synced_sequence()
        try:
            yield
        except InboxUnavailableError as error:
            if not error.may_be_written:
                del self._before[token]
            raise
        del self._before[token]

    @property
    def covered_sequence(self) -> int:
        """Every frame up to this one is in memory."""
        return min(self._before.values(), default=self._synced_sequence())
