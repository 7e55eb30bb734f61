"""The evaluation's own instruments: formula, intervals, streams, baselines, a small run, and the committed results."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm

from evaluate import page, picture, results, tuning, verdicts
from evaluate.auroc import auroc, interval
from evaluate.measure import (
    PQ_SIGNALS,
    SIGNALS,
    by_kind,
    measure_all,
    rows_of,
    train_codebooks,
)
from evaluate.scoring import add_scores, fit_scores
from evaluate.sources import TEST, TUNING, words_of
from evaluate.streams import HEALTHY, LENGTHS, LOOP_PERIODS, Source, Stream, build, kinds_for, source_of
from pcs_backend.conformal.scores import DEFAULT_SCORE, FITTED_SCORES, SCORES
from pcs_backend.conformal.thresholds import benign_threshold

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "evaluation.md"


def bare(stream: Stream) -> list[str]:
    return [word.removesuffix(".") for word in stream.words]


def is_passage(words: list[str], source: Source) -> bool:
    """Whether the words stand one after the other in the text."""
    joined, text = f" {' '.join(words)} ", f" {' '.join(source.words)} "
    return joined in text


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    """Texts that the repository itself carries, so that nothing is fetched."""
    decisions = " ".join(
        path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs/adr").glob("*.md"))
    )
    pages = " ".join(
        (ROOT / "docs" / name).read_text(encoding="utf-8")
        for name in ("operations.md", "security.md", "configuration.md", "durability.md", "deploy.md")
    )
    return [source_of("decisions", words_of(decisions)), source_of("pages", words_of(pages))]


def test_auroc_is_mann_whitneys_u_over_all_pairs_ties_included() -> None:
    rng = np.random.default_rng(1)
    for decimals in (0, 1, 6):
        bad, good = rng.normal(0.7, 1, 53).round(decimals), rng.normal(0, 1, 38).round(decimals)
        assert auroc(bad, good) == pytest.approx(mannwhitneyu(bad, good).statistic / (53 * 38), abs=1e-12)
    assert auroc(np.array([3.0]), np.array([1.0, 2.0])) == 1
    assert auroc(np.array([1.0, 1.0]), np.array([1.0])) == 0.5


def test_bootstrap_intervals_cover_the_true_value_as_often_as_they_say() -> None:
    truth = norm.cdf(1 / np.sqrt(2))  # of two normal distributions one standard deviation apart
    rng = np.random.default_rng(2)
    covered = 0
    for trial in range(300):
        found = interval(rng.normal(1, 1, 45), rng.normal(0, 1, 60), trial, resamples=300)
        assert found.low <= found.auroc <= found.high
        covered += found.low <= truth <= found.high
    assert 0.90 <= covered / 300 <= 0.98


def test_every_stream_of_a_length_has_that_many_tokens_and_comes_again_with_its_seed(
    sources: list[Source],
) -> None:
    for length in LENGTHS[:4]:
        for kind in kinds_for(length):
            streams = build(sources, kind, length, 6, 1)
            assert {len(stream.words) for stream in streams} == {length}
            assert streams == build(sources, kind, length, 6, 1)
            assert streams != build(sources, kind, length, 6, 2)


def test_a_healthy_stream_is_a_passage_and_a_shuffled_one_only_its_words(sources: list[Source]) -> None:
    for healthy, source in zip(build(sources, HEALTHY, 100, 2, 3), sources, strict=True):
        assert is_passage(bare(healthy), source)
    for shuffled, source in zip(build(sources, "shuffled", 100, 2, 3), sources, strict=True):
        assert not is_passage(bare(shuffled)[:10], source)
        assert set(bare(shuffled)) <= set(source.words)


@pytest.mark.parametrize("period", LOOP_PERIODS)
def test_a_loop_has_its_period_and_its_phrase_is_from_the_text(sources: list[Source], period: int) -> None:
    for stream, source in zip(build(sources, f"loop {period}", 200, 2, 4), sources, strict=True):
        words = bare(stream)
        assert words[period:] == words[:-period]
        assert is_passage(words[:period], source)


def test_a_drift_changes_its_source_where_it_says(sources: list[Source]) -> None:
    streams = build(sources, "drift", 100, 20, 5)
    assert {stream.source for stream in streams} == {"decisions to pages", "pages to decisions"}
    for number, stream in enumerate(streams):
        first, second = sources[number % 2], sources[1 - number % 2]
        assert 35 <= stream.change <= 65
        assert is_passage(bare(stream)[: stream.change], first)
        assert is_passage(bare(stream)[stream.change :], second)
    assert len({stream.change for stream in streams}) > 5


def test_truncated_sentences_follow_one_another_without_their_second_halves() -> None:
    words = " ".join(f"a{number} b{number} c{number} d{number} e{number}." for number in range(600)).split()
    (stream,) = build([source_of("counted", words), source_of("other", words)], "truncated", 30, 1, 6)
    names = bare(stream)
    assert [name[0] for name in names] == ["a", "b", "c"] * 10
    numbers = [int(name[1:]) for name in names[::3]]
    assert numbers == list(range(numbers[0], numbers[0] + 10))


def test_random_words_are_of_the_vocabulary_and_no_longer_than_healthy_ones(sources: list[Source]) -> None:
    (stream, _) = build(sources, "random", 200, 2, 7)
    assert set(bare(stream)) <= set(sources[0].words)
    assert len(set(bare(stream))) > 150
    assert not is_passage(bare(stream)[:6], sources[0])


def test_neither_length_nor_the_number_of_sentences_tells_the_kind(sources: list[Source]) -> None:
    for length in (50, 200):
        by = {kind: build(sources, kind, length, 300, 8) for kind in kinds_for(length)}
        sentences = {
            kind: np.array([float(stream.sentences) for stream in streams]) for kind, streams in by.items()
        }
        for kind, found in sentences.items():
            assert auroc(found, sentences[HEALTHY]) == pytest.approx(0.5, abs=0.08), kind
            assert found.std() > 0


def test_a_small_run_from_streams_to_page_and_picture(sources: list[Source], tmp_path: Path) -> None:
    codebooks = train_codebooks(build(sources, HEALTHY, 200, 2, 10))
    kinds = (HEALTHY, "loop 10", "drift", "random")
    built = [stream for kind in kinds for stream in build(sources, kind, 100, 16, 11)]
    other = [stream for kind in kinds for stream in build(sources, kind, 100, 30, 12)]
    fits = fit_scores(by_kind(other, measure_all(other, None, jobs=2)))
    values = add_scores(by_kind(built, measure_all(built, codebooks, jobs=1)), fits)
    decided = tuning.decide({tuning.FIRST_LOOK_LENGTH: values}, {tuning.FIRST_LOOK_LENGTH: fits})
    rows = results.judge({tuning.FIRST_LOOK_LENGTH: values}, decided)
    found = {(row.kind, row.signal): row for row in rows}

    loop = found["loop 10", "r"]
    assert (loop.bad_when, loop.bad_streams, loop.healthy_streams) == ("low", 16, 16)
    assert loop.auroc > 0.99
    assert all(found["loop 10", name].auroc > 0.95 for name in PQ_SIGNALS)
    assert {found[kind, "length"].auroc for kind in kinds[1:]} == {0.5}
    assert {signal for _, signal in found} >= {*SIGNALS, *PQ_SIGNALS, *SCORES}
    assert found["loop 10", "mahalanobis"].auroc > 0.99
    assert {row.bad_when for row in rows if row.signal in SCORES} == {"high"}
    assert ("loop 10", "learned without loop") in found
    assert ("drift", "learned without loop") not in found
    assert set(decided.score_means) == set(SCORES)
    assert decided.default_score == max(decided.score_means, key=lambda name: decided.score_means[name])

    every = (verdicts.ALL, kinds[1:])
    decisions = verdicts.decide(values, values, 100, verdicts.SAME, every)
    decisions += verdicts.decide(values, values, 100, verdicts.SAME, (verdicts.SEEN, ("loop 10",)))
    decisions += [msgspec.structs.replace(row, calibrated_on=verdicts.OTHER) for row in decisions]
    verdicts.write(tmp_path / verdicts.FILE, decisions)
    assert verdicts.read(tmp_path / verdicts.FILE) == decisions

    run = results.describe("a test", len(built), 1.0, decided.texts, tuning.pin(TEST))
    results.write(tmp_path, rows, run)
    assert results.read(tmp_path) == (rows, run)
    written = tmp_path / "evaluation.md"
    written.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n", encoding="utf-8")
    page.write_tables(written, rows, run, decided, decisions)
    text = written.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert f"| loop 10 | {decided.first_look['loop 10']} | " in text
    picture.draw(tmp_path / "picture.svg", rows)
    assert (tmp_path / "picture.svg").read_text(encoding="utf-8").count("<polyline") == 3 * len(picture.LINES)


def test_more_processes_measure_the_same(sources: list[Source]) -> None:
    codebooks = train_codebooks(build(sources, HEALTHY, 200, 2, 12))
    built = build(sources, HEALTHY, 50, 4, 13)
    alone, together = (measure_all(built, codebooks, jobs) for jobs in (1, 2))
    assert {name: list(each) for name, each in alone.items()} == {
        name: list(each) for name, each in together.items()
    }


def test_rows_are_those_of_the_agents_text_source(sources: list[Source]) -> None:
    (stream,) = build(sources, HEALTHY, 50, 1, 14)
    leaves, rows = rows_of(stream)
    assert b"".join(leaves).decode() == " ".join(stream.words)
    assert rows.shape == (len(leaves), 64)


def test_tuning_and_test_share_no_package_and_directions_are_of_the_tuning_texts() -> None:
    assert not {text.package for text in TUNING} & {text.package for text in TEST}
    assert not {text.sha256 for text in TUNING} & {text.sha256 for text in TEST}
    assert tuning.read().texts == tuning.pin(TUNING)


def test_decisions_follow_from_the_thresholds_of_both_classes() -> None:
    calibration = {HEALTHY: {name: np.arange(100.0) for name in SCORES}}
    calibration["bad"] = {name: np.arange(60.0, 160.0) for name in SCORES}
    judged = {HEALTHY: {name: np.array([63.0, 64.0, 80.0, 94.0, 95.0]) for name in SCORES}}
    rows = verdicts.decide(calibration, judged, 50, verdicts.SAME, (verdicts.ALL, ["bad"]))
    row = next(row for row in rows if row.score == DEFAULT_SCORE and row.level == 0.05)
    # Benign: the 96th of 100 smallest, 95. Bad: the 5th smallest, 64.
    assert (row.accepted, row.refused, row.above, row.below) == (1, 0, 0, 1)
    crossed = verdicts.decide(
        {HEALTHY: calibration[HEALTHY], "bad": {name: np.arange(200.0, 300.0) for name in SCORES}},
        {"bad": {name: np.array([95.0, 96.0, 203.0, 204.0]) for name in SCORES}},
        50,
        verdicts.SAME,
        (verdicts.ALL, ["bad"]),
    )
    row = next(row for row in crossed if row.score == DEFAULT_SCORE and row.level == 0.05)
    assert (row.accepted, row.refused, row.above, row.below) == (1, 1, 3, 3)


def test_rates_to_expect_are_those_of_simulated_calibrations() -> None:
    rng = np.random.default_rng(3)
    low, high = verdicts.expected_range(200, 300, 0.05)
    inside = 0
    for _ in range(2_000):
        threshold = benign_threshold(sorted(rng.random(200).tolist()), 0.05)
        inside += low <= float((rng.random(300) > threshold).mean()) <= high
    assert 0.94 <= inside / 2_000 <= 0.98
    assert 0 < low < 0.05 < high


def test_the_default_score_is_the_one_that_tuning_chose() -> None:
    decided = tuning.read()
    assert decided.default_score == DEFAULT_SCORE
    assert set(decided.fits) == {str(length) for length in LENGTHS}
    assert all(set(FITTED_SCORES) < set(fits) for fits in decided.fits.values())


def test_calibrated_on_the_same_texts_the_gate_errs_as_often_as_theory_says() -> None:
    every = verdicts.read(ROOT / "docs" / "evaluation" / verdicts.FILE)
    same = [row for row in every if (row.calibrated_on, row.bad_kinds) == (verdicts.SAME, verdicts.ALL)]
    assert len({(row.length, row.score, row.level) for row in same}) == 2 * 3 * 3
    for length, score, level in {(row.length, row.score, row.level) for row in same}:
        rows = [row for row in same if (row.length, row.score, row.level) == (length, score, level)]
        healthy, *bad = rows
        low, high = verdicts.expected_range(healthy.benign_scores, healthy.streams, level, 0.999)
        assert low <= healthy.above / healthy.streams <= high
        judged = sum(row.streams for row in bad)
        low, high = verdicts.expected_range(healthy.bad_scores, judged, level, 0.999)
        assert low <= sum(row.below for row in bad) / judged <= high


def test_committed_results_are_of_this_code_and_the_page_shows_them(tmp_path: Path) -> None:
    rows, run = results.read(ROOT / "docs" / "evaluation")
    assert run.digest == tuning.digest()
    assert run.streams >= 2_000
    assert {row.length for row in rows} == set(LENGTHS)
    assert (run.tuned_on, run.tested_on) == (tuning.pin(TUNING), tuning.pin(TEST))
    copy = tmp_path / "evaluation.md"
    copy.write_bytes(PAGE.read_bytes())
    decisions = verdicts.read(ROOT / "docs" / "evaluation" / verdicts.FILE)
    assert {row.length for row in decisions} == set(verdicts.LENGTHS)
    page.write_tables(copy, rows, run, tuning.read(), decisions)
    assert copy.read_bytes() == PAGE.read_bytes()
    picture.draw(tmp_path / "evaluation.svg", rows)
    assert (tmp_path / "evaluation.svg").read_bytes() == (ROOT / "docs/pictures/evaluation.svg").read_bytes()


def test_baselines_of_the_committed_results_know_nothing_of_the_kind() -> None:
    rows, _ = results.read(ROOT / "docs" / "evaluation")
    assert {row.auroc for row in rows if row.signal == "length"} == {0.5}
    sentences = [row.auroc for row in rows if row.signal == "sentences"]
    assert max(abs(each - 0.5) for each in sentences) < 0.15
    assert re.search(r"^\| kind \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
