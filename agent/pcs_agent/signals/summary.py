"""All signals of one window, and the safe defaults where they cannot be computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from pcs_agent.fallbacks import Fallback
from pcs_agent.signals.cells import count_cells
from pcs_agent.signals.coherence import directional_coherence
from pcs_agent.signals.compressibility import compression_ratio
from pcs_agent.signals.scaling import Points, scale_points
from pcs_core.merkle import merkle_root

SCALES_DEFAULT = (2, 4, 8, 16, 32)
SEED_DEFAULT = 42
DIRECTIONS_DEFAULT, DIRECTIONS_MAX = 100, 4096
BINS_DEFAULT, BINS_MAX = 20, 4096


class SignalSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the signals depend on besides the events.

    Attributes:
        scales: 2 to 32 strictly increasing integers ≥ 1.
        seed: 0 … 2^63−1, put into the record as it is.
        directions: Sampled directions, 1 … 4096.
        bins: Bins per direction, 1 … 4096.
    """

    scales: tuple[int, ...] = SCALES_DEFAULT
    seed: int = SEED_DEFAULT
    directions: int = DIRECTIONS_DEFAULT
    bins: int = BINS_DEFAULT


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
    events: Points,
    settings: SignalSettings,
    *,
    leaves: Sequence[bytes] | None = None,
    symbols: bytes | None = None,
) -> Signals:
    """Compute every signal of a window.

    Args:
        events: Shape (n, d), finite, d ≤ 4096; with n = 0 the safe defaults come back, and the caller says why.
        settings: Scales, seed, directions and bins.
        leaves: One an event, where the events are text or tokens; `None`: their columns as little-endian float64.
        symbols: What r is of, where the events are text or tokens; `None`: the leaves.

    Raises:
        ValueError: There are not as many leaves as events.
    """
    count = len(events)
    if count == 0:
        return Signals(
            events=0,
            merkle_root=merkle_root([]),
            n_j=dict.fromkeys(settings.scales, 1),
            coh_star=0.0,
            v_star=[],
            r=1.0,
            fallbacks=(),
        )
    if leaves is not None and len(leaves) != count:
        raise ValueError(f"found {len(leaves)} leaves and {count} events; allowed: one leaf an event")
    root, symbols_of_r = _commit(events, leaves, symbols)
    r, clamped = compression_ratio(symbols_of_r)
    fallbacks = (Fallback.R_CLAMPED,) if clamped else ()
    if count == 1:
        return Signals(
            events=1,
            merkle_root=root,
            n_j=dict.fromkeys(settings.scales, 1),
            coh_star=0.0,
            v_star=[],
            r=r,
            fallbacks=(Fallback.TOO_FEW_EVENTS, *fallbacks),
        )
    scaled = scale_points(events)
    coh_star, v_star = directional_coherence(scaled, settings.seed, settings.directions, settings.bins)
    return Signals(
        events=count,
        merkle_root=root,
        n_j=count_cells(scaled, settings.scales),
        coh_star=coh_star,
        v_star=v_star.tolist(),
        r=r,
        fallbacks=fallbacks,
    )


def _commit(events: Points, leaves: Sequence[bytes] | None, symbols: bytes | None) -> tuple[str, memoryview]:
    """Return the root over the leaves, and the bytes r is of."""
    if leaves is None:
        packed = _leaf_bytes(events)
        root = merkle_root(_iter_leaves(packed, len(events)))
        return root, packed if symbols is None else memoryview(symbols)
    return merkle_root(leaves), memoryview(b"".join(leaves) if symbols is None else symbols)


def _leaf_bytes(events: Points) -> memoryview:
    """Return the concatenated leaves: each event's columns in order as little-endian float64."""
    little_endian: npt.NDArray[np.float64] = np.ascontiguousarray(events, dtype="<f8")
    return little_endian.data.cast("B")


def _iter_leaves(leaves: memoryview, count: int) -> Iterator[memoryview]:
    leaf_bytes = len(leaves) // count
    return (leaves[first : first + leaf_bytes] for first in range(0, len(leaves), leaf_bytes))
