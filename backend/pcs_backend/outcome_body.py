"""The body of a 200 or 202 (contract §4), from a verdict. Pure: the same verdict has the same bytes for ever."""

from __future__ import annotations

from collections.abc import Sequence

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
    return outcome_bodies([pcs_id], [verdict], gate)[0]


def outcome_bodies(pcs_ids: Sequence[str], verdicts: Sequence[Verdict], gate: Gate | None) -> list[bytes]:
    """Return `outcome_body` of each of some records, one or more, that one gate decided."""
    bodies = [
        _encode(_OutcomeBody(pcs_id, not each.reasons, bool(each.reasons), each.reasons, each.recomputed))
        for pcs_id, each in zip(pcs_ids, verdicts, strict=True)
    ]
    # A gate decides on all of them, or only keeps what a label needs.
    if gate is None or verdicts[0].decided is None:
        return bodies
    return gate.add_to_all(bodies, verdicts)


def status_of(verdict: Verdict) -> int:
    """Return 200 for what is accepted and 202 for what is escalated."""
    return 200 if verdict.accepted else 202
