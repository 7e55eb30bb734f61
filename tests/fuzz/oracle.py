"""What may come out of a parser: a value, or the error it documents, and no byte of a secret with it."""

from __future__ import annotations

from collections.abc import Iterator

CANARY = "Xq7Zj"
"""Stands in the inputs where a payload or a secret would: short, so that mutations often leave it whole."""


class FindingError(Exception):
    """A parser broke its word. This is what a fuzzing run counts as a crash."""


def ensure(holds: bool, word: str) -> None:
    """Raise a finding unless the product keeps its word. Not `assert`, which reads worse in a crash's last line."""
    if not holds:
        raise FindingError(word)


def ensure_clean(error: BaseException) -> None:
    """Check that neither an expected error nor one chained to it quotes the input."""
    for each in chain(error):
        said = f"{each} {each.args!r}"
        if CANARY.casefold() in said.casefold():
            raise FindingError(f"{type(each).__name__} quotes the input") from None


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and everything that a traceback of it would print."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
