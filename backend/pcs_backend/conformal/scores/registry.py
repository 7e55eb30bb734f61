"""The scores by name: made again from what was stored, or fitted to labelled signals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from pcs_backend.conformal.calibration import Signals
from pcs_backend.conformal.scores.score import Score, StoredScore
from pcs_backend.conformal.scores.weighted import WeightedScore
from pcs_backend.errors import ScoreError
from pcs_core.params import Params

SCORES = ("weighted",)
"""Names that `CALIBRATION_SCORE` and sets may have."""

FITTED_SCORES: tuple[str, ...] = ()
"""Those of them that are fitted, to signals that must be apart from the ones that calibrate."""

DEFAULT_SCORE = "weighted"

_S = TypeVar("_S", bound=StoredScore)


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
    if parameters == "{}":
        return WeightedScore.of_params(params)
    return _decode(parameters, WeightedScore)


def fit(name: str, benign: Sequence[Signals], bad: Sequence[Signals], seed: int, params: Params) -> Score:
    """Return a score fitted to labelled signals.

    Signals it was fitted to must not calibrate it: their scores are not exchangeable with those of later records.

    Args:
        name: One of `SCORES`; one outside `FITTED_SCORES` looks at no signals.
        benign: Of benign records.
        bad: Of bad records.
        seed: Of everything random in a fit.
        params: Weights and ranges of the weighted score.

    Raises:
        ScoreError: No such score, too few signals for it, or its library is not installed.
    """
    _check_name(name)
    return WeightedScore.of_params(params)


def _check_name(name: str) -> None:
    if name not in SCORES:
        raise ScoreError(
            f"score: found an unknown name of length {len(name)}; allowed: one of {', '.join(SCORES)}"
        )


def _decode(parameters: str, kind: type[_S]) -> _S:
    try:
        return msgspec.json.decode(parameters, type=kind)
    except msgspec.MsgspecError:
        # msgspec's message may quote a value.
        names = ", ".join(kind.__struct_fields__)
        message = f"score parameters: found other than those of its score; allowed: an object with {names}"
    raise ScoreError(message)
