"""What a count of errors says of a promised rate, and what it does not say yet."""

from __future__ import annotations

import pytest
import scipy.stats

from pcs_backend.conformal.coverage import measure_coverage


@pytest.mark.parametrize("trials", [1, 2, 20, 137, 5000])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_the_interval_is_clopper_and_pearsons(trials: int, confidence: float) -> None:
    for errors in sorted({0, 1, trials // 20, trials // 2, trials - 1, trials}):
        found = measure_coverage(errors, trials, 0.05, confidence)
        wanted = scipy.stats.binomtest(errors, trials).proportion_ci(confidence, method="exact")
        assert (found.low, found.high) == (
            pytest.approx(wanted.low, abs=1e-12),
            pytest.approx(wanted.high, abs=1e-12),
        )


@pytest.mark.parametrize(
    ("errors", "trials", "broken", "wasteful"),
    [
        (0, 0, False, False),  # nothing is known
        (0, 20, False, False),  # L27: up to 16.8 % fits no error of 20
        (0, 71, False, False),  # up to 5.06 %
        (0, 72, False, True),  # up to 4.99 %: fewer than promised, which breaks no promise
        (0, 100_000, False, True),
        (5, 100, False, False),
        (1, 1, False, False),  # 2.5 % to 100 %
        (2, 2, True, False),  # 15.8 % to 100 %
        (8, 100, False, False),  # from 3.5 %
        (12, 100, True, False),  # from 6.4 %
        (7_000, 100_000, False, False),  # surely above 5 %, and less than half of it above
        (7_600, 100_000, True, False),
        (2_600, 100_000, False, False),
        (2_400, 100_000, False, True),
    ],
)
def test_a_promise_is_broken_only_by_more_errors_than_chance_explains(
    errors: int, trials: int, *, broken: bool, wasteful: bool
) -> None:
    found = measure_coverage(errors, trials, 0.05)
    assert (found.is_broken(), found.is_wasteful()) == (broken, wasteful)
    assert found.is_off_target() == (broken or wasteful)
    assert found.rate == (errors / trials if trials else None)


def test_the_part_of_the_target_is_a_setting() -> None:
    assert measure_coverage(7_000, 100_000, 0.05).is_off_target(0.25)
    assert not measure_coverage(2_400, 100_000, 0.05).is_off_target(0.6)


@pytest.mark.parametrize(
    ("errors", "trials", "target", "confidence"),
    [(-1, 10, 0.05, 0.95), (11, 10, 0.05, 0.95), (1, 10, 0.0, 0.95), (1, 10, 1.0, 0.95), (1, 10, 0.05, 1.0)],
)
def test_numbers_out_of_range_are_refused(errors: int, trials: int, target: float, confidence: float) -> None:
    with pytest.raises(ValueError, match=r"errors must be|target and confidence lie"):
        measure_coverage(errors, trials, target, confidence)
