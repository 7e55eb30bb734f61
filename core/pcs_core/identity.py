"""What names a record: `pcs_id`, the hash of its Merkle root, epoch and shard (contract §1)."""

from __future__ import annotations

import hashlib
import re
from typing import NewType

PcsId = NewType("PcsId", str)
"""64 lower-case hex digits."""

ShardId = NewType("ShardId", str)
"""1 to 128 characters of `A-Z a-z 0-9 . _ : / @ + -`; without `|`, so that `pcs_id` is unambiguous."""

SHARD_ID_PATTERN = r"\A[A-Za-z0-9._:/@+-]{1,128}\Z"
HEX_DIGEST_PATTERN = r"\A[0-9a-f]{64}\Z"
SHARD_ID_RULE = "1 to 128 characters of A-Z a-z 0-9 . _ : / @ + -"
EPOCH_MAX = 2**53 - 1

_SHARD_ID = re.compile(SHARD_ID_PATTERN)
_HEX_DIGEST = re.compile(HEX_DIGEST_PATTERN)


def is_shard_id(text: str) -> bool:
    """Whether the text may name a shard."""
    return _SHARD_ID.match(text) is not None


def is_pcs_id(text: str) -> bool:
    """Whether the text has the form of a `pcs_id`."""
    return _HEX_DIGEST.match(text) is not None


def identity_bytes(merkle_root: str, epoch: int, shard_id: str) -> bytes:
    """Return `merkle_root|epoch|shard_id` over ASCII: what `pcs_id` hashes and a proof of directions is about.

    Args:
        merkle_root: 64 lower-case hex digits.
        epoch: 0 … 2^53−1.
        shard_id: As `ShardId`.

    >>> identity_bytes("00" * 32, 1, "shard-a")[-10:]
    b'|1|shard-a'
    """
    return f"{merkle_root}|{epoch}|{shard_id}".encode("ascii")


def compute_pcs_id(merkle_root: str, epoch: int, shard_id: str) -> PcsId:
    """Return the SHA-256 of `merkle_root|epoch|shard_id`, over ASCII, in lower-case hex.

    Args:
        merkle_root: 64 lower-case hex digits.
        epoch: 0 … 2^53−1.
        shard_id: As `ShardId`.

    >>> compute_pcs_id("00" * 32, 1, "shard-a")[:16]
    'ed421516ebbf3efc'
    """
    return PcsId(hashlib.sha256(identity_bytes(merkle_root, epoch, shard_id)).hexdigest())
