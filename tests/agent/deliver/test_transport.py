"""Why no answer came, in plain words, with real sockets and real TLS."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pcs_agent.deliver import transport as transport_module
from pcs_agent.deliver.transport import open_transport
from pcs_agent.errors import TransportError

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def failure(url: str) -> str:
    async with open_transport(url, connections_max=1) as transport:
        with pytest.raises(TransportError) as caught:
            await transport.post(b"{}")
    return str(caught.value)


async def failure_of_server(handler: Handler, scheme: str = "http", tls: ssl.SSLContext | None = None) -> str:
    connections: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await handler(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(
        lambda reader, writer: connections.add(asyncio.create_task(handle(reader, writer))),
        "127.0.0.1",
        0,
        ssl=tls,
    )
    async with server:
        port = server.sockets[0].getsockname()[1]
        words = await failure(f"{scheme}://127.0.0.1:{port}/x")
        await asyncio.gather(*connections)
    return words


def sends(data: bytes) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(data)

    return handle


async def test_nobody_listens(unused_tcp_port: int) -> None:
    assert await failure(f"http://127.0.0.1:{unused_tcp_port}/x") == "connection refused"
    assert await failure(f"http://localhost:{unused_tcp_port}/x") == "connection refused"


async def test_no_such_name() -> None:
    assert await failure("http://nowhere.invalid/x") == "name not found"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "connection closed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "connection closed in the middle of the answer"),
        (b"220 mail.example.org ESMTP\r\n\r\n", "an answer that is not HTTP"),
    ],
)
async def test_what_is_no_whole_answer(data: bytes, expected: str) -> None:
    assert await failure_of_server(sends(data)) == expected


async def test_no_answer_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "TOTAL_TIMEOUT_S", 0.05)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # to the end of the connection

    assert await failure_of_server(silent) == "no answer within 0.05 s"


async def test_a_certificate_nobody_vouches_for(tmp_path: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(make_certificate(tmp_path / "server.pem"))
    assert await failure_of_server(sends(b""), "https", tls) == "certificate not trusted"


async def test_tls_where_there_is_none() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    assert await failure_of_server(plain, "https") == "no TLS connection"


def make_certificate(path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))
    return path
