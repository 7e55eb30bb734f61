"""Seeds of directions that can be verified (contract §1): from root, epoch and shard by a VRF, so that nobody picks one.

For given events an agent cannot choose its seed, and the proof shows that it did not. It can still choose the events, the
epoch and the shard, and look at the seed before it commits to them.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Literal, NamedTuple

from pcs_core.identity import identity_bytes
from pcs_core.keyring import KeyTerms
from pcs_core.record import PROOF_SUITE, SEED_MAX, DirectionProof, Record
from pcs_core.vrf import VrfPublicKey, VrfSecretKey, proof_to_hash

DirectionReason = Literal["direction_proof_invalid", "direction_seed_mismatch", "direction_proof_missing"]

DIRECTION_KEYS_MAX = 64
"""Keys that proofs are checked with at once. A foreign proof costs one try for each key of its shard."""

_SEED_BYTES = 8


class DirectionKey(KeyTerms, frozen=True, kw_only=True, eq=False):
    """A key that proves directions, and whose.

    Attributes:
        public_key: Checks proofs.
    """

    public_key: VrfPublicKey


class Directions(NamedTuple):
    """What is asked of the directions of one record.

    Attributes:
        keys: Those that may have made its proof; `None` if proofs are not checked.
        required: Whether there must be a proof.
    """

    keys: Sequence[VrfPublicKey] | None = None
    required: bool = False


def prove_directions(
    key: VrfSecretKey, merkle_root: str, epoch: int, shard_id: str
) -> tuple[int, DirectionProof]:
    """Return the seed of a record's directions, 0 … 2^63−1, and its proof.

    Args:
        key: The agent's.
        merkle_root: 64 lower-case hex digits.
        epoch: 0 … 2^53−1.
        shard_id: As `ShardId`.
    """
    proof = key.prove(identity_bytes(merkle_root, epoch, shard_id))
    text = base64.b64encode(proof).decode("ascii")
    return _seed(proof_to_hash(proof)), DirectionProof(suite=PROOF_SUITE, proof=text)


def check_directions(record: Record, directions: Directions) -> DirectionReason | None:
    """Say what is wrong with the directions of a record; `None` if nothing is, or nothing is asked."""
    if record.direction_proof is None:
        return "direction_proof_missing" if directions.required else None
    if directions.keys is None:
        return None
    alpha = identity_bytes(record.merkle_root, record.epoch, record.shard_id)
    proof = base64.b64decode(record.direction_proof.proof)
    for key in directions.keys:
        if (output := key.verify(alpha, proof)) is not None:
            return None if record.seed == _seed(output) else "direction_seed_mismatch"
    return "direction_proof_invalid"


def _seed(output: bytes) -> int:
    """Return the first eight bytes of a VRF's output, big-endian, without the first bit."""
    return int.from_bytes(output[:_SEED_BYTES], "big") & SEED_MAX
