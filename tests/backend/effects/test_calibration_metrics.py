"""What several workers show together: what they counted, the worst of what they see, and rates of the one that reads labels."""

from __future__ import annotations

from pcs_backend.conformal.calibration import GLOBAL_SCOPE
from pcs_backend.effects.calibration_metrics import DriftFigures, RateFigures, SetFigures
from pcs_backend.effects.metrics import Metrics
from pcs_backend.effects.totals import add_up

BENIGN = {"class": "benign", "scope": "_global"}


def together(*workers: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = add_up([each.families() for each in workers], workers[0].across)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def test_workers_add_up() -> None:
    first, second = Metrics(), Metrics()
    second.calibration.rates = {}  # as of every worker but the first
    for metrics, count in ((first, 3), (second, 4)):
        metrics.calibration.decisions["REJECT"] = count
        metrics.calibration.scores_skipped = count
        metrics.calibration.alarms["ks"] = count
        metrics.calibration.due["time"] = 1
    first.calibration.sets[GLOBAL_SCOPE] = SetFigures(2, 150, 120, 5.0)
    second.calibration.sets[GLOBAL_SCOPE] = SetFigures(1, 150, 120, 9.0)  # it did not look yet
    first.calibration.drift["plants"] = DriftFigures(0.05, 0.9, -1.5)
    second.calibration.drift["plants"] = DriftFigures(0.5, 0.001, 2.5, ks_alarm=True, martingale_alarm=True)
    first.calibration.rates[GLOBAL_SCOPE, "benign"] = RateFigures(0.2, 0.1, 0.3, 100, alarm=True)
    found = together(first, second)
    plants = ("tenant", "plants")
    assert found["flk_decisions_total", frozenset({("decision", "REJECT")})] == 7
    assert found["flk_calibration_scores_skipped_total", frozenset()] == 7
    assert found["flk_calibration_alarms_total", frozenset({("monitor", "ks")})] == 7
    assert found["flk_calibration_due", frozenset({("trigger", "time")})] == 1
    assert found["flk_calibration_set_version", frozenset({("scope", "_global")})] == 2
    assert found["flk_calibration_set_scores", frozenset(BENIGN.items())] == 150
    assert found["flk_calibration_set_age_seconds", frozenset({("scope", "_global")})] == 9
    assert found["flk_calibration_ks_distance", frozenset({plants})] == 0.5
    assert found["flk_calibration_ks_p", frozenset({plants})] == 0.001
    assert found["flk_calibration_martingale_log10", frozenset({plants})] == 2.5
    assert found["flk_calibration_drift", frozenset({plants, ("monitor", "ks")})] == 1
    rates = {
        name: found[f"flk_calibration_{name}", frozenset(BENIGN.items())]
        for name in ("error_rate", "error_rate_low", "error_rate_high", "error_labels", "miscoverage")
    }
    assert rates == {
        "error_rate": 0.2,
        "error_rate_low": 0.1,
        "error_rate_high": 0.3,
        "error_labels": 100,
        "miscoverage": 1,
    }
