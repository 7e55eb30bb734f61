"""The express lane: the common request is answered without a task, a coroutine or a response object of its own.

aiohttp makes a task a request, and objects for its answer; that costs more than all checks of a record. Here a request
that came whole, in the form almost every client gives it, is handed on as soon as aiohttp's parser has it, and its
answer is written as bytes when it is there. Everything else — a body in pieces, another path or type, HTTP/1.0, a
connection that is to close — takes aiohttp's own way, unchanged. Both ways keep to the bounds of `protocol`, and to the
order of requests on a connection: one is under way at a time, whichever way it takes.

While too much is under way, a request is refused before it is even parsed, from the bytes it came as.

This reaches into `RequestHandler`, so the versions of aiohttp are bounded (ADR 22): it uses `_messages`, `_waiter`,
`_request_in_progress`, `_handler_waiter`, `_paused`, `_upgraded`, `_close`, `_force_close` and the time of keep-alive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from aiohttp.http import HttpVersion11, RawRequestMessage

from pcs_backend.exchange import Reply
from pcs_backend.http.intake import CONNECTION_BYTES_MAX, Intake
from pcs_backend.http.protocol import KEEPALIVE_TIMEOUT_S, Handler, ProblemProtocol, ProblemServer

Answer = Callable[[Reply, str], None]
"""Takes the answer to a request, and the request's id."""


class Lane(Protocol):
    """What answers the requests of the express lane."""

    def wants(self, message: RawRequestMessage, size_bytes: int) -> bool:
        """Whether a whole HTTP/1.1 request takes this lane.

        Args:
            message: Its header.
            size_bytes: Length of its body.
        """

    def take(
        self,
        message: RawRequestMessage,
        body: bytes,
        transport: asyncio.BaseTransport | None,
        answer: Answer,
    ) -> None:
        """Answer a request that `wants` said yes to.

        Args:
            message: Its header.
            body: All of it.
            transport: Where it came from.
            answer: To be called once, now or later.
        """

    def encode(self, reply: Reply, request_id: str, *, close: bool = False) -> bytes:
        """Return the bytes of an answer.

        Args:
            reply: What is answered.
            request_id: Names the request.
            close: Whether the connection ends with it.
        """
        ...

    def shed(self, data: bytes) -> bytes | None:
        """Return the answer to bytes that need not even be parsed, because there is too much under way.

        Args:
            data: What came, at the start of a request.

        Returns:
            `None` if they are to be parsed.
        """


class ExpressProtocol(ProblemProtocol):
    """A connection with an express lane."""

    __slots__ = ("_advancing", "_express", "_lane", "_left")

    def __init__(self, server: ExpressServer) -> None:
        super().__init__(server)
        self._lane = server.lane
        self._express = False
        self._advancing = False
        self._left = False

    def data_received(self, data: bytes) -> None:
        """Refuse or parse what comes, and hand on what is complete."""
        if self._held_bytes == 0 and self._is_idle() and (refusal := self._lane.shed(data)) is not None:
            self._header_since_s = None
            self._next_keepalive_close_time = self._loop.time() + KEEPALIVE_TIMEOUT_S
            assert self.transport is not None
            self.transport.write(refusal)
            return
        waiter, self._waiter = (
            self._waiter,
            None,
        )  # so that nothing wakes before it is clear which way is taken
        try:
            super().data_received(data)
        finally:
            self._waiter = waiter
        self._advance()

    def _is_idle(self) -> bool:
        """Whether nothing is under way, and aiohttp's task waits for a request."""
        return (
            self._waiter is not None
            and not self._waiter.done()
            and not self._express
            and not self._messages
            and not self._paused
            and not self._upgraded
            and self.transport is not None
        )

    def _advance(self) -> None:
        """Begin with what waits, if nothing is under way."""
        if self._advancing:
            return
        self._advancing = True
        while self._messages and not self._express and (waiter := self._waiter) is not None:
            if waiter.done() or self._force_close or self._close:
                break
            message, payload = self._messages[0]
            if (
                self._paused
                or self.overloaded
                or self._upgraded
                or not isinstance(message, RawRequestMessage)
                or message.should_close
                or message.version != HttpVersion11
                or not payload.is_eof()
                or not self._lane.wants(message, payload.total_bytes)
            ):
                waiter.set_result(None)
                break
            self._messages.popleft()
            if self._parser is not None:
                self._parser.message_consumed()
            self._server.requests_count += 1
            body = payload.read_nowait(-1)
            self.body_bytes += len(body)
            self._express = self._request_in_progress = True
            self._lane.take(message, body, self.transport, self._answer)
        self._advancing = False

    def _answer(self, reply: Reply, request_id: str) -> None:
        """Write the answer of the request under way, and go on."""
        is_last = self._answered + 1 == self._request_count
        close = self.overloaded or (is_last and self._held_bytes - self.body_bytes > CONNECTION_BYTES_MAX)
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.write(self._lane.encode(reply, request_id, close=close))
        self._express = self._request_in_progress = False
        self._note_answered()
        if self._handler_waiter is not None and not self._handler_waiter.done():
            self._handler_waiter.set_result(None)
        if self._left:
            self._leave()
        elif close or self._close:
            self.force_close()
        else:
            self._next_keepalive_close_time = self._loop.time() + KEEPALIVE_TIMEOUT_S
            if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
                self._resume_reading_if_drained()
            if self._messages:
                self._advance()

    def _leave(self) -> None:
        if self._express:  # what it sent is still being judged
            self._left = True
        else:
            super()._leave()

    def _process_keepalive(self) -> None:
        if self._express:
            self._next_keepalive_close_time = self._loop.time() + KEEPALIVE_TIMEOUT_S
        super()._process_keepalive()


class ExpressServer(ProblemServer):
    """Makes an `ExpressProtocol` a connection.

    Attributes:
        lane: What answers the requests of the express lane.
    """

    def __init__(
        self, handler: Handler, lane: Lane, intake: Intake, note_refused: Callable[[], None] = lambda: None
    ) -> None:
        """Take what answers.

        Args:
            handler: Answers what does not take the express lane.
            lane: Answers the others.
            intake: Bounds of all connections together.
            note_refused: Told of every connection that got no place.
        """
        super().__init__(handler, intake, note_refused)
        self.lane = lane

    def __call__(self) -> ExpressProtocol:
        """Make the protocol of one connection."""
        return ExpressProtocol(self)
