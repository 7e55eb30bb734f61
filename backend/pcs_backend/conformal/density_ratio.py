"""How much more often records come now than they came when they were labelled, by one of their signals.

Constant in pieces, so that each piece has thresholds of its own, which are taken once a set. Pure.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import msgspec

from pcs_backend.errors import ConfigError

PIECES_MAX = 16
"""Of one ratio: each has a threshold a class, and answers that are kept ready."""

RATIO_MAX = 1e6
"""Above it a record is another kind, not the same more often."""

RATIO_BYTES_MAX = 16_384
"""Of a file with a ratio."""

Signal = Literal["D_hat", "coh_star", "r"]

_ALLOWED = "signal, edges and ratios, as docs/calibration.md has them"


class DensityRatio(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A density ratio: of all records to come over all of the time of the labelled ones, up to a factor.

    Attributes:
        signal: What it depends on: the recomputed D̂, or the claimed coh★ or r, as a score sees them.
        edges: Where one piece ends and the next begins, ascending; a value that equals an edge is above it.
        ratios: One a piece, one more than edges, each 0 to `RATIO_MAX`, not all 0.

    >>> ratio = DensityRatio("r", (0.5,), (0.25, 4.0))
    >>> ratio.piece_of((2.0, 0.7, 0.49)), ratio.piece_of((2.0, 0.7, 0.5))
    (0, 1)
    """

    signal: Signal
    edges: tuple[float, ...]
    ratios: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check what types do not."""
        if not 1 <= len(self.edges) < PIECES_MAX:
            raise ValueError(f"edges: found {len(self.edges)} edges; allowed: 1 to {PIECES_MAX - 1}")
        if not all(map(math.isfinite, self.edges)) or any(low >= high for low, high in pairwise(self.edges)):
            raise ValueError("edges: found numbers that do not ascend; allowed: finite ones that ascend")
        if len(self.ratios) != len(self.edges) + 1:
            raise ValueError(
                f"ratios: found {len(self.ratios)} ratios; allowed: {len(self.edges) + 1}, one more than edges"
            )
        if not all(0 <= each <= RATIO_MAX for each in self.ratios) or not any(self.ratios):
            raise ValueError(
                f"ratios: found one out of range; allowed: 0 to {RATIO_MAX:g}, not all of them 0"
            )

    def piece_of(self, signals: Sequence[float]) -> int:
        """Return the piece of a record, from 0.

        Args:
            signals: Recomputed D̂, coh★, r.
        """
        return bisect_right(self.edges, signals[_COLUMNS[self.signal]])


_COLUMNS: dict[Signal, int] = {signal: column for column, signal in enumerate(get_args(Signal))}
_decode = msgspec.json.Decoder(DensityRatio).decode


def read_density_ratio(data: bytes) -> DensityRatio:
    """Read a ratio as an operator wrote it, a JSON object.

    Raises:
        ConfigError: It is none; the message names the field.
    """
    if len(data) > RATIO_BYTES_MAX:
        raise ConfigError(f"density ratio: found {len(data)} bytes; allowed: up to {RATIO_BYTES_MAX}")
    try:
        return _decode(data)
    except msgspec.ValidationError as error:
        raise ConfigError(f"density ratio: {error}; allowed: {_ALLOWED}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ConfigError(
            f"density ratio: found {len(data)} bytes that are no JSON; allowed: {_ALLOWED}"
        ) from None
