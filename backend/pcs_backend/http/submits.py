"""Submits: the first checks (contract §4 steps 1 and 2), what is known of a request beside its body, and its answer.

A submit comes by one of two ways, see `express`: whole, or by aiohttp's own way with its body still to be read. Both are
admitted by the same checks, counted by the same counters and answered with the same headers.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import msgspec
import structlog
from aiohttp import web
from aiohttp.http import RawRequestMessage
from multidict import MultiMapping

from pcs_backend.effects.metrics import Metrics
from pcs_backend.effects.tap import Sighting, Tap
from pcs_backend.errors import UnavailableError
from pcs_backend.exchange import Envelope, Reply, Request
from pcs_backend.http.answer import Answers
from pcs_backend.http.arrivals import Arrivals
from pcs_backend.http.body import BodyReader
from pcs_backend.http.express import Answer
from pcs_backend.http.overload import TICK_INTERVAL_S, Overload
from pcs_backend.http.whole import Health
from pcs_backend.problems import rate_limited_reply, unavailable_reply
from pcs_backend.trace_context import (
    REQUEST_ID_HEADER,
    TRACEPARENT_HEADER,
    RequestIds,
    read_traceparent,
    trace_id_of,
)
from pcs_backend.trust.token_bucket import TokenBucket
from pcs_core.message_signature import HEADER_CHARACTERS_MAX, HEADERS
from pcs_core.ports import MonotonicClock, WallClock

SUBMIT_PATH = "/v1/pcs/submit"

_OVERLOADED = unavailable_reply("more requests are under way than can be answered in time")

_WHOLE = re.compile(
    rb"POST /v1/pcs/(?:submit|batch) HTTP/1\.1\r\n"
    rb"(?:(?!content-length|transfer-encoding|connection|expect|upgrade)[a-z0-9-]+:[\t\x20-\x7e]*\r\n)*+"
    rb"content-length:[ ]?([1-9][0-9]{0,8})\r\n"
    rb"(?:(?!content-length|transfer-encoding|connection|expect|upgrade)[a-z0-9-]+:[\t\x20-\x7e]*\r\n)*+\r\n",
    re.IGNORECASE,
)
"""The header of a submit of which nothing but its length says where it ends."""

_log = structlog.get_logger(__name__)


class Effects(NamedTuple):
    """What a request leaves behind beside its answer.

    Attributes:
        metrics: What `/metrics` shows.
        tap: Shown what is refused before it reaches the submitter.
        request_ids: Names every submit.
        logs_submits: Whether every submit is logged, at DEBUG.
    """

    metrics: Metrics
    tap: Tap
    request_ids: RequestIds
    logs_submits: bool = False


class _Sent(NamedTuple):
    """A request that came whole and passed step 1."""

    path: str
    content_type: str
    headers: MultiMapping[str]
    body: bytes
    transport: asyncio.BaseTransport | None


class Submits:
    """Answers submits.

    Attributes:
        paths: Where they are sent to.
    """

    def __init__(
        self,
        *,
        arrivals: Arrivals,
        health: Health,
        effects: Effects,
        overload: Overload,
        body_readers: Mapping[str, BodyReader],
        token_bucket: TokenBucket,
        peer_of: Callable[[asyncio.BaseTransport | None, MultiMapping[str]], str] | None,
        now: WallClock,
        monotonic: MonotonicClock,
        busy_s: Callable[[], float],
    ) -> None:
        """Wire them.

        Args:
            arrivals: Steps 3 to 11.
            health: State of the service.
            effects: What a request leaves behind.
            overload: How many may be under way.
            body_readers: Step 1, by path.
            token_bucket: Step 2.
            peer_of: Names the client of a request by its certificate; `None` where there are none.
            now: Stamps requests and answers.
            monotonic: Times requests.
            busy_s: How long the event loop's thread was busy.
        """
        self._arrivals = arrivals
        self._health = health
        self._metrics = effects.metrics
        self._tap = effects.tap
        self._request_ids = effects.request_ids
        self._logs_submits = effects.logs_submits
        self._overload = overload
        self._body_readers = body_readers
        self.paths = frozenset(body_readers)
        self._token_bucket = token_bucket
        self._peer_of = peer_of
        self._now = now
        self._monotonic = monotonic
        self._busy_s = busy_s
        self._answers = Answers(now)
        self._looked: tuple[float, float] | None = None

    async def handle(self, request: web.BaseRequest) -> Reply:
        """Answer a submit whose body is still to be read. Never raises for what it holds."""
        began_s = self._monotonic()
        request_id = self._request_ids.next_id()
        body = await self._body_readers[request.path].read(request)  # 1
        if isinstance(body, Reply):
            reply = self._turn_away(body, request_id)
        else:
            sent = _Sent(request.path, request.content_type, request.headers, body, request.transport)
            admitted = self._admit(sent, request_id)
            if isinstance(admitted, Reply):
                reply = admitted
            else:
                self._enter()
                try:
                    # aiohttp does not cancel this when the client goes away: what was sent is judged to its end.
                    reply = await self._arrivals.submit(admitted)
                finally:
                    self._overload.leave()
                self._log_submit(admitted, reply)
        self._count(reply, began_s)
        return msgspec.structs.replace(reply, headers={**reply.headers, REQUEST_ID_HEADER: request_id})

    def wants(self, message: RawRequestMessage, size_bytes: int) -> bool:
        """As `Lane.wants`: a submit in the form almost every client gives it, of which nothing is left to check."""
        headers = message.headers
        body_reader = self._body_readers.get(message.path)
        return (
            body_reader is not None
            and message.method == "POST"
            and headers.get("Content-Type") in body_reader.types
            and 0 < size_bytes <= body_reader.size_bytes_max
            and "Content-Encoding" not in headers
            and "Transfer-Encoding" not in headers
            and "Expect" not in headers
        )

    def take(
        self, message: RawRequestMessage, body: bytes, transport: asyncio.BaseTransport | None, answer: Answer
    ) -> None:
        """As `Lane.take`."""
        began_s = self._monotonic()
        request_id = self._request_ids.next_id()
        headers = message.headers
        sent = _Sent(message.path, headers["Content-Type"], headers, body, transport)
        admitted = self._admit(sent, request_id)
        if isinstance(admitted, Reply):
            self._count(admitted, began_s)
            answer(admitted, request_id)
        else:
            self._enter()
            self._arrivals.submit_soon(admitted, partial(self._finish, admitted, began_s, answer))

    def encode(self, reply: Reply, request_id: str, *, close: bool = False) -> bytes:
        """As `Lane.encode`."""
        return self._answers.encode(reply, {REQUEST_ID_HEADER: request_id}, close=close)

    def shed(self, data: bytes) -> bytes | None:
        """As `Lane.shed`: only a submit that came whole, whose end nothing but its length tells."""
        if not self._overload.is_full:
            return None
        header = _WHOLE.match(data)
        if header is None or header.end() + int(header[1]) != len(data):
            return None
        request_id = self._request_ids.next_id()
        self._metrics.requests_shed.inc()
        self._metrics.count_refused(_OVERLOADED.problem)
        return self.encode(self._turn_away(_OVERLOADED, request_id), request_id)

    def _admit(self, sent: _Sent, request_id: str) -> Request | Reply:
        """Return what is submitted, or the reply that comes before it."""
        if self._overload.is_full:
            self._metrics.requests_shed.inc()
            return self._turn_away(_OVERLOADED, request_id)
        self._metrics.ingest.inc()
        # How many records a batch has is not known yet: what it owes is taken when that is.
        if wait_s := self._token_bucket.take(1 if sent.path == SUBMIT_PATH else 0):  # 2
            return self._turn_away(rate_limited_reply(wait_s, self._token_bucket.quota), request_id)
        if (reason := self._health.not_ready()) is not None:
            return self._turn_away(unavailable_reply(reason), request_id)
        peer = ""
        if self._peer_of is not None:
            try:
                peer = self._peer_of(sent.transport, sent.headers)
            except UnavailableError as error:
                return self._turn_away(unavailable_reply(str(error)), request_id)
        return Request(
            Envelope(
                received_at_ms=int(self._now() * 1_000),
                path=sent.path,
                content_type=sent.content_type,
                content_encoding=sent.headers.get("Content-Encoding", "").strip().lower(),
                peer=peer,
                headers=signature_headers(sent.headers),
                request_id=request_id,
                traceparent=read_traceparent(sent.headers.getall(TRACEPARENT_HEADER, ())),
            ),
            sent.body,
        )

    def _enter(self) -> None:
        """Count a request that is under way from now on."""
        self._overload.enter()
        if self._overload.needs_ticks and self._looked is None:
            self._look_later(self._monotonic(), self._busy_s())

    def _look_later(self, now_s: float, busy_s: float) -> None:
        """Begin a look at how busy the loop is."""
        self._looked = (now_s, busy_s)
        asyncio.get_running_loop().call_later(TICK_INTERVAL_S, self._look)

    def _look(self) -> None:
        """Tell how busy the loop was since the look began, as long as somebody wants to know."""
        assert self._looked is not None
        now_s, busy_s = self._monotonic(), self._busy_s()
        began_s, busy_before_s = self._looked
        self._overload.tick(now_s, (busy_s - busy_before_s) / max(now_s - began_s, 1e-9))
        self._looked = None
        if self._overload.needs_ticks:
            self._look_later(now_s, busy_s)

    def _finish(self, request: Request, began_s: float, answer: Answer, reply: Reply) -> None:
        """Answer a request of the express lane that was submitted."""
        self._overload.leave()
        self._log_submit(request, reply)
        self._count(reply, began_s)
        answer(reply, request.envelope.request_id)

    def _count(self, reply: Reply, began_s: float) -> None:
        if reply.problem:
            self._metrics.count_refused(reply.problem)
        self._metrics.request_seconds.observe(self._monotonic() - began_s)

    def _log_submit(self, request: Request, reply: Reply) -> None:
        if self._logs_submits:  # a line that is filtered out still costs more than the checks of a signature
            _log.debug(
                "submit",
                status=reply.status,
                problem=reply.problem,
                size_bytes=len(request.body),
                request_id=request.envelope.request_id,
                trace_id=trace_id_of(request.envelope.traceparent),
            )

    def _turn_away(self, reply: Reply, request_id: str) -> Reply:
        """Return a reply that comes before the submitter, and show it."""
        if self._tap.listeners:
            at_ms = int(self._now() * 1_000)
            self._tap.show(
                Sighting(at_ms=at_ms, status=reply.status, request_id=request_id, problem=reply.problem)
            )
        return reply


def signature_headers(given: MultiMapping[str]) -> dict[str, str]:
    """Return what a signature of the request covers and says; nothing if there is none.

    A header that came twice, or is not ASCII, is none that was signed: what stands for it verifies nothing.
    """
    if "Signature" not in given and "Signature-Input" not in given:
        return {}
    values = {name: ", ".join(given.getall(name, ())) for name in (*HEADERS, "host")}
    return {
        name: value[: HEADER_CHARACTERS_MAX + 1].encode("ascii", "replace").decode("ascii")
        for name, value in values.items()
    }
