"""r on symbols: independent of length for independent symbols, low for loops, and 0.1's where that is asked for."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcs_agent.errors import ConfigError
from pcs_agent.signals import (
    ArrayBlocks,
    SignalSettings,
    compute_compressibility_pq,
    compute_signals,
)
from pcs_agent.signals.quantise import bytes_compressibility, rows_compressibility
from pcs_agent.signals.symbol_entropy import (
    SHUFFLED_SYMBOLS_MAX,
    SymbolStream,
    histogram_entropy,
    shuffled_size,
)
from pcs_agent.signals.training import train_codebook

LENGTHS = (20, 50, 100, 200, 500, 2000)
SEED = 42


def shares(name: str) -> np.ndarray:
    """Histograms: equal shares, or falling as 1/rank, over so many symbols."""
    kind, size = name.split()
    weights = np.ones(int(size)) if kind == "equal" else 1 / np.arange(1, int(size) + 1)
    return weights / weights.sum()


def draw(rng: np.random.Generator, weights: np.ndarray, length: int) -> bytes:
    return rng.choice(len(weights), length, p=weights).astype(np.uint8).tobytes()


def auroc(low: list[float], high: list[float]) -> float:
    """The chance that one of the first is below one of the second, ties counted half."""
    below = [(a < b) + 0.5 * (a == b) for a in low for b in high]
    return sum(below) / len(below)


@pytest.mark.parametrize(
    ("name", "band"),
    [("equal 2", 0.02), ("equal 16", 0.02), ("equal 64", 0.05), ("equal 256", 0.06), ("rank 64", 0.06)],
)
def test_r_of_independent_symbols_does_not_depend_on_their_number(name: str, band: float) -> None:
    """The mean at any length stays within the band around the entropy; zlib's ratio is up to half a unit away."""
    weights = shares(name)
    entropy = -float((weights * np.log2(weights)).sum()) / 8
    rng = np.random.default_rng(0)
    for length in LENGTHS:
        found = [bytes_compressibility(draw(rng, weights, length), SEED) for _ in range(4000 // length + 10)]
        assert np.mean(found) == pytest.approx(entropy, abs=band), length
    plain = draw(rng, weights, 20)
    assert len(zlib.compress(plain, 6)) / len(plain) > entropy + 0.3


def test_a_histogram_with_a_long_tail_is_underestimated_in_short_streams_by_no_more_than_stated() -> None:
    weights = shares("rank 256")
    entropy = -float((weights * np.log2(weights)).sum()) / 8
    rng = np.random.default_rng(0)
    for length in LENGTHS:
        found = np.mean([bytes_compressibility(draw(rng, weights, length), SEED) for _ in range(40)])
        assert entropy - 0.14 < found < entropy + 0.02, length


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("period", [2, 5, 10])
def test_a_loop_is_below_every_healthy_stream_of_its_length(length: int, period: int) -> None:
    rng = np.random.default_rng(length)
    weights = shares("rank 64")
    healthy = [bytes_compressibility(draw(rng, weights, length), SEED) for _ in range(30)]
    loops = [bytes_compressibility((draw(rng, weights, period) * length)[:length], SEED) for _ in range(30)]
    assert max(loops) < min(healthy)


@pytest.mark.parametrize("length", [20, 50, 200, 1000])
@pytest.mark.parametrize("dimensions", [2, 32])
def test_a_loop_of_rows_with_noise_is_found_where_zlib_sees_none(length: int, dimensions: int) -> None:
    """Ten places in turn, each time a twentieth of their spread off: the doubles repeat nowhere."""
    rng = np.random.default_rng(1)

    def healthy() -> np.ndarray:
        return rng.normal(size=(length, dimensions))

    def loop() -> np.ndarray:
        places = rng.normal(size=(10, dimensions))[np.arange(length) % 10]
        return places + 0.05 * rng.normal(size=places.shape)

    rows = [healthy() for _ in range(8)], [loop() for _ in range(8)]
    high, low = ([compute_compressibility_pq(each) for each in kind] for kind in rows)
    plain = [
        [compute_signals(each, SignalSettings(r_method="zlib", directions=1)).r for each in kind]
        for kind in rows
    ]
    assert auroc(low, high) > 0.95
    assert abs(np.mean(plain[0]) - np.mean(plain[1])) < 0.005
    assert np.mean(plain[1]) > 0.9


@pytest.mark.parametrize("dimensions", [1, 3, 64])
def test_r_of_independent_rows_with_a_codebook_does_not_depend_on_their_number(dimensions: int) -> None:
    rng = np.random.default_rng(2)
    book = train_codebook(ArrayBlocks(rng.normal(size=(2000, dimensions))), codes=64, seed=SEED)
    for length in (20, 100, 2000):
        found = [
            rows_compressibility(ArrayBlocks(rng.normal(size=(length, dimensions))), book, SEED)
            for _ in range(2000 // length + 3)
        ]
        assert np.mean(found) == pytest.approx(0.96, abs=0.05), length


@given(st.binary(min_size=1, max_size=400), st.integers(0, 2**63 - 1))
@settings(deadline=None)
def test_r_stays_within_0_and_1(symbols: bytes, seed: int) -> None:
    assert 0 <= bytes_compressibility(symbols, seed) <= 1


@given(st.binary(min_size=1, max_size=3000), st.lists(st.integers(0, 3000), max_size=5))
@settings(deadline=None)
def test_pieces_of_any_size_give_the_same(symbols: bytes, cuts: list[int]) -> None:
    whole = np.frombuffer(symbols, dtype=np.uint8)
    stream = SymbolStream()
    for piece in np.split(whole, sorted(min(cut, len(whole)) for cut in cuts)):
        stream.feed(piece)
    assert min(1.0, stream.bits_a_symbol(SEED) / 8) == bytes_compressibility(symbols, SEED)


def test_constants_compress_to_nothing() -> None:
    assert bytes_compressibility(b"a" * 20, SEED) == 0.0
    assert bytes_compressibility(b"a", SEED) == 0.0
    assert compute_compressibility_pq(np.full((50, 9), 2.5)) == 0.0


def test_the_entropy_of_a_histogram_is_chao_and_shens() -> None:
    """Five symbols once, one five times: coverage 1 − 5/10, each term over the chance to have been seen in ten draws."""
    counts = np.array([1, 1, 0, 1, 1, 1, 5])
    terms = [share * 0.5 for share in (0.1, 0.1, 0.1, 0.1, 0.1, 0.5)]
    expected = sum(-p * math.log2(p) / (1 - (1 - p) ** 10) for p in terms)
    assert histogram_entropy(counts) == pytest.approx(expected, rel=1e-12)
    assert histogram_entropy(np.full(7, 10**6)) == pytest.approx(math.log2(7), abs=1e-5)
    assert histogram_entropy(np.zeros(5, dtype=np.int64)) == 0.0


def test_a_long_stream_is_compared_with_a_part_of_its_histogram_in_proportion() -> None:
    counts = np.zeros(256, dtype=np.int64)
    counts[:4] = [1, 100_000, 50_001, 70_000]
    short = counts * SHUFFLED_SYMBOLS_MAX // counts.sum()
    rate = shuffled_size(short, SEED) / short.sum()
    assert shuffled_size(counts, SEED) / counts.sum() == pytest.approx(rate, rel=0.01)
    assert shuffled_size(counts, SEED) == shuffled_size(counts, SEED)


def test_methods_name_what_was_used() -> None:
    rows = np.random.default_rng(3).normal(size=(200, 12))
    own = compute_signals(rows, SignalSettings(directions=1)).methods["r"]
    assert own.pop("codebook") != ""
    assert own == {"name": "pq-lz-1", "trained": "here", "subspaces": 8, "codes": 16, "symbols": 1600}
    book = train_codebook(ArrayBlocks(rows), subspaces=3, codes=32, seed=5)
    given_one = compute_signals(rows, SignalSettings(directions=1, codebook=book))
    assert given_one.methods["r"] == {
        "name": "pq-lz-1",
        "codebook": book.digest[:32],
        "trained": "apart",
        "subspaces": 3,
        "codes": 32,
        "symbols": 600,
    }
    assert given_one.r == compute_compressibility_pq(rows, codebook=book)
    text = b"the cat sat on the mat "
    of_text = compute_signals(rows[:2], SignalSettings(directions=1), leaves=[b"a", b"b"], symbols=text)
    assert of_text.methods["r"] == {"name": "bytes-lz-1", "symbols": len(text)}
    assert of_text.r == bytes_compressibility(text, SEED)


def test_fewer_rows_than_train_a_codebook_have_the_ratio_of_zlib_and_name_no_method() -> None:
    rows = np.random.default_rng(4).normal(size=(20, 2))
    assert "r" in compute_signals(rows, SignalSettings()).methods
    few = compute_signals(rows[:19], SignalSettings())
    assert "r" not in few.methods
    assert few.r == compute_signals(rows[:19], SignalSettings(r_method="zlib")).r
    book = train_codebook(ArrayBlocks(rows), seed=SEED)
    assert compute_signals(rows[:5], SignalSettings(codebook=book)).methods["r"]["name"] == "pq-lz-1"


def test_a_codebook_for_other_columns_is_refused() -> None:
    book = train_codebook(ArrayBlocks(np.random.default_rng(0).random((30, 5))), seed=SEED)
    with pytest.raises(
        ConfigError, match=r"--codebook: found one for 5 columns, and rows of 2; allowed: as many"
    ):
        compute_signals(np.random.default_rng(0).random((30, 2)), SignalSettings(codebook=book))
