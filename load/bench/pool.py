"""Records signed beforehand: the clock runs over sending and answering alone.

A pool is a file of record bodies, one a line, beside one of their ids. It is made once for an algorithm and a size and kept:
every run has a data folder of its own, so the same records are new to each.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from pcs_agent.build import build_record
from pcs_agent.signals import SignalSettings, compute_signals
from pcs_core.identity import ShardId, compute_pcs_id
from pcs_core.params import Params
from pcs_core.record import Record, encode_record
from pcs_core.signing import Ed25519SecretKey, HmacKey, Signer, SigningAlgorithm, sign_record

HMAC_SECRET = "an-hmac-key-of-the-benchmark"  # noqa: S105 - of the benchmark
ED25519_SEED = bytes(range(32))
ED25519_PUBLIC_B64 = base64.b64encode(Ed25519SecretKey(ED25519_SEED).public_bytes).decode("ascii")

ID_DIGITS = 64
STREAMS = 24
"""Different summaries in a pool; the other records repeat them under epochs of their own."""

_EVENTS = 400
_EVENTS_OF_SOLID = 8_000
_SENT_AT_S = 1_700_000_000.0


class Pool(msgspec.Struct, frozen=True):
    """Where a pool lies.

    Attributes:
        bodies: Record bodies, one a line.
        ids: Their ids, 64 hex digits each, without separators.
        count: How many.
    """

    bodies: Path
    ids: Path
    count: int

    def read(self, first: int, count: int) -> tuple[list[bytes], list[bytes]]:
        """Return bodies and ids of some records.

        Raises:
            ValueError: The pool has fewer.
        """
        if first + count > self.count:
            raise ValueError(f"the pool has {self.count} records; wanted: {first + count}")
        bodies = []
        with self.bodies.open("rb") as file:
            for position, line in enumerate(file):
                if position >= first + count:
                    break
                if position >= first:
                    bodies.append(line[:-1])
        with self.ids.open("rb") as file:
            file.seek(first * ID_DIGITS)
            ids = file.read(count * ID_DIGITS)
        return bodies, [ids[at : at + ID_DIGITS] for at in range(0, len(ids), ID_DIGITS)]


def make_pool(folder: Path, algorithm: SigningAlgorithm, count: int) -> Pool:
    """Return a pool of at least so many records, made now unless one is there.

    Args:
        folder: Where pools are kept.
        algorithm: How the records are signed.
        count: How many at least.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for there in sorted(folder.glob(f"{algorithm}-*.ids")):
        if (size := there.stat().st_size // ID_DIGITS) >= count:
            return Pool(there.with_suffix(".ndjson"), there, size)
    pool = Pool(folder / f"{algorithm}-{count}.ndjson", folder / f"{algorithm}-{count}.ids", count)
    signer: Signer = HmacKey(HMAC_SECRET.encode())
    if algorithm == SigningAlgorithm.ED25519:
        signer = Ed25519SecretKey(ED25519_SEED)
    part = [pool.bodies.with_suffix(".bodies-part"), pool.ids.with_suffix(".ids-part")]
    with part[0].open("wb") as bodies, part[1].open("wb") as ids:
        for record in make_records(signer, count):
            bodies.write(encode_record(record) + b"\n")
            ids.write(record.pcs_id.encode("ascii"))
    os.replace(part[0], pool.bodies)
    os.replace(part[1], pool.ids)  # last: a pool is there when its ids are
    return pool


def make_records(signer: Signer | None, count: int, first_epoch: int = 0) -> Iterator[Record]:
    """Yield records that pass every check, each with an epoch of its own, sticky, mixed and non-sticky in turn.

    Args:
        signer: Signs them; `None` leaves them unsigned.
        count: How many.
        first_epoch: Of the first record.
    """
    streams = _streams()
    for epoch in range(first_epoch, first_epoch + count):
        stream = streams[epoch % len(streams)]
        pcs_id = compute_pcs_id(stream.merkle_root, epoch, ShardId(stream.shard_id))
        yield sign_record(msgspec.structs.replace(stream, epoch=epoch, pcs_id=pcs_id), signer)


def _streams() -> list[Record]:
    """Summaries of clumps, lines and solids of points: sticky, mixed and non-sticky ones."""
    rng = np.random.default_rng(6)
    chosen = SignalSettings(directions=16)
    records = []
    for number in range(STREAMS):
        line = rng.random((_EVENTS, 1)) * [[1.0, 0.5, 0.25]]
        match number % 3:
            case 0:
                events = np.vstack([line, np.repeat(line[:1], 9 * _EVENTS, axis=0)])
            case 1:
                events = line
            case _:
                events = rng.random((_EVENTS_OF_SOLID, 3))
        records.append(
            build_record(
                compute_signals(events, chosen),
                chosen,
                shard_id=ShardId(f"bench/shard-{number:02d}"),
                epoch=number,
                params=Params(),
                sent_at_s=_SENT_AT_S,
            )
        )
    return records
