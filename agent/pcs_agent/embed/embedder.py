"""The door through which text and tokens become vectors.

An embedder is a pure function of the leaves of one window: whoever holds the leaves and the method's name and
parameters gets the same rows. So nothing of the windows before flows in, and nothing is random but by a seed that the
method names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Method = dict[str, float | int | bool | str]
"""What the record says of how something was computed: `name`, and parameters (contract §1)."""


class Embedder(Protocol):
    """Makes rows of leaves."""

    @property
    def dimension(self) -> int:
        """Columns of every row, 1 … 4096."""

    @property
    def method(self) -> Method:
        """Name and parameters, as the record's `methods.events` has them."""

    def embed(self, leaves: Sequence[bytes]) -> npt.NDArray[np.float64]:
        """Return one row a leaf, shape (n, dimension), finite, C-contiguous.

        Args:
            leaves: All of one window, in order: UTF-8 of text, or little-endian uint32 of tokens.
        """
