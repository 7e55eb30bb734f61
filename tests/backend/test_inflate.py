"""Compressed bodies: every spelling of a complete stream is taken, everything else is refused, and nothing grows."""

from __future__ import annotations

import gzip
import random
import sys
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcs_backend.errors import TooLargeError
from pcs_backend.inflate import ENCODINGS, STREAMS_MAX, ZSTD_WINDOW_LOG_MAX, inflate
from pcs_core.errors import MalformedError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DEFLATE = {"gzip": gzip.compress, "zstd": zstd.compress}
SIZE_MAX = 1_048_576

each_encoding = pytest.mark.parametrize("encoding", ENCODINGS)


@each_encoding
@given(parts=st.lists(st.binary(max_size=70_000), min_size=1, max_size=4))
def test_what_was_compressed_in_one_or_several_streams_comes_back(encoding: str, parts: list[bytes]) -> None:
    data = b"".join(DEFLATE[encoding](part) for part in parts)

    assert inflate(encoding, data, SIZE_MAX) == b"".join(parts)


@each_encoding
def test_the_bound_itself_still_passes_and_one_byte_more_does_not(encoding: str) -> None:
    data = DEFLATE[encoding](bytes(SIZE_MAX))

    assert inflate(encoding, data, SIZE_MAX) == bytes(SIZE_MAX)
    with pytest.raises(TooLargeError, match=rf"^body: .* up to {SIZE_MAX - 1} bytes$"):
        inflate(encoding, data, SIZE_MAX - 1)


@each_encoding
def test_the_bound_counts_all_streams_together(encoding: str) -> None:
    data = DEFLATE[encoding](bytes(600)) * 2

    assert len(inflate(encoding, data, 1_200)) == 1_200
    with pytest.raises(TooLargeError):
        inflate(encoding, data, 1_199)


@each_encoding
def test_a_bomb_takes_no_more_memory_than_twice_the_bound(encoding: str) -> None:
    bomb = DEFLATE[encoding](bytes(256 * SIZE_MAX))
    assert len(bomb) < SIZE_MAX

    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError):
            inflate(encoding, bomb, SIZE_MAX)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 2.2 * SIZE_MAX


@each_encoding
def test_every_shortened_stream_is_malformed(encoding: str) -> None:
    data = DEFLATE[encoding](random.Random(5).randbytes(40_000))

    for size in (*range(60), *range(len(data) - 60, len(data))):
        with pytest.raises(MalformedError, match=r"^body: found bytes that end early; allowed: complete"):
            inflate(encoding, data[:size], SIZE_MAX)


@each_encoding
@pytest.mark.parametrize("garbage", [b"\x00", b"garbage after the end", b"\r\n" * 10_000], ids=len)
def test_what_follows_the_end_is_malformed(encoding: str, garbage: bytes) -> None:
    with pytest.raises(MalformedError, match=r"^body: found bytes that"):
        inflate(encoding, DEFLATE[encoding](b"{}") + garbage, SIZE_MAX)


@each_encoding
def test_a_damaged_stream_is_malformed(encoding: str) -> None:
    if encoding == "zstd":  # by default it writes no checksum
        damaged = bytearray(
            zstd.compress(
                random.Random(6).randbytes(30_000), options={zstd.CompressionParameter.checksum_flag: 1}
            )
        )
    else:
        damaged = bytearray(gzip.compress(random.Random(6).randbytes(30_000)))
    damaged[20_000] ^= 1

    with pytest.raises(MalformedError, match=r"^body: found bytes that are not"):
        inflate(encoding, bytes(damaged), SIZE_MAX)


def test_plain_json_is_neither_encoding() -> None:
    for encoding in ENCODINGS:
        with pytest.raises(MalformedError, match=r"^body: found bytes that are not"):
            inflate(encoding, b'[{"pcs_id": "secret"}]', SIZE_MAX)


def test_an_encoding_that_is_not_known_is_malformed_and_not_quoted() -> None:
    with pytest.raises(MalformedError) as caught:
        inflate("br-secret", b"", SIZE_MAX)

    assert str(caught.value) == "Content-Encoding: found another one; allowed: gzip or zstd"


@each_encoding
def test_streams_are_counted(encoding: str) -> None:
    data = DEFLATE[encoding](b"1") * STREAMS_MAX

    assert inflate(encoding, data, SIZE_MAX) == b"1" * STREAMS_MAX
    with pytest.raises(MalformedError, match=f"^body: found more than {STREAMS_MAX} streams"):
        inflate(encoding, data + DEFLATE[encoding](b"1"), SIZE_MAX)


def test_a_window_larger_than_the_web_allows_is_refused() -> None:
    def of_window(window_log: int) -> bytes:
        compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: window_log})
        return (
            compressor.compress(b"{}") + compressor.flush()
        )  # without a size, so the window is in the header

    assert inflate("zstd", of_window(ZSTD_WINDOW_LOG_MAX), SIZE_MAX) == b"{}"
    with pytest.raises(MalformedError, match=r"^body: found bytes that are not"):
        inflate("zstd", of_window(ZSTD_WINDOW_LOG_MAX + 1), SIZE_MAX)
