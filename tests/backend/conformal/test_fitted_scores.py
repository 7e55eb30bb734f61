"""Scores that are fitted: against scikit-learn, on bad data, on data that hardly varies, and without scikit-learn."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.covariance import MinCovDet
from sklearn.linear_model import LogisticRegression

from pcs_backend.conformal.calibration import Signals
from pcs_backend.conformal.scores import FIT_SIGNALS_MIN, FITTED_SCORES, fit, score_from
from pcs_backend.conformal.scores.robust import find_bulk
from pcs_backend.errors import ScoreError
from pcs_core.params import Params

CENTER = np.array([1.9, 0.3, 0.6])
COVARIANCE = np.array([[0.04, -0.006, 0.002], [-0.006, 0.0025, 0.0], [0.002, 0.0, 0.0016]])

Floats = np.ndarray[tuple[int, int], np.dtype[np.float64]]


def cloud(count: int, seed: int) -> Floats:
    return np.random.default_rng(seed).multivariate_normal(CENTER, COVARIANCE, count).round(9)


def loops(count: int, seed: int) -> Floats:
    return np.random.default_rng(seed).normal([0.5, 0.4, 0.1], 0.03, (count, 3)).round(9)


def as_signals(rows: Floats) -> list[Signals]:
    return [Signals(*row) for row in rows.tolist()]


def fitted(name: str, benign: Floats, bad: Floats, seed: int = 1):
    return fit(name, as_signals(benign), as_signals(bad), seed, Params())


NOTHING: Floats = np.empty((0, 3))


@pytest.mark.parametrize("share_bad", [0.0, 0.2, 0.3])
def test_the_bulk_is_the_one_that_scikit_learn_finds(share_bad: float) -> None:
    """Up to the factor between them, and what the ridge adds: a hundredth of each spread's square."""
    count_bad = round(400 * share_bad)
    points = np.concatenate([cloud(400 - count_bad, 1), loops(count_bad, 2)])
    theirs = MinCovDet(random_state=3).fit(points)
    ours = find_bulk(points, np.random.default_rng(3))
    assert ours.center == pytest.approx(theirs.location_, abs=0.02)
    distances = [
        np.sqrt(((points - center) @ np.linalg.inv(covariance) * (points - center)).sum(axis=1))
        for center, covariance in (ours, (theirs.location_, theirs.covariance_))
    ]
    clean = slice(0, 400 - count_bad)
    assert np.corrcoef(*(each[clean] for each in distances))[0, 1] > 0.995


def test_two_fifths_of_bad_records_do_not_take_the_bulk_with_them() -> None:
    """scikit-learn's search, with fewer beginnings, puts the centre between the two from 35 % on."""
    points = np.concatenate([cloud(240, 1), loops(160, 2)])
    assert find_bulk(points, np.random.default_rng(3)).center == pytest.approx(CENTER, abs=0.02)


def test_bad_records_among_the_benign_ones_hardly_move_the_distance() -> None:
    clean, dirty = cloud(400, 4), np.concatenate([cloud(400, 4), loops(150, 5)])
    fresh, bad = cloud(200, 6), loops(50, 7)
    scores = [fitted("mahalanobis", benign, NOTHING) for benign in (clean, dirty)]
    medians = [float(np.median(score.of_many(fresh))) for score in scores]
    assert medians[1] == pytest.approx(medians[0], rel=0.1)
    for score in scores:
        assert score.of_many(bad).min() > score.of_many(fresh).max()


def test_the_distance_grows_to_every_side() -> None:
    score = fitted("mahalanobis", cloud(300, 8), NOTHING)
    middle = score.of(Signals(*CENTER.tolist()))
    assert middle < 0.3
    for column in range(3):
        for sign in (-1, 1):
            ray = [
                CENTER + sign * step * np.sqrt(COVARIANCE[column, column]) * np.eye(3)[column]
                for step in (2, 4, 8)
            ]
            values = [score.of(Signals(*each.tolist())) for each in ray]
            assert values == sorted(values)
            assert values[0] > 1.5


def test_signals_that_never_vary_give_a_distance_all_the_same() -> None:
    """Numeric streams whose r is always 1, as most are that do not compress."""
    benign = cloud(200, 9)
    benign[:, 2] = 1.0
    score = fitted("mahalanobis", benign, NOTHING)
    assert np.median(score.of_many(benign)) < 3
    assert score.of(Signals(1.9, 0.3, 0.05)) > 5
    same = np.full((50, 3), 0.5)
    assert fitted("mahalanobis", same, NOTHING).of(Signals(0.5, 0.5, 0.5)) == 0.0


def test_where_most_agree_in_a_signal_the_rest_is_not_infinitely_far() -> None:
    """With r at 1 for two thirds, a bulk without a ridge is flat, and nothing but r would count."""
    benign = cloud(300, 10)
    benign[:200, 2] = 1.0
    benign[200:, 2] = np.random.default_rng(11).uniform(0.9, 1.0, 100)
    score = fitted("mahalanobis", benign, NOTHING)
    assert score.of_many(benign[200:]).max() < 30
    assert score.of(Signals(0.2, 0.3, 1.0)) > score.of_many(benign[:200]).max()


@pytest.mark.parametrize("name", FITTED_SCORES)
def test_a_fit_with_the_same_seed_is_the_same(name: str) -> None:
    first, again = (fitted(name, cloud(150, 12), loops(60, 13), seed=5) for _ in range(2))
    assert first == again


@pytest.mark.parametrize("name", FITTED_SCORES)
def test_too_few_signals_are_refused_with_their_number(name: str) -> None:
    assert FIT_SIGNALS_MIN == 30
    with pytest.raises(
        ScoreError, match=r"^score: found 29 benign signals to fit it to; allowed: 30 or more$"
    ):
        fitted(name, cloud(29, 14), loops(30, 15))
    assert fitted(name, cloud(30, 14), loops(30, 15)).name == name


def test_the_learned_score_needs_both_classes() -> None:
    with pytest.raises(ScoreError, match=r"^score: found 0 bad signals to fit it to; allowed: 30 or more$"):
        fitted("learned", cloud(30, 16), NOTHING)


def test_the_learned_score_is_scikit_learns_decision_function() -> None:
    benign, bad = cloud(200, 17), loops(80, 18)
    score = fitted("learned", benign, bad)
    every = np.concatenate([benign, bad])
    x, y, z = ((every - every.mean(axis=0)) / every.std(axis=0)).T
    features = np.stack([x, y, z, x**2, y**2, z**2, x * y, x * z, y * z], axis=1)
    theirs = LogisticRegression(class_weight="balanced", max_iter=1000).fit(features, [0] * 200 + [1] * 80)
    assert score.of_many(every) == pytest.approx(theirs.decision_function(features), abs=1e-6)
    assert score.of_many(bad).min() > 0 > score.of_many(benign).max()


def test_the_learned_score_does_not_extrapolate() -> None:
    benign, bad = cloud(200, 19), loops(80, 20)
    score = fitted("learned", benign, bad)
    low, high = (np.concatenate([benign, bad]).min(axis=0), np.concatenate([benign, bad]).max(axis=0))
    assert score.of(Signals(-1e300, -1e300, -1e300)) == score.of(Signals(*low.tolist()))
    assert score.of(Signals(1e300, 1e300, 1e300)) == score.of(Signals(*high.tolist()))


@given(st.tuples(st.floats(0, 4), st.floats(0, 1.05), st.floats(0, 1)))
def test_a_distance_is_that_of_exact_arithmetic(found: tuple[float, float, float]) -> None:
    parameters = '{"center":[1.9,0.3,0.6],"whitening":[5.0,3.0,20.0,-0.1,0.2,25.0]}'
    x, y, z = (Fraction(each) - Fraction(middle) for each, middle in zip(found, (1.9, 0.3, 0.6), strict=True))
    parts = (5 * x, 3 * x + 20 * y, Fraction(-0.1) * x + Fraction(0.2) * y + 25 * z)
    exact = float(sum(part * part for part in parts)) ** 0.5
    score = score_from("mahalanobis", parameters, Params())
    assert score.of(Signals(*found)) == pytest.approx(exact, abs=1.1e-9)


def test_scores_of_stored_parameters_are_these_to_the_bit() -> None:
    """What was stored a year ago on another machine must come out the same: these numbers never change."""
    center = '"center":[1.9,0.3,0.6]'
    whitening = '"whitening":[5.1,0.7,19.3,-0.1,0.2,25.7]'
    learned = (
        '"high":[3.0,1.0,1.0],"intercept":-0.7,"low":[0.0,0.0,0.0],"spread":[0.2,0.05,0.04],'
        '"weights":[-0.1,0.2,-5.3,0.05,-0.01,0.9,0.04,0.03,0.17]'
    )
    stored = [
        ("weighted", "{}", [0.464945055, 0.711477412, 0.45229099]),
        ("mahalanobis", f"{{{center},{whitening}}}", [0.0, 10.430805878, 4.908528773]),
        ("learned", f"{{{center},{learned}}}", [-0.7, 79.215833489, 2.022021063]),
    ]
    third = 0.333333333
    rows = [
        Signals(1.9, 0.3, 0.6),
        Signals(third, third, third),
        Signals(2.718281828, 0.141421356, 0.577215665),
    ]
    for name, parameters, values in stored:
        score = score_from(name, parameters, Params())
        assert [score.of(row) for row in rows] == values


def test_a_learned_score_is_scored_where_scikit_learn_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    score = fitted("learned", cloud(100, 21), loops(40, 22))
    program = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from pcs_backend.conformal.scores import score_from\n"
        "from pcs_core.params import Params\n"
        "print(score_from('learned', sys.argv[1], Params()).of((1.9, 0.3, 0.6)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, score.parameters],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert float(done.stdout) == score.of(Signals(1.9, 0.3, 0.6))
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(
        ScoreError, match=r"^score: the learned one is fitted by scikit-learn, which is not installed"
    ):
        fitted("learned", cloud(100, 21), loops(40, 22))
