"""What crosses between HTTP and the pipeline: a request in, a reply out. No type of any web framework."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from pcs_core.keyring import DEFAULT_TENANT

JSON_TYPE = "application/json"
NDJSON_TYPE = "application/x-ndjson"
PROBLEM_TYPE = "application/problem+json"

REPLAYED_HEADER = "Idempotent-Replayed"
CONFLICT_HEADER = "PCS-Conflict"


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a request beside its body. Stored with it in the WAL, so that recovery judges the same thing.

    Attributes:
        received_at_ms: Milliseconds since 1970.
        path: The path it was sent to.
        content_type: Without parameters.
        content_encoding: Empty if none.
        tenant: Not used since the tenant follows from the key: `default`.
        peer: Name in the client certificate that the TLS handshake checked; empty without one.
        headers: Of a signed request, what its signature covers and says, lower-case names; otherwise empty.
        request_id: Names it in logs and traces; empty in frames of 0.1.0.
        traceparent: The trace its sender is in, as W3C Trace Context writes it; empty if none.
    """

    received_at_ms: int
    path: str
    content_type: str
    content_encoding: str = ""
    tenant: str = DEFAULT_TENANT
    peer: str = ""
    headers: dict[str, str] = {}
    request_id: str = ""
    traceparent: str = ""


class Request(NamedTuple):
    """One request, not yet parsed: a record, or a batch of them."""

    envelope: Envelope
    body: bytes


class Received(NamedTuple):
    """A request that is on disk.

    Attributes:
        sequence: Its frame in the inbox.
        request: What the frame holds.
    """

    sequence: int
    request: Request


class Reply(msgspec.Struct, frozen=True, gc=False):
    """What the client gets.

    Attributes:
        status: HTTP status.
        body: The exact bytes.
        content_type: Of the body.
        headers: Further headers.
        problem: Code of the problem if this is no outcome, else empty.
    """

    status: int
    body: bytes
    content_type: str = JSON_TYPE
    headers: Mapping[str, str] = MappingProxyType({})
    problem: str = ""
