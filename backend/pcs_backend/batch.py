"""Many records in one request: how they stand in its body, and how their answers stand in its answer.

Two forms: NDJSON, one record a line, and a JSON array. Pure. A record is handed on as the bytes it came as, so that what
is wrong inside one harms no other; only a body that is not cut into records at all is refused as a whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache

import msgspec

from pcs_backend.errors import TooLargeError
from pcs_backend.exchange import CONFLICT_HEADER, JSON_TYPE, NDJSON_TYPE, REPLAYED_HEADER, Reply, Request
from pcs_core.errors import MalformedError

BATCH_PATH = "/v1/pcs/batch"

BATCH_RECORDS_MAX = 1_000
"""Records in one request."""

_ALLOWED = f"1 to {BATCH_RECORDS_MAX} records, a line or a member of one array each"
_TOO_MANY = f"records: found more than is allowed; allowed: up to {BATCH_RECORDS_MAX} in one request"
_CACHED_HEADS_MAX = 64
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


def is_batch(request: Request) -> bool:
    """Whether a request holds many records."""
    return request.envelope.path == BATCH_PATH


def split_records(body: bytes, content_type: str) -> list[bytes]:
    """Cut a body into records, without a look at what they are.

    Args:
        body: As sent, inflated.
        content_type: `application/x-ndjson`, of which blank lines are passed over, or `application/json`.

    Raises:
        MalformedError: There is none, or it is no JSON array.
        TooLargeError: There are more than `BATCH_RECORDS_MAX`.
    """
    records = _split_lines(body) if content_type == NDJSON_TYPE else _split_array(body)
    if not records:
        raise MalformedError("$", "no record", _ALLOWED)
    if len(records) > BATCH_RECORDS_MAX:
        raise TooLargeError(_TOO_MANY)
    return records


def join_replies(replies: Sequence[Reply], content_type: str) -> Reply:
    """Return the one answer to many records, each entry with exactly the body that a single submit would have had.

    Args:
        replies: One a record, in order.
        content_type: The form of the request, which the answer has too.
    """
    heads = [
        _head(reply.status, REPLAYED_HEADER in reply.headers, CONFLICT_HEADER in reply.headers)
        if reply.headers
        else _head(reply.status)
        for reply in replies
    ]
    start, between, end = (b"", b"}\n", b"}\n") if content_type == NDJSON_TYPE else (b"[", b"},", b"}]")
    # Each body is copied once, to its place in the answer.
    pieces = [start]
    pieces += itertools.chain.from_iterable(
        zip(heads, [reply.body for reply in replies], itertools.repeat(between), strict=False)
    )
    pieces[-1] = end
    return Reply(200, b"".join(pieces), content_type if content_type == NDJSON_TYPE else JSON_TYPE)


def _split_lines(body: bytes) -> list[bytes]:
    lines = body.split(b"\n", 2 * BATCH_RECORDS_MAX + 1)  # bounds the work
    if len(lines) > 2 * BATCH_RECORDS_MAX + 1:  # so many blank lines are no batch either
        raise TooLargeError(_TOO_MANY)
    return [line for line in lines if line and not line.isspace()]


def _split_array(body: bytes) -> list[bytes]:
    try:
        members = _decode_array(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass  # its message may quote the body, so it is not chained
    else:
        return [bytes(member) for member in members]
    raise MalformedError("$", f"{len(body)} bytes that are no JSON array", _ALLOWED)


@lru_cache(maxsize=_CACHED_HEADS_MAX)
def _head(status: int, replayed: bool = False, conflict: bool = False) -> bytes:
    """Return what stands before the body of an entry."""
    return b'{"status":%d,"replayed":%b,"conflict":%b,"body":' % (
        status,
        b"true" if replayed else b"false",
        b"true" if conflict else b"false",
    )
