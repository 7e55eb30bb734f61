"""Leaves of tokens without an object for each, and what is done with leaves of either kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import overload

import numpy as np
import numpy.typing as npt

TOKEN_BYTES = 4
"""A token's leaf: its id as little-endian uint32 (contract §1)."""


class TokenLeaves(Sequence[bytes]):
    """The leaves of token ids.

    >>> [leaf.hex() for leaf in TokenLeaves(np.array([1, 2**32 - 1]))]
    ['01000000', 'ffffffff']
    """

    def __init__(self, ids: npt.NDArray[np.integer]) -> None:
        """Take the ids, shape (n,), each 0 … 2^32−1."""
        self.ids: npt.NDArray[np.uint32] = np.ascontiguousarray(ids, dtype="<u4")

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> TokenLeaves: ...
    def __getitem__(self, index: int | slice) -> bytes | TokenLeaves:
        if isinstance(index, slice):
            return TokenLeaves(self.ids[index])
        leaf: bytes = self.ids[index].tobytes()
        return leaf

    def __iter__(self) -> Iterator[bytes]:
        data = self.ids.tobytes()
        return (data[first : first + TOKEN_BYTES] for first in range(0, len(data), TOKEN_BYTES))


def join_leaves(leaves: Sequence[bytes]) -> bytes:
    """Return the leaves one after the other."""
    return leaves.ids.tobytes() if isinstance(leaves, TokenLeaves) else b"".join(leaves)


def concatenate_leaves(parts: Sequence[Sequence[bytes]]) -> Sequence[bytes]:
    """Return the leaves of all parts, in order."""
    tokens = [part.ids for part in parts if isinstance(part, TokenLeaves)]
    if len(tokens) == len(parts):
        return TokenLeaves(np.concatenate(tokens))
    return list(chain.from_iterable(parts))
