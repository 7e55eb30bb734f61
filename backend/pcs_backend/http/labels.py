"""Labels over HTTP: who may send them, their form, and their answer.

They are authenticated as requests with records are: by a signature of the whole request, or by a client certificate that
says who it is. Beside that there is a login, for people and tools that have no key. On loopback, where nothing is signed
and no login is set, labels are taken as records are: from anybody.

A label is no record: nothing of it is in the inbox, and what was not answered 200 was not taken and is sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
from aiohttp import web

from pcs_backend.conformal.labelling import LABEL_LINES_MAX, LABELS_PATH, Labeller, Labelling
from pcs_backend.errors import TooLargeError, UnavailableError
from pcs_backend.exchange import JSON_TYPE, NDJSON_TYPE, Envelope, Reply, Request
from pcs_backend.http.body import BodyReader
from pcs_backend.http.login import Login
from pcs_backend.http.peers import Peers
from pcs_backend.http.submits import signature_headers
from pcs_backend.http.whole import Health
from pcs_backend.problems import Problem, malformed_reply, unavailable_reply
from pcs_backend.trust.policy import Trust
from pcs_core.errors import BadSignatureError, MalformedError
from pcs_core.ports import WallClock

LABELS_BYTES_MAX = 1 << 20
"""Largest body of labels."""

LABEL_REQUESTS_MAX = 8
"""Requests with labels that are looked up and stored at once; further ones are asked to come back."""

LABELS_REALM = "labels"

_LABELS = f"1 to {LABEL_LINES_MAX} labels, one JSON object a line"

_log = structlog.get_logger(__name__)


class Admission:
    """Says who sends labels."""

    def __init__(
        self, *, trust: Callable[[], Trust], peers: Peers | None, login: Login | None, is_local: bool
    ) -> None:
        """Choose whom to believe.

        Args:
            trust: What is trusted now.
            peers: Names clients by their certificates; `None` where they show none.
            login: Of those that may label the records of all tenants, if there is one.
            is_local: Whether only this machine can send anything.
        """
        self._trust = trust
        self._peers = peers
        self._login = login
        self._is_local = is_local

    def admit(self, request: web.BaseRequest, body: bytes, now_ms: int) -> Labeller | Reply:
        """Return who sent a request, or the refusal.

        Raises:
            BadSignatureError: Its signature is false, or missing where it is demanded.
            UnavailableError: A proxy says of its client what cannot be read.
        """
        peer = "" if self._peers is None else self._peers.name(request.transport, request.headers)
        trust = self._trust()
        sent = Request(
            Envelope(
                received_at_ms=now_ms,
                path=request.path,
                content_type=request.content_type,
                peer=peer,
                headers=signature_headers(request.headers),
            ),
            body,
        )
        signed_by = trust.check_request(sent)
        if self._login is not None and (given := request.headers.get("Authorization")) is not None:
            return Labeller("login", None) if self._login.matches(given) else self._login.refusal()
        sender = trust.sender(sent, signed_by)
        if sender is not None:
            name = f"key {sender.key_id}" if sender.key_id else f"certificate {peer}"
            return Labeller(name, sender.tenant)
        if self._login is not None:
            return self._login.refusal()
        if self._is_local and not trust.keyring:
            return Labeller("this machine", None)
        return Problem.BAD_SIGNATURE.reply(
            "Signature: found none, nor a client certificate that is known; allowed: either, or the login of "
            "CALIBRATION_USER and CALIBRATION_PASS, where they are set",
            field="Signature",
        )


class Labels:
    """Answers requests with labels."""

    def __init__(
        self,
        *,
        labelling: Labelling,
        admission: Admission,
        health: Health,
        now: WallClock,
        body_timeout_s: float,
    ) -> None:
        """Wire it.

        Args:
            labelling: Takes them.
            admission: Says who sends them.
            health: State of the service.
            now: Dates requests.
            body_timeout_s: Longest time for a body.
        """
        self._labelling = labelling
        self._admission = admission
        self._health = health
        self._now = now
        self._under_way = 0
        self._reader = BodyReader(
            size_bytes_max=LABELS_BYTES_MAX, timeout_s=body_timeout_s, types=(NDJSON_TYPE, JSON_TYPE)
        )

    async def handle(self, request: web.BaseRequest) -> Reply:
        """Answer one request. Never raises for what it holds."""
        if (reason := self._health.not_ready()) is not None:
            return unavailable_reply(reason)
        try:
            body = await self._reader.read(request)
            return body if isinstance(body, Reply) else await self._answer(request, body)
        except MalformedError as error:
            return malformed_reply(error)
        except TooLargeError as error:
            return Problem.TOO_LARGE.reply(str(error))
        except BadSignatureError as error:
            return Problem.BAD_SIGNATURE.reply(str(error), field=str(error).partition(":")[0])
        except UnavailableError as error:
            return unavailable_reply(str(error))

    async def _answer(self, request: web.BaseRequest, body: bytes) -> Reply:
        labeller = self._admission.admit(request, body, int(self._now() * 1_000))
        if isinstance(labeller, Reply):
            return labeller
        is_lines = request.content_type == NDJSON_TYPE
        lines = split_lines(body) if is_lines else [body]
        # Counted only from here on: whoever may not label, or sends slowly, takes nobody's place.
        if self._under_way >= LABEL_REQUESTS_MAX:
            return unavailable_reply("as many requests with labels are under way as are allowed")
        self._under_way += 1
        try:
            replies = await self._labelling.take(lines, labeller)
        finally:
            self._under_way -= 1
        taken = sum(reply.status == 200 for reply in replies)
        _log.info("labels came", taken=taken, refused=len(replies) - taken, path=LABELS_PATH)
        return join_lines(replies) if is_lines else replies[0]


def split_lines(body: bytes) -> list[bytes]:
    """Cut NDJSON into its lines; blank ones are passed over.

    Raises:
        MalformedError: There is none.
        TooLargeError: There are more than `LABEL_LINES_MAX`.
    """
    # Counted first, which bounds the work; so many blank lines are no list of labels either.
    too_many = body.count(b"\n") > 2 * LABEL_LINES_MAX
    lines = [] if too_many else [line for line in body.split(b"\n") if line and not line.isspace()]
    if too_many or len(lines) > LABEL_LINES_MAX:
        raise TooLargeError(f"labels: found more than is allowed; allowed: {_LABELS}")
    if not lines:
        raise MalformedError("$", "no label", _LABELS)
    return lines


def join_lines(replies: Sequence[Reply]) -> Reply:
    """Return the one answer to many labels: a line each, with status and body that it would have had alone."""
    lines = [b'{"status":%d,"body":%b}\n' % (reply.status, reply.body) for reply in replies]
    return Reply(200, b"".join(lines), NDJSON_TYPE)
