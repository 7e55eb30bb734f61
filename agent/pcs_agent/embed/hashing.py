"""Vectors from hashes: of text by its character n-grams, of token ids by the ids. Nothing but NumPy, nothing random.

    feature ── key ── signs            key: a 64-bit number; signs: dimension times ±1
    unit vector of a token             sum of its features' signs, at length UNIT, rounded to integers
    vector of an event                 sum over its words, then over the last `context` events, at length 1

Keys are `kind·2^32 + CRC-32 of the feature's UTF-8`, and of a token `kind·2^32 + id`. The signs of a key are the bits,
lowest first, of the outputs of SplitMix64 (Steele, Lea, Flood 2014) with the key as its state: 1 is +1, 0 is −1.
CRC-32 and SplitMix64 are defined in integers; sums are of integers too, and what is left, one square root and one
division a number, is rounded correctly by IEEE 754. So the vectors are the same to the bit on every machine, whatever
Python's hash seed is, in whatever order things are added. Golden vectors pin them (tests/agent/embed/golden_embeddings.json); a
change is a new name in `methods.events`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pcs_agent.embed.embedder import Method
from pcs_agent.embed.leaves import join_leaves
from pcs_agent.embed.words import find_words

DIMENSION_DEFAULT, DIMENSION_MAX = 64, 4096
CONTEXT_DEFAULT, CONTEXT_MAX = 1, 1024
NGRAM_MIN, NGRAM_MAX = 3, 5
"""Characters of an n-gram, the marks of the word's ends counted."""

UNIT = 1024
"""Length of a token's vector before rounding: each of its numbers is exact to a thousandth of that length."""

TEXT_NAME, TOKEN_NAME = "text-hash-1", "token-hash-1"

_NGRAM_KIND, _TOKEN_KIND = 1 << 32, 2 << 32
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
_LAST_SHIFT = np.uint64(31)
_OUTPUT_BITS = 64
_BLOCK_KEYS = 4096
_SQUARE_BITS = 25  # 4096 squares of so many bits stay below 2^63

Integers = npt.NDArray[np.int64]


class TextHashing:
    """Vectors of pieces of text: words, sentences or lines.

    A piece's words are those of `pcs_agent.embed.words`; case is folded. A word's features are the n-grams of `<word>` of
    3 to 5 characters.
    """

    def __init__(self, unit: str, dimension: int = DIMENSION_DEFAULT, context: int = CONTEXT_DEFAULT) -> None:
        """Take the parameters.

        Args:
            unit: What a piece is, for the method's parameters.
            dimension: 1 … 4096.
            context: Events a vector is the mean of, the event itself and those before it in its window; 1 … 1024.
        """
        self.dimension = dimension
        self._context = context
        self.method: Method = {
            "name": TEXT_NAME,
            "unit": unit,
            "dimension": dimension,
            "context": context,
            "ngram_min": NGRAM_MIN,
            "ngram_max": NGRAM_MAX,
        }

    def embed(self, leaves: Sequence[bytes]) -> npt.NDArray[np.float64]:
        """As `Embedder.embed`, of UTF-8.

        >>> rows = TextHashing("token", dimension=8).embed([b"loop ", b"Loop"])
        >>> bool((rows[0] == rows[1]).all()), round(float(rows[0] @ rows[0]), 9)
        (True, 1.0)
        """
        numbers: dict[str, int] = {}
        found: list[int] = []
        lengths = np.empty(len(leaves), dtype=np.int64)
        for index, leaf in enumerate(leaves):
            words = find_words(leaf.decode("utf-8").casefold())
            found += [numbers.setdefault(word, len(numbers)) for word in words]
            lengths[index] = len(words)
        vectors = _word_vectors(list(numbers), self.dimension)
        events = _sum_runs(vectors[np.array(found, dtype=np.int64)], lengths)
        return _normalise(_sum_context(events, self._context))


class TokenHashing:
    """Vectors of token ids: a fixed pseudo-random one for each id, so that equal ids have equal vectors."""

    def __init__(self, dimension: int = DIMENSION_DEFAULT, context: int = CONTEXT_DEFAULT) -> None:
        """Take the parameters, as those of `TextHashing`."""
        self.dimension = dimension
        self._context = context
        self.method: Method = {"name": TOKEN_NAME, "dimension": dimension, "context": context}

    def embed(self, leaves: Sequence[bytes]) -> npt.NDArray[np.float64]:
        """As `Embedder.embed`, of little-endian uint32.

        >>> TokenHashing(dimension=4).embed([bytes([7, 0, 0, 0])]).tolist()
        [[0.5, 0.5, 0.5, -0.5]]
        """
        ids = np.frombuffer(join_leaves(leaves), dtype="<u4")
        unique, places = np.unique(ids, return_inverse=True)
        vectors = _sum_signs(
            unique.astype(np.uint64) + np.uint64(_TOKEN_KIND), np.ones(len(unique), np.int64), self.dimension
        )
        return _normalise(_sum_context(_to_unit(vectors)[places], self._context))


def _word_vectors(words: Sequence[str], dimension: int) -> Integers:
    """Return the unit vectors of words, shape (n, dimension)."""
    keys: list[int] = []
    counts = np.empty(len(words), dtype=np.int64)
    for index, word in enumerate(words):
        marked = f"<{word}>"
        last = max(NGRAM_MIN, min(NGRAM_MAX, len(marked)))
        grams = [
            marked[first : first + size]
            for size in range(NGRAM_MIN, last + 1)
            for first in range(len(marked) - size + 1)
        ]
        keys += [_NGRAM_KIND + zlib.crc32(gram.encode("utf-8")) for gram in grams]
        counts[index] = len(grams)
    return _to_unit(_sum_signs(np.array(keys, dtype=np.uint64), counts, dimension))


def _sum_signs(keys: npt.NDArray[np.uint64], counts: Integers, dimension: int) -> Integers:
    """Return the sums of the signs of consecutive runs of keys, shape (runs, dimension)."""
    sums = np.zeros((len(counts), dimension), dtype=np.int64)
    runs = np.repeat(np.arange(len(counts)), counts)
    for first in range(0, len(keys), _BLOCK_KEYS):
        block = slice(first, first + _BLOCK_KEYS)
        owners, starts = np.unique(runs[block], return_index=True)
        sums[owners] += np.add.reduceat(_signs(keys[block], dimension), starts, axis=0)
    return sums


def _signs(keys: npt.NDArray[np.uint64], dimension: int) -> Integers:
    """Return ±1 from the outputs of SplitMix64 with each key as its state, shape (n, dimension)."""
    outputs = np.arange(1, -(-dimension // _OUTPUT_BITS) + 1, dtype=np.uint64)
    mixed = keys[:, None] + outputs * _GAMMA  # wraps modulo 2^64, as it should
    for shift, factor in _MIX:
        mixed = (mixed ^ (mixed >> shift)) * factor
    mixed ^= mixed >> _LAST_SHIFT
    octets = np.ascontiguousarray(mixed, dtype="<u8").view(np.uint8)
    bits = np.unpackbits(octets, axis=1, count=dimension, bitorder="little")
    signs: Integers = bits.astype(np.int64) * 2 - 1
    return signs


def _to_unit(vectors: Integers) -> Integers:
    """Return vectors of one length, so that long words do not outweigh short ones, in integers."""
    rounded: Integers = np.rint(UNIT * _normalise(vectors)).astype(np.int64)
    return rounded


def _sum_runs(vectors: Integers, lengths: Integers) -> Integers:
    """Return the sums of consecutive runs of vectors; of an empty run zeros."""
    if (lengths == 1).all():
        return vectors
    sums = np.zeros((len(vectors) + 1, vectors.shape[1]), dtype=np.int64)
    np.cumsum(vectors, axis=0, out=sums[1:])
    ends = np.cumsum(lengths)
    found: Integers = sums[ends] - sums[ends - lengths]
    return found


def _sum_context(events: Integers, context: int) -> Integers:
    """Return for each event the sum of its vector and of up to `context` − 1 before it."""
    if context == 1:
        return events
    sums = np.cumsum(events, axis=0)
    sums[context:] -= sums[:-context].copy()
    return sums


def _normalise(vectors: Integers) -> npt.NDArray[np.float64]:
    """Return the vectors at length 1; zeros stay."""
    _, bits = np.frexp(np.abs(vectors).max(axis=1, initial=0))
    shifted = vectors >> np.maximum(bits - _SQUARE_BITS, 0)[:, None]
    lengths = np.sqrt((shifted * shifted).sum(axis=1).astype(np.float64))
    lengths[lengths == 0] = 1.0
    rows: npt.NDArray[np.float64] = shifted / lengths[:, None]
    return rows
