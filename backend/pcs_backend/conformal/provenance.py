"""What is stored with an outcome so that it can be told again later: from the store alone, by another process.

It is compact JSON, and holds all that the verdict follows from: the record's fields that `verify` reads, and digests of
the parameters and the calibration sets, which the store keeps as they were. Keys of proofs are public, so they are in it
as bytes. The signature is not checked again: that a key was good then is what the stored `key_id` says. Pure.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import orjson

from pcs_backend import __version__
from pcs_backend.conformal.calibration import Signals
from pcs_core.canonical import round9
from pcs_core.direction_proof import Directions
from pcs_core.identity import PcsId, ShardId
from pcs_core.params import Params
from pcs_core.record import SCHEMA, VERSION, DirectionProof, Ft, Record
from pcs_core.regime import Regime
from pcs_core.slope import theil_sen_slope
from pcs_core.verify import NOT_ASKED
from pcs_core.vrf import VrfPublicKey

PROVENANCE_VERSION = 1
NO_SET = ""
"""Stands for the digest of a set where there was none."""


class SetName(NamedTuple):
    """A set that judged, as an answer and its provenance name it.

    Attributes:
        digest: Of the set; `NO_SET` for none.
        version: Its version in its scope; 0 for none.
    """

    digest: str = NO_SET
    version: int = 0


class Inputs(NamedTuple):
    """What `verify` reads of every record, as it was sent; `n_j` names the scales."""

    n_j: dict[str, int]
    d_hat: float
    coh_star: float
    r: float
    budget: float
    regime: Regime
    degraded: bool

    @property
    def scales(self) -> list[int]:
        """Those of `n_j`, ascending."""
        return sorted(map(int, self.n_j))


class DirectionInputs(msgspec.Struct, frozen=True, kw_only=True):
    """What the check of directions reads beside that.

    Attributes:
        keys: Base64 of the public keys that counted for the record; `None` where proofs were not checked.
        required: Whether there had to be a proof.
        merkle_root: The record's, as the following.
        epoch: As above.
        shard_id: As above.
        seed: As above.
        proof: As above; `None` for none.
    """

    keys: list[str] | None
    required: bool
    merkle_root: str
    epoch: int
    shard_id: str
    seed: int
    proof: DirectionProof | None = None


class Provenance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an outcome follows from.

    Attributes:
        v: Version of this form.
        package: Version of the package that judged.
        params: Digest of the parameters.
        gated: Whether the gate was on.
        benign: The set that gave the threshold of benign records.
        other_bad: The set that gave the threshold of bad records, if it is another one.
        inputs: The record's.
        directions: What was asked of its directions; `None` for nothing.
    """

    v: int
    package: str
    params: str
    gated: bool
    benign: SetName
    other_bad: SetName | None = None
    inputs: Inputs
    directions: DirectionInputs | None = None

    @property
    def bad(self) -> SetName:
        """The set that gave the threshold of bad records."""
        return self.benign if self.other_bad is None else self.other_bad

    @property
    def sets(self) -> tuple[str, str]:
        """Digests of the sets, benign's then bad's; `NO_SET` where there was none."""
        return self.benign.digest, self.bad.digest

    @property
    def signals(self) -> Signals:
        """What a score saw of the record."""
        record = self.record("")
        return Signals(
            round9(theil_sen_slope(record.scales, record.counts)),
            round9(self.inputs.coh_star),
            round9(self.inputs.r),
        )

    def record(self, pcs_id: str) -> Record:
        """Return a record with all that `verify` reads; what it does not read is empty."""
        inputs, directions = self.inputs, self.directions
        return Record(
            pcs_id=PcsId(pcs_id),
            schema=SCHEMA,
            version=VERSION,
            shard_id=ShardId(directions.shard_id if directions else ""),
            epoch=directions.epoch if directions else 0,
            attempt=1,
            sent_at="",
            seed=directions.seed if directions else 0,
            scales=inputs.scales,
            n_j=inputs.n_j,
            d_hat=inputs.d_hat,
            coh_star=inputs.coh_star,
            v_star=[],
            r=inputs.r,
            regime=inputs.regime,
            budget=inputs.budget,
            merkle_root=directions.merkle_root if directions else "",
            sig="",
            ft=Ft(outbox_seq=0, degraded=inputs.degraded, fallbacks=[], clock_skew_ms=0),
            direction_proof=directions.proof if directions else None,
        )

    @property
    def asked(self) -> Directions:
        """What was asked of the record's directions."""
        if self.directions is None:
            return NOT_ASKED
        keys = self.directions.keys
        if keys is None:
            return Directions(None, self.directions.required)
        return Directions([VrfPublicKey(base64.b64decode(key)) for key in keys], self.directions.required)


class ProvenanceWriter:
    """Writes what is stored with the outcomes of one gate: each begins with `head`, and ends with what `tail` gives.

    Attributes:
        head: Up to the inputs of the record.
    """

    def __init__(self, params_digest: str, *, gated: bool, benign: SetName, bad: SetName) -> None:
        """Take what the outcomes share.

        Args:
            params_digest: Of the parameters in force.
            gated: Whether the gate is on.
            benign: The set behind the threshold of benign records.
            bad: The set behind the threshold of bad records.
        """
        shared = {
            "v": PROVENANCE_VERSION,
            "package": __version__,
            "params": params_digest,
            "gated": gated,
            "benign": benign,
        }
        if bad != benign:
            shared["other_bad"] = bad
        self.head = msgspec.json.encode(shared)[:-1] + b',"inputs":[{'

    @staticmethod
    def tail(*, is_asked: bool) -> bytes:
        """Return what follows the inputs of a record, by whether something was asked of its directions."""
        return b"}" if is_asked else b"]}"

    def inputs_of(self, record: Record, directions: Directions) -> bytes:
        """Return the inputs of one record, and what was asked of its directions."""
        inputs = self.inputs_of_all([record])[0]
        if directions is NOT_ASKED:
            return inputs
        return b'%b],"directions":%b' % (inputs, msgspec.json.encode(_direction_inputs(record, directions)))

    def inputs_of_all(self, records: Sequence[Record]) -> list[bytes]:
        """Return `inputs_of` each of some records, one or more, of whose directions nothing was asked."""
        # Between two records stands what stands nowhere in one: scales are digits, and regimes are words.
        return orjson.dumps(_inputs(records))[3:-2].split(b"],[{")


def _inputs(records: Sequence[Record]) -> list[tuple[object, ...]]:
    """Return the `Inputs` of each record, as they are written."""
    return [
        (each.n_j, each.d_hat, each.coh_star, each.r, each.budget, each.regime, each.ft.degraded)
        for each in records
    ]


def _direction_inputs(record: Record, directions: Directions) -> DirectionInputs:
    keys = directions.keys
    return DirectionInputs(
        keys=None if keys is None else [base64.b64encode(key.public_bytes).decode("ascii") for key in keys],
        required=directions.required,
        merkle_root=record.merkle_root,
        epoch=record.epoch,
        shard_id=record.shard_id,
        seed=record.seed,
        proof=record.direction_proof,
    )


_decoder = msgspec.json.Decoder(Provenance)
_params_encoder = msgspec.json.Encoder(order="deterministic")


def read_provenance(text: str) -> Provenance | None:
    """Read what a `ProvenanceWriter` wrote, head, inputs and tail; `None` for the empty text of an outcome that was stored without.

    Raises:
        msgspec.MsgspecError: It is neither.
    """
    return _decoder.decode(text) if text else None


def encode_params(params: Params) -> bytes:
    """Return parameters as the store keeps them: what is not written has another digest."""
    return _params_encoder.encode(params)


def decode_params(data: bytes) -> Params:
    """Read what `encode_params` wrote. A parameter that was not known then has its default, which a release never changes.

    Raises:
        msgspec.MsgspecError: It is not that.
    """
    return msgspec.json.decode(data, type=Params)


def digest_of(artifact: bytes) -> str:
    """Return what the store keeps an artifact under: its SHA-256, 64 hex digits."""
    return hashlib.sha256(artifact).hexdigest()
