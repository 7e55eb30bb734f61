"""The administration socket: `DATA_DIR/admin.sock`, a Unix socket of mode 0600 beside the public port.

The memory store lives inside the serving process, so the command line asks it here. So do probes of the same machine,
which need no certificate here. Whoever may write the data folder may use it; nobody else can.
"""

from __future__ import annotations

import msgspec
from aiohttp import web

from pcs_backend.dedup.store import LIST_MAX, Conflict, DedupStore, Escalation, Key
from pcs_backend.errors import UnavailableError
from pcs_backend.exchange import Reply
from pcs_backend.http.protocol import to_response
from pcs_backend.http.routes import HEALTH_PATHS, Health, health_reply
from pcs_backend.problems import Problem, unavailable_reply

SOCKET_NAME = "admin.sock"
ESCALATIONS_PATH = "/escalations"
ACKS_PATH = "/escalations/acks"
CONFLICTS_PATH = "/conflicts"


class Listing(msgspec.Struct, frozen=True):
    """What a listing returns: one of the two."""

    escalations: list[Escalation] = []
    conflicts: list[Conflict] = []


class Acks(msgspec.Struct, frozen=True):
    """Which entries to take off the queue; and in the answer, whether each was there."""

    tenant: str
    pcs_ids: list[str]
    done: list[bool] = []


class AdminRoutes:
    """Answers the command line and probes."""

    def __init__(self, store: DedupStore, health: Health) -> None:
        """Take store and state of the serving process."""
        self._store = store
        self._health = health

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request. aiohttp calls it."""
        try:
            return to_response(await self._answer(request))
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
                return Reply(200, msgspec.json.encode(listing))
            case "POST", path if path == ACKS_PATH:
                acks = msgspec.json.decode(await request.read(), type=Acks)
                keys = [Key(acks.tenant, pcs_id) for pcs_id in acks.pcs_ids[:LIST_MAX]]
                done = await self._store.ack_escalations(keys)
                return Reply(200, msgspec.json.encode(msgspec.structs.replace(acks, done=done)))
            case "GET", path if path in HEALTH_PATHS:
                return health_reply(self._health, path)
            case _:
                return Problem.NOT_FOUND.reply("path: found an unknown one")
