"""r of rows, on symbols: product quantisation gives every row a few codes, and the codes are measured as symbols are.

Without a codebook of their own making, streams are measured by one trained on themselves, whose alphabet grows with the
root of their length: large enough to tell rows apart, small enough that a code comes back.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pcs_agent.signals.blocks import ArrayBlocks, Blocks
from pcs_agent.signals.codebook import CODES_MAX, Codebook, Codes
from pcs_agent.signals.scaling import Points
from pcs_agent.signals.symbol_entropy import SymbolStream
from pcs_agent.signals.training import SUBSPACES_DEFAULT, train_codebook

CODE_BITS_MAX = 8
SEED_DEFAULT = 42


def product_quantize_embeddings(
    embeddings: npt.ArrayLike,
    n_subspaces: int = SUBSPACES_DEFAULT,
    codebook_bits: int = CODE_BITS_MAX,
    seed: int = SEED_DEFAULT,
    codebook: Codebook | None = None,
) -> Codes:
    """Return the codes of rows: in each subspace of the columns, the nearest of 2^`codebook_bits` centroids.

    Args:
        embeddings: Shape (n, d), finite, n ≥ 1, 1 ≤ d ≤ 4096.
        n_subspaces: Codes of a row, 1 … 64; with fewer columns than that, every column is a subspace.
        codebook_bits: Bits of a code, 1 … 8; with fewer distinct rows than codes, every distinct row has its own.
        seed: Of the training, 0 … 2^63−1.
        codebook: Used instead of one trained on these rows; the three parameters before it then do not count.

    Returns:
        Shape (n, min(d, `n_subspaces`)).

    Raises:
        ValueError: Something is out of range, or the codebook is for other columns.

    >>> rows = np.random.default_rng(0).normal(size=(500, 32))
    >>> codes = product_quantize_embeddings(rows)
    >>> codes.shape, codes.dtype
    ((500, 8), dtype('uint8'))
    """
    rows = ArrayBlocks(_check_rows(embeddings))
    codebook = codebook or _train(rows, n_subspaces, codebook_bits, seed)
    return np.concatenate([codebook.encode(block) for block in rows])


def compute_compressibility_pq(
    embeddings: npt.ArrayLike,
    n_subspaces: int = SUBSPACES_DEFAULT,
    codebook_bits: int | None = None,
    seed: int = SEED_DEFAULT,
    codebook: Codebook | None = None,
) -> float:
    """Return r of rows on symbols, 0 … 1: bits a code as `rows_compressibility` estimates them, over the bits it could have.

    Args:
        embeddings: As in `product_quantize_embeddings`.
        n_subspaces: As there.
        codebook_bits: As there; `None` for as many as `own_codes` gives this number of rows.
        seed: As there; also of the random orders that sizes are compared with.
        codebook: As there.

    Raises:
        ValueError: As there.

    >>> rows = np.random.default_rng(0).normal(size=(500, 32))
    >>> compute_compressibility_pq(rows) > 0.9 > 0.1 > compute_compressibility_pq(np.tile(rows[:10], (50, 1)))
    True
    """
    rows = ArrayBlocks(_check_rows(embeddings))
    if codebook is None:
        bits = own_codes(len(rows)).bit_length() - 1 if codebook_bits is None else codebook_bits
        codebook = _train(rows, n_subspaces, bits, seed)
    return rows_compressibility(rows, codebook, seed)


def rows_compressibility(rows: Blocks, codebook: Codebook, seed: int) -> float:
    """Return r of rows, 0 … 1: the mean over the subspaces of the bits a code, over the bits of the codebook's alphabet.

    Args:
        rows: n ≥ 1 rows of as many columns as the codebook has.
        codebook: Gives the codes.
        seed: Of the random orders that sizes are compared with, 0 … 2^63−1.

    Raises:
        ValueError: The codebook is for other columns.
    """
    streams = [SymbolStream() for _ in range(codebook.subspaces)]
    for block in rows:
        codes = codebook.encode(block)
        for subspace, stream in enumerate(streams):
            stream.feed(codes[:, subspace])
    bits = math.fsum(stream.bits_a_symbol(seed) for stream in streams)
    return min(1.0, bits / (len(streams) * math.log2(codebook.codes)))


def bytes_compressibility(symbols: bytes | memoryview, seed: int) -> float:
    """Return r of bytes (text in UTF-8, tokens as little-endian uint32), 0 … 1: bits a byte, over 8.

    Args:
        symbols: One or more.
        seed: Of the random orders that sizes are compared with, 0 … 2^63−1.
    """
    stream = SymbolStream()
    stream.feed(np.frombuffer(symbols, dtype=np.uint8))
    return min(1.0, stream.bits_a_symbol(seed) / CODE_BITS_MAX)


def own_codes(rows: int) -> int:
    """Return the alphabet of a codebook trained on the stream it codes: about the root of its rows, a power of two.

    >>> [own_codes(rows) for rows in (20, 200, 2_000, 100_000)]
    [4, 16, 32, 256]
    """
    return int(min(CODES_MAX, max(2, 2 ** (rows.bit_length() // 2))))


def _train(rows: Blocks, subspaces: int, bits: int, seed: int) -> Codebook:
    if not 1 <= bits <= CODE_BITS_MAX:
        raise ValueError(f"codebook_bits: found {bits}; allowed: 1 to {CODE_BITS_MAX}")
    return train_codebook(rows, subspaces=subspaces, codes=2**bits, seed=seed)


def _check_rows(embeddings: npt.ArrayLike) -> Points:
    rows: Points = np.asarray(embeddings, dtype=np.float64)
    if rows.ndim != 2 or 0 in rows.shape or not np.isfinite(rows).all():
        raise ValueError("embeddings: allowed: finite numbers in rows and columns, one or more of each")
    return rows
