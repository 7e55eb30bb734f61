"""What names one request in logs, traces and the log of requests: its id, made here, and the trace its sender is in.

A request id is the process's random part and a count, 20 hex digits: never a client's string, so that nobody can write
into the logs with it. The trace comes from the header `traceparent` (W3C Trace Context), of which only the form of
version 00 is taken; anything else counts as none.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from pcs_core.ports import RandomBytes

REQUEST_ID_HEADER = "X-Request-ID"
TRACEPARENT_HEADER = "traceparent"

_PROCESS_BYTES = 6
_COUNT_BITS = 32
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
_TRACE_ID = slice(3, 35)
_SPAN_ID = slice(36, 52)
_FLAGS = slice(53, 55)


class RequestIds:
    """Makes ids that no other process, and no other request of this one, has."""

    def __init__(self, random_bytes: RandomBytes) -> None:
        """Take the source of the process's own part."""
        self._process = random_bytes(_PROCESS_BYTES).hex()
        self._counts = itertools.count(1)

    def next_id(self) -> str:
        """Return the next one: 20 hex digits."""
        return f"{self._process}{next(self._counts) & ((1 << _COUNT_BITS) - 1):08x}"


def read_traceparent(values: Sequence[str]) -> str:
    """Return the header if it came once and in the form of version 00; otherwise nothing.

    >>> read_traceparent(["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"])[3:11]
    '0af76519'
    >>> read_traceparent(["00-00000000000000000000000000000000-b7ad6b7169203331-01"])
    ''
    """
    return values[0] if len(values) == 1 and _TRACEPARENT.fullmatch(values[0]) else ""


def trace_id_of(traceparent: str) -> str:
    """Return the trace's id, 32 hex digits; empty for none."""
    return traceparent[_TRACE_ID]


def parent_of(traceparent: str) -> tuple[int, int, int]:
    """Return trace id, the sender's span id and flags of a header that was taken, as numbers."""
    return tuple(int(traceparent[part], 16) for part in (_TRACE_ID, _SPAN_ID, _FLAGS))  # type: ignore[return-value]  # three parts
