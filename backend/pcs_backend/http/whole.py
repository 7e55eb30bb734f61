"""What is asked of the service, all its workers together: whether it is started and ready, its metrics, its live verdicts.

A service of one process answers for itself. Of several workers each has a Unix socket, `DATA_DIR/worker-<n>.sock`, where
it answers for itself, and whichever is asked by others asks the rest. So one scrape of the one port gives everything.

A worker that cannot be reached has not begun, or has ended, and counted nothing: it is not ready. One that is there and
does not answer leaves the metrics unknown: 503 rather than counters that fall.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol, TypeVar

import aiohttp
import msgspec
from aiohttp import web

from pcs_backend.effects.metrics import Metrics
from pcs_backend.effects.tap import Listener, Lost, Sighting, Tap, TooManyListenersError
from pcs_backend.effects.totals import Family, add_up, exposition_of
from pcs_backend.errors import UnavailableError
from pcs_backend.exchange import Reply
from pcs_backend.http.protocol import to_response
from pcs_backend.http.tap_stream import TAP_PATH, TapStreams
from pcs_backend.problems import Problem, unavailable_reply

SIBLING_TIMEOUT_S = 2.0
"""How long a worker may take to answer another one."""

SIBLING_CONNECTIONS_MAX = 256
"""Connections of other workers to one: one each at a time, and their taps."""

_STATE_PATH = "/state"
_METRICS_PATH = "/metrics"

_T = TypeVar("_T")


class Health(Protocol):
    """How one process is."""

    def not_started(self) -> str | None:
        """Why the start is not over; `None` when it is."""

    def not_ready(self) -> str | None:
        """Why no request should be sent here, a start that is not over included; `None` if it may."""


class Whole(Protocol):
    """The service, all its workers together.

    Attributes:
        health: How this process is.
    """

    health: Health

    async def not_started(self) -> str | None:
        """Why the start of any worker is not over; `None` when all are."""

    async def not_ready(self) -> str | None:
        """Why requests should not be sent; `None` if every worker takes them."""

    async def exposition(self) -> bytes:
        """Return all metrics in Prometheus text format.

        Raises:
            UnavailableError: A worker does not answer.
        """

    def follow(
        self, query: Sequence[tuple[str, str]], listener: Listener
    ) -> contextlib.AbstractAsyncContextManager[None]:
        """Show a listener what other workers show, inside a `with` block.

        Raises:
            TooManyListenersError: One of them has no place.
            UnavailableError: One of them does not answer.
        """


class Alone:
    """A service of one process.

    Attributes:
        health: How it is.
    """

    def __init__(self, metrics: Metrics, health: Health) -> None:
        """Take what the process has."""
        self._metrics = metrics
        self.health = health

    async def not_started(self) -> str | None:
        """As `Whole.not_started`."""
        return self.health.not_started()

    async def not_ready(self) -> str | None:
        """As `Whole.not_ready`."""
        return self.health.not_ready()

    async def exposition(self) -> bytes:
        """As `Whole.exposition`."""
        return self._metrics.exposition()

    @contextlib.asynccontextmanager
    async def follow(self, query: Sequence[tuple[str, str]], listener: Listener) -> AsyncIterator[None]:
        """As `Whole.follow`: there are no others."""
        del query, listener
        yield


class State(msgspec.Struct, frozen=True):
    """How a worker is: why it is not started, and not ready."""

    not_started: str | None
    not_ready: str | None


class SiblingRoutes:
    """Answers the other workers, for this one alone."""

    def __init__(self, metrics: Metrics, health: Health, tap: Tap) -> None:
        """Take what the process has."""
        self._metrics = metrics
        self._health = health
        self._streams = TapStreams(tap)

    def close(self) -> None:
        """End every tap."""
        self._streams.close()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request. aiohttp calls it."""
        match request.path:
            case path if path == _STATE_PATH:
                state = State(self._health.not_started(), self._health.not_ready())
                return to_response(Reply(200, msgspec.json.encode(state)))
            case path if path == _METRICS_PATH:
                return to_response(Reply(200, msgspec.json.encode(self._metrics.families())))
            case path if path == TAP_PATH:
                try:
                    return await self._streams.serve(request)
                except TooManyListenersError:
                    return to_response(unavailable_reply("as many listen as are allowed"))
            case _:
                return to_response(Problem.NOT_FOUND.reply("path: found an unknown one"))


class Workers:
    """A service of several workers, seen from one of them. Call `open` in the event loop, and `close`.

    Attributes:
        health: How this one is.
    """

    def __init__(self, data_dir: str, worker: int, workers: int, metrics: Metrics, health: Health) -> None:
        """Take what this worker has.

        Args:
            data_dir: Where the sockets are.
            worker: Which one this is.
            workers: How many there are.
            metrics: Of this one.
            health: Of this one.
        """
        self._data_dir = data_dir
        self._worker = worker
        self._others = [each for each in range(workers) if each != worker]
        self._metrics = metrics
        self.health = health
        self._turn = asyncio.Lock()
        self._stack = contextlib.AsyncExitStack()
        self._sessions: dict[int, aiohttp.ClientSession] = {}

    @property
    def own_socket(self) -> str:
        """Path of the socket where this worker answers the others."""
        return os.path.join(self._data_dir, _socket_name(self._worker))

    async def open(self) -> None:
        """Make what asks the others."""
        folder = os.open(self._data_dir, os.O_RDONLY | os.O_DIRECTORY)  # a socket's own path may be too long
        self._stack.callback(os.close, folder)
        for other in self._others:
            connector = aiohttp.UnixConnector(
                f"/proc/self/fd/{folder}/{_socket_name(other)}", force_close=True
            )
            session = aiohttp.ClientSession("http://worker", connector=connector)
            self._sessions[other] = await self._stack.enter_async_context(session)

    async def close(self) -> None:
        """Give it back."""
        await self._stack.aclose()

    async def not_started(self) -> str | None:
        """As `Whole.not_started`."""
        return await self._first_reason(self.health.not_started(), lambda state: state.not_started)

    async def not_ready(self) -> str | None:
        """As `Whole.not_ready`."""
        return await self._first_reason(self.health.not_ready(), lambda state: state.not_ready)

    async def exposition(self) -> bytes:
        """As `Whole.exposition`."""
        others = await self._ask_all(_METRICS_PATH, list[Family])
        families = add_up(
            [self._metrics.families(), *(each for each in others if each is not None)], self._metrics.across
        )
        if None in others:
            families = [_at_zero(each) if each.name == "flk_ready" else each for each in families]
        return exposition_of(families)

    @contextlib.asynccontextmanager
    async def follow(self, query: Sequence[tuple[str, str]], listener: Listener) -> AsyncIterator[None]:
        """As `Whole.follow`."""
        async with contextlib.AsyncExitStack() as stack:
            pumps: list[asyncio.Task[None]] = []
            try:
                for other in self._others:
                    lines = await self._tap(stack, other, query)
                    pumps.append(asyncio.create_task(_pump(lines, listener), name=f"tap-{other}"))
                yield
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)

    async def _tap(
        self, stack: contextlib.AsyncExitStack, other: int, query: Sequence[tuple[str, str]]
    ) -> aiohttp.StreamReader:
        unlimited = aiohttp.ClientTimeout(total=None, connect=SIBLING_TIMEOUT_S)
        try:
            async with asyncio.timeout(SIBLING_TIMEOUT_S):
                response = await stack.enter_async_context(
                    self._sessions[other].get(TAP_PATH, params=query, timeout=unlimited)
                )
        except (aiohttp.ClientError, TimeoutError):
            raise UnavailableError(f"worker {other} does not answer") from None
        if response.status != 200:
            raise TooManyListenersError
        return response.content

    async def _first_reason(self, own: str | None, pick: Callable[[State], str | None]) -> str | None:
        """Return why this worker, or else another, is not what it is asked about."""
        if own is not None:
            return f"worker {self._worker}: {own}"
        try:
            states = await self._ask_all(_STATE_PATH, State)
        except UnavailableError as error:
            return str(error)
        for other, state in zip(self._others, states, strict=True):
            if state is None:
                return f"worker {other}: starting, or gone"
            if (reason := pick(state)) is not None:
                return f"worker {other}: {reason}"
        return None

    async def _ask_all(self, path: str, kind: type[_T]) -> list[_T | None]:
        """Ask the others, all at once. One caller after the other, so that however many ask, a worker answers few.

        Returns:
            What each says; `None` for one that is not there.

        Raises:
            UnavailableError: One is there and does not answer.
        """
        async with self._turn:
            return await asyncio.gather(*(self._ask(other, path, kind) for other in self._others))

    async def _ask(self, other: int, path: str, kind: type[_T]) -> _T | None:
        timeout = aiohttp.ClientTimeout(total=SIBLING_TIMEOUT_S)
        try:
            async with self._sessions[other].get(path, timeout=timeout) as response:
                return msgspec.json.decode(await response.read(), type=kind)
        except aiohttp.ClientConnectorError:
            return None
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError):
            raise UnavailableError(f"worker {other} does not answer") from None


def _socket_name(worker: int) -> str:
    """Return the name of the socket where a worker answers the others."""
    return f"worker-{worker}.sock"


async def _pump(lines: aiohttp.StreamReader, listener: Listener) -> None:
    """Show a listener what comes from another worker, until that ends."""
    with contextlib.suppress(aiohttp.ClientError):
        async for line in lines:
            seen = msgspec.json.decode(line, type=dict)
            if "lost" in seen:
                listener.lose(msgspec.convert(seen, Lost).lost)
            else:
                listener.put(msgspec.convert(seen, Sighting))


def _at_zero(family: Family) -> Family:
    samples = [msgspec.structs.replace(each, value=0.0) for each in family.samples]
    return msgspec.structs.replace(family, samples=samples)
