"""The guarantee of coh★: caps against SciPy and simulation, the bound against brute force over all directions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betainc, betaincinv

from pcs_agent.signals import compute_coherence_with_guarantees
from pcs_agent.signals.caps import angle_of_chord, angle_of_share, chord_of_angle, log_share
from pcs_agent.signals.coherence import directional_coherence
from pcs_agent.signals.directions import iter_directions
from pcs_agent.signals.guarantee import (
    _widened_share,
    covering_number,
    hit_probability,
    required_samples,
)
from pcs_agent.signals.scaling import scale_points

ANGLES = (1e-6, 0.01, 0.1, 0.5, 1.0, 1.3, 1.5, 1.57)


@pytest.mark.parametrize("dimensions", [2, 3, 4, 8, 64, 768, 4096])
def test_shares_of_caps_agree_with_scipy(dimensions: int) -> None:
    compared = 0
    for angle in ANGLES:
        expected = float(betainc((dimensions - 1) / 2, 0.5, math.sin(angle) ** 2))
        if expected > 1e-290:
            assert math.exp(log_share(dimensions, angle)) == pytest.approx(expected, rel=1e-9), angle
            compared += 1
    assert compared >= 2


def test_shares_of_caps_below_the_smallest_double() -> None:
    """The logarithm is about (d − 1)·ln sin θ there: SciPy, in pieces, by one step of the asymptotic series."""
    a, sine = 767 / 2, math.sin(0.1)
    front = 2 * a * math.log(sine) + math.log(math.cos(0.1))
    beta = math.lgamma(a) + math.lgamma(0.5) - math.lgamma(a + 0.5)
    assert log_share(768, 0.1) == pytest.approx(front - beta - math.log(a), rel=1e-5)
    assert log_share(768, 0.1) < -1700


@pytest.mark.parametrize("dimensions", [2, 3, 8, 64, 768])
@pytest.mark.parametrize("share", [1e-9, 0.01, 0.3, 0.999])
def test_the_angle_of_a_share_agrees_with_scipy(dimensions: int, share: float) -> None:
    expected = math.asin(math.sqrt(float(betaincinv((dimensions - 1) / 2, 0.5, share))))
    assert angle_of_share(dimensions, share) == pytest.approx(expected, rel=1e-6)


def test_angles_chords_and_the_ends_of_both() -> None:
    assert chord_of_angle(math.pi / 2) == pytest.approx(math.sqrt(2))
    assert angle_of_chord(chord_of_angle(0.7)) == pytest.approx(0.7)
    assert (log_share(5, math.pi / 2), log_share(1, 0.0), log_share(5, 0.0)) == (0.0, 0.0, -math.inf)
    assert (angle_of_share(1, 0.5), required_samples(1, 0.1, 0.05), hit_probability(1, 0.1, 1)) == (
        0.0,
        1,
        1.0,
    )


@pytest.mark.parametrize(("dimensions", "epsilon", "samples"), [(2, 0.05, 30), (3, 0.2, 40), (5, 0.6, 50)])
def test_random_directions_come_near_a_given_one_as_often_as_stated(
    dimensions: int, epsilon: float, samples: int
) -> None:
    """Within four standard deviations over 2,000 seeds; the share of one direction alone would be far off."""
    stated = hit_probability(dimensions, epsilon, samples)
    goal = np.eye(dimensions)[-1]
    hits = 0
    for seed in range(2000):
        vectors = next(iter_directions(seed, samples, dimensions, samples))
        hits += bool((np.abs(vectors @ goal) >= 1 - epsilon**2 / 2).any())
    assert hits / 2000 == pytest.approx(stated, abs=4 * math.sqrt(stated * (1 - stated) / 2000))
    assert 0.2 < stated < 0.95


@pytest.mark.parametrize("dimensions", [2, 3, 8, 20])
@pytest.mark.parametrize("delta", [0.01, 0.3])
def test_required_samples_are_the_fewest_that_reach_the_confidence(dimensions: int, delta: float) -> None:
    epsilon = 0.3 if dimensions < 10 else 1.0
    fewest = int(required_samples(dimensions, epsilon, delta))
    assert hit_probability(dimensions, epsilon, fewest) >= 1 - delta - 1e-12
    assert hit_probability(dimensions, epsilon, fewest - 1) < 1 - delta


@pytest.mark.parametrize("epsilon", [0.05, 0.3, 1.0])
def test_the_covering_number_covers_in_the_plane_and_in_space(epsilon: float) -> None:
    """In the plane so many equally spaced lines are enough; in space a greedy net has no more, and leaves no gap."""
    lines = int(covering_number(2, epsilon))
    assert math.pi / lines / 2 <= angle_of_chord(epsilon)
    grid = hemisphere(4000)
    net = np.empty((0, 3))
    for line in grid:
        if len(net) == 0 or np.abs(net @ line).max() < 1 - epsilon**2 / 2:
            net = np.vstack([net, line])
    assert len(net) <= covering_number(3, epsilon)
    assert (
        len(net) * math.exp(log_share(3, angle_of_chord(epsilon))) > 0.8
    )  # or caps would not cover the sphere


def hemisphere(count: int) -> np.ndarray:
    """Fibonacci's spiral: evenly spread unit vectors with z ≥ 0."""
    steps = np.arange(count)
    z = (steps + 0.5) / count
    around = steps * math.pi * (3 - math.sqrt(5))
    return np.column_stack([np.sqrt(1 - z * z) * np.cos(around), np.sqrt(1 - z * z) * np.sin(around), z])


def bin_share(scaled: np.ndarray, vector: np.ndarray, bins: int) -> float:
    places = scaled @ vector
    counts, _ = np.histogram(places, bins=bins, range=(places.min(), places.max()))
    return float(counts.max()) / len(scaled)


def clouds(name: str, dimensions: int) -> np.ndarray:
    rng = np.random.default_rng(11)
    if name == "cube":
        return rng.random((150, dimensions))
    points = rng.normal(size=(150, dimensions))
    if name == "layers":  # five of them, seen as such along one oblique direction alone
        oblique = np.arange(1.0, dimensions + 1) / np.linalg.norm(np.arange(1.0, dimensions + 1))
        points += np.outer(np.round(points @ oblique) - points @ oblique, oblique)
    return points


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", ["cube", "normal", "layers"])
def test_no_direction_of_all_is_above_the_bound(name: str, dimensions: int) -> None:
    """Brute force over 3,000 directions; the bound may fail for a tenth of the seeds, and is no mere 1."""
    scaled = scale_points(clouds(name, dimensions))
    angles = np.linspace(0, math.pi, 3000, endpoint=False)
    every = np.column_stack([np.cos(angles), np.sin(angles)]) if dimensions == 2 else hemisphere(3000)
    best = max(bin_share(scaled, vector, 10) for vector in every)
    failed, bounds = 0, []
    for seed in range(12):
        coh_star, _, known = compute_coherence_with_guarantees(
            scaled, 400 if dimensions == 2 else 1500, 10, seed, delta=0.1
        )
        assert known["upper_bound"] == pytest.approx(coh_star + known["approximation_error"])
        failed += best > known["upper_bound"]
        bounds.append(known["upper_bound"])
    assert failed <= 4
    assert max(bounds) < 0.95


@given(st.integers(0, 10**6), st.integers(2, 6), st.floats(0, 1.4), st.integers(1, 30))
@settings(deadline=None)
def test_a_direction_near_another_has_a_slab_with_as_much(
    seed: int, dimensions: int, angle: float, bins: int
) -> None:
    """The inequality of the module, for any two directions at any angle."""
    rng = np.random.default_rng(seed)
    scaled = scale_points(rng.normal(size=(60, dimensions)) ** 3)
    v, w = np.linalg.qr(rng.normal(size=(dimensions, 2)))[0].T
    u = math.cos(angle) * v + math.sin(angle) * w
    centre = (scaled.min(axis=0) + scaled.max(axis=0)) / 2
    shift = chord_of_angle(angle) * np.linalg.norm(scaled - centre, axis=1).max()
    assert bin_share(scaled, v, bins) <= _widened_share(scaled, u, bins, float(shift)) + 1e-12


def test_the_slab_must_be_that_much_wider() -> None:
    """Events on the two ends of a segment: along it they are far apart, across it together. A third of the margin is too little."""
    events = np.array([[-1.0, 0.0], [1.0, 0.0]] * 10 + [[0.0, -0.9], [0.0, 0.9]])
    v, angle = np.array([0.0, 1.0]), 0.2
    u = np.array([math.sin(angle), math.cos(angle)])
    shift = chord_of_angle(angle)
    assert bin_share(events, v, 21) == 20 / 22
    assert _widened_share(events, u, 21, shift) >= 20 / 22
    assert _widened_share(events, u, 21, 0.6 * shift) < 20 / 22


def test_many_dimensions_are_beyond_any_sampling_and_that_is_said() -> None:
    points = np.random.default_rng(0).normal(size=(200, 768))
    coh_star, v_star, known = compute_coherence_with_guarantees(points)
    share, direction = directional_coherence(scale_points(points), 42, 100, 20)
    assert coh_star == share
    np.testing.assert_array_equal(v_star, direction)
    assert known["guarantee_met"] is False
    assert known["required_samples"] == known["covering_number"] == math.inf
    assert known["confidence"] == 0.0
    assert known["approximation_error"] == 1 - coh_star  # nothing is known of the other directions
    assert 1.3 < known["reached_epsilon"] < math.sqrt(2)


def test_more_directions_bring_the_bound_down() -> None:
    points = np.random.default_rng(0).normal(size=(400, 2))
    known = [compute_coherence_with_guarantees(points, count)[2] for count in (20, 200, 2000)]
    assert [each["guarantee_met"] for each in known] == [False, True, True]
    errors = [each["approximation_error"] for each in known]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02


@pytest.mark.parametrize(
    ("points", "options", "words"),
    [
        ([[math.nan]], {}, "points: allowed: finite"),
        ([[1.0], [2.0]], {"epsilon": 0.0}, "epsilon, delta: allowed"),
        ([[1.0], [2.0]], {"epsilon": 1.5}, "epsilon, delta: allowed"),
        ([[1.0], [2.0]], {"delta": 1.0}, "epsilon, delta: allowed"),
        ([[1.0], [2.0]], {"num_directions": 0}, "num_directions, num_bins: allowed"),
    ],
)
def test_what_is_out_of_range_is_refused(
    points: list[list[float]], options: dict[str, float], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        compute_coherence_with_guarantees(points, **options)
