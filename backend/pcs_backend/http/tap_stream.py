"""Live verdicts over HTTP: one JSON object a line, until the client goes or the service stops."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

import msgspec
from aiohttp import web

from pcs_backend.effects.tap import Filter, Listener, Tap
from pcs_backend.http.protocol import ProblemProtocol

TAP_PATH = "/tap"

Follow = Callable[[Sequence[tuple[str, str]], Listener], AbstractAsyncContextManager[None]]
"""Shows a listener what others show as well, inside a `with` block; it is given the query."""

_encode = msgspec.json.Encoder().encode


def _follow_nobody(query: Sequence[tuple[str, str]], listener: Listener) -> AbstractAsyncContextManager[None]:
    del query, listener
    return contextlib.nullcontext()


class TapStreams:
    """Those who read a tap."""

    def __init__(self, tap: Tap, follow: Follow = _follow_nobody) -> None:
        """Take the tap, and what else is shown."""
        self._tap = tap
        self._follow = follow
        self._writing: set[asyncio.Transport] = set()

    def close(self) -> None:
        """End every tap: those that keep up get what was shown, others are cut off."""
        self._tap.close()
        for transport in self._writing:
            transport.abort()

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Send verdicts until the client goes or the service stops.

        Raises:
            TooManyListenersError: There is no place.
            UnavailableError: Another worker does not answer.
        """
        statuses = frozenset(map(int, request.query.getall("status", [])))
        wanted = Filter(request.query.get("tenant", ""), request.query.get("regime", ""), statuses)
        connection, transport = request.protocol, request.transport
        assert isinstance(connection, ProblemProtocol)
        with self._tap.listen(wanted) as listener:
            async with self._follow(list(request.query.items()), listener):
                connection.patient = True
                response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
                await response.prepare(request)
                async for lines in listener.batches():
                    if transport is None or transport.is_closing():
                        break
                    if lines:
                        self._writing.add(transport)
                        try:
                            await response.write(b"".join(_encode(line) + b"\n" for line in lines))
                        except ConnectionError:  # the client went
                            break
                        finally:
                            self._writing.discard(transport)
            response.force_close()
            return response
