"""The routes: what answers which path and method (contract §5), and the first checks of a submit (§4 steps 1 and 2)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import orjson
import structlog
from aiohttp import web

from pcs_backend.effects.metrics import Metrics
from pcs_backend.effects.tap import Sighting, Tap
from pcs_backend.errors import UnavailableError
from pcs_backend.exchange import Envelope, Reply, Request
from pcs_backend.http.body import BodyReader
from pcs_backend.http.protocol import to_response
from pcs_backend.problems import Problem, rate_limited_reply, unavailable_reply
from pcs_backend.trace_context import (
    REQUEST_ID_HEADER,
    TRACEPARENT_HEADER,
    RequestIds,
    read_traceparent,
    trace_id_of,
)
from pcs_backend.trust.token_bucket import TokenBucket
from pcs_core.message_signature import HEADER_CHARACTERS_MAX, HEADERS
from pcs_core.ports import Sleep, WallClock

SUBMIT_PATH = "/v1/pcs/submit"
METRICS_PATH = "/metrics"
OPENAPI_PATH = "/openapi.json"
LIVE_PATH = "/health/live"
STARTUP_PATH = "/health/startup"
READY_PATH = "/health/ready"
HEALTH_PATHS = (LIVE_PATH, STARTUP_PATH, READY_PATH)

UNREAD_LINGER_S = 0.5
"""How long a connection stays open after an answer to a body that was not read, so that the answer gets across. Nothing
is read meanwhile; then it closes."""

_READ_METHODS = ("GET", "HEAD")
_log = structlog.get_logger(__name__)


class Submitter(Protocol):
    """What takes requests in: the pipeline."""

    async def submit(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer requests in order."""
        ...


class Health(Protocol):
    """What the health endpoints ask."""

    def not_started(self) -> str | None:
        """Why the start is not over; `None` when it is."""

    def not_ready(self) -> str | None:
        """Why no request should be sent here, a start that is not over included; `None` if it may."""


class Effects(NamedTuple):
    """What a request leaves behind beside its answer.

    Attributes:
        metrics: What `/metrics` shows.
        tap: Shown what is refused before it reaches the submitter.
        request_ids: Names every submit.
    """

    metrics: Metrics
    tap: Tap
    request_ids: RequestIds


_Endpoint = Callable[[web.BaseRequest], Awaitable[Reply]]


class Routes:
    """Answers every request."""

    def __init__(
        self,
        *,
        submitter: Submitter,
        health: Health,
        effects: Effects,
        body_readers: Mapping[str, BodyReader],
        token_bucket: TokenBucket,
        openapi: bytes,
        metrics_login: tuple[str, str] | None,
        peer_of: Callable[[web.BaseRequest], str] | None,
        now: WallClock,
        sleep: Sleep,
    ) -> None:
        """Wire the routes.

        Args:
            submitter: Steps 3 to 11.
            health: State of the service.
            effects: What a request leaves behind.
            body_readers: Step 1, by path: `SUBMIT_PATH` and `BATCH_PATH`.
            token_bucket: Step 2.
            openapi: The service's description, JSON.
            metrics_login: User and password of `/metrics`, or `None`.
            peer_of: Names the client of a request by its certificate; `None` where there are none.
            now: Stamps requests.
            sleep: Waits before an unread connection closes.
        """
        self._submitter = submitter
        self._health = health
        self._metrics = effects.metrics
        self._tap = effects.tap
        self._request_ids = effects.request_ids
        self._body_readers = body_readers
        self._token_bucket = token_bucket
        self._openapi = Reply(200, openapi)
        self._metrics_login = None if metrics_login is None else _login_digest(*metrics_login)
        self._peer_of = peer_of
        self._now = now
        self._sleep = sleep
        self._routes: Mapping[str, tuple[tuple[str, ...], _Endpoint]] = {
            **dict.fromkeys(body_readers, (("POST",), self._submit)),
            METRICS_PATH: (_READ_METHODS, self._show_metrics),
            OPENAPI_PATH: (_READ_METHODS, self._show_openapi),
            **dict.fromkeys(HEALTH_PATHS, (_READ_METHODS, self._show_health)),
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request. aiohttp calls it."""
        methods, endpoint = self._routes.get(request.path, ((), None))
        if endpoint is None:
            reply = Problem.NOT_FOUND.reply("path: found an unknown one; allowed: see /openapi.json")
        elif request.method not in methods:
            allowed = ", ".join(methods)
            reply = Problem.METHOD_NOT_ALLOWED.reply(
                f"method: found another one; allowed: {allowed}", headers={"Allow": allowed}
            )
        else:
            reply = await endpoint(request)
        if reply.problem and request.path in self._body_readers:
            self._metrics.refused.labels(reply.problem).inc()
        return await self._respond(request, reply)

    async def _respond(self, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
        response = to_response(reply)
        if not request.content.is_eof() and request.body_exists:
            # The body stays unread: closing at once would reset the connection before the client has read the answer.
            response.force_close()
            await response.prepare(request)
            await response.write_eof()
            await self._sleep(UNREAD_LINGER_S)
        return response

    async def _submit(self, request: web.BaseRequest) -> Reply:
        request_id = self._request_ids.next_id()
        reply = await self._admit(request, request_id)
        return reply._replace(headers={**reply.headers, REQUEST_ID_HEADER: request_id})

    async def _admit(self, request: web.BaseRequest, request_id: str) -> Reply:
        body = await self._body_readers[request.path].read(request)  # 1
        if isinstance(body, Reply):
            return self._turn_away(body, request_id)
        self._metrics.ingest.inc()
        # How many records a batch has is not known yet: what it owes is taken when that is.
        if wait_s := self._token_bucket.take(1 if request.path == SUBMIT_PATH else 0):  # 2
            return self._turn_away(rate_limited_reply(wait_s, self._token_bucket.quota), request_id)
        if (reason := self._health.not_ready()) is not None:
            return self._turn_away(unavailable_reply(reason), request_id)
        try:
            peer = "" if self._peer_of is None else self._peer_of(request)
        except UnavailableError as error:
            return self._turn_away(unavailable_reply(str(error)), request_id)
        envelope = Envelope(
            received_at_ms=int(self._now() * 1_000),
            path=request.path,
            content_type=request.content_type,
            content_encoding=request.headers.get("Content-Encoding", "").strip().lower(),
            peer=peer,
            headers=_signature_headers(request),
            request_id=request_id,
            traceparent=read_traceparent(request.headers.getall(TRACEPARENT_HEADER, ())),
        )
        # aiohttp does not cancel this when the client goes away: what was sent is judged to its end.
        replies = await self._submitter.submit([Request(envelope, body)])
        _log.debug(
            "submit",
            status=replies[0].status,
            problem=replies[0].problem,
            size_bytes=len(body),
            request_id=request_id,
            trace_id=trace_id_of(envelope.traceparent),
        )
        return replies[0]

    def _turn_away(self, reply: Reply, request_id: str) -> Reply:
        """Return a reply that comes before the submitter, and show it."""
        if self._tap.listeners:
            at_ms = int(self._now() * 1_000)
            self._tap.show(
                Sighting(at_ms=at_ms, status=reply.status, request_id=request_id, problem=reply.problem)
            )
        return reply

    async def _show_metrics(self, request: web.BaseRequest) -> Reply:
        if self._metrics_login is not None and not _login_matches(
            request.headers.get("Authorization", ""), self._metrics_login
        ):
            return Problem.BAD_SIGNATURE.reply(
                "Authorization: found none that is valid; allowed: the Basic login of the metrics",
                headers={"WWW-Authenticate": 'Basic realm="metrics"'},
            )
        return Reply(200, self._metrics.exposition(), "text/plain; version=0.0.4; charset=utf-8")

    async def _show_openapi(self, request: web.BaseRequest) -> Reply:
        del request
        return self._openapi

    async def _show_health(self, request: web.BaseRequest) -> Reply:
        return health_reply(self._health, request.path)


def health_reply(health: Health, path: str) -> Reply:
    """Answer a health endpoint.

    Args:
        health: State of the service.
        path: One of `HEALTH_PATHS`.
    """
    reason = None
    if path == STARTUP_PATH:
        reason = health.not_started()
    elif path == READY_PATH:
        reason = health.not_ready()
    return Reply(200, orjson.dumps({"status": "ok"})) if reason is None else unavailable_reply(reason)


def _signature_headers(request: web.BaseRequest) -> dict[str, str]:
    """Return what a signature of the request covers and says; nothing if there is none.

    A header that came twice, or is not ASCII, is none that was signed: what stands for it verifies nothing.
    """
    given = request.headers
    if "Signature" not in given and "Signature-Input" not in given:
        return {}
    values = {name: ", ".join(given.getall(name, ())) for name in (*HEADERS, "host")}
    return {
        name: value[: HEADER_CHARACTERS_MAX + 1].encode("ascii", "replace").decode("ascii")
        for name, value in values.items()
    }


def _login_digest(user: str, password: str) -> bytes:
    return hashlib.sha256(f"{user}:{password}".encode()).digest()


def _login_matches(header: str, digest: bytes) -> bool:
    """Whether a Basic login is the one expected, in time that tells nothing of either."""
    scheme, _, encoded = header.partition(" ")
    try:
        login = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        login = b""
    return hmac.compare_digest(hashlib.sha256(login).digest(), digest) and scheme.lower() == "basic"
