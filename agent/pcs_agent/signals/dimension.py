"""What the cells of D̂ are counted of: the columns themselves while they are few, and principal directions of many.

With hundreds of columns every event is alone in its cell at the first scale, and the slope is 0 whatever the events are.
So rows of more than `PLAIN_DIMENSIONS_MAX` columns are projected onto their leading principal directions, and the scales
are chosen, unless they are given, from a ladder of 2, 3, 4, 6, 8, 12, …:

- no scale at which cells hold fewer than `CELL_EVENTS_MIN` events on average: there the counts tell how many events
  there are;
- no scale whose cells are narrower than `CELL_WIDTHS_MIN` times the spread along the directions left out: there they tell
  of the noise;
- of the others the finest `SCALES_CHOSEN_MAX`, but never fewer than the coarsest `SCALES_CHOSEN_MIN` of the ladder.

The measurements behind these numbers are in ADR 26.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pcs_agent.fallbacks import Fallback
from pcs_agent.signals.blocks import Blocks
from pcs_agent.signals.cells import count_cells
from pcs_agent.signals.derived import MappedBlocks, hold, measure_extent, scale_blocks
from pcs_agent.signals.principal import find_principal
from pcs_agent.signals.scaling import Points

PLAIN_DIMENSIONS_MAX = 8
"""Up to so many columns are counted as they are, as in 0.1."""

PROJECTED_DEFAULT, PROJECTED_MAX = 4, 8
"""Principal directions that are counted of more columns."""

PLAIN_SCALES = (2, 4, 8, 16, 32)
"""Scales of few columns where none are given."""

CELL_EVENTS_MIN = 4
CELL_WIDTHS_MIN = 8
SCALES_CHOSEN_MIN, SCALES_CHOSEN_MAX = 3, 8

METHOD_NAME = "principal-directions"

_LADDER_BITS_MAX = 12
_KEY_BITS = 62


class Counted(NamedTuple):
    """Occupied cells of a window.

    Attributes:
        n_j: By scale, ascending.
        fallbacks: Why the slope says little, if so.
        method: Name and parameters, empty where cells were counted as in 0.1.
    """

    n_j: dict[int, int]
    fallbacks: tuple[Fallback, ...]
    method: dict[str, float | int | bool | str]


def count_occupied(
    scaled: Blocks, sample: Points | None, scales: Sequence[int] | None, directions: int
) -> Counted:
    """Count the occupied cells of a window.

    Args:
        scaled: Two rows or more, in [0, 1).
        sample: Of rows of more than `PLAIN_DIMENSIONS_MAX` columns, some, scaled alike; not used of others.
        scales: Cells per axis; `None` to have them chosen.
        directions: Principal directions of rows of many columns, 1 … `PROJECTED_MAX`.
    """
    if sample is None or scaled.dimensions <= PLAIN_DIMENSIONS_MAX:
        n_j = count_cells(scaled, scales or PLAIN_SCALES)
        return Counted(n_j, find_faults(n_j, len(scaled)), {})
    principal = find_principal(sample, directions)
    transposed = principal.directions.T
    projected = hold(MappedBlocks(scaled, directions, lambda block: block @ transposed))
    extent = measure_extent(projected)
    cells = scale_blocks(projected, extent)
    if scales is None:
        counts = count_cells(cells, _ladder(directions))
        finest = (
            extent.scaling().factor / (CELL_WIDTHS_MIN * principal.rest) if principal.rest else float("inf")
        )
        n_j = {scale: counts[scale] for scale in choose_scales(counts, len(scaled), finest)}
    else:
        n_j = count_cells(cells, scales)
    method: dict[str, float | int | bool | str] = {
        "name": METHOD_NAME,
        "dimensions": directions,
        "sample": len(sample),
        "scales": "chosen" if scales is None else "given",
    }
    return Counted(n_j, find_faults(n_j, len(scaled)), method)


def choose_scales(counts: Mapping[int, int], events: int, finest: float) -> list[int]:
    """Return the scales between which the counts tell of the shape, ascending.

    Args:
        counts: Occupied cells by scale of the ladder.
        events: How many there are.
        finest: No cell is to be narrower than 1/this.
    """
    ladder = sorted(counts)
    fit = [scale for scale in ladder if counts[scale] * CELL_EVENTS_MIN <= events and scale <= finest]
    return fit[-SCALES_CHOSEN_MAX:] if len(fit) >= SCALES_CHOSEN_MIN else ladder[:SCALES_CHOSEN_MIN]


def find_faults(n_j: Mapping[int, int], events: int) -> tuple[Fallback, ...]:
    """Return the codes of counts that say little: at most scales nearly an event a cell, or one cell at every scale."""
    saturated = [scale for scale, count in n_j.items() if 2 * count > events]
    if 2 * len(saturated) > len(n_j):
        return (Fallback.COUNTS_SATURATED,)
    return (Fallback.COUNTS_AT_ONE,) if set(n_j.values()) == {1} else ()


def _ladder(axes: int) -> list[int]:
    """Return 2, 3, 4, 6, 8, 12 … up to where the cells of all axes fit into one key."""
    bits = min(_LADDER_BITS_MAX, _KEY_BITS // axes)
    return sorted([2**power for power in range(1, bits + 1)] + [3 * 2**power for power in range(bits - 1)])
