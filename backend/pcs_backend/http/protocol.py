"""aiohttp's low-level server, with its own errors answered as problem details, its logger kept quiet, and bounds.

aiohttp answers a request it cannot parse with a text that quotes it, and logs the same; neither may happen here. It also
lets a client open as many connections, take as long and send as much at once as it likes. Here every connection has a
time for each of its phases and some bytes of its own; what passes them is taken from a budget all connections share.

====================  =============================================================================================
a connection          is
====================  =============================================================================================
beyond the limit      answered 503 and closed, before anything of it is read
without a header      closed after `HEADER_TIMEOUT_S`, with 408 if the header had begun
with a slow body      answered 408 by the reader of the body
with too many bytes   answered 503 and closed: more than its own while the shared budget is used up
that does not read    cut off when an answer waits longer than `ANSWER_TIMEOUT_S`
idle                  closed after `KEEPALIVE_TIMEOUT_S`
====================  =============================================================================================
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import cast

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from pcs_backend.errors import place_of
from pcs_backend.exchange import Reply
from pcs_backend.http.intake import CONNECTION_BYTES_MAX, Intake
from pcs_backend.http.refusal import Refusal, raw_response
from pcs_backend.problems import Problem, unavailable_reply

HEADER_LINE_BYTES_MAX = 8_190
HEADERS_MAX = 64
KEEPALIVE_TIMEOUT_S = 75.0

HEADER_TIMEOUT_S = 10.0
"""From the first byte of a header, or from the connection's start, to the header's end."""

ANSWER_TIMEOUT_S = 10.0
"""How long an answer may wait for the client to read it."""

CONNECTION_CHECK_INTERVAL_S = 1.0
"""How often connections are looked at; the two times above are kept to within this."""

_BUFFER_BYTES = 64 * 1024
_HEADER_TOO_LONG = f"header: found more than is allowed; allowed: up to {CONNECTION_BYTES_MAX} bytes"
_HEADER_TOO_SLOW = f"the header did not arrive within {HEADER_TIMEOUT_S:g} s"

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_log = structlog.get_logger(__name__)
_silent = logging.getLogger("pcs_backend.http.silent")


def to_response(reply: Reply) -> web.Response:
    """Turn a reply into aiohttp's response."""
    headers = {"Server": "pcs-backend", **reply.headers, "Content-Type": reply.content_type}
    response = web.Response(status=reply.status, body=reply.body, headers=headers)
    if reply.headers.get("Connection") == "close":
        response.force_close()
    return response


class StoppingError(Exception):
    """What the reader of a body gets when the service stops."""


class ProblemProtocol(RequestHandler):
    """A connection whose framework errors are problem details too, and that keeps to its bounds.

    Attributes:
        body_bytes: How much of what the connection holds is complete bodies; the reader of the body says so.
        overloaded: Whether it sent more than may be held. What comes is dropped, and it closes after its answer.
        patient: Whether its answer may stay unread for any time: one that goes on for ever, on the administration socket.
    """

    __slots__ = (
        "_answered",
        "_charged_bytes",
        "_header_began",
        "_header_since_s",
        "_held_bytes",
        "_server",
        "_unread_since_s",
        "body_bytes",
        "overloaded",
        "patient",
    )

    def __init__(self, server: ProblemServer) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=KEEPALIVE_TIMEOUT_S,
            logger=_silent,
            access_log=_silent,
            max_line_size=HEADER_LINE_BYTES_MAX,
            max_field_size=HEADER_LINE_BYTES_MAX,
            max_headers=HEADERS_MAX,
            lingering_time=0,
            read_bufsize=_BUFFER_BYTES,
            auto_decompress=False,
        )
        self._server = server
        self._answered = 0
        self._held_bytes = 0
        self._charged_bytes = 0
        self._header_since_s: float | None = None
        self._header_began = False
        self._unread_since_s: float | None = None
        self.body_bytes = 0
        self.overloaded = False
        self.patient = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place, or refuse the connection."""
        if not self._server.intake.enter():
            self._server.refuse(cast("asyncio.Transport", transport))  # uvloop's is of no class of asyncio's
            return
        self._header_since_s = self._loop.time()
        super().connection_made(transport)

    def close(self) -> None:
        """Stop, as the server does. aiohttp reads nothing from now on, so a body under way will never be complete."""
        super().close()
        if self._current_request is not None and not self._current_request.content.is_eof():
            self._current_request.content.set_exception(StoppingError())

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give place and bytes back, once nothing of the connection is judged any more."""
        task = self._task_handler
        super().connection_lost(exc)
        if task is None or task.done():
            self._leave()
        else:
            task.add_done_callback(lambda _: self._leave())

    def data_received(self, data: bytes) -> None:
        """Count what comes, then parse it."""
        if self.overloaded:
            return
        self._held_bytes += len(data)
        holds_more = self._held_bytes > CONNECTION_BYTES_MAX
        if holds_more:
            self._charge()
        super().data_received(data)
        if self._request_count == self._answered:  # still no request: all there is are bytes of a header
            if holds_more:
                self._end(Problem.MALFORMED.reply(_HEADER_TOO_LONG))
            elif not self._header_began:
                self._header_began = True
                self._header_since_s = self._header_since_s or self._loop.time()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Answer. After it the bytes of the request are no longer held."""
        is_last = self._answered + 1 == self._request_count
        if self.overloaded or (is_last and self._held_bytes - self.body_bytes > CONNECTION_BYTES_MAX):
            resp.force_close()  # beside bodies it holds bytes that nothing would count from now on
        result = await super().finish_response(request, resp, start_time)
        self._note_answered()
        return result

    def check(self, transport: asyncio.Transport, now_s: float) -> None:
        """End the connection if what it is at takes too long. Called now and then.

        Args:
            transport: Its transport, which outlives the protocol's own reference while an answer is unread.
            now_s: Time of the event loop.
        """
        if self.patient or transport.get_write_buffer_size() == 0:
            self._unread_since_s = None
        elif self._unread_since_s is None:
            self._unread_since_s = now_s
        elif now_s - self._unread_since_s > ANSWER_TIMEOUT_S:
            transport.abort()
            return
        if (
            self._request_count == self._answered
            and self._header_since_s is not None
            and now_s - self._header_since_s > HEADER_TIMEOUT_S
        ):
            self._end(Problem.TIMEOUT.reply(_HEADER_TOO_SLOW) if self._header_began else None)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what never reached the handler, or broke in it, without a word of the request."""
        del message
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun")
        if status < 500:
            reply = Problem.MALFORMED.reply(
                "request: found something that is not HTTP/1.1; allowed: HTTP/1.1"
            )
        else:
            if exc is not None:
                _log.error("handling a request failed", error=type(exc).__name__, place=place_of(exc))
            reply = unavailable_reply("the request could not be handled")
        response = to_response(reply)
        response.force_close()
        return response

    def _note_answered(self) -> None:
        """Let go of what the answered requests held, once none is left."""
        self._answered += 1
        if self._answered == self._request_count:
            self._release()
            self._header_since_s = None
            self._header_began = False

    def _charge(self) -> None:
        """Take from the shared budget what passes the connection's own bytes."""
        more = self._held_bytes - CONNECTION_BYTES_MAX - self._charged_bytes
        if self._server.intake.take(more):
            self._charged_bytes += more
        else:
            self.overloaded = True

    def _release(self) -> None:
        if self._charged_bytes:
            self._server.intake.give_back(self._charged_bytes)
        self._held_bytes = self._charged_bytes = self.body_bytes = 0

    def _leave(self) -> None:
        self._release()
        self._server.intake.leave()

    def _end(self, reply: Reply | None) -> None:
        """Close a connection that has no request, with an answer or without."""
        if self.transport is not None and reply is not None:
            self.transport.write(raw_response(reply))
        self.force_close()


class ProblemServer(web.Server):
    """Makes a `ProblemProtocol` a connection, and looks at all of them now and then while there are any.

    Attributes:
        intake: What the connections take.
    """

    def __init__(
        self, handler: Handler, intake: Intake, note_refused: Callable[[], None] = lambda: None
    ) -> None:
        """Take the handler of every request.

        Args:
            handler: Answers.
            intake: Bounds of all connections together.
            note_refused: Told of every connection that got no place.
        """
        super().__init__(handler)
        self.intake = intake
        self._note_refused = note_refused
        self._refusals: set[Refusal] = set()
        self._next_check: asyncio.TimerHandle | None = None
        _silent.disabled = True

    def __call__(self) -> RequestHandler:
        """Make the protocol of one connection."""
        return ProblemProtocol(self)

    def refuse(self, transport: asyncio.Transport) -> None:
        """Turn away a connection for which there is no place."""
        self._note_refused()
        transport.set_protocol(Refusal(transport, self._refusals))

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Watch one more connection."""
        super().connection_made(handler, transport)
        if self._next_check is None:
            self._check_later()

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - aiohttp's own signature
        """Close every connection, waiting for requests that are being judged."""
        for refusal in list(self._refusals):
            refusal.abort()
        await super().shutdown(timeout)
        if self._next_check is not None:
            self._next_check.cancel()

    def _check_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._next_check = loop.call_later(CONNECTION_CHECK_INTERVAL_S, self._check)

    def _check(self) -> None:
        now_s = asyncio.get_running_loop().time()
        for handler, transport in list(self._connections.items()):
            assert isinstance(handler, ProblemProtocol)
            handler.check(transport, now_s)
        self._next_check = None
        if self._connections:
            self._check_later()
