"""Writes golden_embeddings.json: the hashing embedders again, in plain integers, without NumPy and without the packages.

python tests/agent/embed/make_golden_embeddings.py
"""

from __future__ import annotations

import binascii
import json
import math
from pathlib import Path

MASK = 2**64 - 1
UNIT = 1024
TEXTS = ["The ", "the", "loop", ", ", "naïve ", "東", "don't ", "a whole sentence, of words.\n", "0" * 64]
TOKENS = [0, 1, 7, 50_256, 2**32 - 1, 7]


def split_mix(state: int) -> tuple[int, int]:
    """Return the next state and output of SplitMix64."""
    state = (state + 0x9E3779B97F4A7C15) & MASK
    mixed = state
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
    return state, mixed ^ (mixed >> 31)


def signs(key: int, dimension: int) -> list[int]:
    found: list[int] = []
    while len(found) < dimension:
        key, output = split_mix(key)
        found += [1 if output >> bit & 1 else -1 for bit in range(64)]
    return found[:dimension]


def add(vectors: list[list[int]]) -> list[int]:
    return [sum(column) for column in zip(*vectors, strict=True)]


def normalise(vector: list[int]) -> list[float]:
    length = math.sqrt(sum(number * number for number in vector))
    return [number / length for number in vector]


def unit(vector: list[int]) -> list[int]:
    return [round(UNIT * number) for number in normalise(vector)]


def text_vector(words: list[str], dimension: int) -> list[int]:
    vectors = []
    for word in words:
        marked = f"<{word}>"
        sizes = range(3, max(3, min(5, len(marked))) + 1)
        grams = [marked[first : first + size] for size in sizes for first in range(len(marked) - size + 1)]
        keys = [2**32 + binascii.crc32(gram.encode()) for gram in grams]
        vectors.append(unit(add([signs(key, dimension) for key in keys])))
    return add(vectors)


def words_of(text: str) -> list[str]:
    """Split the few texts above; not a tokenizer."""
    if text.startswith("a whole"):
        return ["a", "whole", "sentence", ",", "of", "words", "."]
    return [text.strip().casefold()]


def in_context(vectors: list[list[int]], context: int) -> list[list[float]]:
    firsts = [max(0, index + 1 - context) for index in range(len(vectors))]
    return [normalise(add(vectors[first : index + 1])) for index, first in enumerate(firsts)]


def main() -> None:
    cases = []
    for dimension, context in ((8, 1), (64, 1), (70, 3)):
        texts = [text_vector(words_of(text), dimension) for text in TEXTS]
        tokens = [unit(signs(2 * 2**32 + token, dimension)) for token in TOKENS]
        cases.append(
            {
                "dimension": dimension,
                "context": context,
                "texts": [[number.hex() for number in row] for row in in_context(texts, context)],
                "tokens": [[number.hex() for number in row] for row in in_context(tokens, context)],
            }
        )
    document = {"texts": TEXTS, "tokens": TOKENS, "cases": cases}
    path = Path(__file__).with_name("golden_embeddings.json")
    path.write_text(json.dumps(document, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
