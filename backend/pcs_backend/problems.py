"""Every answer that is not an outcome: RFC 9457 problem details (contract §4).

A problem names the field, the kind of thing found and what is allowed, never a value.
"""

from __future__ import annotations

import enum
from http import HTTPStatus
from typing import NamedTuple

import orjson

from pcs_backend.exchange import PROBLEM_TYPE, Reply
from pcs_backend.trust.quota import Quota
from pcs_core.errors import MalformedError

RETRY_AFTER_S = 1
"""What a client is asked to wait after a 503, whole seconds."""

_TYPE_PREFIX = "urn:pcs:problem:"


class Kind(NamedTuple):
    """A kind of problem: the last part of its `type`, its status and its title."""

    code: str
    status: int
    title: str


class Problem(enum.Enum):
    """All kinds there are."""

    NOT_FOUND = Kind("not-found", HTTPStatus.NOT_FOUND, "Nothing is here")
    METHOD_NOT_ALLOWED = Kind("method-not-allowed", HTTPStatus.METHOD_NOT_ALLOWED, "Method not allowed")
    UNSUPPORTED_MEDIA_TYPE = Kind(
        "unsupported-media-type", HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Media type not supported"
    )
    TOO_LARGE = Kind("too-large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Request too large")
    TIMEOUT = Kind("timeout", HTTPStatus.REQUEST_TIMEOUT, "Request too slow")
    RATE_LIMITED = Kind("rate-limited", HTTPStatus.TOO_MANY_REQUESTS, "Too many records")
    MALFORMED = Kind("malformed", HTTPStatus.BAD_REQUEST, "Malformed request")
    BAD_SIGNATURE = Kind("bad-signature", HTTPStatus.UNAUTHORIZED, "Bad signature")
    IDENTITY_MISMATCH = Kind("identity-mismatch", HTTPStatus.BAD_REQUEST, "pcs_id does not match")
    NO_SIGNALS = Kind("no-signals", HTTPStatus.CONFLICT, "Stored without signals")
    UNAVAILABLE = Kind("unavailable", HTTPStatus.SERVICE_UNAVAILABLE, "Not available now")

    @property
    def code(self) -> str:
        """Last part of the `type`, also the label in metrics and the note in the WAL."""
        return self.value.code

    def reply(self, detail: str, *, headers: dict[str, str] | None = None, **members: str) -> Reply:
        """Return the reply.

        Args:
            detail: A sentence without any value of the request.
            headers: Further headers.
            members: Further members of the object.
        """
        document = {
            "type": _TYPE_PREFIX + self.code,
            "title": self.value.title,
            "status": int(self.value.status),
            "detail": detail,
            **members,
        }
        return Reply(int(self.value.status), orjson.dumps(document), PROBLEM_TYPE, headers or {}, self.code)


def malformed_reply(error: MalformedError) -> Reply:
    """Return the 400 that names field, kind found and what is allowed."""
    return Problem.MALFORMED.reply(str(error), field=error.field, found=error.found, allowed=error.allowed)


def rate_limited_reply(wait_s: int, quota: Quota) -> Reply:
    """Return the 429 that says what the limit is, and after how many whole seconds to come back."""
    return Problem.RATE_LIMITED.reply(
        "records: found more than the rate allows", headers=quota.headers(wait_s)
    )


def unavailable_reply(detail: str) -> Reply:
    """Return the 503 that asks to come back."""
    return Problem.UNAVAILABLE.reply(detail, headers={"Retry-After": str(RETRY_AFTER_S)})
