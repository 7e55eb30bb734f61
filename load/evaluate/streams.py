"""Streams of known kind, built of real words.

All streams of one length have that many tokens. Marks of sentence ends are taken off the words and put back where
another, healthy passage of the same text has them, for every kind. So neither length nor the number of sentences says
anything of the kind, and the baselines of both must come out at 0.5 (lesson L30: elsewhere the number of sentences
alone scored 1.000).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

HEALTHY = "healthy"
LOOP_PERIODS = (5, 10, 20, 50)
LENGTHS = (20, 50, 100, 200, 500, 1000, 2000)

CHANGE_FIRST, CHANGE_LAST = 0.35, 0.65
"""Between which shares of a drifting stream its second source begins."""

_END = re.compile(r"[.!?]+[\"')\]]*$")
_DROPPED_BEFORE = 400
"""Words of a text in which no passage of half sentences begins: the longest list of words without an end."""


@dataclass(frozen=True)
class Stream:
    """One stream.

    Attributes:
        kind: `healthy`, or what was done to it.
        source: Name of the text, of both for a drift.
        words: The tokens.
        change: Where the second source of a drift begins; the length elsewhere.
    """

    kind: str
    source: str
    words: tuple[str, ...]
    change: int

    @property
    def sentences(self) -> int:
        """How many tokens end a sentence."""
        return sum(1 for word in self.words if word.endswith("."))


@dataclass(frozen=True)
class Source:
    """A text, cut into words without marks of sentence ends.

    Attributes:
        name: As the tables have it.
        words: Bare words.
        ends: Shape (n,), whether a sentence ends with the word.
        starts: Places at which a sentence starts.
        by_length: Distinct bare words by their number of characters.
    """

    name: str
    words: Sequence[str]
    ends: npt.NDArray[np.bool_]
    starts: npt.NDArray[np.intp]
    by_length: Mapping[int, Sequence[str]] = field(repr=False)


def source_of(name: str, words: Sequence[str]) -> Source:
    """Return a text as a source.

    Args:
        name: As the tables have it.
        words: As they stand in the text, more than a stream is long.
    """
    ends = np.array([_END.search(word) is not None for word in words])
    bare = [_END.sub("", word) or word for word in words]
    by_length: dict[int, list[str]] = {}
    for word in sorted(set(bare)):
        by_length.setdefault(len(word), []).append(word)
    return Source(name, bare, ends, np.flatnonzero(ends[:-1]) + 1, by_length)


def kinds_for(length: int) -> list[str]:
    """Return the kinds that make sense at a length: a loop has at least two rounds."""
    loops = [f"loop {period}" for period in LOOP_PERIODS if 2 * period <= length]
    return [HEALTHY, *loops, "shuffled", "drift", "truncated", "random"]


def build(sources: Sequence[Source], kind: str, length: int, count: int, seed: int) -> list[Stream]:
    """Return streams of one kind and length, as many of each source as of another.

    The same arguments give the same streams, whatever other kinds and lengths are built.

    Args:
        sources: At least two.
        kind: One of `kinds_for(length)`.
        length: In tokens.
        count: How many; a multiple of the number of sources keeps them balanced.
        seed: Of everything random.
    """
    rng = np.random.default_rng([seed, length, *kind.encode()])
    streams = []
    for number in range(count):
        source = sources[number % len(sources)]
        others = [each for each in sources if each is not source]
        other = others[int(rng.integers(len(others)))]
        name, _, period = kind.partition(" ")
        words, change = _MAKERS[name](source, other, length, int(period or 0), rng)
        # The marks of a drift are those of either text.
        template = other if kind == "drift" and rng.random() < 0.5 else source
        marked = _mark(words, template, rng)
        names = f"{source.name} to {other.name}" if kind == "drift" else source.name
        streams.append(Stream(kind, names, marked, change))
    return streams


def _mark(words: Sequence[str], template: Source, rng: np.random.Generator) -> tuple[str, ...]:
    first = _place(template, len(words), rng)
    ends = template.ends[first : first + len(words)]
    return tuple(f"{word}." if end else word for word, end in zip(words, ends, strict=True))


def _place(source: Source, length: int, rng: np.random.Generator) -> int:
    """Return where a sentence starts that so many words follow."""
    last = int(np.searchsorted(source.starts, len(source.words) - length, side="right"))
    return int(source.starts[rng.integers(last)])


def _passage(source: Source, length: int, rng: np.random.Generator) -> list[str]:
    first = _place(source, length, rng)
    return list(source.words[first : first + length])


_Made = tuple[list[str], int]


def _healthy(source: Source, _other: Source, length: int, _period: int, rng: np.random.Generator) -> _Made:
    return _passage(source, length, rng), length


def _loop(source: Source, _other: Source, length: int, period: int, rng: np.random.Generator) -> _Made:
    phrase = _passage(source, period, rng)
    return [phrase[place % period] for place in range(length)], length


def _shuffled(source: Source, _other: Source, length: int, _period: int, rng: np.random.Generator) -> _Made:
    words = _passage(source, length, rng)
    return [words[place] for place in rng.permutation(length)], length


def _drift(source: Source, other: Source, length: int, _period: int, rng: np.random.Generator) -> _Made:
    change = round(length * rng.uniform(CHANGE_FIRST, CHANGE_LAST))
    return [*_passage(source, change, rng), *_passage(other, length - change, rng)], change


def _truncated(source: Source, _other: Source, length: int, _period: int, rng: np.random.Generator) -> _Made:
    """One sentence after the other, each broken off after its first half."""
    words: list[str] = []
    place = _place(source, min(3 * length + _DROPPED_BEFORE, len(source.words) // 2), rng)
    while len(words) < length:
        end = place
        while end < len(source.words) - 1 and not source.ends[end]:
            end += 1
        words += source.words[place : place + (end - place + 2) // 2]
        place = end + 1 if end + 1 < len(source.words) else 0
    return words[:length], length


def _random(source: Source, _other: Source, length: int, _period: int, rng: np.random.Generator) -> _Made:
    """Words drawn from the text's vocabulary, each as long as the word it stands for: length in bytes says nothing."""
    words = _passage(source, length, rng)
    choices = [source.by_length[len(word)] for word in words]
    return [each[int(rng.integers(len(each)))] for each in choices], length


_MAKERS: dict[str, Callable[[Source, Source, int, int, np.random.Generator], _Made]] = {
    HEALTHY: _healthy,
    "loop": _loop,
    "shuffled": _shuffled,
    "drift": _drift,
    "truncated": _truncated,
    "random": _random,
}
