"""Compressibility r: how small zlib makes the concatenated leaves (contract §1)."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

LEVEL = 6
_CHUNK_BYTES = 1 << 20


def compression_ratio(parts: Iterable[bytes | memoryview]) -> tuple[float, bool]:
    """Return min(1, compressed size / raw size), and whether the ratio was above 1.

    zlib's output may depend on how its input is cut, so it is always cut into the same pieces.

    Args:
        parts: The concatenated leaves, one byte or more, in parts of any size.
    """
    compressor = zlib.compressobj(LEVEL)
    raw_bytes = compressed_bytes = 0
    held = bytearray()
    for part in parts:
        raw_bytes += len(part)
        rest = memoryview(part)
        while len(held) + len(rest) >= _CHUNK_BYTES:
            taken = _CHUNK_BYTES - len(held)
            compressed_bytes += len(compressor.compress(held + rest[:taken]))
            held.clear()
            rest = rest[taken:]
        held += rest
    compressed_bytes += len(compressor.compress(held)) + len(compressor.flush())
    ratio = compressed_bytes / raw_bytes
    return min(1.0, ratio), ratio > 1
