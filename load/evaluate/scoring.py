"""The backend's scores on streams: fitted to streams of the tuning texts, and applied to what a record says of others.

A score is fitted for each length, as a service whose windows have one length would have it. Beside the learned score
stand those that were fitted without a family of kinds: how it judges a kind it was not shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from evaluate.measure import RECORD_SIGNALS, Values
from evaluate.streams import HEALTHY
from pcs_backend.conformal.calibration import Signals
from pcs_backend.conformal.scores import SCORES, Score, fit, score_from
from pcs_core.canonical import round9
from pcs_core.params import Params

LEARNED = "learned"
UNSEEN = f"{LEARNED} without"
"""Followed by the family of kinds that the fit did not have."""

FIT_SEED = 1

Fits = Mapping[str, str]
"""Parameters of scores by name."""


def family_of(kind: str) -> str:
    """Return what a kind is one of: loops of all periods are one family.

    >>> family_of("loop 50"), family_of("drift")
    ('loop', 'drift')
    """
    return kind.split(maxsplit=1)[0]


def unseen_by(kind: str) -> str:
    """Return the name of the learned score that was not shown a kind.

    >>> unseen_by("loop 50")
    'learned without loop'
    """
    return f"{UNSEEN} {family_of(kind)}"


def scores_for(kind: str) -> tuple[str, ...]:
    """Return the names of the scores that judge a kind."""
    return (*SCORES, unseen_by(kind))


def fit_scores(values: Mapping[str, Values]) -> dict[str, str]:
    """Return the parameters of every score, fitted to streams of one length.

    Args:
        values: Signals by kind, healthy streams among them.
    """
    benign = _signals(values[HEALTHY])
    bad = {kind: _signals(each) for kind, each in values.items() if kind != HEALTHY}
    fits = {name: _fit(name, benign, list(bad.values())) for name in SCORES}
    for family in dict.fromkeys(family_of(kind) for kind in bad):
        rest = [each for kind, each in bad.items() if family_of(kind) != family]
        fits[f"{UNSEEN} {family}"] = _fit(LEARNED, benign, rest)
    return fits


def add_scores(values: Mapping[str, Values], fits: Fits) -> dict[str, Values]:
    """Return the values with those of every score that was fitted, by kind."""
    scores = {name: _score(name, parameters) for name, parameters in fits.items()}
    added: dict[str, Values] = {}
    for kind, each in values.items():
        rows = np.array(_signals(each))
        added[kind] = {**each, **{name: score.of_many(rows) for name, score in scores.items()}}
    return added


def _fit(name: str, benign: Sequence[Signals], bad: Sequence[Sequence[Signals]]) -> str:
    together = [each for kind in bad for each in kind]
    return fit(name, benign, together, FIT_SEED, Params()).parameters


def _score(name: str, parameters: str) -> Score:
    return score_from(LEARNED if name.startswith(UNSEEN) else name, parameters, Params())


def _signals(values: Values) -> list[Signals]:
    """Return what a gate sees of records: rounded as they are when they are sent."""
    columns = zip(*(values[name].tolist() for name in RECORD_SIGNALS), strict=True)
    return [Signals(*(round9(each) for each in row)) for row in columns]
