"""What the product says of a stream: text in, numbers out, by the functions that `pcs-agent run` calls for text.

Beside the record's three signals stand the combined score, r by product quantisation with codebooks trained on the
tuning texts, `shift` (`pcs_agent.signals.shift`), and two baselines that know nothing of the content.
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
from pcs_core.params import Params
from pcs_core.slope import theil_sen_slope

CODEBOOK_SEEDS = (1, 2, 3)
CODEBOOK_STREAMS = 60
"""Healthy streams of tuning text, of 200 tokens each, that codebooks are trained on."""

SIGNALS = ("d_hat", "coh_star", "r", "combined", "shift")
PQ_SIGNALS = tuple(f"r_pq seed {seed}" for seed in CODEBOOK_SEEDS)
BASELINES = ("length", "sentences")

_D_HAT_SPAN, _R_MIDDLE = 3.5, 0.65
_D_HAT_WEIGHT, _COHERENCE_WEIGHT, _R_WEIGHT = 0.35, 0.40, 0.25
_CHUNK_STREAMS = 8

Values = Mapping[str, npt.NDArray[np.float64]]


def combine(d_hat: float, coh_star: float, r: float) -> float:
    """Return the combined score that the statistics will judge by, as their design defines it.

    >>> round(combine(3.5, 1.05, 0.65), 9), round(combine(0.0, 0.0, 1.3), 9)
    (0.0, 1.0)
    """
    return (
        _D_HAT_WEIGHT * (1 - d_hat / _D_HAT_SPAN)
        + _COHERENCE_WEIGHT * (1 - coh_star / (1 + Params().tol_coh))
        + _R_WEIGHT * min(1.0, abs(r - _R_MIDDLE) / _R_MIDDLE)
    )


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


def measure(stream: Stream, codebooks: Sequence[Codebook]) -> dict[str, float]:
    """Return every signal and baseline of a stream, by name."""
    leaves, rows = rows_of(stream)
    text = b"".join(leaves)
    found = compute_signals(rows, SignalSettings(), leaves=leaves, symbols=text)
    d_hat = theil_sen_slope(list(found.n_j), list(found.n_j.values()))
    by_codebook = {
        name: compute_compressibility_pq(rows, codebook=codebook)
        for name, codebook in zip(PQ_SIGNALS, codebooks, strict=True)
    }
    return {
        "d_hat": d_hat,
        "coh_star": found.coh_star,
        "r": found.r,
        "combined": combine(d_hat, found.coh_star, found.r),
        "shift": shift_ratio(text),
        **by_codebook,
        "length": float(len(stream.words)),
        "sentences": float(stream.sentences),
    }


def measure_all(streams: Sequence[Stream], codebooks: Sequence[Codebook], jobs: int) -> Values:
    """Return each signal of all streams, in order.

    Args:
        streams: One or more.
        codebooks: As `train_codebooks` returns them.
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


_prepared: list[Codebook] = []


def _prepare(codebooks: Sequence[Codebook]) -> None:
    _prepared[:] = codebooks


def _measure_prepared(stream: Stream) -> dict[str, float]:
    return measure(stream, _prepared)
