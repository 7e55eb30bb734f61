"""aiohttp's low-level server, with its own errors answered as problem details and its logger kept quiet.

aiohttp answers a request it cannot parse with a text that quotes it, and logs the same; neither may happen here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from pcs_backend.errors import place_of
from pcs_backend.exchange import Reply
from pcs_backend.problems import Problem, unavailable_reply

HEADER_LINE_BYTES_MAX = 8_190
HEADERS_MAX = 64
KEEPALIVE_TIMEOUT_S = 75.0
_BUFFER_BYTES = 64 * 1024

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


class ProblemProtocol(RequestHandler):
    """A connection whose framework errors are problem details too."""

    __slots__ = ()

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


class ProblemServer(web.Server):
    """Makes a `ProblemProtocol` a connection."""

    def __init__(self, handler: Handler) -> None:
        super().__init__(handler)
        _silent.disabled = True

    def __call__(self) -> RequestHandler:
        """Make the protocol of one connection."""
        return ProblemProtocol(
            self,
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
