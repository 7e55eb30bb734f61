"""Checking a record offline: structure, identity, signature, and the checks of `pcs_core.verify`, each by name.

The order is the backend's (contract §4), with one difference: everything that can be checked is, so that one look tells
all that is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import msgspec

from pcs_agent.wording import display_name
from pcs_core.budget import compute_budget
from pcs_core.canonical import round9
from pcs_core.direction_proof import DirectionReason, Directions
from pcs_core.errors import BadSignatureError, IdentityError, MalformedError
from pcs_core.identity import PcsId
from pcs_core.keyring import Keyring
from pcs_core.params import Params
from pcs_core.record import Record, check_identity, decode_record
from pcs_core.regime import classify_regime
from pcs_core.signing import VerificationKey
from pcs_core.verify import NOT_ASKED, Recomputed, RecordReason, verify

RECORD_BYTES_MAX = 262_144
"""What a backend takes by default (contract §4 step 1)."""


class Check(msgspec.Struct, frozen=True):
    """One check.

    Attributes:
        check: `structure`, `identity`, `signature`, a reason code of contract §4, or `direction_proof` of a record that
            has one with which nothing is wrong.
        ok: Whether it held; `None` if it could not be made.
        detail: What is wrong, or why it could not be made; empty otherwise.
    """

    check: str
    ok: bool | None
    detail: str = ""


class Finding(msgspec.Struct, frozen=True):
    """What was found of one record.

    Attributes:
        ok: Whether no check failed.
        pcs_id: The record's, `None` if it is malformed.
        checks: Every check, in order.
        recomputed: The verifier's own figures, `None` if the record is malformed.
    """

    ok: bool
    pcs_id: PcsId | None
    checks: list[Check]
    recomputed: Recomputed | None


def check_record(
    body: bytes,
    keys: Sequence[VerificationKey],
    params: Params,
    directions: Directions = NOT_ASKED,
) -> Finding:
    """Check one record.

    Args:
        body: The record, JSON.
        keys: Keys a signature may be made with; without any, the signature is not checked.
        params: Tolerances, weights and thresholds.
        directions: Keys a proof of directions may be made with.
    """
    if len(body) > RECORD_BYTES_MAX:
        detail = f"$: found {len(body)} bytes or more; allowed: up to {RECORD_BYTES_MAX}"
        return Finding(False, None, [Check("structure", False, detail)], None)
    try:
        record = decode_record(body)
    except MalformedError as error:
        return Finding(False, None, [Check("structure", False, str(error))], None)
    checks = [Check("structure", True), _check_identity(record), _check_signature(record, keys)]
    verdict = verify(record, params, directions=directions)
    for reason in get_args(RecordReason):
        failed = reason in verdict.reasons
        if reason in get_args(DirectionReason) and not failed:
            continue
        detail = _explain(reason, record, verdict.recomputed, params) if failed else ""
        checks.append(Check(reason, not failed, detail))
    if record.direction_proof is not None and not set(get_args(DirectionReason)) & set(verdict.reasons):
        unchecked = directions.keys is None
        detail = "not checked: no key is configured" if unchecked else ""
        checks.append(Check("direction_proof", None if unchecked else True, detail))
    ok = all(check.ok is not False for check in checks)
    return Finding(ok, record.pcs_id, checks, verdict.recomputed)


def _explain(reason: RecordReason, record: Record, recomputed: Recomputed, params: Params) -> str:
    """Return what a failed check compared: what the record claims, and what it should say."""
    match reason:
        case "slope_out_of_tolerance":
            return f"D_hat {record.d_hat}, recomputed {recomputed.d_hat}; tolerance {params.tol_d}"
        case "coherence_out_of_bounds":
            return f"coh_star {record.coh_star}; allowed: 0 to {round9(1 + params.tol_coh)}"
        case "compressibility_out_of_bounds":
            return f"r {record.r}; allowed: 0 to 1"
        case "counts_not_monotone":
            return "an N_j is smaller than that of a divisor of its scale"
        case "regime_mismatch":
            regime = classify_regime(round9(record.d_hat), round9(record.coh_star), params)
            return f"regime {record.regime}; D_hat and coh_star as claimed give {regime}"
        case "budget_mismatch":
            budget = round9(
                compute_budget(round9(record.d_hat), round9(record.coh_star), round9(record.r), params)
            )
            return f"budget {record.budget}; D_hat, coh_star and r as claimed give {budget}; tolerance {params.tol_budget}"
        case "degraded":
            return f"fallbacks: {display_name(', '.join(record.ft.fallbacks)) or 'none named'}"
        case "direction_proof_invalid":
            return "no key that is configured verifies the proof for this merkle_root, epoch and shard_id"
        case "direction_seed_mismatch":
            return f"seed {record.seed} is not the one that follows from its proof"
        case "direction_proof_missing":
            return "there is no proof"


def _check_identity(record: Record) -> Check:
    try:
        check_identity(record)
    except IdentityError as error:
        return Check("identity", False, str(error))
    return Check("identity", True)


def _check_signature(record: Record, keys: Sequence[VerificationKey]) -> Check:
    if not keys:
        return Check("signature", None, "not checked: no key is configured")
    try:
        Keyring.of(keys).verify(record, at_s=0.0)  # such keys have no dates
    except (BadSignatureError, MalformedError) as error:
        return Check("signature", False, str(error))
    return Check("signature", True)
