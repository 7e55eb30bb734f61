"""The budget's weights and clamps; the values themselves are golden vectors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcs_core.budget import compute_budget
from pcs_core.params import Params

finite = st.floats(allow_nan=False, allow_infinity=False)
weights = st.floats(0, 1)


@given(d_hat=finite, coh_star=finite, r=finite, alpha=weights, beta=weights, gamma=weights, base=weights)
def test_the_budget_lies_in_0_to_1_whatever_the_numbers(
    d_hat: float, coh_star: float, r: float, alpha: float, beta: float, gamma: float, base: float
) -> None:
    params = Params(alpha=alpha, beta=beta, gamma=gamma, base=base)
    assert 0.0 <= compute_budget(d_hat, coh_star, r, params) <= 1.0


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (Params(alpha=0, beta=0, gamma=0, base=0), 0.0),
        (Params(alpha=0, beta=0, gamma=0, base=0.25), 0.25),
        (Params(alpha=0.5, beta=0, gamma=0, base=0), 0.375),
        (Params(alpha=0, beta=1, gamma=0, base=0, d0=2.0), 0.5),
        (Params(alpha=0, beta=1, gamma=0, base=0, d0=3.0), 0.0),
        (Params(alpha=0, beta=0, gamma=1, base=0), 0.125),
    ],
)
def test_each_weight_acts_on_its_own_number(params: Params, expected: float) -> None:
    assert compute_budget(d_hat=2.5, coh_star=0.125, r=0.25, params=params) == expected


def test_dimension_counts_only_above_d0() -> None:
    below, at, above = (compute_budget(d, 0.0, 1.0, Params()) for d in (-10.0, 2.2, 2.4))
    assert (below, at, above) == (0.1, 0.1, pytest.approx(0.2))
