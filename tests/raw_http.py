"""Raw connections to an HTTP server, for what an HTTP client would not send."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

WAIT_S = 10.0


class Connection:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read one answer."""
        async with asyncio.timeout(WAIT_S):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
            status, *lines = head.strip().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines)
            body = await self._reader.readexactly(int(headers["Content-Length"]))
        return int(status.split()[1]), headers, body

    async def rest(self) -> bytes:
        """Read until the server closes; `b""` also where it resets."""
        try:
            async with asyncio.timeout(WAIT_S):
                return await self._reader.read()
        except ConnectionResetError:
            return b""

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


async def connect(port: int, receive_buffer_bytes: int | None = None) -> Connection:
    """Connect to a port of this machine."""
    raw = socket.socket()
    raw.setblocking(False)
    if receive_buffer_bytes is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
    return Connection(*await asyncio.open_connection(sock=raw))


def post(size_bytes: int, path: str = "/") -> bytes:
    """Return the head of a request with a body of that size."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {size_bytes}\r\n\r\n"
    ).encode()
