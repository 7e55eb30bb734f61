"""Making a record of a window's signals: rounding, slope, regime, budget, identity. The signature comes after."""

from __future__ import annotations

from datetime import UTC, datetime

from pcs_agent.fallbacks import Fallback, is_degraded
from pcs_agent.signals import Signals, SignalSettings
from pcs_core.budget import compute_budget
from pcs_core.canonical import round9
from pcs_core.identity import ShardId, compute_pcs_id
from pcs_core.params import Params
from pcs_core.record import SCHEMA, VERSION, VERSION_FIRST, DirectionProof, Ft, Record
from pcs_core.regime import classify_regime
from pcs_core.slope import theil_sen_slope


def build_record(
    signals: Signals,
    settings: SignalSettings,
    *,
    shard_id: ShardId,
    epoch: int,
    params: Params,
    sent_at_s: float,
    more_fallbacks: tuple[Fallback, ...] = (),
    direction: tuple[int, DirectionProof] | None = None,
) -> Record:
    """Return the unsigned record of one window, attempt 1, outbox_seq 0.

    Every number is rounded to nine decimals first; regime and budget follow from the rounded ones, as the verifier
    recomputes them.

    Args:
        signals: What was computed of the window.
        settings: What it was computed with; its seed goes into the record.
        shard_id: Who summarised.
        epoch: 0 … 2^53−1.
        params: Thresholds and weights.
        sent_at_s: Seconds since 1970.
        more_fallbacks: Codes known before any signal was computed, such as a missing input.
        direction: The seed that was used instead of the settings', and its proof.
    """
    seed, proof = (settings.seed, None) if direction is None else direction
    scales = list(signals.n_j)
    d_hat = round9(theil_sen_slope(scales, [signals.n_j[scale] for scale in scales]))
    coh_star, r = round9(signals.coh_star), round9(signals.r)
    fallbacks = (*more_fallbacks, *signals.fallbacks)
    return Record(
        pcs_id=compute_pcs_id(signals.merkle_root, epoch, shard_id),
        schema=SCHEMA,
        version=VERSION if signals.methods or proof else VERSION_FIRST,
        shard_id=shard_id,
        epoch=epoch,
        attempt=1,
        sent_at=format_time(sent_at_s),
        seed=seed,
        scales=scales,
        n_j={str(scale): signals.n_j[scale] for scale in scales},
        d_hat=d_hat,
        coh_star=coh_star,
        v_star=[round9(component) for component in signals.v_star],
        r=r,
        regime=classify_regime(d_hat, coh_star, params),
        budget=round9(compute_budget(d_hat, coh_star, r, params)),
        merkle_root=signals.merkle_root,
        sig="",
        ft=Ft(
            outbox_seq=0,
            degraded=is_degraded(fallbacks),
            fallbacks=[str(code) for code in fallbacks],
            clock_skew_ms=0,
        ),
        methods=signals.methods or None,
        direction_proof=proof,
    )


def format_time(time_s: float) -> str:
    """Return seconds since 1970 as RFC 3339 in UTC, with milliseconds.

    >>> format_time(1_700_000_000.25)
    '2023-11-14T22:13:20.250Z'
    """
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
