"""Reading a request body: bounded in size and time, before anything is stored (contract §4 step 1)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiohttp import web

from pcs_backend.exchange import JSON_TYPE, Reply
from pcs_backend.http.protocol import ProblemProtocol, StoppingError
from pcs_backend.problems import RETRY_AFTER_S, Problem

_CLOSE = {"Connection": "close"}


class BodyReader:
    """Checks type and size, then reads.

    Attributes:
        size_bytes_max: Largest body.
        types: Content types that are taken.
    """

    def __init__(
        self,
        *,
        size_bytes_max: int,
        timeout_s: float,
        types: Sequence[str] = (JSON_TYPE,),
        encodings: Sequence[str] = (),
    ) -> None:
        """Set the bounds.

        Args:
            size_bytes_max: Largest body.
            timeout_s: Longest time for all of it.
            types: Content types that are taken.
            encodings: Content encodings that are taken, in lower case.
        """
        self.size_bytes_max = size_bytes_max
        self._timeout_s = timeout_s
        self.types = types
        self._encodings = encodings

    async def read(self, request: web.BaseRequest) -> bytes | Reply:
        """Return the body, or the problem to answer.

        Raises:
            ConnectionError: The client went away before the body was complete.
        """
        return self._refuse_header(request) or await self._receive(request)

    def _refuse_header(self, request: web.BaseRequest) -> Reply | None:
        """Return the problem that the header alone tells."""
        if request.content_type not in self.types or "Content-Type" not in request.headers:
            return Problem.UNSUPPORTED_MEDIA_TYPE.reply(
                f"Content-Type: found another or none; allowed: {' or '.join(self.types)}",
                headers={"Accept": ", ".join(self.types)},
                field="Content-Type",
            )
        encodings = request.headers.getall("Content-Encoding", ())
        if encodings and [each.strip().lower() for each in encodings] not in [
            [each] for each in self._encodings
        ]:
            return Problem.UNSUPPORTED_MEDIA_TYPE.reply(
                f"Content-Encoding: found another one; allowed: {' or '.join([*self._encodings, 'none'])}",
                headers={"Accept-Encoding": ", ".join([*self._encodings, "identity"])},
                field="Content-Encoding",
            )
        if request.headers.get("Transfer-Encoding", "chunked").strip().lower() != "chunked":
            return Problem.UNSUPPORTED_MEDIA_TYPE.reply(
                "Transfer-Encoding: found another one; allowed: chunked or none",
                headers=_CLOSE,
                field="Transfer-Encoding",
            )
        if (request.content_length or 0) > self.size_bytes_max:
            return self._too_large()
        return None

    async def _receive(self, request: web.BaseRequest) -> bytes | Reply:
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # an interim answer is no part of the answer
        connection = request.protocol
        assert isinstance(connection, ProblemProtocol)
        if (
            request.content.is_eof()
            and request.content.total_bytes <= self.size_bytes_max
            and not connection.overloaded
        ):
            body = request.content.read_nowait()
            connection.body_bytes += len(body)
            return body
        chunks: list[bytes] = []
        size_bytes = 0
        try:
            async with asyncio.timeout(self._timeout_s):
                while not request.content.at_eof():
                    chunk = await request.content.readany()
                    size_bytes += len(chunk)
                    if size_bytes > self.size_bytes_max:
                        return self._too_large()
                    if connection.overloaded:
                        return _unavailable("more bytes are on their way in than may be held at once")
                    chunks.append(chunk)
        except TimeoutError:
            detail = f"the body did not arrive within {self._timeout_s:g} s"
            return Problem.TIMEOUT.reply(detail, headers=_CLOSE)
        except StoppingError:
            return _unavailable("the service is stopping")
        except web.RequestPayloadError:
            # A body that ends early or breaks its framing. Whoever sent it may still be there to read why.
            return Problem.MALFORMED.reply(
                "body: found a broken transfer; allowed: a complete body", headers=_CLOSE
            )
        connection.body_bytes += size_bytes
        return b"".join(chunks)

    def _too_large(self) -> Reply:
        return Problem.TOO_LARGE.reply(
            f"body: found more than is allowed; allowed: up to {self.size_bytes_max} bytes", headers=_CLOSE
        )


def _unavailable(detail: str) -> Reply:
    return Problem.UNAVAILABLE.reply(detail, headers={**_CLOSE, "Retry-After": str(RETRY_AFTER_S)})
