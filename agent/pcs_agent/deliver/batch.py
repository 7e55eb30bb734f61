"""The form of a batch (contract §4): a line of JSON a record, and a line of JSON a record in the answer. Pure.

An answer counts only as a whole: one line that does not fit means that no line can be trusted to be about its record, so
nothing of it is taken for delivered, and nothing is refused by it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pcs_agent.deliver.policy import read_receipt
from pcs_agent.deliver.transport import Answer

BATCH_BYTES_MAX = 1_000_000
"""Bytes of the records of one batch, as they are in the outbox: below the 1 MiB that proxies take unless they are told."""


class _Entry(msgspec.Struct, frozen=True):
    """The part of an answer's line that the agent reads. Other fields are ignored."""

    status: int
    body: msgspec.Raw
    conflict: bool = False


def join_lines(bodies: Sequence[bytes]) -> bytes:
    """Return the body of a batch of these records, each JSON without a line end in it."""
    return b"\n".join([*bodies, b""])


def read_entries(whole: Answer, pcs_ids: Sequence[str]) -> list[Answer] | None:
    """Return the answer to each record as a single submit would have had it, or `None` if it is not about these records.

    Args:
        whole: A 200 to a batch; its `Retry-After` and `Date` hold for every record.
        pcs_ids: Those of the batch, in order.
    """
    lines = [line for line in whole.body.split(b"\n") if line.strip()]
    if whole.truncated or len(lines) != len(pcs_ids):
        return None
    answers = []
    for line, pcs_id in zip(lines, pcs_ids, strict=True):
        try:
            entry = msgspec.json.decode(line, type=_Entry)
        except (ValueError, RecursionError):  # whatever bytes can make msgspec raise
            return None
        answer = whole._replace(
            status=entry.status, body=bytes(entry.body), conflict=entry.conflict, mistimed=False
        )
        if entry.status in {200, 202} and read_receipt(answer, pcs_id) is None:
            return None
        if not 200 <= entry.status <= 599:
            return None
        answers.append(answer)
    return answers
