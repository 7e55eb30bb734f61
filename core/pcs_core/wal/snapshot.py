"""A sealed file: a snapshot in the log's own format, written whole or not at all.

Unlike a segment it is never appended to, so any damage makes all of it unusable: a snapshot is believed only when its
seal matches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from pcs_core.errors import WalError
from pcs_core.ports import RandomBytes
from pcs_core.wal.files import Files
from pcs_core.wal.frame import (
    SALT_BYTES,
    Frame,
    NewFrame,
    chain_crc,
    decode_segment_header,
    encode_frame,
    encode_seal,
    encode_segment_header,
)
from pcs_core.wal.scan import SegmentScan

_FIRST_SEQUENCE = 1


def write_snapshot(files: Files, random_bytes: RandomBytes, path: str, frames: Iterable[NewFrame]) -> None:
    """Replace the snapshot. On return it is on disk; a crash before leaves the old one whole."""
    files.replace(path, _encode(random_bytes(SALT_BYTES), frames))


def read_snapshot(files: Files, path: str, check: Callable[[], None] = lambda: None) -> list[Frame]:
    """Return the frames of a snapshot.

    Args:
        files: The disk.
        path: The file.
        check: Called with every frame; what it raises ends the reading.

    Raises:
        WalError: It is damaged or cut short.
        FileNotFoundError: There is none.
    """
    data = files.read(path)
    header = decode_segment_header(data)
    if header is None:
        raise WalError("the snapshot's header is damaged")
    scan = SegmentScan("snapshot", data, header[0], _FIRST_SEQUENCE)
    frames = []
    for found in scan:
        check()
        frames.append(found.frame)
    if scan.damages or scan.tail_bytes or not scan.sealed:
        raise WalError("the snapshot is damaged or cut short")
    return frames


def _encode(salt: bytes, frames: Iterable[NewFrame]) -> Iterator[bytes]:
    yield encode_segment_header(salt, _FIRST_SEQUENCE)
    count = chain = 0
    for frame in frames:
        data = encode_frame(frame, _FIRST_SEQUENCE + count, salt)
        chain = chain_crc(chain, data)
        count += 1
        yield data
    yield encode_frame(encode_seal(count, chain), _FIRST_SEQUENCE + count, salt)
