"""All signals of one window, and the safe defaults where they cannot be computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from pcs_agent.fallbacks import Fallback
from pcs_agent.signals.blocks import Blocks, as_blocks
from pcs_agent.signals.codebook import Codebook
from pcs_agent.signals.coherence import directional_coherence
from pcs_agent.signals.compressibility import RMethod, measure_r
from pcs_agent.signals.derived import scale_blocks
from pcs_agent.signals.dimension import (
    PLAIN_DIMENSIONS_MAX,
    PLAIN_SCALES,
    PROJECTED_DEFAULT,
    count_occupied,
)
from pcs_agent.signals.principal import RowSample
from pcs_agent.signals.refine import refined_coherence
from pcs_agent.signals.scaling import Extent, Points
from pcs_agent.signals.shift import SHIFT_BYTES_MIN, SHIFT_NAME, shift_ratio
from pcs_core.canonical import round9
from pcs_core.merkle import TreeHasher, merkle_root

SEED_DEFAULT = 42
DIRECTIONS_DEFAULT, DIRECTIONS_MAX = 100, 4096
BINS_DEFAULT, BINS_MAX = 20, 4096

Search = Literal["sampled", "refined"]


class SignalSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the signals depend on besides the events.

    Attributes:
        scales: 2 to 32 strictly increasing integers ≥ 1; `None` for 2, 4, 8, 16, 32 of few columns and chosen ones of
            many (`pcs_agent.signals.dimension`).
        seed: 0 … 2^63−1, put into the record as it is.
        directions: Sampled directions, 1 … 4096.
        bins: Bins per direction, 1 … 4096.
        d_hat_dimensions: Principal directions whose cells are counted of many columns, 1 … 8.
        r_method: What r is measured on, `symbols` or, as in 0.1, `zlib`.
        codebook: Gives rows their symbols; `None` for one trained on the window itself.
        search: How directions are found: `sampled` as in 0.1, or `refined`.
    """

    scales: tuple[int, ...] | None = None
    seed: int = SEED_DEFAULT
    directions: int = DIRECTIONS_DEFAULT
    bins: int = BINS_DEFAULT
    d_hat_dimensions: int = PROJECTED_DEFAULT
    r_method: RMethod = "symbols"
    codebook: Codebook | None = None
    search: Search = "sampled"


class Signals(msgspec.Struct, frozen=True, kw_only=True):
    """What was computed of one window, not rounded.

    Attributes:
        events: How many events there were.
        merkle_root: RFC 6962 tree hash, one leaf an event.
        n_j: Occupied cells by scale.
        coh_star: Directional coherence, 0 … 1.
        v_star: The direction it was found along; empty where there is none.
        r: Compressibility, 0 … 1.
        fallbacks: What stands for something else; empty in the ordinary case.
        methods: By signal (`d_hat`, `coh_star`, `r`) the name and parameters of a method other than 0.1's; what is not
            in it was computed as in 0.1.
    """

    events: int
    merkle_root: str
    n_j: dict[int, int]
    coh_star: float
    v_star: list[float]
    r: float
    fallbacks: tuple[Fallback, ...]
    methods: dict[str, dict[str, float | int | bool | str]] = msgspec.field(default_factory=dict)


def compute_signals(
    events: Points | Blocks,
    settings: SignalSettings,
    *,
    leaves: Sequence[bytes] | None = None,
    symbols: bytes | None = None,
    seed_of: Callable[[str], int] | None = None,
) -> Signals:
    """Compute every signal of a window.

    Args:
        events: Shape (n, d), finite, d ≤ 4096, in memory or as blocks; with n = 0 the safe defaults come back, and the
            caller says why.
        settings: Scales, seed, directions and bins.
        leaves: One an event, where the events are text or tokens; `None`: their columns as little-endian float64.
        symbols: What r is of, where the events are text or tokens; `None`: the leaves.
        seed_of: Returns the seed of the directions for a Merkle root, 0 … 2^63−1; `None`: it is that of the settings.

    Raises:
        ValueError: There are not as many leaves as events.
    """
    count = len(events)
    if count == 0:
        return Signals(
            events=0,
            merkle_root=merkle_root([]),
            n_j=dict.fromkeys(settings.scales or PLAIN_SCALES, 1),
            coh_star=0.0,
            v_star=[],
            r=1.0,
            fallbacks=(),
        )
    if leaves is not None and len(leaves) != count:
        raise ValueError(f"found {len(leaves)} leaves and {count} events; allowed: one leaf an event")
    rows = as_blocks(events)
    survey = _survey(rows, leaves)
    ratio = measure_r(
        rows,
        _iter_symbols(rows, leaves, symbols),
        settings.r_method,
        settings.codebook,
        of_text=leaves is not None or symbols is not None,
    )
    fallbacks = (Fallback.R_CLAMPED,) if ratio.clamped else ()
    methods = {"r": ratio.method} if ratio.method else {}
    if symbols is not None and ratio.method and len(symbols) >= SHIFT_BYTES_MIN:
        methods["shift"] = {"name": SHIFT_NAME, "ratio": round9(shift_ratio(symbols))}
    if count == 1:
        return Signals(
            events=1,
            merkle_root=survey.root,
            n_j=dict.fromkeys(settings.scales or PLAIN_SCALES, 1),
            coh_star=0.0,
            v_star=[],
            r=ratio.r,
            fallbacks=(Fallback.TOO_FEW_EVENTS, *fallbacks),
            methods=methods,
        )
    scaled = scale_blocks(rows, survey.extent)
    sample = survey.extent.scaling().apply(survey.sample.rows) if survey.sample else None
    refined = settings.search == "refined"
    search = refined_coherence if refined else directional_coherence
    seed = settings.seed if seed_of is None else seed_of(survey.root)
    coh_star, v_star = search(scaled, seed, settings.directions, settings.bins)
    if refined:
        methods["coh_star"] = {"name": "refined-1", "directions": settings.directions, "bins": settings.bins}
    counted = count_occupied(scaled, sample, settings.scales, settings.d_hat_dimensions)
    return Signals(
        events=count,
        merkle_root=survey.root,
        n_j=counted.n_j,
        coh_star=coh_star,
        v_star=v_star.tolist(),
        r=ratio.r,
        fallbacks=(*fallbacks, *counted.fallbacks),
        methods=methods | ({"d_hat": counted.method} if counted.method else {}),
    )


class _Survey(NamedTuple):
    """What the first pass over the rows finds; the sample only of rows of many columns."""

    root: str
    extent: Extent
    sample: RowSample | None


def _survey(rows: Blocks, leaves: Sequence[bytes] | None) -> _Survey:
    hasher, extent = TreeHasher(), Extent()
    sample = RowSample(len(rows), rows.dimensions) if rows.dimensions > PLAIN_DIMENSIONS_MAX else None
    for block in rows:
        extent.add(block)
        if sample is not None:
            sample.add(block)
        if leaves is None:
            packed = _leaf_bytes(block)
            leaf_bytes = len(packed) // len(block)
            for first in range(0, len(packed), leaf_bytes):
                hasher.add(packed[first : first + leaf_bytes])
    for leaf in leaves or ():
        hasher.add(leaf)
    return _Survey(hasher.root(), extent, sample)


def _iter_symbols(
    rows: Blocks, leaves: Sequence[bytes] | None, symbols: bytes | None
) -> Iterator[bytes | memoryview]:
    """Yield the bytes r is of, in parts."""
    if symbols is not None:
        yield symbols
    elif leaves is not None:
        yield from leaves
    else:
        for block in rows:
            yield _leaf_bytes(block)


def _leaf_bytes(block: Points) -> memoryview:
    """Return the concatenated leaves: each event's columns in order as little-endian float64."""
    little_endian: npt.NDArray[np.float64] = np.ascontiguousarray(block, dtype="<f8")
    return little_endian.data.cast("B")
