"""Telling again what was answered: from a stored outcome, the parameters and the sets that it names, and nothing else.

Neither keys nor what is configured now matters, and not which release of the package it is: what `verify` and the scores
compute is pinned to the bit. The caller fetches; this is pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

from pcs_backend.conformal.calibration import Label, decode_set
from pcs_backend.conformal.gate import Gate, Side, side_of
from pcs_backend.conformal.provenance import (
    NO_SET,
    Provenance,
    SetName,
    decode_params,
    digest_of,
    read_provenance,
)
from pcs_backend.conformal.scores import score_from
from pcs_backend.errors import ScoreError
from pcs_backend.outcome import Outcome
from pcs_backend.outcome_body import outcome_body, status_of
from pcs_core.errors import KeyMaterialError
from pcs_core.params import Params
from pcs_core.verify import verify

Finding = Literal["same", "other", "no_provenance", "artifact_missing", "unreadable"]


class Recomputation(NamedTuple):
    """What came of one outcome.

    Attributes:
        finding: `same` if status and body are what was answered, bit for bit; `other` if not. Else why it cannot be told:
            the outcome was stored without provenance, the store no longer has parameters or a set, or what is stored
            cannot be read.
        status: What comes out; `None` if it cannot be told.
        body: As above.
    """

    finding: Finding
    status: int | None = None
    body: bytes | None = None


def artifacts_of(outcome: Outcome) -> list[str]:
    """Return the digests of what must be fetched for an outcome; nothing for one without a readable provenance."""
    provenance = _provenance(outcome)
    if provenance is None:
        return []
    return [digest for digest in (provenance.params, *provenance.sets) if digest != NO_SET]


def recompute(outcome: Outcome, artifacts: Mapping[str, bytes]) -> Recomputation:
    """Verify an outcome's record again, as it was verified then.

    Args:
        outcome: As stored.
        artifacts: By their digests.
    """
    if not outcome.provenance:
        return Recomputation("no_provenance")
    provenance = _provenance(outcome)
    if provenance is None:
        return Recomputation("unreadable")
    wanted = artifacts_of(outcome)
    if any(digest not in artifacts for digest in wanted):
        return Recomputation("artifact_missing")
    if any(digest_of(artifacts[digest]) != digest for digest in wanted):
        return Recomputation("unreadable")
    try:
        params = decode_params(artifacts[provenance.params])
        gate = _gate(provenance, artifacts, params)
        record = provenance.record(outcome.pcs_id)
        verdict = verify(record, params, gate if provenance.gated else None, provenance.asked)
    except (msgspec.MsgspecError, ScoreError, KeyMaterialError, ValueError):
        return Recomputation("unreadable")
    status, body = status_of(verdict), outcome_body(outcome.pcs_id, verdict, gate)
    is_same = (status, body) == (outcome.status, outcome.body)
    return Recomputation("same" if is_same else "other", status, body)


def _provenance(outcome: Outcome) -> Provenance | None:
    try:
        return read_provenance(outcome.provenance)
    except msgspec.MsgspecError:
        return None


def _gate(provenance: Provenance, artifacts: Mapping[str, bytes], params: Params) -> Gate:
    return Gate(
        _side(provenance.benign, "benign", artifacts, params),
        _side(provenance.bad, "bad", artifacts, params),
        provenance.params,
        decides=provenance.gated,
    )


def _side(name: SetName, label: Label, artifacts: Mapping[str, bytes], params: Params) -> Side | None:
    if name.digest == NO_SET:
        return None
    found = decode_set(artifacts[name.digest])
    return side_of(found, name, score_from(found.score, found.score_parameters, params), label)
