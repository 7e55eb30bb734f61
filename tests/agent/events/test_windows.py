"""Windows of text and tokens: leaves, symbols, and rows that follow from the leaves alone."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from pcs_agent.embed import Method, TokenLeaves
from pcs_agent.errors import InputError
from pcs_agent.events import EventSource, Pieces, Window, iter_windows
from pcs_agent.events.source import Batch


class Lengths:
    """An embedder of one column: the bytes of the leaf; it remembers what it was given."""

    def __init__(self, name: str = "lengths", dimension: int = 1) -> None:
        self.dimension = dimension
        self.method: Method = {"name": name, "dimension": dimension}
        self.given: list[list[bytes]] = []

    def embed(self, leaves: Sequence[bytes]) -> Batch:
        self.given.append(list(leaves))
        return np.array([[float(len(leaf))] * self.dimension for leaf in leaves])


class Given:
    """A source of the batches it is given."""

    def __init__(self, *batches: Batch | Pieces, name: str = "given") -> None:
        self.name = name
        self._batches = batches

    def count(self) -> int | None:
        return None

    def batches(self, rows_max: int) -> Iterator[Batch | Pieces]:
        return iter(self._batches)


def windows(*sources: EventSource, rows: int | None = None) -> list[Window]:
    return list(iter_windows(sources, rows))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_a_window_of_text_is_what_its_leaves_say_however_they_came(size: int) -> None:
    embedder = Lengths()
    leaves = [b"a ", b"bb ", b"ccc ", b"dddd ", b"e"]
    parts = [leaves[first : first + size] for first in range(0, 5, size)]
    first, second = windows(Given(*(Pieces(part, embedder) for part in parts)), rows=3)
    assert (first.number, first.leaves, first.symbols) == (0, leaves[:3], b"a bb ccc ")
    assert (second.number, second.leaves, second.symbols) == (1, leaves[3:], b"dddd e")
    assert (first.events.tolist(), second.events.tolist()) == ([[2.0], [3.0], [4.0]], [[5.0], [1.0]])
    assert embedder.given == [leaves[:3], leaves[3:]]
    assert first.method == {"name": "lengths", "dimension": 1}


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_window_of_tokens_has_four_bytes_a_token(size: int) -> None:
    ids = [1, 2**32 - 1, 0, 7]
    parts = [TokenLeaves(np.array(ids[first : first + size])) for first in range(0, 4, size)]
    (window,) = windows(Given(*(Pieces(part, Lengths()) for part in parts)))
    assert window.symbols == struct.pack("<4I", *ids)
    assert window.leaves is not None
    assert list(window.leaves) == [struct.pack("<I", token) for token in ids]
    assert [window.leaves[index] for index in (0, -1)] == [b"\1\0\0\0", b"\7\0\0\0"]
    assert list(window.leaves[1:3]) == [b"\xff" * 4, b"\0" * 4]


def test_rows_of_numbers_have_neither_leaves_nor_symbols() -> None:
    (window,) = windows(Given(np.ones((2, 2))))
    assert (window.leaves, window.symbols, window.method) == (None, None, None)


def test_text_and_numbers_are_not_one_stream() -> None:
    text = Given(Pieces([b"a"], Lengths()), name="talk")
    rows = Given(np.ones((1, 1)), name="rows")
    with pytest.raises(InputError, match=r"talk: found events for lengths; allowed: rows of numbers"):
        windows(rows, text)
    with pytest.raises(InputError, match=r"rows: found rows of numbers; allowed: events for lengths"):
        windows(text, rows)
    with pytest.raises(InputError, match=r"found events for other; allowed: events for lengths"):
        windows(text, Given(Pieces([b"a"], Lengths("other"))))


def test_the_rows_a_window_of_text_would_have_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pcs_agent.events.windows.WINDOW_VALUES_MAX", 12)
    embedder = Lengths(dimension=4)
    assert len(windows(Given(Pieces([b"a"] * 3, embedder)))) == 1
    with pytest.raises(InputError, match=r"found over 4 events of 4 columns.*--window ROWS"):
        windows(Given(Pieces([b"a"] * 3, embedder), Pieces([b"a"], embedder)))
