"""Whether the text of a window changes its source: how little each part helps to code the other (docs/evaluation.md).

    shift = max over cuts of (C(b | a) + C(a | b)) / (C(a) + C(b))

a and b are the bytes before and after a cut, C the size after raw deflate, and C(b | a) the same with a as the preset
dictionary. The three signals of the record describe a window as a whole, and see next to nothing of a change of source
in its middle; this compares its parts.
"""

from __future__ import annotations

import zlib

CUT_SHARES = (0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65)
"""Shares of the bytes before a cut."""

REACH_BYTES = 2**15
"""So many bytes on either side of a cut are looked at: deflate reaches no further back."""

SHIFT_BYTES_MIN = 64
"""Fewer bytes tell nothing of their parts."""

SHIFT_NAME = "deflate-cuts-1"
"""What a record's `methods.shift` names it by."""

_LEVEL, _RAW_DEFLATE, _MEMORY = 9, -15, 9


def shift_ratio(symbols: bytes) -> float:
    """Return how foreign the parts of a text are to each other: 1 where neither helps to code the other.

    A loop gives a half or less, running prose of one source 0.85 to 0.95; it falls slowly with the length.

    Args:
        symbols: Text in UTF-8 or tokens as little-endian uint32, 3 bytes or more; the time does not grow with more than
            2·`REACH_BYTES` of them.

    >>> lines = b"the quick brown fox jumps over the lazy dog; "
    >>> shift_ratio(lines * 8) < 0.7 < 0.95 < shift_ratio(lines + bytes(range(128, 128 + len(lines))))
    True
    """
    return max(_foreignness(symbols, round(len(symbols) * share)) for share in CUT_SHARES)


def _foreignness(symbols: bytes, cut: int) -> float:
    before, after = symbols[max(0, cut - REACH_BYTES) : cut], symbols[cut : cut + REACH_BYTES]
    given = _deflated_bytes(after, before) + _deflated_bytes(before, after)
    return given / (_deflated_bytes(before) + _deflated_bytes(after))


def _deflated_bytes(part: bytes, dictionary: bytes = b"") -> int:
    compressor = zlib.compressobj(
        _LEVEL, zlib.DEFLATED, _RAW_DEFLATE, _MEMORY, zlib.Z_DEFAULT_STRATEGY, dictionary
    )
    return len(compressor.compress(part)) + len(compressor.flush())
