"""Checking a log that nobody writes to, and repairing it. Whoever calls this holds the folder's lock.

A check changes nothing. A repair gives up what is lost and keeps the rest: a damaged segment is replaced by one of its good
frames, under their own numbers, with a seal; its damaged bytes go to `aside` first. Each step is on disk before the next,
and each leaves a log that can be opened; a repair that was interrupted is finished by the next one, and one of a whole
log does nothing. Torn tails are left to the next opening.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pcs_core.wal.files import Files
from pcs_core.wal.folder import ANCHOR, Anchor, Identity, LogFolder
from pcs_core.wal.frame import (
    SEGMENT_HEADER_BYTES,
    decode_segment_header,
    encode_frame,
    encode_seal,
    encode_segment_header,
)
from pcs_core.wal.scan import Damage, SegmentScan, segment_name


class SegmentReport(NamedTuple):
    """One segment.

    Attributes:
        name: Of its file.
        size_bytes: Of its file.
        frames: Good frames without the seal.
        is_sealed: Whether it takes no more frames.
        torn_bytes: Length of a torn tail, which the next opening keeps aside and cuts off.
        damages: What is wrong.
    """

    name: str
    size_bytes: int
    frames: int
    is_sealed: bool
    torn_bytes: int
    damages: list[Damage]


class LogReport(NamedTuple):
    """One log.

    Attributes:
        first_segment: The oldest segment; 0 if there is none.
        synced_sequence: Highest number that the next opening will know to be on disk.
        segments: Each segment, oldest first.
        damages: What is wrong with the log as a whole.
        aside: Names of what is kept aside.
    """

    first_segment: int
    synced_sequence: int
    segments: list[SegmentReport]
    damages: list[Damage]
    aside: list[str]

    @property
    def all_damages(self) -> list[Damage]:
        """Everything that is wrong."""
        return [*self.damages, *(damage for segment in self.segments for damage in segment.damages)]


class Repair(NamedTuple):
    """What a repair did.

    Attributes:
        name: Of the file.
        what: In words, what was done or why not.
        done: Whether it was.
    """

    name: str
    what: str
    done: bool


class _Segment(NamedTuple):
    """A segment as read. `is_begun` is false for one whose maker died before its header was whole."""

    first: int
    next_first: int | None
    data: bytes
    scan: SegmentScan
    frames: dict[int, bytes]
    is_begun: bool


class LogCheck:
    """One look at the log of a folder."""

    def __init__(self, folder: str, files: Files) -> None:
        """Name the log; nothing is read yet."""
        self._folder = LogFolder(folder, files)
        self._files = files

    def report(self) -> LogReport:
        """Read everything.

        Raises:
            WalError, OSError: The disk does not give it.
        """
        segments = self._folder.segments()
        identity = self._folder.identify(segments)
        synced_sequence = identity.anchor.first_segment - 1 if identity.anchor is not None else 0
        reports = []
        for segment in self._read(segments, identity):
            scan, is_last = segment.scan, segment.next_first is None
            can_go_on = is_last and segment.is_begun and not scan.sealed and not scan.damages
            if can_go_on:
                synced_sequence = scan.sequence_max
            else:
                synced_sequence = max(synced_sequence, self._used_up_to(segment, synced_sequence))
            reports.append(
                SegmentReport(
                    name=segment_name(segment.first),
                    size_bytes=len(segment.data),
                    frames=scan.count,
                    is_sealed=not is_last or scan.sealed,
                    torn_bytes=scan.tail_bytes if can_go_on else 0,
                    damages=scan.damages,
                )
            )
        first = segments[0] if segments else 0
        return LogReport(first, synced_sequence, reports, identity.damages, self._folder.aside_names())

    def repair(self) -> list[Repair]:
        """Repair what can be. Returns what was done, and what could not be; nothing for a whole log.

        Raises:
            WalError, OSError: The disk refused; what was done is done.
        """
        segments = self._folder.segments()
        identity = self._folder.identify(segments)
        repairs = []
        used = (
            max(self._folder.number_after_tails(), identity.anchor.first_segment if identity.anchor else 1)
            - 1
        )
        for segment in self._read(segments, identity):
            if segment.scan.damages:
                repairs.append(self._rewrite(segment, identity.salt or b"", used))
            used = max(used, self._used_up_to(segment, used))
        if identity.damages:
            repairs.append(self._mend_start(segments, identity))
        return repairs

    def _read(self, segments: list[int], identity: Identity) -> Iterator[_Segment]:
        floor = 0
        for first, next_first in zip(segments, [*segments[1:], None], strict=False):
            data = self._folder.read_segment(first)
            is_begun = (
                next_first is not None
                or len(data) > SEGMENT_HEADER_BYTES
                or decode_segment_header(data) is not None
            )
            scan = SegmentScan(
                segment_name(first), data, identity.salt or b"", first, floor=floor, next_first=next_first
            )
            frames = {
                found.frame.sequence: data[found.offset : found.offset + found.size_bytes] for found in scan
            }
            if not is_begun:
                scan.damages.clear()
            floor = scan.sequence_max
            yield _Segment(first, next_first, data, scan, frames, is_begun)

    def _used_up_to(self, segment: _Segment, used: int) -> int:
        """Return the highest number that the segment may have used."""
        if not segment.is_begun:
            return segment.first - 1
        return max(segment.first - 1, segment.scan.sequence_floor(used if segment.next_first is None else 0))

    def _rewrite(self, segment: _Segment, salt: bytes, used: int) -> Repair:
        name = segment_name(segment.first)
        scan = segment.scan
        if any(sequence < segment.first for sequence in segment.frames):
            return Repair(name, "not repaired: it holds frames of a segment of another name", done=False)
        if not self._folder.keep_damaged(segment.data, scan.damages):
            return Repair(name, "not repaired: its damaged bytes could not be kept aside", done=False)
        if segment.next_first is not None:
            seal_number = segment.next_first - 1
        else:
            seal_number = self._used_up_to(segment, used) + 1
        seal = encode_frame(encode_seal(scan.count, scan.chain), seal_number, salt)
        self._files.replace(
            self._folder.path_of(segment.first),
            [encode_segment_header(salt, segment.first), *segment.frames.values(), seal],
        )
        aside = sum(damage.size_bytes for damage in scan.damages)
        what = f"rewritten with its {scan.count} good frames; {aside} damaged bytes are in aside"
        missing = [damage.segment for damage in scan.damages if damage.segment != name]
        return Repair(name, "; given up: ".join([what, *missing]), done=True)

    def _mend_start(self, segments: list[int], identity: Identity) -> Repair:
        """Make the anchor and the oldest segment agree."""
        salt, anchor = identity.salt, identity.anchor
        if salt is None:
            self._folder.remove_anchor()
            return Repair(ANCHOR, "removed: nothing else is left of the log", done=True)
        if not segments:
            first = anchor.first_segment if anchor is not None else 1
            self._files.replace(self._folder.path_of(first), [encode_segment_header(salt, first)])
            return Repair(segment_name(first), "begun anew: every segment is gone", done=True)
        self._folder.write_anchor(Anchor(salt, segments[0]))
        return Repair(ANCHOR, f"written anew: the oldest segment is {segment_name(segments[0])}", done=True)


def check_log(folder: str, files: Files) -> LogReport:
    """Read a log and say what is wrong with it. Changes nothing.

    Raises:
        WalError, OSError: The disk does not give it.
    """
    return LogCheck(folder, files).report()


def repair_log(folder: str, files: Files) -> list[Repair]:
    """Repair a log.

    Raises:
        WalError, OSError: The disk refused; what was done is done.
    """
    return LogCheck(folder, files).repair()
