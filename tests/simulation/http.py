"""A plain HTTP/1.1 client over the simulated network, for what is no agent: one request a connection."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

PATIENCE_S = 30.0


class Response(NamedTuple):
    """An answer that came whole."""

    status: int
    headers: dict[str, str]
    body: bytes


class NoAnswerError(Exception):
    """None came."""


async def ask(
    name: str, method: str, target: str, body: bytes = b"", content_type: str = "application/json"
) -> Response:
    """Send one request and read the answer.

    Args:
        name: Address or service in the simulated network.
        method: HTTP method.
        target: Path and query.
        body: JSON, or what the content type says.
        content_type: Of the body.

    Raises:
        NoAnswerError: None came, or not in time.
    """
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader = asyncio.StreamReader()
            transport, _ = await asyncio.get_running_loop().create_unix_connection(
                lambda: asyncio.StreamReaderProtocol(reader), name
            )
            try:
                head = f"{method} {target} HTTP/1.1\r\nHost: simulated\r\nContent-Type: {content_type}\r\n"
                transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                return await _read(reader)
            finally:
                transport.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
        raise NoAnswerError(type(error).__name__) from None


async def _read(reader: asyncio.StreamReader) -> Response:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
    }
    return Response(int(first.split()[1]), headers, await reader.readexactly(int(headers["content-length"])))
