"""How messages count things and name files."""

from __future__ import annotations

from pcs_core.redact import redact


def count_of(number: int, noun: str) -> str:
    """Return a number and its noun.

    >>> count_of(1, "event"), count_of(0, "event")
    ('1 event', '0 events')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def display_name(path: str) -> str:
    """Return what messages call a file: redacted, and without anything a terminal would obey."""
    return redact("".join(character if character.isprintable() else "?" for character in path))
