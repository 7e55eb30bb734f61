"""What the supervisor gives a worker: its number, and open files that it inherits. And what the two say to each other."""

from __future__ import annotations

import contextlib
import signal
import socket
from typing import Annotated

import msgspec
from msgspec import Meta

LISTENING, READY = b"l", b"r"
"""What a worker says, once each: connections are taken; requests are."""

RELOAD, STOP = b"h", b"s"
"""What the supervisor says. The end of the connection says the same as STOP, to either side."""

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that a worker holds back until it can take them."""

MESSAGES_BYTES_MAX = 64
"""Messages read at once, one byte each."""

_Handle = Annotated[int, Meta(ge=0)]


class Seat(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's place. Handles are of open files that the process inherits.

    Attributes:
        worker: Which of the workers it is, from 0.
        workers: How many there are.
        listening: Sockets of its own that listen on the public port, one an address.
        admin: The listening administration socket, which all workers share.
        accounts: Memory in which all workers keep what was spent of the limits.
        control: The connection to the supervisor.
    """

    worker: _Handle
    workers: _Handle
    listening: tuple[_Handle, ...]
    admin: _Handle
    accounts: _Handle
    control: _Handle

    @property
    def handles(self) -> tuple[int, ...]:
        """Everything that is inherited."""
        return (*self.listening, self.admin, self.accounts, self.control)


def say(connection: socket.socket, message: bytes) -> None:
    """Send one message; whoever is gone needs none."""
    with contextlib.suppress(OSError):
        connection.send(message)


def hear(connection: socket.socket) -> bytes | None:
    """Return the messages that have come, one byte each; nothing while there are none, `None` when none will come."""
    try:
        return connection.recv(MESSAGES_BYTES_MAX) or None
    except BlockingIOError:
        return b""
    except OSError:
        return None
