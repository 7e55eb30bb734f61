"""Bits a symbol of a sequence of bytes, estimated so that the length of the sequence matters little.

Two factors:

1. **Which symbols.** Entropy of the histogram by Chao and Shen's estimator (2003): the symbols never seen are estimated
   from those seen once (Good and Turing), and each seen one is weighted by the chance to have seen it. The plain estimate
   of 20 symbols could never be above log2(20) bits, however many there are.
2. **In which order.** Size after LZ77 and Huffman coding (raw deflate), divided by the mean size of the same symbols in
   seeded random orders. Headers, code tables and the history that LZ lacks at the beginning are in both and cancel.

A sequence of independent symbols has a second factor near 1 at any length, and a loop one near 0.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]

SYMBOLS = 256
SHUFFLES = 4
"""Random orders that a size is compared with; the mean of so many wavers by half a byte."""

SHUFFLED_SYMBOLS_MAX = 2**16
"""Longer sequences are compared with an order of so many symbols of the same histogram, in proportion."""

_LEVEL = 6
_RAW_DEFLATE = -15
_PIECE_BYTES = 1 << 16


class SymbolStream:
    """Takes symbols piece by piece and keeps a histogram and a size: memory does not grow with the sequence."""

    def __init__(self) -> None:
        """Begin an empty sequence."""
        self._counts: Counts = np.zeros(SYMBOLS, dtype=np.int64)
        self._compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW_DEFLATE)
        self._compressed_bytes = 0
        self._held = bytearray()

    @property
    def symbols(self) -> int:
        """How many were taken."""
        return int(self._counts.sum())

    def feed(self, symbols: npt.NDArray[np.uint8]) -> None:
        """Take the next symbols, shape (n,)."""
        self._counts += np.bincount(symbols, minlength=SYMBOLS)
        self._held += symbols.tobytes()
        # What deflate makes may depend on how its input is cut, so it is always cut into the same pieces.
        whole = len(self._held) - len(self._held) % _PIECE_BYTES
        for first in range(0, whole, _PIECE_BYTES):
            piece = self._held[first : first + _PIECE_BYTES]
            self._compressed_bytes += len(self._compressor.compress(piece))
        del self._held[:whole]

    def bits_a_symbol(self, seed: int) -> float:
        """End the sequence and return its bits a symbol, 0 … 8 or, by chance, more; 0 without symbols.

        Args:
            seed: Of the random orders, 0 … 2^63−1.
        """
        self._compressed_bytes += len(self._compressor.compress(self._held)) + len(self._compressor.flush())
        entropy = histogram_entropy(self._counts)
        if entropy == 0:
            return 0.0
        return entropy * min(1.0, self._compressed_bytes / shuffled_size(self._counts, seed))


def histogram_entropy(counts: Counts) -> float:
    """Return Chao and Shen's estimate of the entropy in bits of what these symbols were drawn from; 0 without symbols.

    Args:
        counts: How often each symbol was seen, ≥ 0.

    >>> round(histogram_entropy(np.array([500, 500])), 3)
    1.0
    """
    seen = counts[counts > 0].astype(np.float64)
    total = float(seen.sum())
    if len(seen) <= 1:
        return 0.0
    once = float(np.count_nonzero(seen == 1))
    coverage = 1 - min(once, total - 1) / total  # Good–Turing; all seen once would leave nothing
    shares = coverage * seen / total
    return math.fsum(-shares * np.log2(shares) / -np.expm1(total * np.log1p(-shares)))


def shuffled_size(counts: Counts, seed: int) -> float:
    """Return the mean size in bytes after deflate of symbols with this histogram in `SHUFFLES` seeded random orders.

    Args:
        counts: How often each symbol is there; one or more in all.
        seed: 0 … 2^63−1.
    """
    total = int(counts.sum())
    taken = _reduce(counts, SHUFFLED_SYMBOLS_MAX) if total > SHUFFLED_SYMBOLS_MAX else counts
    symbols = np.repeat(np.arange(len(taken), dtype=np.uint8), taken)
    bits = np.random.PCG64(seed)
    orders = (
        SHUFFLES if total <= SHUFFLED_SYMBOLS_MAX // SHUFFLES else 1
    )  # of more symbols, one wavers as little
    sizes = [
        _deflated_size(symbols[bits.random_raw(len(symbols)).argsort(kind="stable")]) for _ in range(orders)
    ]
    return sum(sizes) / orders * (total / len(symbols))


def _reduce(counts: Counts, total: int) -> Counts:
    """Return counts in proportion that sum up to a smaller total, rounded by largest remainders."""
    whole = int(counts.sum())
    reduced: Counts = np.array([int(count) * total // whole for count in counts], dtype=np.int64)
    remainders = np.array([int(count) * total % whole for count in counts], dtype=np.int64)
    reduced[np.argsort(-remainders, kind="stable")[: total - int(reduced.sum())]] += 1
    return reduced


def _deflated_size(symbols: npt.NDArray[np.uint8]) -> int:
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW_DEFLATE)
    return len(compressor.compress(symbols.data)) + len(compressor.flush())
