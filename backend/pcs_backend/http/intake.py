"""What all connections together may take: how many there are, and how many bytes they hold. Pure counting.

Every connection has `CONNECTION_BYTES_MAX` of its own, so that small records are taken in whatever the others do. What
one holds beyond that, the body of a large record say, comes out of a budget they share. A connection holds its place,
and its bytes, until it is closed and nothing that it sent is being judged any more.
"""

from __future__ import annotations

CONNECTION_BYTES_MAX = 16_384
"""Bytes a connection may hold that nothing else counts; also the longest header of a request."""


class Intake:
    """Counts places and bytes.

    Attributes:
        connections_max: Places there are.
        connections: Places taken.
        shared_bytes: Bytes taken from the shared budget.
    """

    def __init__(self, *, connections_max: int, shared_bytes_max: int) -> None:
        """Set the bounds.

        Args:
            connections_max: Places.
            shared_bytes_max: The shared budget.
        """
        self.connections_max = connections_max
        self._shared_bytes_max = shared_bytes_max
        self.connections = 0
        self.shared_bytes = 0

    def enter(self) -> bool:
        """Take a place; returns whether there was one."""
        if self.connections >= self.connections_max:
            return False
        self.connections += 1
        return True

    def leave(self) -> None:
        """Give a place back."""
        self.connections -= 1

    def take(self, size_bytes: int) -> bool:
        """Take bytes from the shared budget; returns whether they were there."""
        if self.shared_bytes + size_bytes > self._shared_bytes_max:
            return False
        self.shared_bytes += size_bytes
        return True

    def give_back(self, size_bytes: int) -> None:
        """Give bytes back."""
        self.shared_bytes -= size_bytes
