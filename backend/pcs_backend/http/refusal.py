"""Answers that are written without a request: to a connection that gets no place, or whose header does not come."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from pcs_backend.exchange import Reply
from pcs_backend.problems import unavailable_reply

REFUSALS_MAX = 64
"""Refused connections that are being told so at once; further ones are cut off without a word."""

REFUSAL_LINGER_S = 0.5
"""How long a refused connection stays open, so that the answer gets across: closed at once, with bytes of the client
unread, it would be reset and the answer lost."""

_FULL = unavailable_reply("as many connections are open as are allowed")


def raw_response(reply: Reply) -> bytes:
    """Return a reply as the last answer of an HTTP/1.1 connection."""
    status = HTTPStatus(reply.status)
    headers = {
        "Server": "pcs-backend",
        **reply.headers,
        "Content-Type": reply.content_type,
        "Content-Length": str(len(reply.body)),
        "Connection": "close",
    }
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + reply.body


class Refusal(asyncio.Protocol):
    """A connection that is told that there is no place, reads nothing, and ends."""

    def __init__(self, transport: asyncio.Transport, refusals: set[Refusal]) -> None:
        """Answer, and end soon; the transport is ours from now on.

        Args:
            transport: Just connected.
            refusals: Those under way, which this one joins and leaves.
        """
        self._transport = transport
        self._refusals = refusals
        self._timer: asyncio.TimerHandle | None = None
        if len(refusals) >= REFUSALS_MAX:
            transport.abort()
            return
        refusals.add(self)
        transport.write(raw_response(_FULL))
        transport.write_eof()
        self._timer = asyncio.get_running_loop().call_later(REFUSAL_LINGER_S, transport.abort)

    def abort(self) -> None:
        """End now."""
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave."""
        del exc
        self._refusals.discard(self)
        if self._timer is not None:
            self._timer.cancel()
