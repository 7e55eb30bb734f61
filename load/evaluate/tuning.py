"""What was chosen by looking at figures, and where it is kept.

`python -m evaluate tune` measures streams of the tuning texts and writes `tuning.json`: for each signal and kind whether
high or low values are bad, and which signal is looked at first for a kind. `make evaluate` reads it and changes nothing
in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from evaluate.auroc import auroc
from evaluate.measure import BASELINES, PQ_SIGNALS, SIGNALS, Values
from evaluate.sources import TUNING, Text
from evaluate.streams import HEALTHY

FOLDER = Path(__file__).resolve().parent
TUNING_FILE = FOLDER / "tuning.json"

HIGH, LOW = "high", "low"
FIRST_LOOK_LENGTH = 200
"""Length at which the goals are set, and so the signal for a kind is chosen."""

_CODE = ("auroc.py", "measure.py", "sources.py", "streams.py", "tuning.py")

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
            of the AUROC's distance from one half.
        first_look: By kind the signal with the best AUROC at 200 tokens; where equal, with the best mean over the lengths.
        aurocs: By signal and kind, at 200 tokens and in that direction.
    """

    texts: list[Pinned]
    directions: dict[str, dict[str, str]]
    first_look: dict[str, str]
    aurocs: dict[str, dict[str, float]]


def pin(texts: Sequence[Text]) -> list[Pinned]:
    """Return what identifies the texts."""
    return [Pinned(text.name, text.package, text.version, text.sha256) for text in texts]


def decide(measured: Measured) -> Tuning:
    """Return the decisions that figures of tuning texts lead to.

    Args:
        measured: Values of streams of the tuning texts, `FIRST_LOOK_LENGTH` among the lengths.
    """
    kinds = [kind for kind in measured[FIRST_LOOK_LENGTH] if kind != HEALTHY]
    signals = (*SIGNALS, *PQ_SIGNALS, *BASELINES)
    directions: dict[str, dict[str, str]] = {name: {} for name in signals}
    aurocs: dict[str, dict[str, float]] = {name: {} for name in signals}
    means: dict[str, dict[str, float]] = {name: {} for name in signals}
    for name in signals:
        for kind in kinds:
            found = {
                length: auroc(values[kind][name], values[HEALTHY][name])
                for length, values in measured.items()
                if kind in values
            }
            mean = float(np.mean(list(found.values())))
            is_high = mean >= 0.5
            directions[name][kind] = HIGH if is_high else LOW
            here = found[FIRST_LOOK_LENGTH]
            aurocs[name][kind] = round(here if is_high else 1 - here, 3)
            means[name][kind] = round(mean if is_high else 1 - mean, 3)
    first_look = {kind: _best(kind, aurocs, means) for kind in kinds}
    return Tuning(pin(TUNING), directions, first_look, aurocs)


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
