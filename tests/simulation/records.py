"""Records that a client without an outbox sends, made without any code of the project; and the keys of both sides."""

from __future__ import annotations

import functools
import hashlib
from typing import NamedTuple

import pcs_records

KEY = b"the key that agent and client sign with"
OTHER_KEY = b"the key that is valid only now and then"
FALSE_KEY = b"a key that is never valid, all the same"
POOL_RECORDS = 72


class Sample(NamedTuple):
    """One record as the client sends it.

    Attributes:
        pcs_id: What it calls itself.
        statuses: How a healthy service may answer it.
        body: JSON; `attempt` is 1.
    """

    pcs_id: str
    statuses: frozenset[int]
    body: bytes

    def attempt(self, number: int) -> bytes:
        """Return the body of an attempt; each is other bytes."""
        return self.body.replace(b'"attempt": 1', b'"attempt": %d' % number, 1)


@functools.cache
def pool() -> tuple[Sample, ...]:
    """Return the records there are: good, doubtful, refused, and some that summarise one stream in two ways."""
    return tuple(_sample(index) for index in range(POOL_RECORDS))


def _sample(index: int) -> Sample:
    root = hashlib.sha256(b"client %d" % (index - index % 12 // 11)).hexdigest()
    document = pcs_records.document(epoch=index, shard_id="client", merkle_root=root)
    key, statuses = KEY, {200}
    match index % 12:
        case 0 | 1:  # a slope that only a wide tolerance passes
            document = pcs_records.document(
                epoch=index, shard_id="client", merkle_root=root, D_hat=document["D_hat"] + 0.3
            )
            statuses = {200, 202}
        case 2:
            document["ft"]["degraded"] = True
            statuses = {202}
        case 3:
            key, statuses = FALSE_KEY, {401}
        case 4:
            document["pcs_id"] = hashlib.sha256(b"somebody else's %d" % index).hexdigest()
            statuses = {400}
        case 5:
            document["scales"] = "none"
            statuses = {400}
        case 6:
            key, statuses = OTHER_KEY, {200, 401}
        case 11:  # the record before it, summarised anew
            document = pcs_records.document(
                epoch=index - 1, shard_id="client", merkle_root=root, coh_star=0.9
            )
    signed = pcs_records.sign(document, hmac_key=key)
    return Sample(signed["pcs_id"], frozenset(statuses), pcs_records.body(signed))
