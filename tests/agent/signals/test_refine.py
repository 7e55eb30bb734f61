"""The refined search against plain sampling with as many projections, on data sets of several kinds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pcs_agent.signals import ArrayBlocks, SignalSettings, coherence, compute_signals, refine
from pcs_agent.signals.blocks import Blocks
from pcs_agent.signals.coherence import directional_coherence
from pcs_agent.signals.directions import iter_directions
from pcs_agent.signals.refine import ROUNDS_MAX, refined_coherence
from pcs_agent.signals.scaling import scale_points

KINDS = ("cube", "normal", "heavy tails", "clusters", "outliers", "layers")


def cloud(kind: str, dimensions: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(300, dimensions))
    if kind == "cube":
        points = rng.random(points.shape)
    elif kind == "heavy tails":
        points = rng.standard_t(3, size=points.shape)
    elif kind == "clusters":
        points += 3 * rng.normal(size=(5, dimensions))[rng.integers(0, 5, 300)]
    elif kind == "outliers":
        points[:5] *= 4
    elif kind == "layers":
        oblique = rng.normal(size=dimensions)
        oblique /= np.linalg.norm(oblique)
        points += np.outer(np.round(points @ oblique) - points @ oblique, oblique)
    return scale_points(points)


def ratios(kind: str, dimensions: int, factor: int = 1) -> list[float]:
    """Refined coherence over that of plain sampling with `factor` times as many projections, over ten clouds and seeds."""
    found = []
    for seed in range(10):
        rows = ArrayBlocks(cloud(kind, dimensions, seed))
        plain, _ = directional_coherence(rows, seed, factor * 100, 20)
        found.append(refined_coherence(rows, seed, 100, 20)[0] / plain)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dimensions", "gain"), [(3, 1.0), (8, 1.03), (64, 1.05)])
def test_it_beats_sampling_at_equal_cost(kind: str, dimensions: int, gain: float) -> None:
    assert np.mean(ratios(kind, dimensions)) > gain


def test_in_eight_dimensions_sampling_needs_more_than_four_times_as_many_projections() -> None:
    assert np.mean([ratios(kind, 8, factor=4) for kind in ("heavy tails", "clusters", "outliers")]) > 1.02


@pytest.mark.parametrize("directions", [1, 2, 3, 4, 10, 99, 100, 1000])
def test_it_computes_as_many_projections_as_it_is_given(
    directions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []

    def counting(rows: Blocks, vectors: np.ndarray, bins: int) -> np.ndarray:
        batches.append(len(vectors))
        return coherence.fullest_bins(rows, vectors, bins)

    monkeypatch.setattr(refine, "fullest_bins", counting)
    refined_coherence(ArrayBlocks(cloud("normal", 3, 0)), 42, directions, 20)
    assert sum(batches) == directions
    assert len(batches) <= 1 + max(ROUNDS_MAX, directions // 4)
    assert directions < 100 or len(batches) <= 1 + ROUNDS_MAX + 1


def test_share_and_direction_belong_together_and_the_seed_reproduces_both() -> None:
    scaled = cloud("heavy tails", 5, 1)
    share, direction = refined_coherence(ArrayBlocks(scaled), 7, 200, 20)
    again, same = refined_coherence(ArrayBlocks(scaled), 7, 200, 20)
    assert share == again
    np.testing.assert_array_equal(direction, same)
    assert math.isclose(float(np.linalg.norm(direction)), 1.0, abs_tol=1e-12)
    assert coherence.fullest_bins(ArrayBlocks(scaled), direction[np.newaxis], 20)[0] / 300 == share
    first = next(iter_directions(7, 60, 5, 60))
    assert share >= coherence.fullest_bins(ArrayBlocks(scaled), first, 20).max() / 300
    assert not np.array_equal(refined_coherence(ArrayBlocks(scaled), 8, 200, 20)[1], direction)


def test_the_record_names_the_search_and_the_default_stays_sampled() -> None:
    points = np.random.default_rng(0).normal(size=(50, 8))
    plain = compute_signals(points, SignalSettings())
    refined = compute_signals(points, SignalSettings(search="refined"))
    assert "coh_star" not in plain.methods
    assert refined.methods["coh_star"] == {"name": "refined-1", "directions": 100, "bins": 20}
    assert refined.coh_star > plain.coh_star
    assert (refined.r, refined.n_j) == (plain.r, plain.n_j)
