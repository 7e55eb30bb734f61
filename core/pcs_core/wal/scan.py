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


class Damage(NamedTuple):
    """Bytes that should be frames and are not.

    Attributes:
        segment: Name of the segment's file.
        offset: First damaged byte.
        size_bytes: How many; 0 where frames are missing rather than broken.
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

    Attributes:
        damages: Damage with a good frame after it, a bad header, a seal that does not match.
        valid_bytes: End of the last good frame.
        sequence_max: Highest sequence number of any valid frame; one below the segment's first if there is none.
        count: Good frames without the seal.
        chain: Their chained CRC.
        sealed: Whether a seal that matches ends the segment.
    """

    def __init__(self, name: str, data: bytes, salt: bytes, first_sequence: int) -> None:
        self._name = name
        self._data = data
        self._salt = salt
        self.damages: list[Damage] = []
        self.valid_bytes = min(SEGMENT_HEADER_BYTES, len(data))
        self.sequence_max = first_sequence - 1
        self.count = 0
        self.chain = 0
        self.sealed = False
        header = decode_segment_header(data)
        if header is None:
            self.damages.append(Damage(name, 0, self.valid_bytes, "segment header"))
        elif header[1] != first_sequence:
            self.damages.append(Damage(name, 0, self.valid_bytes, "segment header of another segment"))
            self.sequence_max = min(header[1], first_sequence) - 1

    def __iter__(self) -> Iterator[Found]:
        offset = self.valid_bytes
        while offset < len(self._data):
            decoded = decode_frame(self._data, offset, self._salt)
            # A sequence number that does not rise is a stray copy, not the next frame.
            if decoded is None or decoded[0].sequence <= self.sequence_max:
                following = self._resume(offset)
                if following is None:
                    break
                self.damages.append(Damage(self._name, offset, following - offset, "frames"))
                offset = following
                continue
            frame, size_bytes = decoded
            self.sequence_max = frame.sequence
            self.valid_bytes = offset + size_bytes
            if frame.kind == SEAL_KIND:
                self._check_seal(frame, offset)
            else:
                self.count += 1
                self.chain = chain_crc(self.chain, self._data[offset : self.valid_bytes])
                self.sealed = False
                yield Found(offset, size_bytes, frame)
            offset = self.valid_bytes

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

    def _resume(self, offset: int) -> int | None:
        """Return where the next good frame after damage starts, or `None`."""
        candidate = self._data.find(FRAME_MAGIC, offset + 1)
        while candidate != -1:
            decoded = decode_frame(self._data, candidate, self._salt)
            if decoded is not None and decoded[0].sequence > self.sequence_max:
                return candidate
            candidate = self._data.find(FRAME_MAGIC, candidate + 1)
        return None

    def _check_seal(self, seal: Frame, offset: int) -> None:
        if seal_matches(seal, self.count, self.chain):
            self.sealed = True
        elif not self.damages:  # otherwise the mismatch follows from what is already reported
            self.damages.append(Damage(self._name, offset, 0, "frames missing before the seal"))
