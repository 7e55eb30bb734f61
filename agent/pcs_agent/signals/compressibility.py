"""Compressibility r: how small zlib makes the concatenated leaves (contract §1)."""

from __future__ import annotations

import zlib

LEVEL = 6
_CHUNK_BYTES = 1 << 20


def compression_ratio(leaves: memoryview) -> tuple[float, bool]:
    """Return min(1, compressed size / raw size), and whether the ratio was above 1.

    Args:
        leaves: The concatenated leaves, one byte or more.
    """
    compressor = zlib.compressobj(LEVEL)
    compressed_bytes = 0
    for first in range(0, len(leaves), _CHUNK_BYTES):
        compressed_bytes += len(compressor.compress(leaves[first : first + _CHUNK_BYTES]))
    compressed_bytes += len(compressor.flush())
    ratio = compressed_bytes / len(leaves)
    return min(1.0, ratio), ratio > 1
