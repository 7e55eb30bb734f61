"""What is counted of many columns: the choice of scales, the codes that warn, and principal directions against LAPACK."""

from __future__ import annotations

import numpy as np
import pytest

from pcs_agent.fallbacks import Fallback, is_degraded
from pcs_agent.signals import SignalSettings, compute_signals
from pcs_agent.signals.cells import count_cells
from pcs_agent.signals.dimension import choose_scales, find_faults
from pcs_agent.signals.principal import SAMPLE_ROWS_MAX, RowSample, find_principal
from pcs_agent.signals.scaling import scale_points
from pcs_core.slope import theil_sen_slope

MANY = 384


def stretched(rows: int, columns: int = MANY) -> np.ndarray:
    """Rows whose spread halves from one hidden axis to the next."""
    rng = np.random.default_rng(rows)
    axes, _ = np.linalg.qr(rng.normal(size=(columns, 10)))
    return (rng.normal(size=(rows, 10)) * 0.5 ** np.arange(10)) @ axes.T


@pytest.mark.parametrize(("rows", "columns"), [(500, 40), (200, 384), (5, 384)])
def test_principal_directions_are_those_of_lapack(rows: int, columns: int) -> None:
    """Through products of columns, through products of rows, and where all four rows that differ are used up."""
    sample = stretched(rows, columns)
    found = find_principal(sample, 3)
    _, spreads, expected = np.linalg.svd(sample - sample.mean(axis=0), full_matrices=False)
    expected = (
        expected[:3] * np.sign(expected[np.arange(3), np.abs(expected[:3]).argmax(axis=1)])[:, np.newaxis]
    )
    np.testing.assert_allclose(found.directions, expected, atol=1e-6)
    assert found.rest == pytest.approx(np.sqrt((spreads[3:] ** 2).sum() / (rows * (columns - 3))), rel=1e-3)


def test_directions_along_which_nothing_spreads_are_zeros() -> None:
    rows = np.outer(np.arange(9.0), np.ones(MANY))
    directions, rest = find_principal(rows, 4)
    np.testing.assert_allclose(directions[0], np.full(MANY, MANY**-0.5), atol=1e-9)
    assert not directions[1:].any()
    assert rest < 1e-6
    assert not find_principal(np.zeros((3, MANY)), 4).directions.any()


@pytest.mark.parametrize("count", [1, 7, SAMPLE_ROWS_MAX, 5_000])
def test_the_sample_does_not_depend_on_how_rows_come(count: int) -> None:
    rows = np.random.default_rng(0).random((count, 2))
    whole = RowSample(count, 2)
    whole.add(rows)
    parts = RowSample(count, 2)
    for first in range(0, count, 13):
        parts.add(rows[first : first + 13])
    np.testing.assert_array_equal(parts.rows, whole.rows)
    places = [index * count // min(count, SAMPLE_ROWS_MAX) for index in range(min(count, SAMPLE_ROWS_MAX))]
    np.testing.assert_array_equal(whole.rows, rows[places])


def test_scales_lie_between_saturation_and_noise() -> None:
    counts = {2: 4, 3: 9, 4: 16, 6: 36, 8: 64, 12: 144, 16: 256}
    assert choose_scales(counts, 600, float("inf")) == [
        2,
        3,
        4,
        6,
        8,
        12,
    ]  # 256 cells of 600 events are too many
    assert choose_scales(counts, 600, 6.5) == [2, 3, 4, 6]
    assert choose_scales(counts, 20, float("inf")) == [2, 3, 4]  # never fewer than three
    assert choose_scales(dict.fromkeys(range(2, 20), 1), 600, float("inf")) == list(range(12, 20))


def test_counts_that_say_little_are_told_and_not_degraded() -> None:
    assert find_faults({2: 4, 4: 16, 8: 60}, 100) == ()
    assert find_faults({2: 4, 4: 51, 8: 60}, 100) == (Fallback.COUNTS_SATURATED,)
    assert find_faults({2: 1, 4: 1}, 100) == (Fallback.COUNTS_AT_ONE,)
    assert not is_degraded([Fallback.COUNTS_SATURATED, Fallback.COUNTS_AT_ONE])


def test_many_columns_name_their_method_and_few_do_not() -> None:
    many = compute_signals(stretched(600), SignalSettings(directions=1))
    assert many.methods["d_hat"] == {
        "name": "principal-directions",
        "dimensions": 4,
        "sample": 512,
        "scales": "chosen",
    }
    given = compute_signals(stretched(600), SignalSettings(directions=1, scales=(2, 5), d_hat_dimensions=2))
    assert list(given.n_j) == [2, 5]
    assert given.methods["d_hat"] == {
        "name": "principal-directions",
        "dimensions": 2,
        "sample": 512,
        "scales": "given",
    }
    few = stretched(600)[:, :8]
    plain = compute_signals(few, SignalSettings(directions=1, d_hat_dimensions=2))
    assert plain.n_j == count_cells(scale_points(few), (2, 4, 8, 16, 32))
    assert "d_hat" not in plain.methods


def test_a_loop_of_few_vectors_has_a_low_dimension_and_a_cloud_a_high_one() -> None:
    """L29: with 0.1's counts both are 0."""
    rng = np.random.default_rng(9)
    loop = rng.normal(size=(16, MANY))[np.arange(2_000) % 16]
    cloud = rng.normal(size=(2_000, MANY))
    slopes = {}
    for name, rows in (("loop", loop), ("cloud", cloud)):
        signals = compute_signals(rows, SignalSettings(directions=1))
        slopes[name] = theil_sen_slope(list(signals.n_j), list(signals.n_j.values()))
        assert signals.fallbacks == ()
    assert slopes["loop"] < 1.0
    assert slopes["cloud"] > 2.4


def test_identical_rows_stay_in_one_cell_and_say_so() -> None:
    signals = compute_signals(np.full((50, MANY), 0.3), SignalSettings(directions=1))
    assert set(signals.n_j.values()) == {1}
    assert Fallback.COUNTS_AT_ONE in signals.fallbacks


def test_moving_and_stretching_rows_changes_no_count() -> None:
    """By powers of two, so that nothing is rounded."""
    rows = stretched(1_000)
    expected = compute_signals(rows, SignalSettings(directions=1)).n_j
    assert compute_signals(rows * 1024.0, SignalSettings(directions=1)).n_j == expected
