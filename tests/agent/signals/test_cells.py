"""Scaling and counting of cells against an oracle of plain Python, and against shapes of known dimension."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pcs_agent.signals.cells import count_cells
from pcs_agent.signals.scaling import scale_points
from pcs_core.slope import theil_sen_slope

SCALES = (2, 4, 8, 16, 32)
EVENTS = 100_000


def oracle(scaled: np.ndarray, scale: int) -> int:
    return len({tuple(math.floor(x * scale) for x in row) for row in scaled.tolist()})


def sierpinski(events: int) -> np.ndarray:
    """The chaos game on an axis-aligned right triangle, whose pieces fit the grid at powers of two."""
    rng = np.random.default_rng(7)
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    digits = corners[rng.integers(0, 3, size=(events, 40))]
    return (digits * 0.5 ** np.arange(1, 41)[:, np.newaxis]).sum(axis=1)


def shape_of(name: str) -> tuple[np.ndarray, float]:
    rng = np.random.default_rng(3)
    line = rng.random(EVENTS)
    return {
        "line": (np.column_stack([line, 0.5 * line, -line]), 1.0),
        "square": (np.column_stack([rng.random((EVENTS, 2)), np.zeros(EVENTS)]), 2.0),
        "cube": (rng.random((EVENTS, 3)), 3.0),
        "sierpinski": (sierpinski(EVENTS), math.log(3) / math.log(2)),
    }[name]


@pytest.mark.parametrize("name", ["line", "square", "cube", "sierpinski"])
@pytest.mark.parametrize("stretch", [(1.0, 0.0), (1000.0, 0.0), (1.0, 1000.0), (0.001, -5.0)])
def test_shapes_of_known_dimension(name: str, stretch: tuple[float, float]) -> None:
    """Within 0.1 of theory, also shifted and stretched."""
    points, dimension = shape_of(name)
    factor, shift = stretch
    counts = count_cells(scale_points(points * factor + shift), SCALES)
    assert theil_sen_slope(SCALES, [counts[scale] for scale in SCALES]) == pytest.approx(dimension, abs=0.1)


@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24),
        elements=st.floats(allow_nan=False, allow_infinity=False, width=64),
    )
)
@settings(deadline=None)
def test_extreme_floats_stay_below_one_and_are_counted_exactly(points: np.ndarray) -> None:
    scaled = scale_points(points)
    assert scaled.min() >= 0
    assert scaled.max() < 1
    for scale, found in count_cells(scaled, (1, 2, 3, 7, 32, 2**31, 2**63 - 1)).items():
        assert found == oracle(scaled, scale), scale


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 30), st.sampled_from([62, 63, 64, 768])),
        elements=st.sampled_from([0.0, 0.1, 0.5, 0.9]),
    ),
    st.lists(st.integers(0, 29), max_size=30),
)
@settings(deadline=None, max_examples=40)
def test_many_axes_are_counted_exactly(points: np.ndarray, copies: list[int]) -> None:
    """Keys overflow 64 bits many times over; repeated rows must still fall together."""
    points = np.concatenate([points, points[[index % len(points) for index in copies]]])
    scaled = scale_points(points)
    for scale, found in count_cells(scaled, (2, 32, 1000)).items():
        assert found == oracle(scaled, scale), scale


def test_points_far_apart_that_differ_in_the_last_of_4096_axes_only() -> None:
    points = np.zeros((3, 4096))
    points[1, -1] = 1.0
    assert count_cells(scale_points(points), (1, 2, 32)) == {1: 1, 2: 2, 32: 2}


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([[5.0, 5.0], [5.0, 5.0]], 1),  # all identical
        ([[-1.7e308], [1.7e308]], 2),  # the extent overflows
        ([[0.0], [1.797e308]], 2),  # the stretched extent overflows
        ([[0.0], [5e-324]], 2),  # the extent cannot be stretched
    ],
)
def test_extents_at_the_ends_of_double_precision(points: list[list[float]], expected: int) -> None:
    assert count_cells(scale_points(np.array(points)), (2,)) == {2: expected}


def test_one_factor_for_all_axes() -> None:
    """A thin box stays thin: with a factor per axis it would fill the grid."""
    rng = np.random.default_rng(0)
    points = rng.random((10_000, 2)) * [1.0, 0.001]
    assert count_cells(scale_points(points), (32,)) == {32: 32}
