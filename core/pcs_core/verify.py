"""The checks of a record against itself (contract §4 step 8). Pure: no store, no clock, no request.

It lives in core because both sides use it: the backend to judge, `pcs-agent verify` to tell before sending.

The checks, each with the reason it gives:

1. `slope_out_of_tolerance` — the claimed D̂ is within `tol_d` of the slope recomputed from N_j.
2. `coherence_out_of_bounds` — coh★ lies in [0, 1 + tol_coh].
3. `compressibility_out_of_bounds` — r lies in [0, 1].
4. `counts_not_monotone` — no N_j is smaller than that of a divisor of its scale: each coarse cell is a union of fine ones.
5. `regime_mismatch` — the regime is the one §3 gives for the claimed D̂.
6. `budget_mismatch` — the budget is within `tol_budget` of the one §3 gives for the claimed D̂.
7. `degraded` — the agent says that it fell back on a default.
8. `direction_proof_invalid` — no key that counts verifies the proof for this root, epoch and shard.
9. `direction_seed_mismatch` — the seed is not the one that follows from the proof.
10. `direction_proof_missing` — there is no proof where one is required.
11. `score_rejected` — a calibrated gate rejects the record.
12. `score_escalated` — a calibrated gate cannot tell.

A failed check escalates; it never refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Literal, Protocol

import msgspec

from pcs_core.budget import compute_budget
from pcs_core.canonical import round9
from pcs_core.direction_proof import Directions, check_directions
from pcs_core.params import Params
from pcs_core.record import Record
from pcs_core.regime import Regime, classify_regime
from pcs_core.slope import theil_sen_slope

RecordReason = Literal[
    "slope_out_of_tolerance",
    "coherence_out_of_bounds",
    "compressibility_out_of_bounds",
    "counts_not_monotone",
    "regime_mismatch",
    "budget_mismatch",
    "degraded",
    "direction_proof_invalid",
    "direction_seed_mismatch",
    "direction_proof_missing",
]
"""Of checks of a record against itself and its keys, which anybody can do."""

ScoreReason = Literal["score_rejected", "score_escalated"]
"""Of a calibrated gate, which a backend alone has."""

Reason = Literal[RecordReason, ScoreReason]
Decision = Literal["ACCEPT", "REJECT", "ESCALATE"]
Pieces = tuple[int, int]
FIRST_PIECES: Pieces = (0, 0)

NOT_ASKED = Directions()
_CACHED_SCALE_SETS_MAX = 256
_SCORE_REASONS: Mapping[Decision | None, Reason] = MappingProxyType(
    {"REJECT": "score_rejected", "ESCALATE": "score_escalated"}
)


class Recomputed(msgspec.Struct, frozen=True, gc=False, rename={"d_hat": "D_hat"}):
    """What the verifier computes from N_j itself, rounded to nine decimals.

    Attributes:
        d_hat: Theil–Sen slope of log2(N_j) on log2(scale).
        regime: For that slope and the claimed coh★.
        budget: For that slope and the claimed coh★ and r, in [0, 1].
    """

    d_hat: float
    regime: Regime
    budget: float


class Decided(msgspec.Struct, frozen=True, gc=False):
    """What a calibrated gate says of a record, whatever else is wrong with it.

    Attributes:
        gate: Its decision; `None` where it has no threshold at all.
        benign_score: What was held against the threshold of benign records; `None` if there is none.
        bad_score: What was held against the threshold of bad records; `None` if there is none.
        pieces: Which threshold of benign records it was, and which of bad ones, where there are several.
    """

    gate: Decision | None
    benign_score: float | None
    bad_score: float | None
    pieces: Pieces = FIRST_PIECES


class Calibration(Protocol):
    """Thresholds taken from labelled records. It decides by numbers alone, always the same for the same."""

    def decide(self, d_hat: float, coh_star: float, r: float) -> Decided:
        """Decide on a record.

        Args:
            d_hat: The slope recomputed from N_j, rounded to nine decimals.
            coh_star: As claimed, rounded.
            r: As claimed, rounded.
        """


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What the checks found.

    Attributes:
        reasons: Codes of the failed checks in the order above; empty means accepted.
        recomputed: The verifier's own figures.
        decided: What the gate said; `None` where there is no gate.
    """

    reasons: tuple[Reason, ...]
    recomputed: Recomputed
    decided: Decided | None = None

    @property
    def accepted(self) -> bool:
        """Whether every check held."""
        return not self.reasons

    def adding(self, reason: Reason | None) -> Verdict:
        """Return it with one more reason, or as it is without one."""
        return self if reason is None else Verdict((*self.reasons, reason), self.recomputed, self.decided)

    def gated(self, decided: Decided) -> Verdict:
        """Return it with what the gate said."""
        reason = _SCORE_REASONS.get(decided.gate)
        return Verdict(self.reasons if reason is None else (*self.reasons, reason), self.recomputed, decided)

    @property
    def decision(self) -> Decision:
        """The gate's, but that a record which fails another check is not accepted."""
        if self.decided is not None and self.decided.gate == "REJECT":
            return "REJECT"
        return "ACCEPT" if self.accepted else "ESCALATE"


def verify(
    record: Record,
    params: Params,
    calibration: Calibration | None = None,
    directions: Directions = NOT_ASKED,
) -> Verdict:
    """Check a record whose structure, signature and identity are known to be good.

    Args:
        record: The record as sent.
        params: Tolerances, weights and thresholds.
        calibration: The gate's thresholds; `None` where there is no gate.
        directions: What is asked of its directions.
    """
    d_hat, coh_star, r = round9(record.d_hat), round9(record.coh_star), round9(record.r)
    counts = record.counts
    slope = round9(theil_sen_slope(record.scales, counts))
    budget = round9(compute_budget(d_hat, coh_star, r, params))

    reasons: list[Reason] = []
    if round9(abs(d_hat - slope)) > params.tol_d:  # 1
        reasons.append("slope_out_of_tolerance")
    if not 0 <= coh_star <= round9(1 + params.tol_coh):  # 2
        reasons.append("coherence_out_of_bounds")
    if not 0 <= r <= 1:  # 3
        reasons.append("compressibility_out_of_bounds")
    for coarse, fine in divisor_pairs(tuple(record.scales)):  # 4
        if counts[coarse] > counts[fine]:
            reasons.append("counts_not_monotone")
            break
    regime = classify_regime(d_hat, coh_star, params)
    if record.regime != regime:  # 5
        reasons.append("regime_mismatch")
    if round9(abs(round9(record.budget) - budget)) > params.tol_budget:  # 6
        reasons.append("budget_mismatch")
    if record.ft.degraded:  # 7
        reasons.append("degraded")

    if slope != d_hat:  # of an honest record they are equal, and so is what follows from them
        regime = classify_regime(slope, coh_star, params)
        budget = round9(compute_budget(slope, coh_star, r, params))
    verdict = Verdict(tuple(reasons), Recomputed(slope, regime, budget))
    if directions is not NOT_ASKED:
        verdict = verdict.adding(check_directions(record, directions))  # 8, 9, 10
    if calibration is not None:
        verdict = verdict.gated(calibration.decide(slope, coh_star, r))  # 11, 12
    return verdict


@lru_cache(maxsize=_CACHED_SCALE_SETS_MAX)
def divisor_pairs(scales: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Return the positions (coarse, fine) of every two scales of which the first divides the second."""
    return tuple(
        (coarse, fine)
        for fine in range(len(scales))
        for coarse in range(fine)
        if scales[fine] % scales[coarse] == 0
    )
