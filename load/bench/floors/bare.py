"""A bare process, `python -m bench.floors.bare DSN PORT`: F3 and F2 for each record of a batch, then the product's statement.

It reads a request by its Content-Length, looks at nothing else of HTTP, and keeps no log. Several share a port. PORT 0
picks one. It prints `listening on URL` and serves until it is ended.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import sys

import asyncpg
import orjson
import uvloop
from nacl.signing import SigningKey

from bench.floors.loop import PAYLOAD_BYTES, check_record
from bench.floors.statements import PUT_ROWS, columns, connect

CONNECTIONS = 8
"""To the database."""

_PAYLOAD = bytes(PAYLOAD_BYTES)
_DIGEST = hashlib.sha256(_PAYLOAD).digest()
_KEY = SigningKey(bytes(range(32)))
_SIGNATURE = _KEY.sign(_DIGEST).signature
_verify = _KEY.verify_key.verify


class Connection(asyncio.Protocol):
    """Takes one batch at a time."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool
        self._chunks: list[bytes] = []
        self._missing = 0
        self._head = 0
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]  # a TCP connection's

    def data_received(self, data: bytes) -> None:
        """Take a part of a request; the client sends a head in one piece."""
        if not self._chunks:
            self._head = data.index(b"\r\n\r\n") + 4
            at = data.index(b"Content-Length: ") + 16
            self._missing = self._head + int(data[at : data.index(b"\r", at)])
        self._chunks.append(data)
        self._missing -= len(data)
        if not self._missing:
            self._task = asyncio.create_task(self._answer(b"".join(self._chunks)[self._head :]))
            self._chunks = []

    async def _answer(self, batch: bytes) -> None:
        answers = []
        for body in batch.splitlines():
            _verify(_DIGEST, _SIGNATURE)  # F3
            answers.append(check_record(body, _PAYLOAD))  # F2
        rows = columns([(answer[11:75].decode("ascii"), answer) for answer in answers])
        async with self._pool.acquire() as connection:
            if lost := await connection.fetch(PUT_ROWS, *rows):
                raise RuntimeError(f"{len(lost)} rows were there before")
        whole = b"\n".join(answers)
        assert self._transport is not None
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(whole), whole))


async def serve(dsn: str, port: int) -> None:
    """Serve for ever."""
    async with await connect(dsn, CONNECTIONS) as pool:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", port))
        server = await asyncio.get_running_loop().create_server(lambda: Connection(pool), sock=listener)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        print(f"listening on {url}", file=sys.stderr, flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    # The id is read from its place in the answer.
    assert orjson.dumps({"pcs_id": "x"}).index(b"x") == 11
    uvloop.run(serve(sys.argv[1], int(sys.argv[2])))
