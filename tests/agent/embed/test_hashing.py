"""The hashing embedders: golden vectors to the bit, and what the vectors are good for."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pcs_agent.embed import Embedder, TextHashing, TokenHashing, TokenLeaves
from pcs_agent.embed.hashing import CONTEXT_MAX
from pcs_agent.embed.words import WORD_CHARACTERS_MAX, find_words

GOLDEN = json.loads(Path(__file__).with_name("golden_embeddings.json").read_text(encoding="utf-8"))
TEXTS = [text.encode() for text in GOLDEN["texts"]]
TOKENS = TokenLeaves(np.array(GOLDEN["tokens"]))


def numbers(rows: list[list[str]]) -> list[list[float]]:
    return [[float.fromhex(number) for number in row] for row in rows]


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"{case['dimension']}-{case['context']}")
def test_vectors_are_the_golden_ones_to_the_bit(case: dict[str, Any]) -> None:
    text = TextHashing("token", case["dimension"], case["context"])
    tokens = TokenHashing(case["dimension"], case["context"])
    assert text.embed(TEXTS).tolist() == numbers(case["texts"])
    assert tokens.embed(TOKENS).tolist() == numbers(case["tokens"])
    assert tokens.embed(list(TOKENS)).tolist() == numbers(case["tokens"])


@pytest.mark.parametrize("hash_seed", ["0", "1", "4711"])
def test_vectors_do_not_depend_on_pythons_hash_seed(hash_seed: str) -> None:
    code = (
        "import sys, hashlib; from pcs_agent.embed import TextHashing;"
        "rows = TextHashing('token').embed([b'one ', b'two ', b'three ', b'one ']);"
        "sys.stdout.write(hashlib.sha256(rows.tobytes()).hexdigest())"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    here = TextHashing("token").embed([b"one ", b"two ", b"three ", b"one "])
    assert found.stdout == hashlib.sha256(here.tobytes()).hexdigest()


EMBEDDERS: list[tuple[Embedder, list[bytes]]] = [
    (TextHashing("token", context=5), [f"w{index % 13} ".encode() for index in range(40)]),
    (TokenHashing(context=5), [bytes([index % 13, 0, 0, 0]) for index in range(40)]),
]


@pytest.mark.parametrize(("embedder", "leaves"), EMBEDDERS, ids=["text", "tokens"])
def test_a_row_is_of_length_one_and_of_its_context_alone(embedder: Embedder, leaves: list[bytes]) -> None:
    rows = embedder.embed(leaves)
    assert (rows.shape, rows.dtype, rows.flags.c_contiguous) == ((40, 64), np.float64, True)
    np.testing.assert_allclose((rows * rows).sum(axis=1), 1.0, rtol=1e-12)
    for index in range(40):
        alone = embedder.embed(leaves[max(0, index - 4) : index + 1])
        assert rows[index].tolist() == alone[-1].tolist()


@pytest.mark.parametrize(("embedder", "leaves"), EMBEDDERS, ids=["text", "tokens"])
def test_a_loop_comes_back_to_the_same_points(embedder: Embedder, leaves: list[bytes]) -> None:
    rows = embedder.embed(leaves)
    assert rows[5:27].tolist() == rows[18:40].tolist()
    assert len(np.unique(rows[4:], axis=0)) == 13


def test_words_with_a_stem_in_common_are_closer_than_others() -> None:
    rows = TextHashing("token", 512).embed([b"loop", b"looping", b"cathedral"])
    products = rows @ rows.T
    assert products[0, 1] > 0.3 > abs(products[0, 2])


def test_case_and_spaces_do_not_count() -> None:
    rows = TextHashing("token").embed([b"Word ", b"word", b"\tWORD\n"])
    assert rows[0].tolist() == rows[1].tolist() == rows[2].tolist()


def test_a_sentence_is_the_sum_of_its_words_and_its_order_does_not_count() -> None:
    first, second = TextHashing("sentence").embed([b"the cat sat.", b"sat the. cat"])
    assert first.tolist() == second.tolist()


def test_sums_too_large_to_be_squared_keep_their_direction() -> None:
    word = b"word " * 100_000
    few, many = TextHashing("line", context=1).embed([b"word", word])
    np.testing.assert_allclose(many, few, atol=1e-6)
    assert TextHashing("line", context=CONTEXT_MAX).embed([word] * 8)[-1] == pytest.approx(few, abs=1e-6)


def test_no_leaf_gives_no_row() -> None:
    assert TextHashing("token").embed([]).shape == (0, 64)
    assert TokenHashing().embed([]).shape == (0, 64)


def test_a_long_run_of_letters_is_cut_into_words() -> None:
    assert [len(word) for word in find_words("x" * 200)] == [WORD_CHARACTERS_MAX] * 3 + [8]


def test_methods_name_everything_that_changes_the_vectors() -> None:
    assert TextHashing("line", 32, 4).method == {
        "name": "text-hash-1",
        "unit": "line",
        "dimension": 32,
        "context": 4,
        "ngram_min": 3,
        "ngram_max": 5,
    }
    assert TokenHashing(16, 2).method == {"name": "token-hash-1", "dimension": 16, "context": 2}
