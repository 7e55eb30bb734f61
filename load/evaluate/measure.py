"""What the product says of a stream: text in, numbers out, by the functions that `pcs-agent run` calls for text.

Beside the record's three signals stand r by product quantisation with codebooks trained on the tuning texts, `shift`
(`pcs_agent.signals.shift`), and two baselines that know nothing of the content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context

import numpy as np
import numpy.typing as npt

from evaluate.streams import Stream
from pcs_agent.embed.hashing import TextHashing
from pcs_agent.events.units import split_tokens
from pcs_agent.signals import (
    ArrayBlocks,
    Codebook,
    SignalSettings,
    compute_compressibility_pq,
    compute_signals,
)
from pcs_agent.signals.shift import shift_ratio
from pcs_agent.signals.training import train_codebook
from pcs_core.slope import theil_sen_slope

CODEBOOK_SEEDS = (1, 2, 3)
CODEBOOK_STREAMS = 60
"""Healthy streams of tuning text, of 200 tokens each, that codebooks are trained on."""

RECORD_SIGNALS = ("d_hat", "coh_star", "r")
SIGNALS = (*RECORD_SIGNALS, "shift")
PQ_SIGNALS = tuple(f"r_pq seed {seed}" for seed in CODEBOOK_SEEDS)
BASELINES = ("length", "sentences")

_CHUNK_STREAMS = 8

Values = Mapping[str, npt.NDArray[np.float64]]


def rows_of(stream: Stream) -> tuple[list[bytes], npt.NDArray[np.float64]]:
    """Return a stream's leaves and rows, as the agent makes them of its text."""
    leaves = [piece.encode() for piece in split_tokens([" ".join(stream.words)])]
    return leaves, _embedder().embed(leaves)


@cache
def _embedder() -> TextHashing:
    return TextHashing("token")


def train_codebooks(streams: Sequence[Stream]) -> list[Codebook]:
    """Return a codebook for each of `CODEBOOK_SEEDS`, trained on streams of tuning text."""
    rows = ArrayBlocks(np.concatenate([rows_of(stream)[1] for stream in streams]))
    return [train_codebook(rows, seed=seed) for seed in CODEBOOK_SEEDS]


def measure(stream: Stream, codebooks: Sequence[Codebook] | None) -> dict[str, float]:
    """Return every signal and baseline of a stream, by name; without codebooks the record's three signals alone."""
    leaves, rows = rows_of(stream)
    text = b"".join(leaves)
    found = compute_signals(rows, SignalSettings(), leaves=leaves, symbols=text)
    d_hat = theil_sen_slope(list(found.n_j), list(found.n_j.values()))
    record = dict(zip(RECORD_SIGNALS, (d_hat, found.coh_star, found.r), strict=True))
    if codebooks is None:
        return record
    by_codebook = {
        name: compute_compressibility_pq(rows, codebook=codebook)
        for name, codebook in zip(PQ_SIGNALS, codebooks, strict=True)
    }
    return {
        **record,
        "shift": shift_ratio(text),
        **by_codebook,
        "length": float(len(stream.words)),
        "sentences": float(stream.sentences),
    }


def measure_all(streams: Sequence[Stream], codebooks: Sequence[Codebook] | None, jobs: int) -> Values:
    """Return each signal of all streams, in order.

    Args:
        streams: One or more.
        codebooks: As `train_codebooks` returns them; none for the record's three signals alone.
        jobs: Processes; 1 for none beside this one.
    """
    if jobs == 1:
        found = [measure(stream, codebooks) for stream in streams]
    else:
        context = get_context("spawn")
        with ProcessPoolExecutor(jobs, context, _prepare, (codebooks,)) as pool:
            found = list(pool.map(_measure_prepared, streams, chunksize=_CHUNK_STREAMS))
    return {name: np.array([each[name] for each in found]) for name in found[0]}


def by_kind(streams: Sequence[Stream], values: Values) -> dict[str, Values]:
    """Return the values apart by kind, in the order in which kinds first occur."""
    kinds = np.array([stream.kind for stream in streams])
    return {
        kind: {name: each[kinds == kind] for name, each in values.items()}
        for kind in dict.fromkeys(kinds.tolist())
    }


_prepared: list[Sequence[Codebook] | None] = []


def _prepare(codebooks: Sequence[Codebook] | None) -> None:
    _prepared[:] = [codebooks]


def _measure_prepared(stream: Stream) -> dict[str, float]:
    return measure(stream, _prepared[0])
