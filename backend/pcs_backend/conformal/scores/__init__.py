"""How odd a record's signals are: one number, higher is odder.

    score        what every score is
    weighted     a sum over the signals, with weights and ranges from the parameters; nothing is fitted
    mahalanobis  the distance from the bulk of benign signals (`robust`)
    learned      what tells bad records from benign ones, as far as they were labelled
    registry     all of them by name

A threshold holds for the score that made the calibration scores and for no other. So a score carries all it depends on
in its `parameters`, which are stored with the set; what is configured later changes no set that is there. Pure.
"""

from __future__ import annotations

from pcs_backend.conformal.scores.registry import (
    DEFAULT_SCORE,
    FIT_SIGNALS_MIN,
    FITTED_SCORES,
    SCORES,
    fit,
    score_from,
)
from pcs_backend.conformal.scores.score import Score

__all__ = ["DEFAULT_SCORE", "FITTED_SCORES", "FIT_SIGNALS_MIN", "SCORES", "Score", "fit", "score_from"]
