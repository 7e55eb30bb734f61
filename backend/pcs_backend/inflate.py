"""Bodies that came compressed: gzip (RFC 1952) and zstd (RFC 8878), inflated within bounds. Pure.

What a stranger compressed may be a bomb, so nothing is inflated beyond the bound it is given: memory never holds more than
twice that bound, for the moment in which the parts become one. A zstd window larger than RFC 9659 allows on the web is
refused too, for it would be allocated before a byte comes out.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from typing import Protocol

from pcs_backend.errors import TooLargeError
from pcs_core.errors import MalformedError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

STREAMS_MAX = 1_000
"""Gzip members or zstd frames in one body: one a record, and no more, for each costs a set-up of its own."""

ZSTD_WINDOW_LOG_MAX = 23
"""8 MiB, what RFC 9659 allows for content encodings."""

_STEP_BYTES = 16 * 1024
"""Input handed over at once. What follows the end of a stream within it is copied, once a stream."""

_GZIP_WINDOW_BITS = 16 + zlib.MAX_WBITS


class _Stream(Protocol):
    """One member or frame, as zlib and zstd both spell it."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: memoryview, max_length: int, /) -> bytes: ...


def _new_gzip() -> _Stream:
    return zlib.decompressobj(_GZIP_WINDOW_BITS)


def _new_zstd() -> _Stream:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG_MAX})


_NEW_STREAM: dict[str, Callable[[], _Stream]] = {"gzip": _new_gzip, "zstd": _new_zstd}

ENCODINGS = tuple(_NEW_STREAM)
"""What `inflate` knows, as `Content-Encoding` spells it."""


def inflate(encoding: str, data: bytes, size_bytes_max: int) -> bytes:
    """Return what was compressed.

    Several members or frames one after the other are one body, as both formats have it.

    Args:
        encoding: One of `ENCODINGS`.
        data: All of the compressed bytes.
        size_bytes_max: Most bytes that may come out.

    Raises:
        MalformedError: The bytes are not that encoding, end early, or are followed by something else.
        TooLargeError: More would come out.
    """
    if encoding not in _NEW_STREAM:
        raise MalformedError("Content-Encoding", "another one", " or ".join(ENCODINGS))
    parts: list[bytes] = []
    room_bytes = size_bytes_max
    position = 0
    for _ in range(STREAMS_MAX):
        stream = _NEW_STREAM[encoding]()
        while not stream.eof:
            step = memoryview(data)[position : position + _STEP_BYTES]
            if not step:
                raise _malformed(encoding, "bytes that end early")
            position += len(step)
            try:
                part = stream.decompress(step, room_bytes + 1)
            except (zlib.error, zstd.ZstdError):  # its message says nothing that the sender can use
                raise _malformed(encoding, f"bytes that are not {encoding}") from None
            room_bytes -= len(part)
            if room_bytes < 0:
                raise TooLargeError(
                    f"body: found more than is allowed once inflated; allowed: up to {size_bytes_max} bytes"
                )
            parts.append(part)
        position -= len(stream.unused_data)
        if position == len(data):
            return b"".join(parts)
    raise _malformed(encoding, f"more than {STREAMS_MAX} streams")


def _malformed(encoding: str, found: str) -> MalformedError:
    return MalformedError("body", found, f"complete {encoding}, up to {STREAMS_MAX} streams")
