"""The budget a stream is given (contract §3)."""

from __future__ import annotations

from pcs_core.params import Params


def compute_budget(d_hat: float, coh_star: float, r: float, params: Params) -> float:
    """Return `clamp(base + alpha·(1 − r) + beta·max(0, d_hat − d0) + gamma·coh_star, 0, 1)`, not rounded.

    Args:
        d_hat: Dimension, finite.
        coh_star: Coherence, finite.
        r: Compressibility, finite.
        params: Weights.

    >>> compute_budget(d_hat=1.0, coh_star=0.5, r=1.0, params=Params())
    0.2
    """
    budget = (
        params.base
        + params.alpha * (1 - r)
        + params.beta * max(0.0, d_hat - params.d0)
        + params.gamma * coh_star
    )
    return min(1.0, max(0.0, budget))
