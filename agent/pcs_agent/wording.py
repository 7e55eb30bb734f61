"""How messages count things."""

from __future__ import annotations


def count_of(number: int, noun: str) -> str:
    """Return a number and its noun.

    >>> count_of(1, "event"), count_of(0, "event")
    ('1 event', '0 events')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
