"""The regime at each of its thresholds."""

from __future__ import annotations

import pytest

from pcs_core.params import Params
from pcs_core.regime import classify_regime


@pytest.mark.parametrize(
    ("d_hat", "coh_star", "regime"),
    [
        (1.5, 0.70, "sticky"),
        (-2.0, 5.0, "sticky"),
        (1.500000001, 0.70, "mixed"),
        (1.5, 0.699999999, "mixed"),
        (2.599999999, 0.0, "mixed"),
        (2.6, 0.0, "non_sticky"),
        (2.6, 0.99, "non_sticky"),
        (100.0, -1.0, "non_sticky"),
        (0.0, 0.0, "mixed"),
    ],
)
def test_thresholds_belong_to_the_regime_they_open(d_hat: float, coh_star: float, regime: str) -> None:
    assert classify_regime(d_hat, coh_star, Params()) == regime


def test_sticky_wins_where_thresholds_of_a_file_overlap() -> None:
    params = Params(sticky_d_max=3.0)
    assert classify_regime(2.8, 0.8, params) == "sticky"
    assert classify_regime(2.8, 0.6, params) == "non_sticky"
