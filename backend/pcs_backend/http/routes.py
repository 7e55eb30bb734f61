"""The routes: what answers which path and method (contract §5)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import orjson
from aiohttp import web

from pcs_backend.conformal.labelling import LABELS_PATH
from pcs_backend.effects.metrics import Metrics
from pcs_backend.errors import UnavailableError
from pcs_backend.exchange import Reply
from pcs_backend.http.labels import Labels
from pcs_backend.http.login import Login
from pcs_backend.http.protocol import to_response
from pcs_backend.http.submits import Submits
from pcs_backend.http.whole import Whole
from pcs_backend.problems import Problem, unavailable_reply
from pcs_core.ports import Sleep

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
_Endpoint = Callable[[web.BaseRequest], Awaitable[Reply]]


class Routes:
    """Answers every request."""

    def __init__(
        self,
        *,
        submits: Submits,
        whole: Whole,
        metrics: Metrics,
        openapi: bytes,
        metrics_login: Login | None,
        labels: Labels,
        sleep: Sleep,
    ) -> None:
        """Wire the routes.

        Args:
            submits: Answers submits.
            whole: The service that this process is, or belongs to.
            metrics: Where refusals are counted.
            openapi: The service's description, JSON.
            metrics_login: That of `/metrics`, or `None`.
            labels: Takes labels.
            sleep: Waits before an unread connection closes.
        """
        self._health = whole.health
        self._whole = whole
        self._metrics = metrics
        self._submit_paths = submits.paths
        self._openapi = Reply(200, openapi)
        self._metrics_login = metrics_login
        self._sleep = sleep
        self._routes: Mapping[str, tuple[tuple[str, ...], _Endpoint]] = {
            **dict.fromkeys(submits.paths, (("POST",), submits.handle)),
            LABELS_PATH: (("POST",), labels.handle),
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
            if request.path in self._submit_paths:
                self._metrics.count_refused(reply.problem)
        else:
            reply = await endpoint(request)
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

    async def _show_metrics(self, request: web.BaseRequest) -> Reply:
        login = self._metrics_login
        if login is not None and not login.matches(request.headers.get("Authorization", "")):
            return login.refusal()
        return await metrics_reply(self._whole)

    async def _show_openapi(self, request: web.BaseRequest) -> Reply:
        del request
        return self._openapi

    async def _show_health(self, request: web.BaseRequest) -> Reply:
        return await health_reply(self._whole, request.path)


async def health_reply(whole: Whole, path: str) -> Reply:
    """Answer a health endpoint.

    Args:
        whole: The service.
        path: One of `HEALTH_PATHS`.
    """
    reason = None
    if path == STARTUP_PATH:
        reason = await whole.not_started()
    elif path == READY_PATH:
        reason = await whole.not_ready()
    return Reply(200, orjson.dumps({"status": "ok"})) if reason is None else unavailable_reply(reason)


async def metrics_reply(whole: Whole) -> Reply:
    """Answer with all metrics of a service."""
    try:
        exposition = await whole.exposition()
    except UnavailableError as error:
        return unavailable_reply(str(error))
    return Reply(200, exposition, "text/plain; version=0.0.4; charset=utf-8")
