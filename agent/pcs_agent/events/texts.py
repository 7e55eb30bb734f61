"""Plain text in UTF-8. The leaves are its pieces as they stand there, white space included; blank lines are skipped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO

from pcs_agent.embed import Embedder
from pcs_agent.events.source import Pieces, batch_rows
from pcs_agent.events.text_lines import decode_line, iter_lines
from pcs_agent.events.units import Split


class TextSource:
    """Events of a text file or stream."""

    def __init__(self, name: str, file: BinaryIO, split: Split, embedder: Embedder) -> None:
        """Take the open file.

        Args:
            name: Redacted name for messages.
            file: Binary, read to its end; the caller closes it.
            split: Cuts the text into events.
            embedder: Makes rows of them.
        """
        self.name = name
        self._file = file
        self._split = split
        self._embedder = embedder

    def count(self) -> int | None:
        """Not known before reading."""
        return None

    def batches(self, rows_max: int) -> Iterator[Pieces]:
        """As `EventSource.batches`."""
        lines = enumerate(iter_lines(self.name, self._file), start=1)
        text = (decode_line(self.name, number, line) for number, line in lines)
        yield from batch_pieces(self._split(text), self._embedder, rows_max)


def batch_pieces(pieces: Iterable[str], embedder: Embedder, rows_max: int) -> Iterator[Pieces]:
    """Yield pieces of text in batches of up to `rows_max`, each as soon as it is full."""
    size = batch_rows(embedder.dimension, rows_max)
    leaves: list[bytes] = []
    for piece in pieces:
        leaves.append(piece.encode("utf-8"))
        if len(leaves) >= size:
            yield Pieces(leaves, embedder)
            leaves = []
    if leaves:
        yield Pieces(leaves, embedder)
