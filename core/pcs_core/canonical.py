"""The bytes that are signed (contract §2). The only place that rounds.

The signed subset is eight fields; the payload is one JSON object of them, keys sorted by code point, no white space.
Two spellings of its four numbers are accepted — the shortest form that reads back equal, which the agent writes, and
fixed point with nine decimals for signers in other languages — and no third.
"""

from __future__ import annotations

import hashlib

from pcs_core.record import Record

DECIMALS = 9


def round9(value: float) -> float:
    """Round to nine decimals: correct rounding of the exact binary value, ties to even, negative zero to 0.0.

    >>> round9(0.1 + 0.2), round9(-0.0), round9(-1e-10), round9(5e-10)
    (0.3, 0.0, 0.0, 1e-09)
    """
    # Adding 0.0 turns −0.0 into 0.0 and changes nothing else.
    return round(float(value), DECIMALS) + 0.0


def canonical_payload(record: Record) -> bytes:
    """Return the signed payload with each number in the shortest form that reads back equal."""
    return _payload(
        record,
        repr(round9(record.d_hat)),
        repr(round9(record.budget)),
        repr(round9(record.coh_star)),
        repr(round9(record.r)),
    )


def fixed_point_payload(record: Record) -> bytes:
    """Return the signed payload with each number in fixed point, as C's `%.9f` writes the rounded value."""
    return _payload(
        record,
        f"{round9(record.d_hat):.9f}",
        f"{round9(record.budget):.9f}",
        f"{round9(record.coh_star):.9f}",
        f"{round9(record.r):.9f}",
    )


def payload_digest(payload: bytes) -> bytes:
    """Return the 32-byte SHA-256 of a payload: what the key signs."""
    return hashlib.sha256(payload).digest()


def _payload(record: Record, d_hat: str, budget: str, coh_star: str, r: str) -> bytes:
    # Written out rather than through json.dumps: a third of the time, and the character sets of the record's types
    # leave nothing to escape. The golden vectors compare it with json.dumps.
    return (
        f'{{"D_hat":{d_hat},"budget":{budget},"coh_star":{coh_star},"epoch":{record.epoch},'
        f'"merkle_root":"{record.merkle_root}","pcs_id":"{record.pcs_id}","r":{r},"shard_id":"{record.shard_id}"}}'
    ).encode("ascii")
