"""Answers as bytes: status line, headers and body of a reply, ready for the socket.

The lines that are the same for every answer of one status and type are made once a second, which is how often `Date`
changes; agents measure their clock by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus

from pcs_backend.exchange import Reply
from pcs_core.ports import WallClock

SERVER = "pcs-backend"

_CLOSE: Mapping[str, str] = {"Connection": "close"}


class Answers:
    """Writes the answers of one server."""

    def __init__(self, now: WallClock) -> None:
        """Take the clock that dates them."""
        self._now = now
        self._second = -1
        self._heads: dict[tuple[int, str], bytes] = {}

    def encode(self, reply: Reply, headers: Mapping[str, str], *, close: bool = False) -> bytes:
        """Return an answer to an HTTP/1.1 request that is not HEAD.

        Args:
            reply: What is answered.
            headers: Further ones, beside the reply's own.
            close: Whether the connection ends with it.
        """
        second = int(self._now())
        if second != self._second:
            self._second = second
            self._heads.clear()
        kind = (reply.status, reply.content_type)
        head = self._heads.get(kind)
        if head is None:
            head = self._heads[kind] = _head(*kind, second)
        if close:
            headers = {**headers, **_CLOSE}
        if reply.headers:
            headers = {**reply.headers, **headers}
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()]).encode("ascii")
        return b"%b%bContent-Length: %d\r\n\r\n%b" % (head, lines, len(reply.body), reply.body)


def _head(status: int, content_type: str, second: int) -> bytes:
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nServer: {SERVER}\r\n"
        f"Date: {formatdate(second, usegmt=True)}\r\nContent-Type: {content_type}\r\n"
    ).encode("ascii")
