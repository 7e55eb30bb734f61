"""One POST to the backend: the port, and its adapter over aiohttp. No aiohttp type leaves this module.

TLS certificates are verified. Redirects are not followed: a record goes where the operator said. Answers are read up to
a bound, and neither URL, nor header, nor body of an error reaches a message: the URL may hold credentials.
"""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import aiohttp

from pcs_agent.errors import TransportError

CONNECT_TIMEOUT_S = 10.0
TOTAL_TIMEOUT_S = 30.0
ANSWER_BYTES_MAX = 65_536
"""A receipt has some 500 bytes; what passes this bound is no receipt."""

BATCH_ANSWER_BYTES_MAX = 4_194_304
"""The same of a batch: 4 KiB for each of 1,000 records."""

_BATCH_HEADERS = {
    "Content-Type": "application/x-ndjson",
    "Accept": "application/x-ndjson, application/problem+json",
}
_SUBMIT, _BATCH = "/submit", "/batch"

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Answer(NamedTuple):
    """What came back.

    Attributes:
        status: HTTP status.
        body: Up to `ANSWER_BYTES_MAX` bytes, of a batch `BATCH_ANSWER_BYTES_MAX`.
        truncated: Whether the body went on.
        retry_after: The header, if sent.
        date: The header, if sent.
        conflict: Whether the backend holds another record under this pcs_id.
        mistimed: Whether the answer showed that the request was signed by a clock that is off.
    """

    status: int
    body: bytes
    truncated: bool = False
    retry_after: str | None = None
    date: str | None = None
    conflict: bool = False
    mistimed: bool = False


class Transport(Protocol):
    """Takes bytes of records to the backend."""

    async def post(self, body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> Answer:
        """Send a record; returns the answer.

        Args:
            body: The bytes to send.
            headers: Further headers, such as a signature of the request.

        Raises:
            TransportError: None came, or not in time.
        """

    async def post_batch(self, body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> Answer:
        """The same for a batch of records, lines of JSON."""


class HttpTransport:
    """The real network."""

    def __init__(self, session: aiohttp.ClientSession, endpoint: str, batch_endpoint: str) -> None:
        """Take what `open_transport` made."""
        self._session = session
        self._endpoint = endpoint
        self._batch_endpoint = batch_endpoint

    async def post(self, body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> Answer:
        """As `Transport.post`."""
        return await self._post(self._endpoint, body, headers, ANSWER_BYTES_MAX)

    async def post_batch(self, body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> Answer:
        """As `Transport.post_batch`."""
        return await self._post(
            self._batch_endpoint, body, {**_BATCH_HEADERS, **headers}, BATCH_ANSWER_BYTES_MAX
        )

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str], bytes_max: int) -> Answer:
        failure: Exception
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                head = await _read_up_to(response.content, bytes_max + 1)
                return Answer(
                    status=response.status,
                    body=head[:bytes_max],
                    truncated=len(head) > bytes_max,
                    retry_after=response.headers.get("Retry-After"),
                    date=response.headers.get("Date"),
                    conflict=response.headers.get("PCS-Conflict", "").lower() == "true",
                )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            failure = error
        raise TransportError(describe_failure(failure))


def batch_url(endpoint: str) -> str | None:
    """Return where batches go: the submit URL with `/batch` at the end of its path instead of `/submit`.

    Args:
        endpoint: The full submit URL.

    Returns:
        `None` if its path does not end in `/submit`: then nothing is known of where batches would go.

    >>> batch_url("https://pcs.example/v1/pcs/submit?site=4")
    'https://pcs.example/v1/pcs/batch?site=4'
    >>> batch_url("https://pcs.example/intake") is None
    True
    """
    parts = urlsplit(endpoint)
    if not parts.path.endswith(_SUBMIT):
        return None
    return parts._replace(path=parts.path.removesuffix(_SUBMIT) + _BATCH).geturl()


@asynccontextmanager
async def open_transport(
    endpoint: str, *, connections_max: int, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Transport]:
    """Open the connections to one endpoint, and close them in the end.

    Args:
        endpoint: The full submit URL.
        connections_max: Connections at once.
        tls: Whom to trust, and what to show; `None` for the system's authorities and nothing.
    """
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections_max, ssl=True if tls is None else tls),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=TOTAL_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S),
        headers={
            "Content-Type": "application/json",
            "Accept": "application/json, application/problem+json",
            "Accept-Encoding": "identity",
            "User-Agent": "pcs-agent",
        },
        auto_decompress=False,
    )
    async with session:
        yield HttpTransport(session, endpoint, batch_url(endpoint) or endpoint)


def describe_failure(error: Exception) -> str:
    """Return why no answer came, for people; nothing of the error's own text, which may hold the URL.

    >>> describe_failure(ConnectionRefusedError(111, "…"))
    'connection refused'
    """
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return "certificate not trusted"
        case aiohttp.ClientSSLError():
            return "no TLS connection"
        case aiohttp.ClientConnectorDNSError():
            return "name not found"
        case aiohttp.ConnectionTimeoutError():
            return f"no connection within {CONNECT_TIMEOUT_S:g} s"
        case TimeoutError():
            return f"no answer within {TOTAL_TIMEOUT_S:g} s"
        case aiohttp.ServerDisconnectedError():
            return "connection closed"
        case aiohttp.ClientPayloadError():
            return "connection closed in the middle of the answer"
        case aiohttp.ClientResponseError():
            return "an answer that is not HTTP"
        case OSError(errno=number) if number in _ERRORS:
            return _ERRORS[number]
        case OSError(errno=number) if number:
            return os.strerror(number).lower()
        case aiohttp.ClientConnectorError():
            return "no connection"
        case _:
            return type(error).__name__


_ERRORS = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection closed",
    errno.ECONNABORTED: "connection closed",
    errno.EPIPE: "connection closed",
}


async def _read_up_to(stream: aiohttp.StreamReader, bytes_max: int) -> bytes:
    parts = []
    missing = bytes_max
    while missing and (part := await stream.read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
