"""Reading a segment back: its good frames, and where it is damaged. Pure: bytes in, findings out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pcs_core.wal.frame import (
    FRAME_BYTES_MIN,
    FRAME_MAGIC,
    SEAL_KIND,
    SEGMENT_HEADER_BYTES,
    Frame,
    chain_crc,
    decode_frame,
    decode_header,
    decode_segment_header,
    seal_matches,
)

_SUFFIX = ".wal"


def segment_name(first_sequence: int) -> str:
    """Return the name of a segment's file."""
    return f"{first_sequence:020d}{_SUFFIX}"


class Damage(NamedTuple):
    """Bytes that should be frames and are not, or frames that are not where they should be.

    Attributes:
        segment: Name of the file.
        offset: First damaged byte.
        size_bytes: How many; 0 where something is missing rather than broken.
        what: What is wrong, in words.
    """

    segment: str
    offset: int
    size_bytes: int
    what: str


class Found(NamedTuple):
    """A good frame and where it stands."""

    offset: int
    size_bytes: int
    frame: Frame


class SegmentScan:
    """One pass over a segment's bytes. Iterate first; the findings below are complete afterwards.

    Frames come out in the order of their numbers, each number once, wherever in the segment they stand. A frame whose
    number belongs to another segment is not taken.

    Attributes:
        damages: Everything that is wrong. In the last segment of a log an invalid end alone is not: it is a torn tail.
        valid_bytes: End of the last good frame.
        sequence_max: Highest sequence number of any frame that was taken; below the segment's first if there is none.
        count: Good frames without the seal.
        chain: Their chained CRC.
        sealed: Whether a seal that matches them ends the segment.
    """

    def __init__(
        self,
        name: str,
        data: bytes,
        salt: bytes,
        first_sequence: int,
        *,
        floor: int = 0,
        next_first: int | None = None,
    ) -> None:
        """Read the segment's header.

        Args:
            name: Of the file, for what is reported.
            data: All of it.
            salt: Of the log.
            first_sequence: First number the segment may hold, as its name says.
            floor: Highest number of the segments before it.
            next_first: First number of the segment after it; `None` for the last one, which may still be open.
        """
        self._name = name
        self._data = data
        self._salt = salt
        self._next_first = next_first
        self._seal: Found | None = None
        self.damages: list[Damage] = []
        self.valid_bytes = min(SEGMENT_HEADER_BYTES, len(data))
        self.count = 0
        self.chain = 0
        self.sealed = False
        lowest = first_sequence
        header = decode_segment_header(data)
        if header is None:
            self._note(0, self.valid_bytes, "segment header")
        elif header[0] != salt:
            self._note(0, self.valid_bytes, "segment header of another log")
        elif header[1] != first_sequence:
            self._note(0, self.valid_bytes, "segment header of another segment")
            lowest = min(header[1], first_sequence)
        self._base = self.sequence_max = max(floor, lowest - 1)

    def __iter__(self) -> Iterator[Found]:
        offset = self.valid_bytes
        if self.damages and (early := self._find_frame(0)) is not None and early.offset < offset:
            offset = early.offset  # moved to where the header was
        ceiling = self._ceiling
        # As long as numbers follow one another nothing is out of order, and frames can be handed on at once.
        while self._seal is None and (decoded := decode_frame(self._data, offset, self._salt)) is not None:
            frame, size_bytes = decoded
            if frame.sequence != self.sequence_max + 1 or frame.sequence >= ceiling:
                break
            offset += size_bytes
            self.valid_bytes = offset
            found = Found(offset - size_bytes, size_bytes, frame)
            if self._take(found):
                yield found
        if offset < len(self._data):
            for found in self._sort_out(offset):
                if self._take(found):
                    yield found
        self._conclude()

    @property
    def tail_bytes(self) -> int:
        """Bytes after the last good frame."""
        return len(self._data) - self.valid_bytes

    def sequence_floor(self, used: int = 0) -> int:
        """Return the highest sequence number that any byte of the segment, the tail's included, may have used.

        Args:
            used: Highest number known to be used before the tail was written.
        """
        highest = max(self.sequence_max, used)
        offset = self._data.find(FRAME_MAGIC, self.valid_bytes)
        while offset != -1:
            header = decode_header(self._data, offset, self._salt)
            if header is not None:
                highest = max(highest, header.sequence)
            offset = self._data.find(FRAME_MAGIC, offset + 1)
        # Frames whose headers are gone as well: no more of them than would fit.
        return highest + -(-self.tail_bytes // FRAME_BYTES_MIN)

    def _take(self, found: Found) -> bool:
        """Enter a frame, the next by its number. Returns whether it is the owner's."""
        self.sequence_max = max(self.sequence_max, found.frame.sequence)
        if found.frame.kind == SEAL_KIND:
            self._seal = found
            return False
        self.count += 1
        self.chain = chain_crc(self.chain, self._data[found.offset : found.offset + found.size_bytes])
        return True

    def _sort_out(self, offset: int) -> list[Found]:
        """Return the frames from the first irregular place on by their numbers, and note what is wrong there."""
        taken: dict[int, Found] = {}
        seal = self._seal
        highest = lowest = self.sequence_max
        bad: list[tuple[int, int]] = []  # since the last good frame: a torn tail, if no good one follows
        while offset < len(self._data):
            found = self._find_frame(offset)
            if found is None:
                break
            if found.offset > offset:
                bad.append((offset, found.offset))
            offset = found.offset + found.size_bytes
            sequence = found.frame.sequence
            if found.frame.kind == SEAL_KIND:
                # A repaired segment's seal may have the number of the last frame.
                is_good = seal is None and self._base < sequence < self._ceiling
                seal = found if is_good else seal
            else:
                is_good = lowest < sequence < self._ceiling and sequence not in taken
            if not is_good:
                bad.append((found.offset, offset))
                continue
            for start, end in bad:
                self._note(start, end - start, "frames")
            bad.clear()
            if sequence < highest:
                self._note(found.offset, found.size_bytes, "frames out of order")
            highest = max(highest, sequence)
            self.valid_bytes = offset
            if found.frame.kind != SEAL_KIND:
                taken[sequence] = found
        ordered = [taken[sequence] for sequence in sorted(taken)]
        return ordered if seal is None or seal is self._seal else [*ordered, seal]

    @property
    def _ceiling(self) -> float:
        return float("inf") if self._next_first is None else self._next_first

    def _find_frame(self, offset: int) -> Found | None:
        """Return the first good frame at `offset` or after it."""
        candidate = self._data.find(FRAME_MAGIC, offset)
        while candidate != -1:
            if (decoded := decode_frame(self._data, candidate, self._salt)) is not None:
                return Found(candidate, decoded[1], decoded[0])
            candidate = self._data.find(FRAME_MAGIC, candidate + 1)
        return None

    def _conclude(self) -> None:
        """Check the end: seal, tail, and the number the next segment begins with."""
        seal = self._seal
        if seal is not None:
            self.sealed = seal_matches(seal.frame, self.count, self.chain)
            if (
                not self.sealed and not self.damages
            ):  # otherwise the mismatch follows from what is already known
                self._note(seal.offset, 0, "frames missing before the seal")
        if self.tail_bytes and (self._next_first is not None or seal is not None or self.damages):
            self._note(self.valid_bytes, self.tail_bytes, "frames")
        elif self._next_first is not None and seal is None and not self.damages:
            # Only a seal or damage ends a segment: this one has lost its end, just between two frames.
            self._note(self.valid_bytes, 0, "frames missing at the end, the seal too")
        elif (
            self._next_first is not None and seal is not None and seal.frame.sequence + 1 != self._next_first
        ):
            self.damages.append(Damage(segment_name(seal.frame.sequence + 1), 0, 0, "segment missing"))

    def _note(self, offset: int, size_bytes: int, what: str) -> None:
        """Add damage, to the last one where the two touch."""
        if self.damages:
            last = self.damages[-1]
            if last.what == what and last.offset + last.size_bytes == offset and size_bytes:
                self.damages[-1] = last._replace(size_bytes=last.size_bytes + size_bytes)
                return
        self.damages.append(Damage(self._name, offset, size_bytes, what))
