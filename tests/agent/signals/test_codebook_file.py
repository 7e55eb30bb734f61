"""Codebooks in files: what is read is what was written, and nothing else is taken."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pcs_agent.errors import ConfigError
from pcs_agent.signals import ArrayBlocks, Codebook
from pcs_agent.signals.codebook_file import (
    CODEBOOK_BYTES_MAX,
    decode_codebook,
    encode_codebook,
    read_codebook,
)
from pcs_agent.signals.training import train_codebook
from pcs_core.record import DIMENSIONS_MAX


def book(dimensions: int = 20) -> Codebook:
    return train_codebook(
        ArrayBlocks(np.random.default_rng(0).normal(size=(300, dimensions))), codes=16, seed=9
    )


def test_what_was_written_is_read_to_the_bit(tmp_path: Path) -> None:
    written = book()
    path = tmp_path / "a.codebook"
    path.write_bytes(encode_codebook(written))
    read = read_codebook(str(path))
    assert (read.digest, read.codes, read.seed, read.training_rows) == (written.digest, 16, 9, 300)
    rows = np.random.default_rng(1).normal(size=(50, 20))
    np.testing.assert_array_equal(read.encode(rows), written.encode(rows))


def test_the_greatest_codebook_goes_into_a_file() -> None:
    rows = np.random.default_rng(0).normal(size=(300, DIMENSIONS_MAX))
    trained = train_codebook(ArrayBlocks(rows), seed=0)
    data = encode_codebook(trained)
    assert 0.6 * CODEBOOK_BYTES_MAX < len(data) <= CODEBOOK_BYTES_MAX
    assert decode_codebook(data).digest == trained.digest


def packed(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")


def places(document: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(document["centroids"][0]), "<i4").reshape(-1, 3).copy()


def far_out(document: dict[str, Any]) -> None:
    far = places(document)
    far[-1, 0] = -(2**31)
    document["centroids"][0] = packed(far)


DAMAGES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda d: d.update(version=2), "something else than a codebook"),
    (lambda d: d.update(format="npz"), "something else than a codebook"),
    (lambda d: d.update(more=1), "something else than a codebook"),
    (lambda d: d.update(codes=257), "something else than a codebook"),
    (lambda d: d.update(centroids=[]), "something else than a codebook"),
    (lambda d: d.update(steps="***"), "something else than a codebook"),
    (lambda d: d.update(origins=packed(np.zeros(7))), "arrays that do not fit"),
    (lambda d: d.update(origins=packed(np.zeros(4097))), "arrays that do not fit"),
    (lambda d: d.update(steps=packed(np.ones(7))), "arrays that do not fit"),
    (lambda d: d.update(origins=packed(np.full(20, np.nan))), "no finite number"),
    (lambda d: d.update(steps=packed(np.zeros(8))), "no finite number"),
    (lambda d: d["centroids"].__setitem__(0, packed(np.zeros(4, "<i4"))), "centroids of another number"),
    (lambda d: d["centroids"].__setitem__(0, ""), "centroids of another number"),
    (
        lambda d: d["centroids"].__setitem__(0, packed(np.zeros((17, 3), "<i4"))),
        "centroids of another number",
    ),
    (far_out, "a centroid off the grid"),
    (lambda d: d["centroids"].__setitem__(0, packed(places(d)[::-1])), "twice or out of order"),
    (lambda d: d["centroids"].__setitem__(0, packed(places(d)[1:])), "a digest that is not the content's"),
    (lambda d: d.update(seed=10), "a digest that is not the content's"),
    (lambda d: d.update(sha256="0" * 64), "a digest that is not the content's"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_damage_is_refused(tmp_path: Path, damage: Callable[[dict[str, Any]], object], words: str) -> None:
    document = json.loads(encode_codebook(book()))
    damage(document)
    path = tmp_path / "a.codebook"
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"--codebook: .*a\.codebook: found .*{re.escape(words)}"):
        read_codebook(str(path))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "something else"),
        (b"\xff{}", "something else"),
        (b"[" * 100_000, "something else"),
        (b" " * (CODEBOOK_BYTES_MAX + 1), "found over 8388608 bytes"),
    ],
)
def test_what_is_no_codebook_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "a.codebook"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=words):
        read_codebook(str(path))


@pytest.mark.parametrize(
    ("name", "words"), [("none", "No such file"), ("", "Is a directory"), ("a\0b", "not a file")]
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"--codebook: .*cannot be read: {words}"):
        read_codebook(str(tmp_path) + "/" + name)
