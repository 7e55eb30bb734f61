"""The log itself: open, append, sync, rotate, read, remove. Guarantees and layout: the package's docstring.

Not thread-safe: one caller at a time appends. Reading frames back may go on beside it.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pcs_core.errors import WalError, WalFailedError
from pcs_core.ports import RandomBytes
from pcs_core.wal.files import Files, name_of
from pcs_core.wal.folder import Anchor, LogFolder
from pcs_core.wal.frame import (
    SALT_BYTES,
    SEAL_KIND,
    SEGMENT_HEADER_BYTES,
    SEQUENCE_MAX,
    Frame,
    NewFrame,
    chain_crc,
    decode_frame,
    decode_segment_header,
    encode_frame,
    encode_pieces,
    encode_seal,
    encode_segment_header,
)
from pcs_core.wal.scan import Damage, SegmentScan, segment_name

SEGMENT_BYTES = 64 * 1024 * 1024
"""A segment that would grow past this is sealed and a new one begun; a larger batch still goes into one segment."""


_USED_UP = "the log has no numbers left: only damage that looks like a good frame uses them up"


class Position(NamedTuple):
    """Where a frame stands.

    Attributes:
        sequence: Its sequence number.
        segment: First sequence number of its segment, which names the file.
        offset: Byte in the file.
        size_bytes: Its length.
    """

    sequence: int
    segment: int
    offset: int
    size_bytes: int


Visitor = Callable[[Position, Frame], None]


class Wal:
    """A log that is open for appending, its folder locked.

    Attributes:
        damages: What was found damaged at opening. Good frames around it were visited all the same.
        torn_bytes: Length of the torn tail that was cut off and kept aside at opening.
    """

    def __init__(
        self, folder: str, files: Files, random_bytes: RandomBytes, *, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        """Name the log; `open` reads it."""
        self._folder = LogFolder(folder, files)
        self._files = files
        self._random_bytes = random_bytes
        self._segment_bytes = segment_bytes
        self._lock: int | None = None
        self._handle: int | None = None
        self._salt = b""
        self._segments: list[int] = []
        self._size_bytes = 0
        self._sealed_bytes: dict[int, int] = {}
        self._appended_bytes = 0
        self._pinned: set[int] = set()
        self._count = 0
        self._chain = 0
        self._is_between = False  # the newest segment is sealed, and the next could not be made yet
        self._next_sequence = 1
        self._synced_sequence = 0
        self._last_good_sequence = 0
        self._failure: str | None = None
        self.damages: list[Damage] = []
        self.torn_bytes = 0

    def open(self, visit: Visitor) -> None:
        """Lock the folder, read every segment, cut a torn tail, get ready to append.

        On return everything that was visited is on disk, even if the process that wrote it died before its sync, or
        after one that failed.

        Args:
            visit: Called with every good frame, in order.

        Raises:
            WalLockedError: Another process owns the folder.
            WalError: A segment cannot be read.
            OSError: The disk refused.
        """
        try:
            self._open(visit)
        except BaseException:
            self.close()
            raise

    @property
    def next_sequence(self) -> int:
        """The number the next frame gets."""
        return self._next_sequence

    @property
    def synced_sequence(self) -> int:
        """Highest number known to be on disk. Every frame committed later has a higher one, restarts included.

        Unlike `next_sequence` it never counts numbers that were given out or skipped without reaching the disk.
        """
        return self._synced_sequence

    @property
    def failure(self) -> str | None:
        """Why the log takes nothing any more; `None` while it does."""
        return self._failure

    @property
    def size_bytes(self) -> int:
        """Bytes of all segments."""
        return sum(list(self._sealed_bytes.values())) + self._size_bytes  # a copy: another thread may rotate

    @property
    def appended_bytes(self) -> int:
        """Bytes of all frames appended since the log was opened; unlike `size_bytes` it never shrinks."""
        return self._appended_bytes

    @property
    def first_segment(self) -> int:
        """The oldest segment; 1 as long as nothing was removed."""
        return self._segments[0]

    @property
    def sealed_segments(self) -> list[int]:
        """Segments that take no more frames, oldest first."""
        return self._segments[:-1]

    @property
    def removable_segments(self) -> list[int]:
        """The oldest of them, up to one whose damaged bytes are kept nowhere else."""
        return list(itertools.takewhile(lambda segment: segment not in self._pinned, self.sealed_segments))

    def commit(self, frames: Sequence[NewFrame]) -> list[Position]:
        """Append frames and sync them.

        On return they are on disk. On error none of them counts as written. This process does not use their numbers
        again; a later one may, unless it finds them on disk.

        Raises:
            ValueError: A frame is of the log's own kind, or too large.
            WalFailedError: The disk refused, now or before.
        """
        if any(frame.kind == SEAL_KIND for frame in frames):
            raise ValueError(f"kind: found {SEAL_KIND}; allowed: 1 to 255")
        positions = self._append(frames)
        try:
            self._files.sync_data(self._open_handle())
        except OSError as error:
            raise self._fail("sync", error) from error
        if positions:
            self._synced_sequence = positions[-1].sequence
        return positions

    def seal(self) -> None:
        """End the segment being written, so that it may be removed. On return the next one is on disk.

        Raises:
            WalFailedError: The disk refused, now or before.
        """
        if self._failure is not None:
            raise WalFailedError(self._failure)
        if self._count:
            self._rotate()
        elif self._is_between:
            self._begin_next()

    def read(self, position: Position) -> Frame:
        """Read one frame back.

        Raises:
            WalError: The bytes are no longer a valid frame, or the disk refused.
        """
        place = f"segment {segment_name(position.segment)}, offset {position.offset}"
        try:
            data = self._files.read_range(
                self._folder.path_of(position.segment), position.offset, position.size_bytes
            )
        except OSError as error:
            raise WalError(f"{place}: cannot be read: {name_of(error)}") from error
        decoded = decode_frame(data, 0, self._salt)
        if decoded is None or decoded[0].sequence != position.sequence:
            raise WalError(f"{place}: the frame is damaged")
        return decoded[0]

    def remove_oldest(self, segment: int) -> None:
        """Remove the oldest segment. On return it is gone from disk.

        Raises:
            ValueError: It is not the oldest, or it is the one being written.
            WalError: The disk refused; it may be removed again.
        """
        if segment not in self.removable_segments[:1]:
            raise ValueError("segment: found one that is in use; allowed: the oldest sealed one")
        try:
            self._folder.write_anchor(Anchor(self._salt, self._segments[1]))
            self._remove(self._folder.path_of(segment))
        except OSError as error:
            raise WalError(f"segment {segment_name(segment)}: cannot be removed: {name_of(error)}") from error
        self._segments.pop(0)
        self._sealed_bytes.pop(segment, None)

    def close(self) -> None:
        """Give the files and the lock back. What was committed is on disk already."""
        for handle in (self._handle, self._lock):
            if handle is not None:
                self._files.close(handle)
        self._handle = self._lock = None

    def _open(self, visit: Visitor) -> None:
        self._files.make_folder(self._folder.path)
        self._lock = self._files.lock(self._folder.path)
        segments = self._folder.segments()
        identity = self._folder.identify(segments)
        self.damages += identity.damages
        self._salt = identity.salt or self._random_bytes(SALT_BYTES)
        if identity.anchor is not None:
            self._next_sequence = max(self._next_sequence, identity.anchor.first_segment)
        self._next_sequence = max(self._next_sequence, self._folder.number_after_tails())
        last_is_whole = False
        for first, next_first in zip(segments, [*segments[1:], None], strict=False):
            last_is_whole = self._read_segment(first, next_first, visit)
        if last_is_whole:
            self._resume_segment()
        else:
            self._make_segment()
            self._sync_made()
        if identity.anchor is None:
            with contextlib.suppress(
                OSError
            ):  # nothing acknowledged depends on it; the next opening tries again
                self._folder.write_anchor(Anchor(self._salt, self._segments[0]))

    def _append(self, frames: Sequence[NewFrame]) -> list[Position]:
        if self._failure is not None:
            raise WalFailedError(self._failure)
        if self._next_sequence + len(frames) > SEQUENCE_MAX:  # one is left for the seal of a rotation
            self._failure = _USED_UP
            raise WalFailedError(self._failure)
        if self._is_between:
            self._begin_next()
        first = self._next_sequence
        encoded = [encode_pieces(frame, first + index, self._salt) for index, frame in enumerate(frames)]
        if self._count and self._size_bytes + sum(map(_size_of, encoded)) > self._segment_bytes:
            self._rotate()
            first = self._next_sequence
            encoded = [encode_pieces(frame, first + index, self._salt) for index, frame in enumerate(frames)]
        self._next_sequence += len(frames)
        self._write([piece for pieces in encoded for piece in pieces])
        positions = []
        offset = self._size_bytes
        for index, pieces in enumerate(encoded):
            positions.append(Position(first + index, self._segments[-1], offset, _size_of(pieces)))
            offset += _size_of(pieces)
            self._chain = chain_crc(self._chain, pieces[-1])
        self._count += len(encoded)
        self._appended_bytes += offset - self._size_bytes
        self._size_bytes = offset
        return positions

    def _write(self, encoded: list[bytes]) -> None:
        handle = self._open_handle()
        try:
            self._files.append(handle, encoded)
        except OSError as error:
            # A full disk leaves a prefix. If that can be cut off, the log goes on where it was.
            try:
                self._files.truncate(handle, self._size_bytes)
            except OSError:
                raise self._fail("write", error) from error
            raise WalFailedError(f"write failed: {name_of(error)}") from error

    def _rotate(self) -> None:
        """Seal the segment and begin the next. On return the seal and the new segment are on disk."""
        seal = encode_frame(encode_seal(self._count, self._chain), self._next_sequence, self._salt)
        self._next_sequence += 1
        self._write([seal])
        handle = self._open_handle()
        try:
            self._files.sync_data(handle)
            self._handle = None
            self._files.close(handle)
        except OSError as error:
            raise self._fail("rotation", error) from error
        self._sealed_bytes[self._segments[-1]] = self._size_bytes + len(seal)
        self._size_bytes = self._count = self._chain = 0
        self._is_between = True
        self._begin_next()

    def _begin_next(self) -> None:
        """Begin a segment after one that is sealed. A disk that was full then may have room at the next attempt."""
        try:
            self._make_segment()
        except OSError as error:
            raise WalFailedError(f"rotation failed: {name_of(error)}") from error
        try:
            self._sync_made()
        except OSError as error:
            raise self._fail("rotation", error) from error

    def _make_segment(self) -> None:
        """Make a segment that is not on disk yet, and holds nothing that counts."""
        if self._next_sequence > SEQUENCE_MAX:
            raise WalFailedError(_USED_UP)
        handle = self._files.open_append(self._folder.path_of(self._next_sequence))
        try:
            self._files.truncate(handle, 0)  # a leftover of the same name holds no frame
            self._files.append(handle, [encode_segment_header(self._salt, self._next_sequence)])
        except OSError:
            self._files.close(handle)
            raise
        self._handle = handle

    def _sync_made(self) -> None:
        """Take the segment that was made. On return it is on disk, and is the one being written."""
        first = self._next_sequence
        self._files.sync_data(self._open_handle())
        self._files.sync_folder(self._folder.path)
        if first not in self._segments:
            self._segments.append(first)
        self._size_bytes = SEGMENT_HEADER_BYTES
        self._count = self._chain = 0
        self._synced_sequence = first - 1
        self._is_between = False

    def _resume_segment(self) -> None:
        """Go on in the last segment, whose bytes are on disk by now."""
        self._handle = self._files.open_append(self._folder.path_of(self._segments[-1]))
        self._files.sync_folder(self._folder.path)
        self._synced_sequence = self._last_good_sequence

    def _read_segment(self, first: int, next_first: int | None, visit: Visitor) -> bool:
        """Visit a segment's frames. Returns whether it can take more."""
        name, path = segment_name(first), self._folder.path_of(first)
        data = self._folder.read_segment(first)
        is_last = next_first is None
        if is_last and len(data) <= SEGMENT_HEADER_BYTES and decode_segment_header(data) is None:
            # The process died while making this segment: it holds no frame, and is made anew.
            self._next_sequence = max(self._next_sequence, first)
            self._folder.keep_tail(first, 0, data, self._next_sequence)
            self._files.remove(path)
            return False
        scan = SegmentScan(
            name, data, self._salt, first, floor=self._last_good_sequence, next_first=next_first
        )
        for found in scan:
            visit(Position(found.frame.sequence, first, found.offset, found.size_bytes), found.frame)
        used = self._next_sequence - 1 if is_last else 0
        self._next_sequence = max(self._next_sequence, first, scan.sequence_floor(used) + 1)
        self._last_good_sequence = scan.sequence_max
        self._segments.append(first)
        self.damages += scan.damages
        if scan.damages and not self._folder.keep_damaged(data, scan.damages):
            self._pinned.add(first)
        # The last writer may have died before its sync, or after one that failed: its bytes are written again.
        if not is_last or scan.sealed or scan.damages:
            self._sealed_bytes[first] = len(data)
            if is_last:
                self._files.rewrite(path, data)
            return False
        if scan.tail_bytes:
            # On disk in their new place before they are cut off here.
            self._folder.keep_tail(first, scan.valid_bytes, data[scan.valid_bytes :], self._next_sequence)
            self.torn_bytes = scan.tail_bytes
        self._files.rewrite(path, data[: scan.valid_bytes])
        self._size_bytes = scan.valid_bytes
        self._count, self._chain = scan.count, scan.chain
        return True

    def _remove(self, path: str) -> None:
        try:
            self._files.remove(path)
        except (
            FileNotFoundError
        ):  # an earlier removal failed after it had taken effect, before it was on disk
            self._files.sync_folder(self._folder.path)

    def _open_handle(self) -> int:
        if self._handle is None:
            raise WalFailedError(self._failure or "the log is not open")
        return self._handle

    def _fail(self, what: str, error: OSError) -> WalFailedError:
        self._failure = f"{what} failed: {name_of(error)}"
        return WalFailedError(self._failure)


def _size_of(pieces: Sequence[bytes]) -> int:
    return sum(map(len, pieces))
