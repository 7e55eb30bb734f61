"""Labels, calibration sets and promotions to be stored."""

from __future__ import annotations

from outcomes import NOW_MS, pcs_id
from pcs_backend.conformal.calibration import CalibrationSet, Label, Labelled, Promotion, Signals


def labelled(
    number: int = 1,
    label: Label = "benign",
    *,
    tenant: str = "default",
    by: str = "someone",
    labelled_at_ms: int | None = None,
) -> Labelled:
    """Return a label; of higher numbers it came later."""
    return Labelled(
        tenant=tenant,
        pcs_id=pcs_id(number),
        label=label,
        by=by,
        signals=Signals(d_hat=number / 7, coh_star=1e-9, r=1.0),
        picked_by_verdict=bool(number % 2),
        status=202 if number % 2 else 200,
        sets=("0" * 64, "") if number % 3 else ("", ""),
        stored_at_ms=NOW_MS - 5,
        labelled_at_ms=NOW_MS + number if labelled_at_ms is None else labelled_at_ms,
    )


def calibration_set(number: int = 1, *, scope: str = "default") -> CalibrationSet:
    """Return a set; other numbers have other scores."""
    return CalibrationSet(
        scope=scope,
        score="weighted",
        alpha=0.05,
        delta=0.05,
        benign=(0.1, 0.2, number / 7 + 1),
        bad=(),
        made_at_ms=NOW_MS,
    )


def promotion(of: CalibrationSet, version: int, *, at_ms: int = NOW_MS) -> Promotion:
    """Return that a set came into force."""
    return Promotion(
        scope=of.scope,
        version=version,
        digest=of.digest,
        by="someone",
        note=f"the {version}th",
        promoted_at_ms=at_ms,
    )
