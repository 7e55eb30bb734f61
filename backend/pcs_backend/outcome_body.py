"""The body of a 200 or 202 (contract §4), from a verdict. Pure: the same verdict has the same bytes for ever."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import lru_cache

import msgspec

from pcs_backend.conformal.gate import Gate
from pcs_core.verify import Reason, Verdict

_CACHED_REASONS_MAX = 256

_encode = msgspec.json.Encoder().encode


def outcome_body(pcs_id: str, verdict: Verdict, gate: Gate | None = None) -> bytes:
    """Return the body of an answer.

    Args:
        pcs_id: The record's: hex digits.
        verdict: On the record.
        gate: What decided, where the gate is on: its block is added.
    """
    return outcome_bodies([pcs_id], [verdict], gate)[0]


def outcome_bodies(pcs_ids: Sequence[str], verdicts: Sequence[Verdict], gate: Gate | None) -> list[bytes]:
    """Return `outcome_body` of each of some records, one or more, that one gate decided."""
    # A gate decides on all of them, or only keeps what a label needs.
    blocks: Iterable[str] = itertools.repeat("")
    if gate is not None and verdicts[0].decided is not None:
        blocks = gate.blocks(verdicts)
    recomputed = [each.recomputed for each in verdicts]
    # All numbers in one call; what stands around them is the same in every body.
    slopes = _encode([each.d_hat for each in recomputed])[1:-1].decode().split(",")
    budgets = _encode([each.budget for each in recomputed])[1:-1].decode().split(",")
    return [
        f'{{"pcs_id":"{pcs_id}",{_findings(verdict.reasons)},'
        f'"recomputed":{{"D_hat":{slope},"regime":"{own.regime}","budget":{budget}}}{block}}}'.encode("ascii")
        for pcs_id, verdict, own, slope, budget, block in zip(
            pcs_ids, verdicts, recomputed, slopes, budgets, blocks, strict=False
        )
    ]


def status_of(verdict: Verdict) -> int:
    """Return 200 for what is accepted and 202 for what is escalated."""
    return 200 if verdict.accepted else 202


@lru_cache(maxsize=_CACHED_REASONS_MAX)
def _findings(reasons: tuple[Reason, ...]) -> str:
    """Return the members that tell what was found."""
    accepted = not reasons
    members = {"accepted": accepted, "escalated": not accepted, "reasons": reasons}
    return _encode(members)[1:-1].decode()
