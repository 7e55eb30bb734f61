"""Which columns of a text input are taken where nobody chose, and what is said of the others.

The first event decides. A column with a number there is taken; one with text, or another kind of thing, is left out,
and that is told once. A cell that says there is no value decides nothing: taking the column or leaving it out would
both be guesses, and the record would be of other data than meant, so it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pcs_agent.errors import InputError
from pcs_core.redact import redact

LEFT_OUT_NAMED_MAX = 10
"""Of more columns that are left out, only the number is told."""

LABEL_CHARACTERS_MAX = 64
"""Characters of a column's name in messages."""

_NO_VALUE = frozenset({"", "-", "n/a", "#n/a", "na", "nan", "null", "none"})
_SEPARATORS = {";": "semicolons", "\t": "tabs"}


class LeftOutColumns:
    """Tells of columns that are left out, of each set of them once, however many inputs have it."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        """Take whom to tell."""
        self._warn = warn
        self._told: set[tuple[str, ...]] = set()

    def note(self, name: str, columns: Sequence[tuple[str, str]]) -> None:
        """Tell of them, unless the same were told of before.

        Args:
            name: The input's name.
            columns: Name and kind of content of each, such as `("time", "text")`.
        """
        told = tuple(f"{label(column)} ({kind})" for column, kind in columns)
        if not told or told in self._told:
            return
        self._told.add(told)
        more = f" and {len(told) - LEFT_OUT_NAMED_MAX} more" if len(told) > LEFT_OUT_NAMED_MAX else ""
        self._warn(f"{name}: columns left out: {', '.join(told[:LEFT_OUT_NAMED_MAX])}{more}")


def label(column: str) -> str:
    """Return what messages call a column: short, redacted, in quotes, without anything a terminal would obey."""
    return repr(redact(column[:LABEL_CHARACTERS_MAX]))


def says_no_value(cell: str) -> bool:
    """Whether a cell of text stands for a missing value.

    >>> [says_no_value(cell) for cell in ("", " N/A ", "null", "north")]
    [True, True, True, False]
    """
    return cell.strip().lower() in _NO_VALUE


def undecided(name: str, row: int, column: str, found: str) -> InputError:
    """Return the refusal of a first event that has no value in a column.

    Args:
        name: The input's name.
        row: Its row.
        column: The column's name.
        found: The kind of thing that stands there.
    """
    return InputError(
        f"{name}: row {row}, column {label(column)}: found {found} in the first event, which decides the columns; "
        "allowed: a number, or text to leave the column out; or choose columns with --columns"
    )


def separator_hint(cells: Sequence[str]) -> str:
    """Return a hint for the end of a message if the cells look as if the separator were no comma, else nothing."""
    text = "".join(cells)
    for mark, word in _SEPARATORS.items():
        if mark in text:
            return f" (is the separator a comma? found {word}; decimal commas are not taken)"
    return ""


def holds_several_numbers(cell: str, is_number: Callable[[str], bool]) -> bool:
    """Whether one cell holds numbers with another separator between them: a file whose decimal mark is the comma."""
    return any(mark in cell and all(map(is_number, cell.split(mark))) for mark in _SEPARATORS)
