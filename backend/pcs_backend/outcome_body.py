"""The body of a 200 or 202 (contract §4), from a verdict. Pure: the same verdict has the same bytes for ever."""

from __future__ import annotations

import msgspec

from pcs_backend.conformal.gate import Gate
from pcs_core.verify import Recomputed, Verdict


class _OutcomeBody(msgspec.Struct, frozen=True):
    pcs_id: str
    accepted: bool
    escalated: bool
    reasons: tuple[str, ...]
    recomputed: Recomputed


_encode = msgspec.json.Encoder().encode


def outcome_body(pcs_id: str, verdict: Verdict, gate: Gate | None = None) -> bytes:
    """Return the body of an answer.

    Args:
        pcs_id: The record's.
        verdict: On the record.
        gate: What decided, where the gate is on: its block is added.
    """
    accepted = verdict.accepted
    body = _encode(_OutcomeBody(pcs_id, accepted, not accepted, verdict.reasons, verdict.recomputed))
    if gate is None or verdict.decided is None:
        return body
    return gate.add_to(body, verdict)


def status_of(verdict: Verdict) -> int:
    """Return 200 for what is accepted and 202 for what is escalated."""
    return 200 if verdict.accepted else 202
