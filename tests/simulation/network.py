"""The network: byte streams between processes, in virtual time, with what networks do to them.

It is the event loop's: aiohttp's server and client run over it unmodified. A fate is drawn for each exchange, which begins
with the first byte a client sends after an answer. A duplicate is what a proxy makes that sends a request again.
"""

from __future__ import annotations

import asyncio
import errno
import random
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

from simulation.loop import VirtualLoop
from simulation.machine import Process, current_process
from simulation.trace import Trace

CHUNK_BYTES = 200
TURN_S = 0.000_001
"""Between two arrivals on one connection: a selector reports them in two turns of the loop."""

_OF_THE_CONNECTION = ("request lost", "request cut short", "answer lost", "answer cut short")
FATES = (*_OF_THE_CONNECTION, "duplicated", "delayed", "slow bytes")


class Listener(NamedTuple):
    """What takes connections at an address."""

    process: Process
    factory: Callable[[], asyncio.Protocol]


class Nobody:
    """Stands for the process of a client that is not there to hear an answer."""

    alive = False

    def __init__(self, other: Process) -> None:
        self.context = other.context
        self.machine = other.machine


class Network:
    """Everything between the machines.

    Attributes:
        faults_share: Share of exchanges that something happens to.
        services: Addresses behind a name; a connection goes to any of them.
        unreachable: Addresses that answer nothing at all.
    """

    def __init__(self, loop: VirtualLoop, dice: random.Random, trace: Trace) -> None:
        self.loop = loop
        self.dice = dice
        self.trace = trace
        self.faults_share = 0.0
        self.services: dict[str, list[str]] = {}
        self.unreachable: set[str] = set()
        self._listeners: dict[str, Listener] = {}
        self._ends: dict[Process, dict[End, None]] = {}

    def listen(self, factory: Any, host: str | None, port: int | None, sock: Any) -> Listening:
        """Take connections for the process that calls."""
        process = current_process.get()
        assert process is not None
        if sock is None:
            address, shown = process.machine.name, (host, port)
        else:
            address, shown = f"{process.machine.name}{sock.getsockname()}", sock.getsockname()
        if address in self._listeners:
            raise OSError(errno.EADDRINUSE, "address in use")
        self._listeners[address] = Listener(process, factory)
        process.ends.append(lambda: self.close(address))
        return Listening(self, address, shown)

    def close(self, address: str) -> None:
        """Take no more connections there."""
        self._listeners.pop(address, None)

    async def connect(self, factory: Callable[[], Any], name: str) -> tuple[End, Any]:
        """Connect the process that calls to an address, or to any of a service.

        Raises:
            ConnectionRefusedError: Nothing listens there.
        """
        process = current_process.get()
        assert process is not None
        addresses = self.services.get(name, [name])
        address = addresses[self.dice.randrange(len(addresses))]
        await asyncio.sleep(self.latency_s())
        if address.partition("/")[0] in self.unreachable:
            self.trace.note("unreachable", address)
            await asyncio.Event().wait()
        listener = self._listeners.get(address)
        if listener is None or not listener.process.alive:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "connection refused")
        client, server = End(self, process, address), End(self, listener.process, process.machine.name)
        exchange = Exchange(self, client, server, address)
        client.exchange = server.exchange = exchange
        for end in (client, server):
            self._ends.setdefault(end.process, {})[end] = None
            if len(self._ends[end.process]) == 1:
                end.process.ends.append(lambda end=end: self.reset(end.process))
        server.call_soon(server.begin, listener.factory)
        client.protocol = factory()
        client.protocol.connection_made(client)
        return client, client.protocol

    def reset(self, process: Process) -> None:
        """The process is gone: whoever is connected to it learns of it, or hears nothing any more."""
        silent = process.machine.name in self.unreachable
        for end in self._ends.pop(process, {}):
            end.gone = True
            if not silent:
                end.peer.arrive_at(self.loop.time() + self.latency_s(), end.peer.lose, ConnectionResetError())

    def forget(self, end: End) -> None:
        """A connection has ended."""
        self._ends.get(end.process, {}).pop(end, None)

    def latency_s(self) -> float:
        """Time a packet takes."""
        return (
            self.dice.uniform(0.000_1, 0.003) if self.dice.random() < 0.95 else self.dice.uniform(0.05, 0.4)
        )

    def draw_fate(self) -> str:
        """Return what happens to an exchange; empty for nothing."""
        if self.dice.random() >= self.faults_share:
            return ""
        return FATES[self.dice.randrange(len(FATES))]

    def repeat(self, data: bytes, address: str) -> None:
        """Send a request again, on a connection of its own, and throw the answer away."""
        own = [name for names in self.services.values() if address in names for name in names] or [address]
        target = self._listeners.get(own[self.dice.randrange(len(own))])
        if target is None or not target.process.alive:
            return
        client, server = End(self, Nobody(target.process), address), End(self, target.process, "proxy")
        exchange = Exchange(self, client, server, address)
        exchange.begun, exchange.fate = True, ""
        client.exchange = server.exchange = exchange
        self._ends.setdefault(server.process, {})[server] = None
        server.call_soon(server.begin, target.factory)
        server.arrive_at(self.loop.time() + 0.001, server.receive, data)
        server.arrive_at(self.loop.time() + 60.0, server.end_of_stream)


class Exchange:
    """What is being carried over one connection, and what becomes of it."""

    def __init__(self, network: Network, client: End, server: End, address: str) -> None:
        self._network = network
        self._client, self._server, self._address = client, server, address
        client.peer, server.peer = server, client
        self.begun = False
        self.fate = ""
        self._left_bytes = 0
        self._sent = b""

    def carry(self, sender: End, data: bytes) -> None:
        """Take bytes across, or not."""
        if sender is self._client:
            if not self.begun:
                self._begin()
            self._sent += data
        elif self.fate not in _OF_THE_CONNECTION:
            self.begun = False  # answered: what the client sends next is another exchange
        way = "request" if sender is self._client else "answer"
        if self.fate == f"{way} cut short":
            self._carry_part(sender.peer, data)
        elif self.fate != f"{way} lost":
            self._carry_whole(sender.peer, data)

    def _begin(self) -> None:
        network = self._network
        self.begun, self._sent, self.fate = True, b"", network.draw_fate()
        self._left_bytes = network.dice.randint(0, 600)
        if self.fate:
            network.trace.fault(f"network: {self.fate}", self._address)
        if self.fate == "duplicated":
            network.loop.call_later(network.dice.expovariate(0.2), self._repeat)

    def _carry_part(self, receiver: End, data: bytes) -> None:
        when_s = self._network.loop.time() + self._network.latency_s()
        part, is_over = data[: self._left_bytes], len(data) >= self._left_bytes
        self._left_bytes -= len(part)
        receiver.arrive_at(when_s, receiver.receive, part)
        if is_over:
            for end in (self._client, self._server):
                end.arrive_at(when_s, end.lose, ConnectionResetError())

    def _carry_whole(self, receiver: End, data: bytes) -> None:
        when_s, dice = self._network.loop.time() + self._network.latency_s(), self._network.dice
        if self.fate == "delayed":
            when_s += dice.uniform(0.5, 40.0)
        chunk_bytes = CHUNK_BYTES if self.fate == "slow bytes" else len(data) or 1
        for start in range(0, len(data), chunk_bytes):
            receiver.arrive_at(when_s, receiver.receive, data[start : start + chunk_bytes])
            when_s += dice.uniform(0.1, 4.0) if self.fate == "slow bytes" else 0.0

    def _repeat(self) -> None:
        self._network.repeat(self._sent, self._address)


class End(asyncio.Transport):
    """One side of a connection, as its process sees it.

    Attributes:
        peer: The other side.
        gone: Whether the process died or the connection was lost.
    """

    def __init__(self, network: Network, process: Process | Nobody, peer_name: str) -> None:
        super().__init__({"peername": (peer_name, 0), "sockname": (process.machine.name, 0)})
        self._network = network
        self.process = process
        self.peer: End
        self.exchange: Exchange
        self.protocol: Any = None
        self.gone = False
        self._closing = False
        self._paused = False
        self._held: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._last_s = 0.0

    def begin(self, factory: Callable[[], Any]) -> None:
        """Be connected, on the side that listened."""
        if self.process.alive:
            self.protocol = factory()
            self.protocol.connection_made(self)

    def call_soon(self, call: Callable[..., None], *arguments: object) -> None:
        """Run something in the process of this side, soon."""
        self._network.loop.call_soon(call, *arguments, context=self.process.context)

    def arrive_at(self, when_s: float, call: Callable[..., None], *arguments: object) -> None:
        """Let something arrive, after all that was sent before it, and in a later turn of the loop."""
        self._last_s = max(self._last_s + TURN_S, when_s)
        self._network.loop.call_at(self._last_s, self._arrive, call, arguments, context=self.process.context)

    def receive(self, data: bytes) -> None:
        """Bytes are here."""
        if data:
            self.protocol.data_received(data)

    def end_of_stream(self) -> None:
        """The other side sends no more."""
        if not self.protocol.eof_received():
            self.close()

    def lose(self, error: Exception | None) -> None:
        """The connection is gone."""
        if not self.gone:
            self.gone = True
            self._network.forget(self)
            self.protocol.connection_lost(error)

    def _arrive(self, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if self.gone or self.protocol is None or not self.process.alive:
            return
        if self._paused or self._held:
            self._held.append((call, arguments))
        else:
            call(*arguments)

    # asyncio.Transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not (self._closing or self.gone) and self.process.alive:
            self.exchange.carry(self, bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        if self._closing or not self.process.alive:
            return
        self._closing = True
        if not self.exchange.fate.endswith("lost"):
            self.peer.arrive_at(
                self._network.loop.time() + self._network.latency_s(), self.peer.end_of_stream
            )
        self.call_soon(self.lose, None)

    def abort(self) -> None:
        if not self.gone and self.process.alive:
            self._closing = True
            self.peer.arrive_at(self._network.loop.time(), self.peer.lose, ConnectionResetError())
            self.call_soon(self.lose, None)

    def is_closing(self) -> bool:
        return self._closing or self.gone

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        while self._held and not self._paused:
            call, arguments = self._held.pop(0)
            if not self.gone:
                call(*arguments)

    def is_reading(self) -> bool:
        return not self._paused

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer."""

    def can_write_eof(self) -> bool:
        return False


class Address:
    """Stands for a socket where only its address is asked for."""

    def __init__(self, address: Any, family: int = socket.AF_INET) -> None:
        self._address = address
        self.family = family

    def getsockname(self) -> Any:
        return self._address

    def close(self) -> None:
        """There is nothing to close."""


class Listening:
    """Stands for asyncio's server object."""

    def __init__(self, network: Network, address: str, shown: Any) -> None:
        self._network = network
        self._address = address
        self.sockets = [Address(shown)]

    def close(self) -> None:
        self._network.close(self._address)
        self.sockets = []

    def is_serving(self) -> bool:
        return bool(self.sockets)

    async def wait_closed(self) -> None:
        """Connections go on without it."""
