"""The files of a log's folder: segments, the anchor, and what is kept aside. Reads and replaces; appends nothing.

    NNNNNNNNNNNNNNNNNNNN.wal                        segments, named by the first number they may hold
    anchor                                          salt of the log, and its oldest segment
    aside/SEGMENT.OFFSET.NEXT                       a torn tail, and the number the log went on with
    aside/SEGMENT.OFFSET.SIZE.CRC.damaged           damaged bytes of a segment

The anchor has the bytes of a segment header. It is written after the first segment and before the oldest one is removed,
so an oldest segment that is younger than the anchor says means that segments are gone which nobody removed; and if the
header of the only segment is damaged, the anchor still has the salt.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

import google_crc32c

from pcs_core.errors import WalError
from pcs_core.wal.files import Files, name_of
from pcs_core.wal.frame import (
    HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    decode_header,
    decode_segment_header,
    encode_segment_header,
    recover_salt,
)
from pcs_core.wal.scan import Damage, segment_name

ANCHOR = "anchor"
ASIDE = "aside"

ASIDE_TAILS_MAX = 16
"""Torn tails kept; the oldest go first. Nothing in them was ever acknowledged."""

ASIDE_DAMAGED_FILES_MAX = 1_000
"""Damaged ranges kept; beyond it their segments stay instead."""

ASIDE_DAMAGED_BYTES_MAX = 256 * 1024 * 1024
"""Bytes of damaged ranges kept; beyond it their segments stay instead."""

_SEGMENT = re.compile(r"\d{20}\.wal", re.ASCII)
_TAIL = re.compile(_SEGMENT.pattern + r"\.\d+\.(?P<next>\d+)", re.ASCII)
_DAMAGED = re.compile(_SEGMENT.pattern + r"\.\d+\.(?P<size>\d+)\.[0-9a-f]{8}\.damaged", re.ASCII)


class Anchor(NamedTuple):
    """What the anchor says.

    Attributes:
        salt: Of the log.
        first_segment: The oldest segment; older ones may still be there if their removal was interrupted.
    """

    salt: bytes
    first_segment: int


class Identity(NamedTuple):
    """What a log says of itself.

    Attributes:
        salt: Of the log; `None` for one without any segment or anchor.
        anchor: As read; `None` if it is to be written.
        damages: A bad anchor, or an oldest segment that is not there.
    """

    salt: bytes | None
    anchor: Anchor | None
    damages: list[Damage]


class LogFolder:
    """The folder of one log. Whoever changes something holds its lock."""

    def __init__(self, path: str, files: Files) -> None:
        """Name the folder; nothing is touched yet."""
        self.path = path
        self._files = files
        self._aside = os.path.join(path, ASIDE)

    def segments(self) -> list[int]:
        """Return the segments by their first number, oldest first."""
        names = self._files.list_names(self.path)
        return [int(name.partition(".")[0]) for name in names if _SEGMENT.fullmatch(name)]

    def path_of(self, segment: int) -> str:
        """Return the path of a segment's file."""
        return os.path.join(self.path, segment_name(segment))

    def remove_anchor(self) -> None:
        """Remove the anchor. On return it is gone from disk."""
        self._files.remove(os.path.join(self.path, ANCHOR))

    def identify(self, segments: Sequence[int]) -> Identity:
        """Return salt and anchor, and what is wrong with the anchor or with the oldest segment it names."""
        anchor, damage = self._read_anchor()
        salt = self._find_salt(segments, anchor)
        if anchor is not None and anchor.salt != salt:
            anchor, damage = None, Damage(ANCHOR, 0, SEGMENT_HEADER_BYTES, "anchor of another log")
        damages = [] if damage is None else [damage]
        if anchor is not None and (not segments or segments[0] > anchor.first_segment):
            damages.append(Damage(segment_name(anchor.first_segment), 0, 0, "segment missing"))
        return Identity(salt, anchor, damages)

    def read_segment(self, segment: int) -> bytes:
        """Return all bytes of a segment.

        Raises:
            WalError: The disk does not give them.
        """
        try:
            return self._files.read(self.path_of(segment))
        except OSError as error:
            raise WalError(f"segment {segment_name(segment)}: cannot be read: {name_of(error)}") from error

    def _read_anchor(self) -> tuple[Anchor | None, Damage | None]:
        """Return the anchor, or what is wrong with it; neither if there is none."""
        try:
            data = self._files.read(os.path.join(self.path, ANCHOR))
        except FileNotFoundError:
            return None, None
        except OSError:
            return None, Damage(ANCHOR, 0, 0, "cannot be read")
        decoded = decode_segment_header(data) if len(data) == SEGMENT_HEADER_BYTES else None
        if decoded is None:
            return None, Damage(ANCHOR, 0, len(data), "anchor")
        return Anchor(*decoded), None

    def write_anchor(self, anchor: Anchor) -> None:
        """Replace the anchor. On return it is on disk."""
        data = encode_segment_header(anchor.salt, anchor.first_segment)
        self._files.replace(os.path.join(self.path, ANCHOR), [data])

    def _find_salt(self, segments: Sequence[int], anchor: Anchor | None) -> bytes | None:
        """Return the salt under which the first frames of most segments can be read; `None` for a log without any."""
        starts = [self._read_start(segment) for segment in segments]
        known = [decoded[0] for start in starts if (decoded := decode_segment_header(start)) is not None]
        if anchor is not None:
            known.insert(0, anchor.salt)

        def readable(salt: bytes) -> int:
            return sum(decode_header(start, SEGMENT_HEADER_BYTES, salt) is not None for start in starts)

        best = max(dict.fromkeys(known), key=readable, default=None)  # the first of equals
        if best is None or not readable(best):
            recovered = (salt for start in starts if (salt := recover_salt(start)) is not None)
            best = next(recovered, best)
        return best

    def _read_start(self, segment: int) -> bytes:
        try:
            return self._files.read_range(self.path_of(segment), 0, SEGMENT_HEADER_BYTES + HEADER_BYTES)
        except OSError as error:
            raise WalError(f"segment {segment_name(segment)}: cannot be read: {name_of(error)}") from error

    def number_after_tails(self) -> int:
        """Return the least number that no byte of a torn tail can have used."""
        names = self._files.list_names(self._aside)
        return max((int(match["next"]) for name in names if (match := _TAIL.fullmatch(name))), default=1)

    def keep_tail(self, segment: int, offset: int, data: bytes, next_sequence: int) -> None:
        """Keep a torn tail. On return it is on disk, and no more than `ASIDE_TAILS_MAX` are kept."""
        if not data:
            return
        self._files.make_folder(self._aside)
        name = f"{segment_name(segment)}.{offset}.{next_sequence}"
        self._files.replace(os.path.join(self._aside, name), [data])
        tails = [match for each in self._files.list_names(self._aside) if (match := _TAIL.fullmatch(each))]
        tails.sort(key=lambda match: int(match["next"]))
        for match in tails[:-ASIDE_TAILS_MAX]:
            self._files.remove(os.path.join(self._aside, match[0]))

    def keep_damaged(self, data: bytes, damages: Sequence[Damage]) -> bool:
        """Keep the damaged bytes of a segment. The same bytes are kept once, however often they are found.

        Args:
            data: All of the segment.
            damages: What is wrong with it.

        Returns:
            Whether all of them are on disk; otherwise the disk refused, or there is no room for more.
        """
        try:
            return self._keep_damaged(data, damages)
        except OSError:
            return False

    def _keep_damaged(self, data: bytes, damages: Sequence[Damage]) -> bool:
        names = self._files.list_names(self._aside)
        sizes = {name: int(match["size"]) for name in names if (match := _DAMAGED.fullmatch(name))}
        for damage in damages:
            content = data[damage.offset : damage.offset + damage.size_bytes]
            crc = google_crc32c.value(content)
            name = f"{damage.segment}.{damage.offset}.{damage.size_bytes}.{crc:08x}.damaged"
            if not content or name in sizes:
                continue
            sizes[name] = damage.size_bytes
            if len(sizes) > ASIDE_DAMAGED_FILES_MAX or sum(sizes.values()) > ASIDE_DAMAGED_BYTES_MAX:
                return False
            self._files.make_folder(self._aside)
            self._files.replace(os.path.join(self._aside, name), [content])
        return True

    def aside_names(self) -> list[str]:
        """Return the names of what is kept aside."""
        return self._files.list_names(self._aside)
