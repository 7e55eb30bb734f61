"""Directions against golden vectors, coherence against an oracle, and what a record's seed reproduces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pcs_agent.signals import SignalSettings, coherence, compute_signals
from pcs_agent.signals.coherence import directional_coherence
from pcs_agent.signals.directions import iter_directions
from pcs_agent.signals.scaling import scale_points
from pcs_core.canonical import round9
from pcs_core.record import Record

GOLDEN = json.loads((Path(__file__).parent.parent / "golden_directions.json").read_text(encoding="utf-8"))


def directions(seed: int, count: int, dimensions: int, block_rows: int = 64) -> np.ndarray:
    return np.concatenate(list(iter_directions(seed, count, dimensions, block_rows)))


def oracle(scaled: np.ndarray, vectors: np.ndarray, bins: int) -> tuple[float, int]:
    """The largest share over plain-Python bins, and the index of the first direction that reaches it."""
    best, winner = 0, -1
    for index, vector in enumerate(vectors):
        projections = (vector @ scaled.T).tolist()
        least, width = min(projections), max(projections) - min(projections)
        counts = [0] * bins
        for projection in projections:
            place = 0 if width == 0 else min(bins - 1, int((projection - least) / width * bins))
            counts[place] += 1
        if max(counts) > best:
            best, winner = max(counts), index
    return best / len(scaled), winner


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"seed{case['seed']}x{case['dimensions']}")
def test_golden_directions(case: dict[str, Any]) -> None:
    expected = np.array(case["directions"])
    found = directions(case["seed"], len(expected), case["dimensions"])
    raw = np.random.PCG64(case["seed"]).random_raw(4)
    assert [str(output) for output in raw][: len(case["raw"])] == case["raw"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_a_direction_depends_neither_on_how_many_there_are_nor_on_blocks() -> None:
    whole = directions(9, 50, 7)
    np.testing.assert_array_equal(directions(9, 20, 7, block_rows=3), whole[:20])
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1.0, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", [(2, 1), (50, 2), (333, 3), (100, 40)])
def test_coherence_agrees_with_the_oracle(seed: int, shape: tuple[int, int]) -> None:
    scaled = scale_points(np.random.default_rng(seed).normal(size=shape))
    vectors = directions(seed, 25, shape[1])
    share, winner = oracle(scaled, vectors, 10)
    found, v_star = directional_coherence(scaled, seed, 25, 10)
    assert found == share
    np.testing.assert_allclose(v_star, vectors[winner], atol=1e-12)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scaled = scale_points(np.random.default_rng(1).normal(size=(200, 4)))
    whole, v_whole = directional_coherence(scaled, 3, 30, 20)
    monkeypatch.setattr(coherence, "PROJECTION_VALUES_MAX", 400)
    found, v_found = directional_coherence(scaled, 3, 30, 20)
    assert found == whole
    np.testing.assert_allclose(v_found, v_whole, atol=1e-12)


def test_identical_points_share_one_place() -> None:
    share, v_star = directional_coherence(scale_points(np.full((9, 3), 4.5)), 42, 10, 20)
    assert share == 1.0
    np.testing.assert_allclose(v_star, directions(42, 1, 3)[0], atol=1e-12)  # the first maximum wins


def test_a_tight_cluster_with_one_outlier_is_coherent() -> None:
    points = np.vstack([np.random.default_rng(0).random((99, 3)) * 0.001, [[1.0, 1.0, 1.0]]])
    share, _ = directional_coherence(scale_points(points), 42, 100, 20)
    assert share == 0.99


def test_the_seed_in_the_record_reproduces_coherence_and_direction(make_record: Any) -> None:
    """Lesson L18: the record's seed is the one used."""
    record: Record = make_record(5)
    again = compute_signals(np.random.default_rng(5).random((16, 2)), SignalSettings(seed=record.seed))
    assert round9(again.coh_star) == record.coh_star
    assert [round9(component) for component in again.v_star] == record.v_star
    other = compute_signals(np.random.default_rng(5).random((16, 2)), SignalSettings(seed=record.seed + 1))
    assert [round9(component) for component in other.v_star] != record.v_star
