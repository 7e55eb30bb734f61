"""Many records at once: the same results as one by one, at a fraction of the cost (contract §1 to §4).

What `record`, `canonical`, `identity`, `slope` and `verify` define for one record is done here for a batch: typed decoding
in C, one canonical payload a record, and the arithmetic in NumPy, a call for the whole batch. The results are the same to
the bit: the operations are the same IEEE operations in the same order, and where they might not be (a number that is not
rounded yet, one that is spelled with an exponent, a field out of the ordinary) the record is left to the plain functions.
Pure, as they are.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from operator import contains
from types import MappingProxyType
from typing import NamedTuple, get_args

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from pcs_core.canonical import DECIMALS, canonical_payload, round9
from pcs_core.errors import MalformedError
from pcs_core.params import Params
from pcs_core.record import VERSION, VERSION_FIRST, DirectionProof, Ft, Record, check_methods, sent_at_s
from pcs_core.regime import Regime
from pcs_core.slope import pair_runs
from pcs_core.verify import Reason, Recomputed, RecordReason, Verdict, divisor_pairs, verify

BULK_MIN = 2
"""Records from which on reading them together is cheaper than one by one."""

SPELLED_TOGETHER_MIN, VERIFIED_TOGETHER_MIN = 8, 24
"""Records from which on NumPy's cost a call is paid back, for payloads and for verdicts."""

_Floats = NDArray[np.float64]
_Bools = NDArray[np.bool_]

_SCALE = 10.0**DECIMALS
_EXACT_MAX = 1e3
"""Magnitude up to which a product with `_SCALE` lies so close to the exact one that `_TIE_MARGIN` tells ties apart."""

_TIE_MARGIN = 1e-3
_PLAIN_MIN, _PLAIN_MAX = 1e-4, 1e16
"""Between them orjson and `repr` spell a float alike; beyond, each writes an exponent in its own way."""

_REGIMES: tuple[Regime, ...] = ("sticky", "non_sticky", "mixed")
_REGIME_CODES: Mapping[Regime, int] = MappingProxyType({regime: code for code, regime in enumerate(_REGIMES)})
_REASONS: tuple[Reason, ...] = get_args(RecordReason)
"""The first seven are those of `verify` itself, in its order."""

_CACHED_SCALE_SETS_MAX = 256
_NAMES = re.compile(r"(?:[0-9a-f]{64}\|[0-9]+\|[A-Za-z0-9._:/@+-]{1,128}\n)*", re.ASCII)


class _PlainFt(Ft, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What msgspec skips it does not check as orjson does: a member that is not known is left to the plain functions."""


class _PlainProof(DirectionProof, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As `_PlainFt`."""


class _Plain(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A record whose names are not checked yet: `_NAMES` does that in one go."""

    pcs_id: str  # type: ignore[assignment]  # checked against the hash of its parts
    shard_id: str  # type: ignore[assignment]
    merkle_root: str
    version: str
    ft: _PlainFt
    direction_proof: _PlainProof | None = None


class Checked(msgspec.Struct, frozen=True, gc=False):
    """A record that is well-formed and its own; its signature is still to be checked.

    Attributes:
        record: As sent.
        digest: SHA-256 of its canonical payload: what is signed.
        fingerprint: As `fingerprint` gives it.
    """

    record: Record
    digest: bytes
    fingerprint: str


_decoder = msgspec.json.Decoder(_Plain)
_decode, _decode_lines = _decoder.decode, _decoder.decode_lines
_sha256, _dumps = hashlib.sha256, orjson.dumps


def read_records(bodies: Sequence[bytes]) -> list[Checked | None]:
    """Decode records, and check structure, types, ranges and identity (contract §4 steps 4 and 6).

    Args:
        bodies: One record each.

    Returns:
        In order; `None` for each that is left to `decode_record` and `check_identity`, be it good or bad.
    """
    records = _decode_all(bodies)
    names = [f"{each.merkle_root}|{each.epoch}|{each.shard_id}" for each in records if each is not None]
    ids: Iterator[str | None]
    if _NAMES.fullmatch("\n".join([*names, ""])) is not None:
        ids = iter([_sha256(name.encode()).hexdigest() for name in names])
    else:
        ids = iter(
            [_sha256(name.encode()).hexdigest() if _NAMES.fullmatch(name + "\n") else None for name in names]
        )
    owned = [each if each is not None and each.pcs_id == next(ids) else None for each in records]
    good = _ordinary(owned)
    payloads = iter(canonical_payloads([each for each in good if each is not None]))
    checked: list[Checked | None] = []
    for each in good:
        if each is None:
            checked.append(None)
            continue
        signed = _sha256(next(payloads))
        digest = signed.digest()
        signed.update(b"\n" + _dumps([each.scales, list(each.n_j.values())]))
        checked.append(Checked(each, digest, signed.hexdigest()))
    return checked


def canonical_payloads(records: Sequence[Record]) -> list[bytes]:
    """Return `canonical_payload` of each record."""
    if len(records) < SPELLED_TOGETHER_MIN:
        return [canonical_payload(each) for each in records]
    values = [value for each in records for value in (each.d_hat, each.budget, each.coh_star, each.r)]
    texts = iter(_spell(values))
    return [
        f'{{"D_hat":{next(texts)},"budget":{next(texts)},"coh_star":{next(texts)},"epoch":{each.epoch},'
        f'"merkle_root":"{each.merkle_root}","pcs_id":"{each.pcs_id}","r":{next(texts)},'
        f'"shard_id":"{each.shard_id}"}}'.encode("ascii")
        for each in records
    ]


class Verified(NamedTuple):
    """What `verify_many` found, in order.

    Attributes:
        reasons: Of each record, why it is escalated; empty for most.
        recomputed: The verifier's own figures of each.
        signals: Shape (n, 3), what a gate decides on: recomputed D̂, coh★ and r, rounded. `None` where some of the
            records were verified one by one.
    """

    reasons: list[tuple[Reason, ...]]
    recomputed: list[Recomputed]
    signals: _Floats | None = None

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdicts, of records that no gate decides on."""
        return list(map(Verdict, self.reasons, self.recomputed))

    def at(self, positions: Sequence[int]) -> Verified:
        """Return what was found of some of the records."""
        return Verified(
            [self.reasons[each] for each in positions],
            [self.recomputed[each] for each in positions],
            None if self.signals is None else self.signals[positions],
        )


def verify_many(records: Sequence[Record], params: Params) -> Verified:
    """Return `verify` of each record."""
    if len(records) < VERIFIED_TOGETHER_MIN:
        verdicts = [verify(each, params) for each in records]
        return Verified([each.reasons for each in verdicts], [each.recomputed for each in verdicts])
    by_scales: dict[tuple[int, ...], list[int]] = {}
    for position, each in enumerate(records):
        by_scales.setdefault(tuple(each.scales), []).append(position)
    if len(by_scales) == 1:
        return _verify_group(next(iter(by_scales)), records, params)
    found: dict[int, tuple[tuple[Reason, ...], Recomputed]] = {}
    for scales, positions in by_scales.items():
        group = [records[position] for position in positions]
        reasons, recomputed, _ = (
            verify_many(group, params)
            if len(group) < VERIFIED_TOGETHER_MIN
            else _verify_group(scales, group, params)
        )
        found.update(zip(positions, zip(reasons, recomputed, strict=True), strict=True))
    in_order = [found[position] for position in range(len(records))]
    return Verified([reasons for reasons, _ in in_order], [recomputed for _, recomputed in in_order])


def fingerprint(record: Record) -> str:
    """Hash what makes two records with one id the same: the signed subset, scales and N_j."""
    counts = _dumps([record.scales, record.counts])
    return _sha256(canonical_payload(record) + b"\n" + counts).hexdigest()


def round9_all(values: _Floats) -> _Floats:
    """Return `round9` of each value, in an array of the same shape."""
    near = np.abs(values) < _EXACT_MAX
    if near.all():
        rounded, doubtful = _nearest(values)
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            rounded, doubtful = _nearest(values)
        doubtful |= ~near
    for position in doubtful.ravel().nonzero()[0].tolist():
        rounded.flat[position] = round9(float(values.flat[position]))
    return rounded


def _nearest(values: _Floats) -> tuple[_Floats, _Bools]:
    """Return what each value is rounded to by a product, and where a tie lies so near that this may be wrong."""
    scaled = values * _SCALE
    nearest = np.rint(scaled)
    return nearest / _SCALE + 0.0, np.abs(scaled - nearest) >= 0.5 - _TIE_MARGIN


def _decode_all(bodies: Sequence[bytes]) -> list[_Plain | None]:
    """Decode in one call, or one by one where there is one that cannot be."""
    together = b"\n".join(bodies)
    # Outside ASCII orjson refuses bytes that are not UTF-8 also where nothing is read; the plain functions use it.
    if together.isascii() and not any(map(contains, bodies, itertools.repeat(b"\n"))):
        with contextlib.suppress(msgspec.MsgspecError, RecursionError):
            records: list[_Plain | None] = [*_decode_lines(together)]
            if len(records) == len(bodies):
                return records
    return [_decode_one(body) for body in bodies]


def _decode_one(body: bytes) -> _Plain | None:
    if not body.isascii():
        return None
    try:
        return _decode(body)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _ordinary(records: Sequence[_Plain | None]) -> list[_Plain | None]:
    """Return each record whose scales, version, methods and time are well-formed, and N_j in the order of the scales.

    Records that come together mostly have the scales and the time of the one before.
    """
    scales: list[int] = []
    keys: tuple[str, ...] | None = None
    sent_at: str | None = None
    ordinary: list[_Plain | None] = []
    for each in records:
        if each is None:
            ordinary.append(None)
            continue
        if each.scales != scales:
            scales = each.scales
            keys = _scale_keys(tuple(scales))
        is_ordinary = tuple(each.n_j) == keys and (
            each.version == VERSION
            or (each.version == VERSION_FIRST and each.methods is None and each.direction_proof is None)
        )
        if is_ordinary and (each.methods is not None or each.sent_at != sent_at):
            is_ordinary = _is_named_and_timed(each)
            sent_at = each.sent_at if is_ordinary else None
        ordinary.append(each if is_ordinary else None)
    return ordinary


def _is_named_and_timed(record: _Plain) -> bool:
    """Whether methods have names, and `sent_at` is a time."""
    try:
        check_methods(record)
        sent_at_s(record)
    except MalformedError:
        return False
    return True


@lru_cache(maxsize=_CACHED_SCALE_SETS_MAX)
def _scale_keys(scales: tuple[int, ...]) -> tuple[str, ...] | None:
    """Return the keys of `N_j` in the order of the scales; `None` if these do not increase."""
    if any(left >= right for left, right in itertools.pairwise(scales)):
        return None
    return tuple(map(str, scales))


def _spell(values: Sequence[float]) -> list[str]:
    """Return the canonical spelling of each number."""
    if not values:
        return []
    rounded = round9_all(np.array(values, dtype=np.float64))
    texts = orjson.dumps(rounded.tolist())[1:-1].decode("ascii").split(",")
    size = np.abs(rounded)
    for position in np.flatnonzero(((size < _PLAIN_MIN) & (size != 0.0)) | (size >= _PLAIN_MAX)).tolist():
        texts[position] = repr(float(rounded[position]))
    return texts


def _verify_group(scales: tuple[int, ...], records: Sequence[Record], params: Params) -> Verified:
    """Return `verify` of records with the same scales: the same operations in the same order, on columns."""
    claimed = [value for each in records for value in (each.d_hat, each.coh_star, each.r, each.budget)]
    d_hat, coh_star, r, claimed_budget = round9_all(np.array(claimed).reshape(-1, 4).T.copy())
    keys = _scale_keys(scales)
    flat_counts = [
        count for each in records for count in (each.n_j.values() if tuple(each.n_j) == keys else each.counts)
    ]
    counts = np.array(flat_counts, dtype=np.int64).reshape(-1, len(scales))
    slope = round9_all(_slopes(scales, flat_counts))
    dimension = np.stack((d_hat, slope))  # as claimed, as recomputed; and so is what follows
    budget = round9_all(_budgets(dimension, coh_star, r, params))
    regime = _regimes(dimension, coh_star, params)
    off = round9_all(np.abs(np.stack((d_hat - slope, claimed_budget - budget[0]))))
    columns = _columns(scales)
    failed = np.stack(
        (
            off[0] > params.tol_d,
            (coh_star < 0) | (coh_star > round9(1 + params.tol_coh)),
            (r < 0) | (r > 1),
            (counts[:, columns.coarse] > counts[:, columns.fine]).any(axis=1),
            regime[0] != np.array([_REGIME_CODES[each.regime] for each in records]),
            off[1] > params.tol_budget,
            np.array([each.ft.degraded for each in records]),
        )
    )
    reasons: list[tuple[Reason, ...]] = [()] * len(records)
    if failed.any():
        for reason, position in np.argwhere(failed).tolist():
            reasons[position] += (_REASONS[reason],)
    recomputed = [
        Recomputed(own_slope, _REGIMES[own_regime], own_budget)
        for own_slope, own_regime, own_budget in zip(
            slope.tolist(), regime[1].tolist(), budget[1].tolist(), strict=True
        )
    ]
    return Verified(reasons, recomputed, np.stack((slope, coh_star, r), axis=1))


class _Columns(NamedTuple):
    """Positions of scales that are held against each other.

    Attributes:
        low: Of every pair the first.
        high: Of every pair the second.
        runs: Of every pair the difference of the logs.
        coarse: Of every two scales of which the first divides the second, the first.
        fine: And the second.
    """

    low: NDArray[np.intp]
    high: NDArray[np.intp]
    runs: _Floats
    coarse: NDArray[np.intp]
    fine: NDArray[np.intp]


@lru_cache(maxsize=_CACHED_SCALE_SETS_MAX)
def _columns(scales: tuple[int, ...]) -> _Columns:
    low, high, runs = zip(*pair_runs(scales), strict=True)
    coarse, fine = np.array(divisor_pairs(scales), dtype=np.intp).reshape(-1, 2).T
    return _Columns(np.array(low), np.array(high), np.array(runs), coarse, fine)


def _slopes(scales: tuple[int, ...], counts: Sequence[int]) -> _Floats:
    """Return `theil_sen_slope` of each row of counts. The logs are `math`'s: NumPy's may differ in the last bit."""
    logs = np.array(list(map(math.log2, counts))).reshape(-1, len(scales))
    columns = _columns(scales)
    slopes = np.sort((logs[:, columns.high] - logs[:, columns.low]) / columns.runs, axis=1)
    middle = slopes.shape[1] // 2
    median: _Floats = slopes[:, middle]
    return median if slopes.shape[1] % 2 else (slopes[:, middle - 1] + median) / 2


def _budgets(d_hat: _Floats, coh_star: _Floats, r: _Floats, params: Params) -> _Floats:
    """Return `compute_budget` of each position."""
    with np.errstate(over="ignore"):
        budget = (
            params.base
            + params.alpha * (1 - r)
            + params.beta * np.maximum(0.0, d_hat - params.d0)
            + params.gamma * coh_star
        )
        clamped: _Floats = np.minimum(1.0, np.maximum(0.0, budget))
    return clamped


def _regimes(d_hat: _Floats, coh_star: _Floats, params: Params) -> NDArray[np.intp]:
    """Return `classify_regime` of each position, as a position in `_REGIMES`."""
    sticky = (coh_star >= params.sticky_coh_min) & (d_hat <= params.sticky_d_max)
    codes: NDArray[np.intp] = np.where(sticky, 0, np.where(d_hat >= params.non_sticky_d_min, 1, 2))
    return codes
