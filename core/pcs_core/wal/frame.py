"""Bytes of segment headers and frames. Layout: the package's docstring. Encodes and decodes; touches no file."""

from __future__ import annotations

import struct
from typing import NamedTuple

import google_crc32c

FRAME_MAGIC = b"PCSF"
SEGMENT_MAGIC = b"PCSWAL01"
SALT_BYTES = 8
SEAL_KIND = 0
FRAME_BYTES_MAX = 64 * 1024 * 1024
"""Bound on one frame. Larger lengths in a header are damage."""

SEQUENCE_MAX = 2**63 - 1
"""Bound on sequence numbers. Larger ones in a header are damage; so there are always numbers above those seen."""

_FORMAT_VERSION = 1
_HEADER = struct.Struct("<4sBBHQII")
_SEGMENT = struct.Struct("<8s8sQ")
_SEAL = struct.Struct("<QI")
_CRC = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _CRC.size
SEGMENT_HEADER_BYTES = _SEGMENT.size + _CRC.size
FRAME_BYTES_MIN = HEADER_BYTES + _CRC.size


class NewFrame(NamedTuple):
    """What an owner wants appended.

    Attributes:
        kind: 1 … 255, meaning is the owner's.
        envelope: What the owner knows about the payload.
        payload: The bytes themselves.
    """

    kind: int
    envelope: bytes
    payload: bytes = b""


class Frame(NamedTuple):
    """A frame as read back."""

    kind: int
    sequence: int
    envelope: bytes
    payload: bytes


class Header(NamedTuple):
    """A frame's header whose CRC holds."""

    kind: int
    sequence: int
    envelope_bytes: int
    payload_bytes: int
    crc: int

    @property
    def frame_bytes(self) -> int:
        """Length of the whole frame."""
        return HEADER_BYTES + self.envelope_bytes + self.payload_bytes + _CRC.size


def encode_frame(frame: NewFrame, sequence: int, salt: bytes) -> bytes:
    """Return the bytes of a frame.

    Raises:
        ValueError: The frame is larger than `FRAME_BYTES_MAX`.
    """
    return b"".join(encode_pieces(frame, sequence, salt))


def encode_pieces(frame: NewFrame, sequence: int, salt: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the bytes of a frame in three pieces: a payload may be large, and is not copied.

    Raises:
        ValueError: The frame is larger than `FRAME_BYTES_MAX`.
    """
    size_bytes = FRAME_BYTES_MIN + len(frame.envelope) + len(frame.payload)
    if size_bytes > FRAME_BYTES_MAX:
        raise ValueError(f"frame: found {size_bytes} bytes; allowed: up to {FRAME_BYTES_MAX}")
    header = _HEADER.pack(
        FRAME_MAGIC, _FORMAT_VERSION, frame.kind, 0, sequence, len(frame.envelope), len(frame.payload)
    )
    header_crc = _CRC.pack(google_crc32c.value(salt + header))
    crc = google_crc32c.extend(google_crc32c.value(salt + header_crc + frame.envelope), frame.payload)
    return header + header_crc + frame.envelope, frame.payload, _CRC.pack(crc)


def decode_header(data: bytes, offset: int, salt: bytes) -> Header | None:
    """Return the frame header at `offset`, or `None` if there is no valid one."""
    end = offset + _HEADER.size
    if len(data) < end + _CRC.size or data[offset : offset + len(FRAME_MAGIC)] != FRAME_MAGIC:
        return None
    (crc,) = _CRC.unpack_from(data, end)
    if google_crc32c.value(salt + data[offset:end]) != crc:
        return None
    _, version, kind, _, sequence, envelope_bytes, payload_bytes = _HEADER.unpack_from(data, offset)
    header = Header(kind, sequence, envelope_bytes, payload_bytes, crc)
    is_good = (
        version == _FORMAT_VERSION and header.frame_bytes <= FRAME_BYTES_MAX and sequence <= SEQUENCE_MAX
    )
    return header if is_good else None


def decode_frame(data: bytes, offset: int, salt: bytes) -> tuple[Frame, int] | None:
    """Return the frame at `offset` and its length, or `None` if there is no valid one."""
    header = decode_header(data, offset, salt)
    if header is None or offset + header.frame_bytes > len(data):
        return None
    start = offset + HEADER_BYTES
    split = start + header.envelope_bytes
    end = split + header.payload_bytes
    (crc,) = _CRC.unpack_from(data, end)
    if google_crc32c.extend(google_crc32c.value(salt + _CRC.pack(header.crc)), data[start:end]) != crc:
        return None
    return Frame(header.kind, header.sequence, data[start:split], data[split:end]), header.frame_bytes


def chain_crc(chain: int, frame_bytes: bytes) -> int:
    """Return the chained CRC after one more frame: over the frames' closing CRCs.

    Args:
        chain: Before it.
        frame_bytes: The frame, or its last piece.
    """
    return int(google_crc32c.extend(chain, frame_bytes[-_CRC.size :]))


def encode_seal(count: int, chain: int) -> NewFrame:
    """Return the seal of a segment with `count` frames before it."""
    return NewFrame(SEAL_KIND, b"", _SEAL.pack(count, chain))


def seal_matches(seal: Frame, count: int, chain: int) -> bool:
    """Whether a seal tells of exactly these frames."""
    return seal.payload == _SEAL.pack(count, chain)


def encode_segment_header(salt: bytes, first_sequence: int) -> bytes:
    """Return the bytes a segment starts with."""
    header = _SEGMENT.pack(SEGMENT_MAGIC, salt, first_sequence)
    return header + _CRC.pack(google_crc32c.value(header))


def decode_segment_header(data: bytes) -> tuple[bytes, int] | None:
    """Return salt and first sequence number, or `None` if the header is not valid."""
    if len(data) < SEGMENT_HEADER_BYTES:
        return None
    (crc,) = _CRC.unpack_from(data, _SEGMENT.size)
    magic, salt, first_sequence = _SEGMENT.unpack_from(data)
    if magic != SEGMENT_MAGIC or google_crc32c.value(data[: _SEGMENT.size]) != crc:
        return None
    if first_sequence > SEQUENCE_MAX:
        return None
    return bytes(salt), int(first_sequence)


def recover_salt(data: bytes) -> bytes | None:
    """Return the salt of a segment whose header is damaged in one byte, or `None`.

    Without it no frame of a log of one segment could be read. The first frame's header tells the right one: it holds
    under the salt as it stands, or with one of its bytes changed.
    """
    start = len(SEGMENT_MAGIC)
    found = data[start : start + SALT_BYTES]
    if len(data) < SEGMENT_HEADER_BYTES + HEADER_BYTES:
        return None
    for position in range(SALT_BYTES):
        for byte in (found[position], *range(256)):
            salt = found[:position] + bytes((byte,)) + found[position + 1 :]
            if decode_header(data, SEGMENT_HEADER_BYTES, salt) is not None:
                return salt
    return None
