"""A TCP proxy that goes wrong when it is told to, for tests of everything that speaks over a network.

    with FaultyProxy("127.0.0.1", server.port) as proxy:    # proxy.port takes the server's place
        proxy.set(latency_s=0.2)                            # from now on, on connections that are open too
        proxy.set()                                         # no fault any more
        proxy.reset()                                       # what is open now is reset; new connections work

It runs on a thread of its own: a test may block, and call it from anywhere. A connection that has lost bytes never
forwards again, also when the fault is over, as one that a network has lost would not.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, NamedTuple, Self, TypeVar

T = TypeVar("T")

CHUNK_BYTES = 65_536
_CALL_TIMEOUT_S = 10.0
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What goes wrong now.

    Attributes:
        latency_s: Every chunk arrives that much later, both ways.
        to_server_latency_s: The same on the way to the server alone, beside `latency_s`.
        to_client_latency_s: The same on the way to the client alone.
        bytes_per_s: How many bytes pass a second each way, one by one; `None` is no limit.
        silent: Connections are accepted and kept, and nothing is forwarded: half-open.
        refuse: New connections are reset.
        answers: What becomes of what the server says: forwarded; dropped, so that the client waits; or the client is
            reset at its first byte, so that it knows that the answer is lost.
        to_server_bytes: After so many bytes of one connection to the server it is closed on both sides.
        to_client_bytes: The same for bytes to the client.
        matching: If given, only connections on which these bytes go to the server are at fault, from them on. `silent`
            and `refuse` do not ask.
    """

    latency_s: float = 0.0
    to_server_latency_s: float = 0.0
    to_client_latency_s: float = 0.0
    bytes_per_s: float | None = None
    silent: bool = False
    refuse: bool = False
    answers: Literal["forward", "drop", "reset"] = "forward"
    to_server_bytes: int | None = None
    to_client_bytes: int | None = None
    matching: bytes = b""


_NO_FAULTS = Faults()


@dataclass
class Counts:
    """What passed, and what did not.

    Attributes:
        accepted: Connections.
        to_server: Bytes written to the server.
        to_client: Bytes written to clients.
        lost: Bytes that were read and forwarded to nobody.
        truncated: Connections closed in the middle.
        matched_to_server: Pieces written to the server that held the matching bytes.
    """

    accepted: int = 0
    to_server: int = 0
    to_client: int = 0
    lost: int = 0
    truncated: int = 0
    matched_to_server: int = 0


class _Piece(NamedTuple):
    due_s: float
    data: bytes  # empty: the sender has ended
    matches: bool


class _Link:
    """One connection of a client and one to the server."""

    def __init__(
        self,
        proxy: FaultyProxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._matched: Faults | None = None
        self.silent = False

    @property
    def faults(self) -> Faults:
        """What goes wrong on this connection now."""
        faults = self._proxy.faults
        return faults if not faults.matching or self._matched is faults else _NO_FAULTS

    async def run(self) -> None:
        await asyncio.gather(
            self._pump(self._client[0], self._server[1], to_server=True),
            self._pump(self._server[0], self._client[1], to_server=False),
        )
        self.close()

    def close(self, *, reset: bool = False) -> None:
        for _, writer in (self._client, self._server):
            _end(writer, reset=reset)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, to_server: bool
    ) -> None:
        pieces = asyncio.Queue[_Piece]()
        writing = asyncio.create_task(self._write(pieces, writer, to_server=to_server))
        data = b" "
        while data:
            try:
                data = await reader.read(CHUNK_BYTES)
            except OSError:  # a sender that resets has still sent what it sent
                data = b""
            matching = self._proxy.faults.matching
            matches = to_server and bool(matching) and matching in data
            if matches:
                self._matched = self._proxy.faults
            faults = self.faults
            self.silent |= self._proxy.faults.silent
            if self.silent or (data and not to_server and not self._lets_answer_through(faults)):
                self._proxy.counts.lost += len(data)
                continue
            way_s = faults.to_server_latency_s if to_server else faults.to_client_latency_s
            latency_s = faults.latency_s + way_s
            pieces.put_nowait(_Piece(asyncio.get_running_loop().time() + latency_s, data, matches))
        if self.silent:  # the other side is never told
            await asyncio.Event().wait()
        await writing

    def _lets_answer_through(self, faults: Faults) -> bool:
        if faults.answers == "reset":
            _end(self._client[1], reset=True)
        self.silent |= faults.answers != "forward"
        return not self.silent

    async def _write(
        self, pieces: asyncio.Queue[_Piece], writer: asyncio.StreamWriter, *, to_server: bool
    ) -> None:
        passed_bytes = 0
        while (piece := await pieces.get()).data:
            await asyncio.sleep(max(0.0, piece.due_s - asyncio.get_running_loop().time()))
            faults = self.faults
            limit = faults.to_server_bytes if to_server else faults.to_client_bytes
            data = piece.data if limit is None else piece.data[: max(0, limit - passed_bytes)]
            passed_bytes += len(data)
            if not await self._drip(data, writer, to_server=to_server):
                return
            self._proxy.counts.matched_to_server += piece.matches
            if len(data) < len(piece.data):
                self._proxy.counts.lost += len(piece.data) - len(data)
                self._proxy.counts.truncated += 1
                self.close()
                return
        await asyncio.sleep(max(0.0, piece.due_s - asyncio.get_running_loop().time()))
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def _drip(self, data: bytes, writer: asyncio.StreamWriter, *, to_server: bool) -> bool:
        """Write, at the pace there is now; returns whether the receiver is still there."""
        while data:
            rate = self.faults.bytes_per_s
            part, data = (data, b"") if rate is None else (data[:1], data[1:])
            if self.silent:
                self._proxy.counts.lost += len(part) + len(data)
                return False
            try:
                writer.write(part)
                await writer.drain()
            except OSError:
                return False
            if to_server:
                self._proxy.counts.to_server += len(part)
            else:
                self._proxy.counts.to_client += len(part)
            if rate is not None:
                await asyncio.sleep(1 / rate)
        return True


class FaultyProxy:
    """Forwards connections to one server.

    Attributes:
        port: Where clients connect, on 127.0.0.1.
        faults: What goes wrong now; read it, and change it with `set`.
        counts: What passed.
    """

    def __init__(self, host: str, port: int, faults: Faults | None = None) -> None:
        """Name the server, which need not be there."""
        self._target = (host, port)
        self.faults = faults or Faults()
        self.counts = Counts()
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty proxy", daemon=True)
        self._links: dict[asyncio.Task[None], _Link | None] = {}
        self._server: asyncio.Server | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(_CALL_TIMEOUT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_CALL_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_TIMEOUT_S)
        self._loop.close()

    @property
    def open_connections(self) -> int:
        """Connections that have not ended on both sides."""
        return self._call(lambda: len(self._links))

    def set(self, **faults: object) -> None:
        """Replace the faults; those not named are over. On return they hold."""
        self._call(lambda: setattr(self, "faults", Faults(**faults)))  # type: ignore[arg-type]

    def cut(self) -> None:
        """Close what is open now, both sides."""
        self._call(lambda: [link.close() for link in self._links.values() if link is not None])

    def reset(self) -> None:
        """Reset what is open now, both sides."""
        self._call(lambda: [link.close(reset=True) for link in self._links.values() if link is not None])

    def silence(self) -> None:
        """Let what is open now forward nothing ever again, and stay open; new connections work."""
        self._call(
            lambda: [setattr(link, "silent", True) for link in self._links.values() if link is not None]
        )

    def _call(self, call: Callable[[], T]) -> T:
        async def called() -> T:
            return call()

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result(_CALL_TIMEOUT_S)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1_024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        tasks = list(self._links)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counts.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        if self.faults.refuse:
            _end(writer, reset=True)
            return
        self._links[task] = None
        try:
            server = await asyncio.open_connection(*self._target)
            link = self._links[task] = _Link(self, (reader, writer), server)
            try:
                await link.run()
            finally:
                link.close()
        except OSError:  # the server is not there, and the client finds out as it would without a proxy
            _end(writer, reset=True)
        except asyncio.CancelledError:
            pass  # the proxy is closing
        finally:
            del self._links[task]


def _end(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    raw = writer.get_extra_info("socket")
    if reset and raw is not None and not writer.is_closing():
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()
    else:
        writer.close()
