"""Codebooks are exact: the nearest centroid by whole numbers, whatever multiplies, in whatever blocks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pcs_agent.signals import ArrayBlocks, product_quantize_embeddings
from pcs_agent.signals.codebook import COORDINATE_MAX, Codebook, cut_columns, nearest_centroids, place_on_grid
from pcs_agent.signals.quantise import own_codes, rows_compressibility
from pcs_agent.signals.training import (
    ROUNDS_MAX,
    SAMPLE_ROWS_MAX,
    sample_indices,
    sample_rows,
    train_codebook,
)

grids = hnp.arrays(np.float64, st.tuples(st.integers(1, 30), st.just(3)), elements=st.integers(-9, 9))
lines = hnp.arrays(np.float64, st.tuples(st.integers(1, 30), st.just(1)), elements=st.integers(-9, 9))


class SmallBlocks:
    """The same rows in blocks of another size."""

    def __init__(self, rows: np.ndarray, size: int) -> None:
        self._rows, self._size = rows, size

    @property
    def dimensions(self) -> int:
        return self._rows.shape[1]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[np.ndarray]:
        for first in range(0, len(self._rows), self._size):
            yield self._rows[first : first + self._size]


def oracle(grid: np.ndarray, centroids: np.ndarray) -> list[int]:
    """Nearest by Python's own integers, the first of several."""
    places = [[int(number) for number in row] for row in centroids]
    nearest = []
    for row in grid:
        point = [int(number) for number in row]
        distances = [sum((a - b) ** 2 for a, b in zip(point, place, strict=True)) for place in places]
        nearest.append(distances.index(min(distances)))
    return nearest


@given(grids, grids)
@settings(deadline=None)
def test_the_nearest_is_found_and_the_first_of_several(grid: np.ndarray, places: np.ndarray) -> None:
    centroids = np.unique(places, axis=0).astype(np.int32)
    assert nearest_centroids(grid, centroids).tolist() == oracle(grid, centroids)


@given(lines, lines)
@settings(deadline=None)
def test_the_same_on_a_line(grid: np.ndarray, places: np.ndarray) -> None:
    centroids = np.unique(places, axis=0).astype(np.int32)
    assert nearest_centroids(grid, centroids).tolist() == oracle(grid, centroids)


def test_distances_are_exact_with_4096_columns_at_the_edges_of_the_grid() -> None:
    """Two centroids differ by one step in one of 4096 columns, all else at the greatest coordinates."""
    rng = np.random.default_rng(0)
    signs = rng.choice([-1, 1], size=(20, 4096))
    grid = (signs * COORDINATE_MAX).astype(np.float64)
    centroids = np.repeat(-signs[:1] * COORDINATE_MAX, 3, axis=0)
    centroids[1, 4095] -= signs[0, 4095] * -1
    centroids[2, 0] -= signs[0, 0] * -2
    centroids = np.unique(np.concatenate([centroids, signs[:4] * (COORDINATE_MAX - 1)]), axis=0).astype(
        np.int32
    )
    assert nearest_centroids(grid, centroids).tolist() == oracle(grid, centroids)


@pytest.mark.parametrize(("dimensions", "subspaces"), [(1, 1), (7, 7), (8, 8), (20, 8), (4096, 64)])
def test_columns_are_cut_as_evenly_as_they_go(dimensions: int, subspaces: int) -> None:
    cut = [np.arange(dimensions)[columns] for columns in cut_columns(dimensions, subspaces)]
    expected = np.array_split(np.arange(dimensions), subspaces)
    assert [part.tolist() for part in cut] == [part.tolist() for part in expected]


def lloyd(grid: list[list[int]], centroids: list[list[int]]) -> list[list[int]]:
    """k-means in plain Python: assign, average and round, order."""
    for _ in range(ROUNDS_MAX):
        nearest = oracle(np.array(grid), np.array(centroids))
        moved = []
        for index, place in enumerate(centroids):
            members = [row for row, code in zip(grid, nearest, strict=True) if code == index]
            moved.append(
                [round(sum(column) / len(members)) for column in zip(*members, strict=True)]
                if members
                else place
            )
        distinct = sorted({tuple(place) for place in moved})
        if [list(place) for place in distinct] == centroids:
            break
        centroids = [list(place) for place in distinct]
    return centroids


@pytest.mark.parametrize("seed", range(3))
def test_training_agrees_with_plain_python(seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(60, 5))
    trained = train_codebook(ArrayBlocks(rows), subspaces=2, codes=6, seed=seed)
    bits = np.random.PCG64(seed)
    for subspace, columns in enumerate(cut_columns(5, 2)):
        part = rows[:, columns]
        assert trained.steps[subspace] == max(np.ptp(part, axis=0)) / 2 / 2**17
        np.testing.assert_allclose(trained.origins[columns], (part.max(axis=0) + part.min(axis=0)) / 2)
        grid = place_on_grid(part, trained.origins[columns], trained.steps[subspace]).astype(int).tolist()
        keys = bits.random_raw(60).tolist()
        chosen = [grid[index] for index in sorted(range(60), key=lambda index: keys[index])[:6]]
        assert trained.centroids[subspace].tolist() == lloyd(grid, sorted(chosen))


def test_training_brings_centroids_nearer_than_the_rows_it_began_with() -> None:
    rows = np.random.default_rng(1).normal(size=(4000, 8))
    trained = train_codebook(ArrayBlocks(rows), subspaces=1, codes=64, seed=1)
    grid = place_on_grid(rows, trained.origins, float(trained.steps[0]))
    first = np.unique(grid[:64], axis=0).astype(np.int32)

    def error(centroids: np.ndarray) -> float:
        return float(((grid - centroids[nearest_centroids(grid, centroids)]) ** 2).sum())

    assert error(trained.centroids[0]) < 0.9 * error(first)


def test_with_fewer_distinct_rows_than_codes_every_distinct_row_has_its_own() -> None:
    rows = np.random.default_rng(2).normal(size=(10, 4))[np.arange(50) % 10]
    codes = product_quantize_embeddings(rows)
    assert codes.shape == (50, 4)  # fewer columns than subspaces: each is one
    assert len(np.unique(codes, axis=0)) == 10
    np.testing.assert_array_equal(codes[:10], codes[10:20])


@pytest.mark.parametrize("size", [1, 7, 1000, 5000])
def test_blocks_of_any_size_give_the_same(size: int) -> None:
    rows = np.random.default_rng(3).normal(size=(3 * SAMPLE_ROWS_MAX // 2, 9))[: 1500 if size < 10 else None]
    whole = train_codebook(ArrayBlocks(rows), codes=16, seed=7)
    blocks = SmallBlocks(rows, size)
    assert train_codebook(blocks, codes=16, seed=7).digest == whole.digest
    assert rows_compressibility(blocks, whole, 7) == rows_compressibility(ArrayBlocks(rows), whole, 7)
    np.testing.assert_array_equal(whole.encode(rows[:size]), whole.encode(rows)[:size])


def test_any_number_of_threads_gives_the_same() -> None:
    script = (
        "import numpy as np; from pcs_agent.signals import ArrayBlocks; "
        "from pcs_agent.signals.training import train_codebook; "
        "from pcs_agent.signals.quantise import rows_compressibility; "
        "rows = ArrayBlocks(np.random.default_rng(0).normal(size=(2500, 100))); "
        "book = train_codebook(rows, codes=64, seed=1); print(book.digest, rows_compressibility(rows, book, 1))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(found) == 1
    assert len(found.pop().split()[0]) == 64


def test_another_seed_or_row_is_another_codebook() -> None:
    rows = np.random.default_rng(4).normal(size=(500, 8))
    digests = {train_codebook(ArrayBlocks(rows), codes=16, seed=seed).digest for seed in (0, 0, 1)}
    rows[7, 3] += 0.5
    digests.add(train_codebook(ArrayBlocks(rows), codes=16, seed=0).digest)
    assert len(digests) == 3


@given(st.integers(1, 10**12), st.integers(0, 2**63 - 1))
@settings(deadline=None, max_examples=30)
def test_one_row_of_each_stretch_is_sampled(count: int, seed: int) -> None:
    chosen = sample_indices(count, seed)
    if count <= SAMPLE_ROWS_MAX:
        assert chosen.tolist() == list(range(count))
        return
    edges = [index * count // SAMPLE_ROWS_MAX for index in range(SAMPLE_ROWS_MAX + 1)]
    assert len(chosen) == SAMPLE_ROWS_MAX
    assert (chosen >= edges[:-1]).all()
    assert (chosen < edges[1:]).all()


def test_the_sample_is_the_rows_at_the_chosen_places() -> None:
    rows = np.arange(3 * SAMPLE_ROWS_MAX, dtype=np.float64)[:, np.newaxis]
    expected = rows[sample_indices(len(rows), 5)]
    np.testing.assert_array_equal(sample_rows(SmallBlocks(rows, 1001), 5), expected)
    assert not np.array_equal(sample_rows(ArrayBlocks(rows), 6), expected)


@pytest.mark.parametrize(
    "rows",
    [
        np.full((30, 3), 7.25),
        np.array([[-1.7e308], [1.7e308]] * 15),
        np.array([[0.0], [1e-320]] * 15),
        np.array([[0.0, 1e-300], [1e300, 0.0]] * 15),
    ],
)
def test_extreme_rows_are_coded_and_told_apart(rows: np.ndarray) -> None:
    codes = product_quantize_embeddings(rows)
    assert len(np.unique(codes, axis=0)) == len(np.unique(rows, axis=0))


def test_rows_far_outside_the_sample_get_the_code_of_the_edge() -> None:
    trained = train_codebook(ArrayBlocks(np.arange(100.0)[:, np.newaxis]), codes=4, seed=0)
    assert trained.encode(np.array([[-1e308], [1e308], [0.0], [99.0]])).ravel().tolist() == [0, 3, 0, 3]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda rows: train_codebook(rows, subspaces=0, seed=0), "subspaces: found 0; allowed: 1 to 64"),
        (lambda rows: train_codebook(rows, codes=257, seed=0), "codes: found 257; allowed: 2 to 256"),
        (lambda rows: product_quantize_embeddings([[1.0]], codebook_bits=9), "codebook_bits: found 9"),
        (lambda rows: product_quantize_embeddings([[float("nan")]]), "embeddings: allowed: finite"),
        (lambda rows: product_quantize_embeddings(np.empty((0, 3))), "embeddings: allowed: finite"),
        (lambda rows: train_codebook(ArrayBlocks(np.empty((0, 3))), seed=0), "rows: found none"),
    ],
)
def test_what_is_out_of_range_is_refused(call: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(ArrayBlocks(np.ones((5, 2))))


def test_rows_of_other_columns_are_refused() -> None:
    trained = train_codebook(ArrayBlocks(np.random.default_rng(0).random((30, 5))), codes=4, seed=0)
    with pytest.raises(ValueError, match=r"allowed: 5 columns"):
        trained.encode(np.ones((3, 4)))


def test_the_alphabet_of_a_streams_own_codebook_is_about_the_root_of_its_rows() -> None:
    for rows in (4, 20, 63, 64, 5000, 60_000):
        assert own_codes(rows) / rows**0.5 == pytest.approx(1.0, abs=0.42)
    assert (own_codes(1), own_codes(10**9)) == (2, 256)


def test_a_digest_names_everything_that_changes_a_code() -> None:
    book = train_codebook(ArrayBlocks(np.random.default_rng(0).random((30, 2))), codes=4, seed=0)
    moved = (book.centroids[0] + 1, book.centroids[1])
    others = [
        Codebook(book.codes, book.seed, book.training_rows, book.origins + 1, book.steps, book.centroids),
        Codebook(book.codes, book.seed, book.training_rows, book.origins, book.steps * 2, book.centroids),
        Codebook(book.codes, book.seed, book.training_rows, book.origins, book.steps, moved),
        Codebook(5, book.seed, book.training_rows, book.origins, book.steps, book.centroids),
    ]
    assert len({book.digest, *(other.digest for other in others)}) == 5
