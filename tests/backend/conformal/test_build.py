"""Sets of labels: which labels count, what fits a score apart from what calibrates, and why there is no threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from calibrations import labelled
from outcomes import NOW_MS
from pcs_backend.conformal.build import (
    FIT_SHARE,
    HOUR_MS,
    BuildSettings,
    Built,
    build_set,
    fits,
    is_fitting,
    lost_classes,
    report,
)
from pcs_backend.conformal.calibration import GLOBAL_SCOPE, Label, Labelled, Signals, Weighting
from pcs_backend.conformal.density_ratio import DensityRatio
from pcs_backend.conformal.scores import FITTED_SCORES, score_from
from pcs_backend.conformal.weighted import weighted_benign_thresholds
from pcs_core.params import Params

SETTINGS = BuildSettings(score="weighted")
WEIGHTED = score_from("weighted", "{}", Params())


def labels(
    count: int, label: Label = "benign", *, first: int = 0, picked: bool = False, tenant: str = "default"
) -> list[Labelled]:
    """Return labels of records that grow odder, the oddest labelled last, one a millisecond before now."""
    return [
        Labelled(
            tenant=tenant,
            pcs_id=f"{first + number:064x}",
            label=label,
            by="someone",
            signals=Signals(3.0 - 3.0 * (first + number) / 10_000, 0.5, 0.5),
            picked_by_verdict=picked,
            status=200,
            stored_at_ms=NOW_MS - HOUR_MS,
            labelled_at_ms=NOW_MS - count + number + 1,
        )
        for number in range(count)
    ]


def build(
    given: Sequence[Labelled],
    settings: BuildSettings = SETTINGS,
    scope: str = "default",
    now_ms: int = NOW_MS,
    density_ratio: DensityRatio | None = None,
) -> Built:
    return build_set(
        given,
        scope=scope,
        settings=settings,
        params=Params(),
        now_ms=now_ms,
        trigger="by_hand",
        density_ratio=density_ratio,
    )


class TestSet:
    def test_has_the_scores_of_both_classes_and_all_that_decides(self) -> None:
        given = labels(200) + labels(150, "bad", first=5_000)
        settings = BuildSettings(alpha=0.1, delta=0.02, score="weighted", method="interpolated")
        made = build(given, settings).calibration_set
        assert made is not None
        assert made.benign == tuple(sorted(WEIGHTED.of(each.signals) for each in given[:200]))
        assert made.bad == tuple(sorted(WEIGHTED.of(each.signals) for each in given[200:]))
        assert (made.scope, made.score, made.score_parameters) == (
            "default",
            "weighted",
            WEIGHTED.parameters,
        )
        assert (made.alpha, made.delta, made.method, made.trigger) == (0.1, 0.02, "interpolated", "by_hand")
        assert made.made_at_ms == NOW_MS

    def test_has_what_each_score_weighs_where_a_density_ratio_is_given(self) -> None:
        given = labels(200) + labels(150, "bad", first=5_000)
        ratio = DensityRatio("D_hat", (2.97,), (0.5, 2.0))
        built = build(given, density_ratio=ratio)
        made = built.calibration_set
        assert made is not None
        assert isinstance(made.weighting, Weighting)
        assert made.weighting.ratio == ratio
        # D̂ falls by 0.0003 a record, and the score rises: the 101 records of 2.97 and above have the lowest ones.
        assert made.weighting.benign == (2.0,) * 101 + (0.5,) * 99
        assert made.weighting.bad == (0.5,) * 150
        assert built.benign.thresholds == tuple(
            weighted_benign_thresholds(made.benign, made.weighting.benign, ratio.ratios, 0.05)
        )
        assert (built.benign.threshold, built.benign.why_none) == (None, "")
        assert made.benign == getattr(build(given).calibration_set, "benign", None)

    def test_interpolates_nothing_where_a_density_ratio_is_given(self) -> None:
        built = build(
            labels(200),
            BuildSettings(score="weighted", method="interpolated"),
            density_ratio=DensityRatio("r", (0.5,), (1.0, 2.0)),
        )
        assert (built.calibration_set, built.why_none) == (
            None,
            "a density ratio goes with order statistics alone",
        )

    def test_is_the_same_to_the_bit_in_whatever_order_labels_come(self) -> None:
        given = labels(150) + labels(120, "bad", first=5_000)
        first, second = build(given).calibration_set, build(given[::-1]).calibration_set
        assert first is not None
        assert second is not None
        assert (first.digest, first.encoded) == (second.digest, second.encoded)

    def test_thresholds_are_the_order_statistics(self) -> None:
        built = build(labels(199) + labels(119, "bad", first=5_000))
        made = built.calibration_set
        assert made is not None
        assert built.benign.threshold == made.benign[math.ceil(200 * 0.95) - 1]
        assert built.bad.threshold == made.bad[math.floor(120 * 0.05) - 1]

    def test_of_a_tenant_knows_no_label_of_another_and_the_global_one_all(self) -> None:
        given = labels(120) + labels(130, first=5_000, tenant="other")
        assert build(given).benign.scores == 120
        assert build(given, scope="other").benign.scores == 130
        built = build(given, scope=GLOBAL_SCOPE)
        assert (built.benign.scores, built.benign.why_none) == (250, "")
        assert built.calibration_set is not None
        assert built.calibration_set.scope == GLOBAL_SCOPE


class TestWhichCount:
    def test_the_newest_within_the_bound(self) -> None:
        given = labels(1_200)
        built = build(given)
        assert built.calibration_set is not None
        assert built.calibration_set.benign == tuple(
            sorted(WEIGHTED.of(each.signals) for each in given[200:])
        )
        assert (built.benign.scores, built.benign.dropped) == (1_000, 200)

    def test_those_that_came_within_the_window(self) -> None:
        given = labels(200)
        now_ms = given[50].labelled_at_ms + 24 * HOUR_MS
        built = build(given, now_ms=now_ms)
        assert (built.benign.scores, built.benign.outdated) == (150, 50)
        assert (
            build(given, BuildSettings(score="weighted", window_h=48.0), now_ms=now_ms).benign.scores == 200
        )

    def test_no_record_that_was_picked_by_its_verdict(self) -> None:
        built = build(labels(200) + labels(70, first=9_000, picked=True))
        assert (built.benign.scores, built.benign.picked) == (200, 70)

    @pytest.mark.parametrize("label", ["benign", "bad"])
    def test_each_label_is_counted_once(self, label: Label) -> None:
        given = labels(1_300, label) + labels(40, label, first=5_000, picked=True)
        for score in ("weighted", *FITTED_SCORES):
            built = build(given, BuildSettings(score=score), now_ms=given[100].labelled_at_ms + 24 * HOUR_MS)
            part = built.benign if label == "benign" else built.bad
            assert (part.outdated, part.picked) == (100, 40)
            assert part.outdated + part.picked + part.fitting + part.dropped + part.scores == 1_340


class TestMissing:
    def test_class_with_fewer_scores_than_it_takes_has_no_threshold_and_the_other_has(self) -> None:
        built = build(labels(100) + labels(99, "bad", first=5_000))
        assert (built.bad.threshold, built.bad.why_none) == (None, "99 scores; needed: 100")
        assert built.benign.why_none == ""
        assert built.calibration_set is not None

    def test_without_any_class_there_is_no_set(self) -> None:
        built = build(labels(99) + labels(99, "bad", first=5_000))
        assert (built.calibration_set, built.why_none) == (None, "no class has 100 scores")

    def test_level_that_the_scores_cannot_support_is_said(self) -> None:
        """L24: the largest score is no threshold for a level below 1/(n+1)."""
        built = build(
            labels(100) + labels(100, "bad", first=5_000),
            BuildSettings(score="weighted", alpha=0.009, delta=0.009),
        )
        assert (built.benign.threshold, built.bad.threshold) == (None, None)
        assert built.benign.why_none == "100 scores support no alpha this small: nothing would be refused"
        assert built.bad.why_none == "100 scores support no delta this small: nothing would be accepted"

    def test_what_a_new_set_would_lose_is_known(self) -> None:
        both = build(labels(100) + labels(100, "bad", first=5_000)).calibration_set
        one = build(labels(100) + labels(99, "bad", first=5_000)).calibration_set
        assert both is not None
        assert one is not None
        assert (lost_classes(both, one), lost_classes(one, both)) == (("bad",), ())

    def test_which_a_density_ratio_takes_away_is_lost(self) -> None:
        """All bad records are of a kind that comes no more, so of those that come nothing is known."""
        given = labels(150) + labels(150, "bad", first=5_000)
        built = build(given, density_ratio=DensityRatio("D_hat", (2.5,), (0.0, 1.0)))
        before = build(given).calibration_set
        assert before is not None
        assert built.calibration_set is not None
        assert built.bad.thresholds == (None, None)
        assert (
            built.bad.why_none
            == "150 scores so weighed support no delta this small: nothing would be accepted"
        )
        assert lost_classes(before, built.calibration_set) == ("bad",)


class TestFit:
    def test_parts_are_apart_and_stay_whatever_comes(self) -> None:
        given = labels(2_000)
        parts = [is_fitting(each) for each in given]
        assert parts == [is_fitting(each) for each in labels(5_000)[:2_000]]
        share = sum(parts) / 2_000
        assert abs(share - FIT_SHARE) < 4 * math.sqrt(FIT_SHARE * (1 - FIT_SHARE) / 2_000)

    @pytest.mark.parametrize("score", FITTED_SCORES)
    def test_no_record_that_fits_a_score_calibrates_it(self, score: str) -> None:
        given = labels(900) + labels(900, "bad", first=5_000)
        built = build(given, BuildSettings(score=score))
        assert built.benign.fitting == sum(is_fitting(each) for each in given[:900])
        assert built.bad.fitting == sum(is_fitting(each) for each in given[900:] if fits(score, "bad"))
        made = built.calibration_set
        assert made is not None, built.why_none
        of = score_from(made.score, made.score_parameters, Params()).of
        assert made.benign == tuple(sorted(of(each.signals) for each in given[:900] if not is_fitting(each)))
        assert made.bad == tuple(
            sorted(of(each.signals) for each in given[900:] if not fits(score, "bad") or not is_fitting(each))
        )
        assert made.digest == (build(given[::-1], BuildSettings(score=score)).calibration_set or made).digest

    @pytest.mark.parametrize("score", FITTED_SCORES)
    def test_too_few_to_fit_is_no_set_and_says_why(self, score: str) -> None:
        built = build(labels(3), BuildSettings(score=score))
        assert built.calibration_set is None
        assert built.why_none != ""
        assert built.benign.why_none == built.why_none

    def test_score_that_looks_at_benign_records_alone_leaves_all_bad_ones_to_calibrate(self) -> None:
        assert [fits(score, "bad") for score in ("weighted", "mahalanobis", "learned")] == [
            False,
            False,
            True,
        ]
        assert [fits(score, "benign") for score in ("weighted", "mahalanobis", "learned")] == [
            False,
            True,
            True,
        ]

    def test_weighted_score_is_fitted_to_nothing(self) -> None:
        assert build(labels(200)).benign.fitting == 0


class TestReport:
    def test_shows_what_records_picked_by_their_verdicts_would_do(self) -> None:
        """The oddest benign records are the ones a verdict picks: with them the threshold moves up."""
        found = report(
            labels(200) + labels(100, first=5_000, picked=True),
            scope="default",
            settings=SETTINGS,
            params=Params(),
            now_ms=NOW_MS,
        )
        assert (found.built.benign.scores, found.with_picked.benign.scores) == (200, 300)
        assert (found.built.benign.picked, found.with_picked.benign.picked) == (100, 0)
        assert found.built.benign.threshold is not None
        assert found.with_picked.benign.threshold is not None
        assert found.with_picked.benign.threshold > found.built.benign.threshold + 0.1

    def test_stored_labels_are_taken_as_they_are(self) -> None:
        given = [labelled(number, labelled_at_ms=NOW_MS) for number in range(300)]
        built = build(given)
        assert (built.benign.scores, built.benign.picked) == (150, 150)
