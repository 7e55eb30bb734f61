"""The administration socket: `DATA_DIR/admin.sock`, a Unix socket of mode 0600 beside the public port.

The memory store lives inside the serving process, and so do its counters and the tap: the command line asks for them
here. So do probes of the same machine, which need no certificate here. Whoever may write the data folder may use it;
nobody else can.
"""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from pcs_backend.dedup.store import LIST_MAX, Conflict, DedupStore, Escalation, Key, Outcome
from pcs_backend.effects.metrics import Metrics
from pcs_backend.effects.tap import Filter, Tap, TooManyListenersError
from pcs_backend.errors import UnavailableError
from pcs_backend.exchange import Reply
from pcs_backend.http.protocol import ProblemProtocol, to_response
from pcs_backend.http.routes import HEALTH_PATHS, METRICS_PATH, health_reply
from pcs_backend.http.submits import Health
from pcs_backend.problems import Problem, unavailable_reply

SOCKET_NAME = "admin.sock"
ESCALATIONS_PATH = "/escalations"
ACKS_PATH = "/escalations/acks"
CONFLICTS_PATH = "/conflicts"
OUTCOMES_PATH = "/outcomes"
TAP_PATH = "/tap"

_encode = msgspec.json.Encoder().encode


class Listing(msgspec.Struct, frozen=True):
    """What a listing returns: one of the two."""

    escalations: list[Escalation] = []
    conflicts: list[Conflict] = []


class Acks(msgspec.Struct, frozen=True):
    """Which entries to take off the queue; and in the answer, whether each was there."""

    tenant: str
    pcs_ids: list[str]
    done: list[bool] = []


class Lookup(msgspec.Struct, frozen=True):
    """Whose outcomes are wanted; and in the answer, each one or nothing."""

    keys: list[Key]
    outcomes: list[Outcome | None] = []


class AdminRoutes:
    """Answers the command line and probes."""

    def __init__(self, store: DedupStore, metrics: Metrics, tap: Tap, health: Health) -> None:
        """Take what the serving process has.

        Args:
            store: Its store.
            metrics: Its counters.
            tap: Where it shows verdicts.
            health: Its state.
        """
        self._store = store
        self._metrics = metrics
        self._tap = tap
        self._health = health
        self._writing: set[asyncio.Transport] = set()

    def close(self) -> None:
        """End every tap: those that keep up get what was shown, others are cut off."""
        self._tap.close()
        for transport in self._writing:
            transport.abort()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request. aiohttp calls it."""
        try:
            if (request.method, request.path) == ("GET", TAP_PATH):
                return await self._serve_tap(request)
            return to_response(await self._answer(request))
        except TooManyListenersError:
            return to_response(unavailable_reply("as many listen as are allowed"))
        except UnavailableError as error:
            return to_response(unavailable_reply(str(error)))

    async def _answer(self, request: web.BaseRequest) -> Reply:
        match request.method, request.path:
            case "GET", path if path in {ESCALATIONS_PATH, CONFLICTS_PATH}:
                tenant = request.query.get("tenant", "")
                limit = min(int(request.query.get("limit", LIST_MAX)), LIST_MAX)
                if path == ESCALATIONS_PATH:
                    listing = Listing(escalations=await self._store.list_escalations(tenant, limit))
                else:
                    listing = Listing(conflicts=await self._store.list_conflicts(tenant, limit))
                return Reply(200, _encode(listing))
            case "POST", path if path == ACKS_PATH:
                acks = msgspec.json.decode(await request.read(), type=Acks)
                keys = [Key(acks.tenant, pcs_id) for pcs_id in acks.pcs_ids[:LIST_MAX]]
                done = await self._store.ack_escalations(keys)
                return Reply(200, _encode(msgspec.structs.replace(acks, done=done)))
            case "POST", path if path == OUTCOMES_PATH:
                wanted = msgspec.json.decode(await request.read(), type=Lookup).keys[:LIST_MAX]
                return Reply(200, _encode(Lookup(wanted, await self._store.get(wanted))))
            case "GET", path if path == METRICS_PATH:
                return Reply(200, self._metrics.exposition(), "text/plain; version=0.0.4; charset=utf-8")
            case "GET", path if path in HEALTH_PATHS:
                return health_reply(self._health, path)
            case _:
                return Problem.NOT_FOUND.reply("path: found an unknown one")

    async def _serve_tap(self, request: web.BaseRequest) -> web.StreamResponse:
        """Send verdicts, one JSON object a line, until the client goes or the service stops."""
        statuses = frozenset(map(int, request.query.getall("status", [])))
        wanted = Filter(request.query.get("tenant", ""), request.query.get("regime", ""), statuses)
        connection, transport = request.protocol, request.transport
        assert isinstance(connection, ProblemProtocol)
        with self._tap.listen(wanted) as listener:
            connection.patient = True
            response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
            await response.prepare(request)
            async for lines in listener.batches():
                if transport is None or transport.is_closing():
                    break
                if lines:
                    self._writing.add(transport)
                    try:
                        await response.write(b"".join(_encode(line) + b"\n" for line in lines))
                    except ConnectionError:  # the client went
                        break
                    finally:
                        self._writing.discard(transport)
            response.force_close()
            return response
