"""What an outcome says, from a verdict: the body of a 200 or 202 (contract §4), and what it can be told again from.

Pure: the same verdict has the same bytes for ever.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import msgspec

from pcs_backend.checking import Judged
from pcs_backend.conformal.gate import Gate
from pcs_backend.outcome import PLAIN, Told
from pcs_core.record import Record
from pcs_core.verify import NOT_ASKED, Recomputed, Verdict


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
    body = _encode_all([pcs_id], [verdict])[0]
    if gate is None or verdict.decided is None:
        return body
    own, first, second, _, form = next(gate.tell_all([body], [verdict], [b""]))
    return b"".join((own, form.before, first, form.between, second, form.after))


def tell_outcomes(records: Sequence[Record], judged: Sequence[Judged]) -> Iterable[Told]:
    """Return what is told of the outcome of each of some records, one or more, in order; of one gate's in one go."""
    gate = judged[0].gate
    if any(found.gate is not gate or found.directions is not NOT_ASKED for found in judged):
        return [_tell_one(record, found) for record, found in zip(records, judged, strict=True)]
    verdicts = [found.verdict for found in judged]
    bodies = _encode_all([each.pcs_id for each in records], verdicts)
    if gate is None:
        nothing = itertools.repeat(b"")
        return zip(bodies, nothing, nothing, nothing, itertools.repeat(PLAIN), strict=False)
    return gate.tell_all(bodies, verdicts, gate.provenance.inputs_of_all(records))


def _tell_one(record: Record, found: Judged) -> Told:
    bodies = _encode_all([record.pcs_id], [found.verdict])
    gate = found.gate
    if gate is None:
        return (bodies[0], b"", b"", b"", PLAIN)
    inputs = gate.provenance.inputs_of(record, found.directions)
    is_asked = found.directions is not NOT_ASKED
    return next(gate.tell_all(bodies, [found.verdict], [inputs], is_asked=is_asked))


def _encode_all(pcs_ids: Sequence[str], verdicts: Sequence[Verdict]) -> list[bytes]:
    """Return the bodies of answers without what a gate adds."""
    return [
        _encode(_OutcomeBody(pcs_id, not each.reasons, bool(each.reasons), each.reasons, each.recomputed))
        for pcs_id, each in zip(pcs_ids, verdicts, strict=True)
    ]


def status_of(verdict: Verdict) -> int:
    """Return 200 for what is accepted and 202 for what is escalated."""
    return 202 if verdict.reasons else 200
