"""The administration socket: `DATA_DIR/admin.sock`, a Unix socket of mode 0600 beside the public port.

The memory store lives inside the serving process, and so do its counters and the tap: the command line asks for them
here. So do probes of the same machine, which need no certificate here. Whoever may write the data folder may use it;
nobody else can.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import msgspec
from aiohttp import web

from pcs_backend.conformal.store import Calibrations
from pcs_backend.dedup.store import LIST_MAX, Conflict, DedupStore, Escalation
from pcs_backend.effects.tap import Tap, TooManyListenersError
from pcs_backend.errors import UnavailableError
from pcs_backend.exchange import Reply
from pcs_backend.http.admin_calibrations import CALIBRATION_PREFIX, CalibrationRoutes
from pcs_backend.http.protocol import to_response
from pcs_backend.http.routes import HEALTH_PATHS, METRICS_PATH, health_reply, metrics_reply
from pcs_backend.http.tap_stream import TAP_PATH, TapStreams
from pcs_backend.http.whole import Whole
from pcs_backend.outcome import Key, Outcome, WholeOutcome, whole
from pcs_backend.problems import Problem, unavailable_reply

SOCKET_NAME = "admin.sock"
ADMIN_CONNECTIONS_MAX = 16
ADMIN_BACKLOG_MAX = 128
"""Connections the kernel holds that are not accepted yet."""

ESCALATIONS_PATH = "/escalations"
ACKS_PATH = "/escalations/acks"
CONFLICTS_PATH = "/conflicts"
OUTCOMES_PATH = "/outcomes"


@contextlib.contextmanager
def bound_unix(path: str) -> Iterator[socket.socket]:
    """Bind a Unix socket of mode 0600, also where the path is longer than a socket address may be; it is gone afterwards.

    Args:
        path: Where. What lies there was left by a process that was killed: whoever calls holds the folder.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY)
        previous = os.umask(0o177)
        try:
            listener.bind(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
        finally:
            os.umask(previous)
            os.close(folder)
        try:
            yield listener
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


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
    outcomes: list[WholeOutcome | None] = []

    @property
    def found(self) -> list[Outcome | None]:
        """The outcomes of an answer."""
        return [None if each is None else each.outcome for each in self.outcomes]


class AdminRoutes:
    """Answers the command line and probes."""

    def __init__(self, store: DedupStore, calibrations: Calibrations, tap: Tap, whole: Whole) -> None:
        """Take what the serving process has.

        Args:
            store: Its store.
            calibrations: What verdicts are calibrated with.
            tap: Where it shows verdicts.
            whole: The service that it is, or belongs to.
        """
        self._store = store
        self._calibrations = CalibrationRoutes(calibrations)
        self._whole = whole
        self._streams = TapStreams(tap, whole.follow)

    def close(self) -> None:
        """End every tap: those that keep up get what was shown, others are cut off."""
        self._streams.close()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request. aiohttp calls it."""
        try:
            if (request.method, request.path) == ("GET", TAP_PATH):
                return await self._streams.serve(request)
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
                found = await self._store.get(wanted)
                return Reply(
                    200, _encode(Lookup(wanted, [None if each is None else whole(each) for each in found]))
                )
            case _, path if path.startswith(CALIBRATION_PREFIX):
                return await self._calibrations.answer(request)
            case "GET", path if path == METRICS_PATH:
                return await metrics_reply(self._whole)
            case "GET", path if path in HEALTH_PATHS:
                return await health_reply(self._whole, path)
            case _:
                return Problem.NOT_FOUND.reply("path: found an unknown one")
