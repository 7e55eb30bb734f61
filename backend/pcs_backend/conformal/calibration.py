"""What thresholds are taken from: labelled signals, and the sets of scores that are made of them.

A set never changes once it was made. It has a digest over all that decides, so that an outcome can name what judged it,
and a version that counts within its scope. Pure.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType

from pcs_backend.conformal.density_ratio import DensityRatio

GLOBAL_SCOPE = ""
"""The scope of the set of all tenants together. No tenant is called that."""

CLASS_SCORES_MIN = 100
"""Scores of a class without which no threshold comes from it."""

SET_SCORES_MAX = 1_000
"""Scores of a class that a set holds unless set otherwise; the oldest go first."""

Label = Literal["benign", "bad"]
ThresholdMethod = Literal["order_statistic", "interpolated"]
Trigger = Literal["by_hand", "time", "count", "drift", "miscoverage"]

_Level = Annotated[float, Meta(gt=0, lt=1)]


class Signals(NamedTuple):
    """What a score sees of a record. Rounded to nine decimals.

    Attributes:
        d_hat: The slope recomputed from N_j.
        coh_star: As claimed.
        r: As claimed.
    """

    d_hat: float
    coh_star: float
    r: float


class Labelled(msgspec.Struct, frozen=True, kw_only=True):
    """A record of which somebody said later what it was. One a (tenant, pcs_id); a later word replaces an earlier one.

    Attributes:
        tenant: Whose record.
        pcs_id: Its id.
        label: What it was.
        by: Who said so.
        signals: What was stored with its outcome.
        picked_by_verdict: Whether its verdict was the reason to look at it. Such a record is not exchangeable with others.
        status: Its outcome's, 200 or 202.
        sets: Digests of the sets that judged it, benign's then bad's; empty where none did.
        stored_at_ms: When its outcome was stored, milliseconds since 1970.
        labelled_at_ms: When the label came.
    """

    tenant: str
    pcs_id: str
    label: Label
    by: str
    signals: Signals
    picked_by_verdict: bool
    status: int
    sets: tuple[str, str] = ("", "")
    stored_at_ms: int
    labelled_at_ms: int


class Weighting(msgspec.Struct, frozen=True):
    """What scores of a set weigh, where records to come are another mixture than those that were labelled.

    Attributes:
        ratio: Of the two.
        benign: The ratio of each benign record, in the order of the scores.
        bad: As above.
    """

    ratio: DensityRatio
    benign: tuple[float, ...]
    bad: tuple[float, ...]


class CalibrationSet(msgspec.Struct, frozen=True, kw_only=True):
    """Scores of both classes, and how thresholds are taken from them.

    Attributes:
        scope: A tenant, or `GLOBAL_SCOPE`.
        score: Name of the score that made the numbers.
        score_parameters: What rebuilds that score, as `conformal.scores` writes it: canonical JSON.
        alpha: Share of benign records that may be refused.
        delta: Share of bad records that may be accepted.
        method: How thresholds are taken.
        benign: Scores of benign records, ascending, rounded to nine decimals.
        bad: Scores of bad records, as above.
        trigger: Why it was made.
        made_at_ms: When, milliseconds since 1970.
        weighting: Where a density ratio was given; thresholds are then order statistics of weighted scores.
    """

    scope: str
    score: str
    score_parameters: str = "{}"
    alpha: _Level
    delta: _Level
    method: ThresholdMethod = "order_statistic"
    benign: tuple[float, ...]
    bad: tuple[float, ...]
    trigger: Trigger = "by_hand"
    made_at_ms: int
    weighting: Weighting | UnsetType = UNSET

    @property
    def encoded(self) -> bytes:
        """The bytes that are stored, and hashed."""
        return _encoder.encode(self)

    @property
    def digest(self) -> str:
        """SHA-256 of `encoded`, 64 hex digits."""
        return hashlib.sha256(self.encoded).hexdigest()


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """That a set came into force in its scope.

    Attributes:
        scope: A tenant, or `GLOBAL_SCOPE`.
        version: Counts promotions of the scope from 1, going back included; never given twice.
        digest: Of the set.
        by: Who did it; empty for the service itself.
        note: Why, in a few words.
        promoted_at_ms: Milliseconds since 1970.
    """

    scope: str
    version: int
    digest: str
    by: str
    note: str
    promoted_at_ms: int


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(CalibrationSet)


def decode_set(data: bytes) -> CalibrationSet:
    """Read what `CalibrationSet.encoded` wrote.

    Raises:
        msgspec.MsgspecError: It is not that.
    """
    return _decoder.decode(data)
