"""What was chosen by looking at figures, and where it is kept.

`python -m evaluate tune` measures streams of the tuning texts and writes `tuning.json`: for each signal and kind whether
high or low values are bad, which signal is looked at first for a kind, what the scores were fitted to, which of them is
the default and which kinds they see. `make evaluate` reads it and changes nothing in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from evaluate.auroc import auroc
from evaluate.measure import BASELINES, PQ_SIGNALS, SIGNALS, Values
from evaluate.scoring import LEARNED, scores_for, unseen_by
from evaluate.sources import TUNING, Text
from evaluate.streams import HEALTHY
from pcs_backend.conformal.scores import SCORES

FOLDER = Path(__file__).resolve().parent
TUNING_FILE = FOLDER / "tuning.json"

HIGH, LOW = "high", "low"
FIRST_LOOK_LENGTH = 200
"""Length at which the goals are set, and so the signal for a kind is chosen."""

SEEN_AUROC_MIN = 0.90
"""AUROC of the default score from which on a kind counts as seen."""

_CODE = ("auroc.py", "measure.py", "scoring.py", "sources.py", "streams.py", "tuning.py", "verdicts.py")

Measured = Mapping[int, Mapping[str, Values]]
"""Values by length and kind."""


class Pinned(msgspec.Struct, frozen=True):
    """A text's package."""

    name: str
    package: str
    version: str
    sha256: str


class Tuning(msgspec.Struct, frozen=True):
    """What tuning decided.

    Attributes:
        texts: What it was decided on.
        directions: By signal and kind whether `high` or `low` values are bad: the sign of the mean, over the lengths,
            of the AUROC's distance from one half. A high score is bad by definition.
        first_look: By kind the signal with the best AUROC at 200 tokens; where equal, with the best mean over the lengths.
        aurocs: By signal and kind, at 200 tokens and in that direction.
        score_means: The mean AUROC of each score over all lengths and kinds; of the learned one for kinds it was not
            shown, as nobody knows which kind comes next.
        default_score: The one with the greatest.
        seen: Kinds that the default score sees at 200 tokens.
        fits: Parameters of the scores, by length and name; fitted to other streams than those of the figures.
    """

    texts: list[Pinned]
    directions: dict[str, dict[str, str]]
    first_look: dict[str, str]
    aurocs: dict[str, dict[str, float]]
    score_means: dict[str, float]
    default_score: str
    seen: list[str]
    fits: dict[str, dict[str, str]]


def pin(texts: Sequence[Text]) -> list[Pinned]:
    """Return what identifies the texts."""
    return [Pinned(text.name, text.package, text.version, text.sha256) for text in texts]


def names_for(kind: str) -> tuple[str, ...]:
    """Return the names of everything that is judged for a kind."""
    return (*SIGNALS, *PQ_SIGNALS, *BASELINES, *scores_for(kind))


def decide(measured: Measured, fits: Mapping[int, Mapping[str, str]]) -> Tuning:
    """Return the decisions that figures of tuning texts lead to.

    Args:
        measured: Values and scores of streams of the tuning texts, `FIRST_LOOK_LENGTH` among the lengths.
        fits: What made the scores, by length.
    """
    kinds = [kind for kind in measured[FIRST_LOOK_LENGTH] if kind != HEALTHY]
    directions: dict[str, dict[str, str]] = {}
    aurocs: dict[str, dict[str, float]] = {}
    means: dict[str, dict[str, float]] = {}
    by_score: dict[str, list[float]] = {name: [] for name in SCORES}
    for kind in kinds:
        for name in names_for(kind):
            found = {
                length: auroc(values[kind][name], values[HEALTHY][name])
                for length, values in measured.items()
                if kind in values
            }
            mean = float(np.mean(list(found.values())))
            is_high = mean >= 0.5 or name in scores_for(kind)
            directions.setdefault(name, {})[kind] = HIGH if is_high else LOW
            here = found[FIRST_LOOK_LENGTH]
            aurocs.setdefault(name, {})[kind] = round(here if is_high else 1 - here, 3)
            means.setdefault(name, {})[kind] = round(mean if is_high else 1 - mean, 3)
            if name in SCORES and name != LEARNED:
                by_score[name] += found.values()
            elif name == unseen_by(kind):
                by_score[LEARNED] += found.values()
    first_look = {kind: _best(kind, aurocs, means) for kind in kinds}
    score_means = {name: round(float(np.mean(found)), 3) for name, found in by_score.items()}
    default = max(score_means, key=lambda name: score_means[name])
    return Tuning(
        texts=pin(TUNING),
        directions=directions,
        first_look=first_look,
        aurocs=aurocs,
        score_means=score_means,
        default_score=default,
        seen=[kind for kind in kinds if aurocs[default][kind] >= SEEN_AUROC_MIN],
        fits={str(length): dict(each) for length, each in fits.items()},
    )


def _best(
    kind: str, aurocs: Mapping[str, Mapping[str, float]], means: Mapping[str, Mapping[str, float]]
) -> str:
    return max(SIGNALS, key=lambda name: (aurocs[name][kind], means[name][kind]))


def write(tuning: Tuning, path: Path = TUNING_FILE) -> None:
    """Write the decisions as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(tuning)) + b"\n")


def read(path: Path = TUNING_FILE) -> Tuning:
    """Return the committed decisions."""
    return msgspec.json.decode(path.read_bytes(), type=Tuning)


def digest() -> str:
    """Return SHA-256 over the decisions and the code that builds streams and measures them.

    It stands beside the results: a commit's hash does not survive a rebase, this does.
    """
    parts = [TUNING_FILE.read_bytes(), *((FOLDER / name).read_bytes() for name in _CODE)]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
