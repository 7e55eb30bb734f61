"""The regime of a stream (contract §3)."""

from __future__ import annotations

from typing import Literal

from pcs_core.params import Params

Regime = Literal["sticky", "mixed", "non_sticky"]


def classify_regime(d_hat: float, coh_star: float, params: Params) -> Regime:
    """Return `sticky` for a coherent stream of low dimension, `non_sticky` for one of high dimension, else `mixed`.

    Args:
        d_hat: Rounded to nine decimals.
        coh_star: Rounded to nine decimals.
        params: Thresholds.

    >>> classify_regime(1.0, 0.9, Params()), classify_regime(2.6, 0.1, Params()), classify_regime(2.0, 0.9, Params())
    ('sticky', 'non_sticky', 'mixed')
    """
    if coh_star >= params.sticky_coh_min and d_hat <= params.sticky_d_max:
        return "sticky"
    if d_hat >= params.non_sticky_d_min:
        return "non_sticky"
    return "mixed"
