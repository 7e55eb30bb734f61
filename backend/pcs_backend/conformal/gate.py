"""The gate: what calibrated thresholds say of a record, and how the answer tells it (contract §4).

Each class gives one side. A score above the threshold of benign records is refused, so at most α of benign records are;
a score below that of bad records is accepted, so at most δ of bad records are. With both sides a record is accepted
below the second and rejected above the first; between them, or where they cross, nobody can tell. With one side the
other guarantee is missing, and with none the fixed checks decide alone; the answer names what is missing. Pure.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import orjson
from msgspec import UNSET
from numpy.typing import NDArray

from pcs_backend.bulk import Verified, round9_all
from pcs_backend.conformal.calibration import (
    CLASS_SCORES_MIN,
    GLOBAL_SCOPE,
    CalibrationSet,
    Label,
    Signals,
    ThresholdMethod,
)
from pcs_backend.conformal.density_ratio import DensityRatio
from pcs_backend.conformal.provenance import ProvenanceWriter, SetName
from pcs_backend.conformal.scores import Score
from pcs_backend.conformal.set_thresholds import thresholds_of
from pcs_backend.outcome import Form, Told
from pcs_core.canonical import round9
from pcs_core.record import Record
from pcs_core.verify import FIRST_PIECES, Decided, Decision, Pieces, Verdict

SCORED_TOGETHER_MIN = 12
"""Records from which on scoring them in one call is cheaper than one by one."""

_Floats = NDArray[np.float64]
_FormKey = tuple[Decision, Decision | None, Pieces, bool]


class Side(NamedTuple):
    """One class of a set, and the thresholds that follow from it.

    Attributes:
        scope: Whose set it is.
        set_name: The set.
        score: Computes what is held against the threshold.
        method: How the threshold was taken.
        n: Scores of the class.
        thresholds: One, or one a piece of the density ratio; infinite where so few scores support none.
        level: α for benign records, δ for bad ones.
        ratio: The density ratio, if one was given.
    """

    scope: Literal["tenant", "global"]
    set_name: SetName
    score: Score
    method: ThresholdMethod
    n: int
    thresholds: Sequence[float]
    level: float
    ratio: DensityRatio | None = None

    def piece_of(self, signals: Sequence[float]) -> int:
        """Return which of the thresholds a record of these signals is held against."""
        return 0 if self.ratio is None else self.ratio.piece_of(signals)

    def threshold_of(self, signals: Sequence[float]) -> float:
        """Return the threshold that a record of these signals is held against."""
        return self.thresholds[self.piece_of(signals)]


def side_of(found: CalibrationSet, set_name: SetName, score: Score, label: Label) -> Side | None:
    """Return the side that a class of a set gives; `None` with fewer than `CLASS_SCORES_MIN` scores.

    Args:
        found: The set.
        set_name: Its digest as the store has it, and its version in its scope.
        score: The one that it names.
        label: The class.
    """
    scores = found.benign if label == "benign" else found.bad
    if len(scores) < CLASS_SCORES_MIN:
        return None
    return Side(
        "global" if found.scope == GLOBAL_SCOPE else "tenant",
        set_name,
        score,
        found.method,
        len(scores),
        thresholds_of(found, label),
        found.alpha if label == "benign" else found.delta,
        None if found.weighting is UNSET else found.weighting.ratio,
    )


class Gate:
    """Decides on records of one tenant by the sets that are in force. `pcs_core.verify.Calibration` is what it does."""

    def __init__(
        self, benign: Side | None, bad: Side | None, params_digest: str, *, decides: bool = True
    ) -> None:
        """Take both sides.

        Args:
            benign: From benign records; `None` if there are too few.
            bad: From bad records; `None` if there are too few.
            params_digest: Of the parameters in force, for provenance.
            decides: Whether the gate is on; else outcomes only keep what a later label needs.
        """
        self.benign = benign
        self.bad = bad
        self.decides = decides
        names = [SetName() if each is None else each.set_name for each in (benign, bad)]
        self.provenance = ProvenanceWriter(params_digest, gated=decides, benign=names[0], bad=names[1])
        self._scores_are_one = (
            benign is not None
            and bad is not None
            and (benign.score.name, benign.score.parameters) == (bad.score.name, bad.score.parameters)
        )
        self._is_weighted = any(each is not None and each.ratio is not None for each in (benign, bad))
        self._forms: dict[_FormKey, Form] = {}

    def decide(self, d_hat: float, coh_star: float, r: float) -> Decided:
        """Decide on a record. See `pcs_core.verify.Calibration`."""
        signals = Signals(d_hat, coh_star, r)
        benign = None if self.benign is None else self.benign.score.of(signals)
        bad = benign
        if not self._scores_are_one:
            bad = None if self.bad is None else self.bad.score.of(signals)
        pieces = FIRST_PIECES
        if self._is_weighted:
            benign_piece, bad_piece = (
                0 if side is None else side.piece_of(signals) for side in (self.benign, self.bad)
            )
            pieces = (benign_piece, bad_piece)
        return Decided(self._decision(benign, bad, pieces), benign, bad, pieces)

    def decide_all(self, verified: Verified, records: Sequence[Record]) -> list[Verdict]:
        """Return verdicts with what the gate says: what `decide` says of each, in one go.

        Args:
            verified: What the other checks found.
            records: Whose it is.
        """
        if not self.decides:
            return verified.verdicts
        if len(records) < SCORED_TOGETHER_MIN or self._is_weighted:
            return [
                verdict.gated(self.decide(verdict.recomputed.d_hat, round9(each.coh_star), round9(each.r)))
                for verdict, each in zip(verified.verdicts, records, strict=True)
            ]
        if (signals := verified.signals) is None:
            signals = np.array(
                [
                    (recomputed.d_hat, each.coh_star, each.r)
                    for recomputed, each in zip(verified.recomputed, records, strict=True)
                ]
            )
            signals[:, 1:] = round9_all(signals[:, 1:])
        if self.benign is None or self.bad is None or not self._scores_are_one:
            return self._decide_each(verified, signals)
        scores = self.benign.score.of_many(signals).tolist()
        benign_threshold, bad_threshold = self.benign.thresholds[0], self.bad.thresholds[0]
        return [
            # Almost all are accepted, and have no further reason.
            Verdict(reasons, recomputed, Decided("ACCEPT", score, score))
            if score < bad_threshold and score <= benign_threshold
            else self._decided(Verdict(reasons, recomputed), score, score)
            for reasons, recomputed, score in zip(verified.reasons, verified.recomputed, scores, strict=True)
        ]

    def _decide_each(self, verified: Verified, signals: _Floats) -> list[Verdict]:
        """As `decide_all`, where a side is missing or the sides have scores of their own."""
        count = len(verified.reasons)
        firsts: Sequence[float | None] = [None] * count
        if self.benign is not None:
            firsts = self.benign.score.of_many(signals).tolist()
        seconds = firsts
        if not self._scores_are_one:
            seconds = [None] * count if self.bad is None else self.bad.score.of_many(signals).tolist()
        return [
            self._decided(verdict, first, second)
            for verdict, first, second in zip(verified.verdicts, firsts, seconds, strict=True)
        ]

    def _decided(self, verdict: Verdict, first: float | None, second: float | None) -> Verdict:
        return verdict.gated(Decided(self._decision(first, second, FIRST_PIECES), first, second))

    def tell_all(
        self,
        bodies: Sequence[bytes],
        verdicts: Sequence[Verdict],
        inputs: Iterable[bytes],
        *,
        is_asked: bool = False,
    ) -> Iterator[Told]:
        """Return what is told of each outcome: with a gate that is on, a body has `decision` and its block (contract §4).

        Args:
            bodies: Of the answers, without them.
            verdicts: What was decided of each.
            inputs: Of the provenance of each, see `ProvenanceWriter`.
            is_asked: Whether something was asked of their directions.
        """
        if not self.decides:
            nothing = itertools.repeat(b"")
            form = self._form("ACCEPT", None, FIRST_PIECES, is_asked)
            return zip(bodies, nothing, nothing, inputs, itertools.repeat(form), strict=False)
        decided = [each.decided for each in verdicts if each.decided is not None]
        firsts = _spelled([each.benign_score for each in decided], self.benign)
        seconds = firsts
        if not self._scores_are_one:
            seconds = _spelled([each.bad_score for each in decided], self.bad)
        by_gate: Decision | None = None if self.benign is None and self.bad is None else "ACCEPT"
        accepted = self._form("ACCEPT", by_gate, FIRST_PIECES, is_asked)
        forms = [
            self._form(verdict.decision, one.gate, one.pieces, is_asked)
            if verdict.reasons or self._is_weighted
            else accepted
            for verdict, one in zip(verdicts, decided, strict=True)
        ]
        return zip([body[:-1] for body in bodies], firsts, seconds, inputs, forms, strict=True)

    def _form(self, *key: *_FormKey) -> Form:
        """Return what the texts of all records share that are decided so."""
        if (form := self._forms.get(key)) is None:
            form = self._forms[key] = self._write_form(*key)
        return form

    def _write_form(self, decision: Decision, gate: Decision | None, pieces: Pieces, is_asked: bool) -> Form:
        head, tail = self.provenance.head, self.provenance.tail(is_asked=is_asked)
        if not self.decides:
            return Form(head=head, tail=tail)
        sides = {"benign": (self.benign, "alpha"), "bad": (self.bad, "delta")}
        block = {
            "decision": decision,
            "calibration": {
                "gate": gate,
                "missing": [name for name, (side, _) in sides.items() if side is None],
                **{
                    name: _described(side, level, piece)
                    for (name, (side, level)), piece in zip(sides.items(), pieces, strict=True)
                },
            },
        }
        text = b"," + orjson.dumps(block)[1:].replace(b'"<score>"', b"\0")
        if self.benign is None:
            text = b"\0" + text
        if self.bad is None:
            text += b"\0"
        before, between, after = text.split(b"\0")
        return Form(before, between, after, head, tail)

    def _decision(
        self, benign_score: float | None, bad_score: float | None, pieces: Pieces
    ) -> Decision | None:
        rejects = (
            self.benign is not None
            and benign_score is not None
            and benign_score > self.benign.thresholds[pieces[0]]
        )
        if self.bad is None or bad_score is None:
            if self.benign is None:
                return None
            return "REJECT" if rejects else "ACCEPT"
        accepts = bad_score < self.bad.thresholds[pieces[1]]
        if accepts:
            return "ESCALATE" if rejects else "ACCEPT"
        return "REJECT" if rejects else "ESCALATE"


def _spelled(scores: Sequence[float | None], side: Side | None) -> list[bytes]:
    """Return what stands in an answer for each score of a side; nothing where it is missing."""
    return [b""] * len(scores) if side is None else orjson.dumps(scores)[1:-1].split(b",")


def _described(side: Side | None, level: str, piece: int) -> dict[str, object] | None:
    """Return what an answer says of one side."""
    if side is None:
        return None
    threshold = side.thresholds[piece]
    block: dict[str, object] = {
        "scope": side.scope,
        "version": side.set_name.version,
        "n": side.n,
        "score": "<score>",
        "threshold": threshold if math.isfinite(threshold) else None,
        level: side.level,
    }
    if side.ratio is not None:
        block["weight"] = side.ratio.ratios[piece]
    return block
