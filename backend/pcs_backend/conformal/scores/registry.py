"""The scores by name: made again from what was stored, or fitted to labelled signals."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from pcs_backend.conformal.calibration import Signals
from pcs_backend.conformal.scores.learned import LearnedScore
from pcs_backend.conformal.scores.mahalanobis import MahalanobisScore
from pcs_backend.conformal.scores.score import Floats, Score
from pcs_backend.conformal.scores.weighted import WeightedScore
from pcs_backend.errors import ScoreError
from pcs_core.params import Params

_KINDS: dict[str, type[WeightedScore | MahalanobisScore | LearnedScore]] = {
    kind.name: kind for kind in (WeightedScore, MahalanobisScore, LearnedScore)
}

SCORES = tuple(_KINDS)
"""Names that a set's score may have."""

FITTED_SCORES = (MahalanobisScore.name, LearnedScore.name)
"""Those that are fitted, to signals that must be apart from the ones that calibrate."""

DEFAULT_SCORE = MahalanobisScore.name
"""What the evaluation on real text found to see the most kinds without being shown any (ADR 34)."""

FIT_SIGNALS_MIN = 30
"""Signals of a class without which nothing is fitted to it: ten a column."""


def score_from(name: str, parameters: str, params: Params) -> Score:
    """Return a score as it was stored.

    Args:
        name: One of `SCORES`.
        parameters: As `Score.parameters` gave them; `{}` takes those of the weighted score from `params`.
        params: Of the checks; looked at in that one case.

    Raises:
        ScoreError: No such score, or parameters that are not its.
    """
    _check_name(name)
    if name == WeightedScore.name and parameters == "{}":
        return WeightedScore.of_params(params)
    kind = _KINDS[name]
    try:
        return msgspec.json.decode(parameters, type=kind)
    except msgspec.MsgspecError:
        names = ", ".join(kind.__struct_fields__)
        message = f"score parameters: found others than those of {name}; allowed: an object with {names}"
    # Outside the handler, so that the traceback does not carry msgspec's message, which may quote a value.
    raise ScoreError(message)


def fit(name: str, benign: Sequence[Signals], bad: Sequence[Signals], seed: int, params: Params) -> Score:
    """Return a score fitted to labelled signals.

    Signals it was fitted to must not calibrate it: their scores are not exchangeable with those of later records.

    Args:
        name: One of `SCORES`; one outside `FITTED_SCORES` looks at no signals.
        benign: Of benign records.
        bad: Of bad records; only the learned score looks at them.
        seed: Of everything random in a fit.
        params: Weights and ranges of the weighted score.

    Raises:
        ScoreError: No such score, too few signals for it, or the library that fits it is not installed.
    """
    _check_name(name)
    if name == WeightedScore.name:
        return WeightedScore.of_params(params)
    enough_benign = _enough(benign, "benign")
    if name == MahalanobisScore.name:
        return MahalanobisScore.fitted(enough_benign, seed)
    return LearnedScore.fitted(enough_benign, _enough(bad, "bad"))


def _enough(signals: Sequence[Signals], label: str) -> Floats:
    if len(signals) < FIT_SIGNALS_MIN:
        raise ScoreError(
            f"score: found {len(signals)} {label} signals to fit it to; allowed: {FIT_SIGNALS_MIN} or more"
        )
    return np.array(signals, dtype=np.float64)


def _check_name(name: str) -> None:
    if name not in SCORES:
        raise ScoreError(
            f"score: found an unknown name of length {len(name)}; allowed: one of {', '.join(SCORES)}"
        )
