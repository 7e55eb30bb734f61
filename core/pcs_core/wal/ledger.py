"""Which frames are still open, and so which segments may go. In memory; rebuilt from the log at start.

Retention can never delete a request without an outcome, because it asks here: a segment goes only when nothing in it
is open, everything in it is old enough, and every older segment is gone. Oldest first matters: a frame that closes
another always comes after it, so no closing frame goes before what it closes.
"""

from __future__ import annotations

from collections.abc import Iterator

from pcs_core.wal.log import Position


class Ledger:
    """Open frames by sequence number, and the newest time of each segment."""

    def __init__(self) -> None:
        self._open: dict[int, Position] = {}
        self._open_in_segment: dict[int, int] = {}
        self._newest_s: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, sequence: int) -> bool:
        return sequence in self._open

    def __iter__(self) -> Iterator[int]:
        """Open sequence numbers, in the order they were opened."""
        return iter(self._open)

    def position(self, sequence: int) -> Position | None:
        """Where an open frame stands; `None` if it is not open."""
        return self._open.get(sequence)

    def note_time(self, segment: int, time_s: float) -> None:
        """Remember that a segment holds something this new."""
        self._newest_s[segment] = max(time_s, self._newest_s.get(segment, time_s))

    def open(self, sequence: int, position: Position, time_s: float) -> None:
        """Note a frame that needs an outcome."""
        self._open[sequence] = position
        self._open_in_segment[position.segment] = self._open_in_segment.get(position.segment, 0) + 1
        self.note_time(position.segment, time_s)

    def close(self, sequence: int) -> bool:
        """Note that a frame has its outcome. Returns whether it was open."""
        position = self._open.pop(sequence, None)
        if position is None:
            return False
        self._open_in_segment[position.segment] -= 1
        return True

    def retirable(self, sealed_segments: list[int], before_s: float) -> list[int]:
        """Return the oldest segments that may be removed now, in order.

        Args:
            sealed_segments: Segments that take no more frames, oldest first.
            before_s: Everything in a segment must be older than this; a segment of unknown age counts as old, since
                it holds no frame with a time.
        """
        removable = []
        for segment in sealed_segments:
            if (
                self._open_in_segment.get(segment, 0)
                or self._newest_s.get(segment, float("-inf")) >= before_s
            ):
                break
            removable.append(segment)
        return removable

    def forget(self, segment: int) -> None:
        """Drop what is known of a segment that was removed."""
        self._open_in_segment.pop(segment, None)
        self._newest_s.pop(segment, None)
