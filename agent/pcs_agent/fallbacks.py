"""The fallback codes an agent puts into `ft.fallbacks`, and the defaults each of them stands for: the only list.

A code never changes its meaning. Those that set `ft.degraded` make the backend escalate the record.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable


class Fallback(enum.StrEnum):
    """Why a documented default, or a changed value, stands in a record.

    Attributes:
        INPUT_MISSING: An input file does not exist and `--allow-missing` was given. What exists was summarised; if
            there is nothing, the record has the root of the empty tree and the safe defaults below.
        INPUT_EMPTY: The inputs exist and hold no event, and `--allow-missing` was given: same defaults.
        TOO_FEW_EVENTS: A single event has neither dimension nor direction. `merkle_root` and `r` are computed, the
            rest are the safe defaults.
        R_CLAMPED: The leaves grew under compression and the ratio was cut to 1. Nothing is missing: not degraded.
        COUNTS_SATURATED: At most scales there are more occupied cells than half the events: D_hat tells how many events
            there are rather than what shape they have. Everything was computed: not degraded.
        COUNTS_AT_ONE: All events are in one cell at every scale, for they are identical; D_hat is 0. Not degraded.

    Safe defaults: every N_j 1, D_hat 0, coh_star 0, v_star empty, r 1. They claim the least: neither a sticky stream
    nor a compressible one.
    """

    INPUT_MISSING = "input_missing"
    INPUT_EMPTY = "input_empty"
    TOO_FEW_EVENTS = "too_few_events"
    R_CLAMPED = "r_clamped"
    COUNTS_SATURATED = "counts_saturated"
    COUNTS_AT_ONE = "counts_at_one"


_DEGRADING = frozenset({Fallback.INPUT_MISSING, Fallback.INPUT_EMPTY, Fallback.TOO_FEW_EVENTS})


def is_degraded(fallbacks: Iterable[Fallback]) -> bool:
    """Whether any of the codes means that a default stands for something that could not be computed."""
    return not _DEGRADING.isdisjoint(fallbacks)
