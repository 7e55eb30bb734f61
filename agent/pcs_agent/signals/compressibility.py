"""Compressibility r of a window: on symbols, or how small zlib makes the leaves (contract §1)."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np

from pcs_agent.errors import ConfigError
from pcs_agent.signals.blocks import Blocks
from pcs_agent.signals.codebook import Codebook
from pcs_agent.signals.quantise import CODE_BITS_MAX, SEED_DEFAULT, own_codes, rows_compressibility
from pcs_agent.signals.symbol_entropy import SymbolStream
from pcs_agent.signals.training import train_codebook

RMethod = Literal["symbols", "zlib"]

LEVEL = 6
OWN_ROWS_MIN = 20
"""Fewer rows train no codebook of their own: zlib's ratio of their leaves stands, as in 0.1."""

_CHUNK_BYTES = 1 << 20
_DIGEST_CHARACTERS = 32


class Ratio(NamedTuple):
    """What was measured.

    Attributes:
        r: 0 … 1.
        clamped: Whether zlib's ratio was above 1.
        method: Name and parameters; `None` for 0.1's.
    """

    r: float
    clamped: bool
    method: dict[str, float | int | bool | str] | None


def measure_r(
    rows: Blocks,
    parts: Iterable[bytes | memoryview],
    method: RMethod,
    codebook: Codebook | None,
    *,
    of_text: bool,
) -> Ratio:
    """Return r of a window and how it was measured.

    Args:
        rows: One or more.
        parts: Of text or tokens their bytes, of rows the concatenated leaves; one byte or more, in parts of any size.
        method: `symbols`: codes of the rows, bytes of text and tokens. `zlib`: the ratio of 0.1.
        codebook: Gives rows their codes; `None` for one trained on them.
        of_text: Whether the events are text or tokens.

    Raises:
        ConfigError: The codebook is for other columns.
    """
    if method == "symbols" and of_text:
        stream = SymbolStream()
        for part in parts:
            stream.feed(np.frombuffer(part, dtype=np.uint8))
        bits, symbols = stream.bits_a_symbol(SEED_DEFAULT), stream.symbols
        return Ratio(min(1.0, bits / CODE_BITS_MAX), False, {"name": "bytes-lz-1", "symbols": symbols})
    if codebook is not None and codebook.dimensions != rows.dimensions:
        raise ConfigError(
            f"--codebook: found one for {codebook.dimensions} columns, and rows of {rows.dimensions}; allowed: as many"
        )
    if method == "symbols" and (codebook is not None or len(rows) >= OWN_ROWS_MIN):
        used = codebook or train_codebook(rows, codes=own_codes(len(rows)), seed=SEED_DEFAULT)
        return Ratio(
            rows_compressibility(rows, used, SEED_DEFAULT),
            False,
            {
                "name": "pq-lz-1",
                "codebook": used.digest[:_DIGEST_CHARACTERS],
                "trained": "apart" if codebook else "here",
                "subspaces": used.subspaces,
                "codes": used.codes,
                "symbols": len(rows) * used.subspaces,
            },
        )
    r, clamped = compression_ratio(parts)
    return Ratio(r, clamped, None)


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
