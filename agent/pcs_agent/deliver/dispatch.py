"""One attempt at one record or a batch of them: what is sent, and what the answer's `Date` tells of the clocks.

An attempt sends each record as appended, with its `attempt` raised, `sent_at` now and the last measured clock skew: none
of them is signed, so the signature stays.
"""

from __future__ import annotations

import gzip
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from pcs_agent.build import format_time
from pcs_agent.deliver.batch import join_lines
from pcs_agent.deliver.policy import parse_http_date
from pcs_agent.deliver.request_signer import RequestSigner
from pcs_agent.deliver.transport import Answer, Transport
from pcs_core.ports import RandomBytes, WallClock
from pcs_core.record import Record, encode_record
from pcs_core.signing import Signer, sign_record

MISTIMED_MIN_S = 2.0
"""A clock that is off by less is not what a request was refused for: a `Date` tells no more than whole seconds."""

GZIP_LEVEL = 1
"""The fastest: it leaves 28 % of a batch of small records for 5 µs a record, level 6 25 % for 11 µs."""

_TRACE_DIGITS = 32
_SPAN_BYTES = 8
_SAMPLED = "01"

_Post = Callable[..., Awaitable[Answer]]


class Outgoing(NamedTuple):
    """A record on its way.

    Attributes:
        record: As appended.
        attempt: Which attempt of this process this is, from 1.
    """

    record: Record
    attempt: int


class Dispatcher:
    """Sends records over a transport.

    Attributes:
        clock_skew_ms: The agent's clock minus the backend's, as last measured; 0 before.
        compresses_batches: Whether batches are compressed from now on.
    """

    def __init__(
        self,
        transport: Transport,
        clock: WallClock,
        resigner: Signer | None = None,
        request_signer: RequestSigner | None = None,
        random_bytes: RandomBytes | None = None,
        *,
        gzip_batches: bool = False,
    ) -> None:
        """Take the collaborators.

        Args:
            transport: The way to the backend.
            clock: For `sent_at` and the skew.
            resigner: Signs every record anew before it is sent; `None` leaves signatures as they are.
            request_signer: Signs every request as a whole; `None` leaves it unsigned.
            random_bytes: Names each attempt in the record's trace; `None` sends no `traceparent`.
            gzip_batches: Whether batches are compressed: a third of the bytes, for some processor time.
        """
        self._transport = transport
        self._clock = clock
        self._resigner = resigner
        self._request_signer = request_signer
        self._random_bytes = random_bytes
        self.compresses_batches = gzip_batches
        self.clock_skew_ms = 0

    async def send(self, outgoing: Outgoing) -> Answer:
        """Send one record once.

        Raises:
            TransportError: No answer came.
        """
        sent_s = self._clock()
        body = self._encode(outgoing, sent_s)
        headers = self._signature(body, batch=False)
        if self._random_bytes is not None:
            headers["traceparent"] = make_traceparent(outgoing.record.pcs_id, self._random_bytes)
        return await self._exchange(self._transport.post, body, headers, sent_s)

    async def send_batch(self, batch: Sequence[Outgoing]) -> Answer:
        """Send records once, in one request. It is in no trace, because each record has its own.

        Raises:
            TransportError: No answer came.
        """
        sent_s = self._clock()
        body = join_lines([self._encode(outgoing, sent_s) for outgoing in batch])
        headers = {}
        if self.compresses_batches:
            body, headers = gzip.compress(body, GZIP_LEVEL, mtime=0), {"Content-Encoding": "gzip"}
        return await self._exchange(
            self._transport.post_batch, body, headers | self._signature(body, batch=True), sent_s
        )

    async def _exchange(self, post: _Post, body: bytes, headers: Mapping[str, str], sent_s: float) -> Answer:
        """Send a request, and learn the time from the answer's `Date`."""
        skew_before_ms = self.clock_skew_ms
        answer = await (post(body, headers) if headers else post(body))
        date_s = parse_http_date(answer.date) if answer.date else None
        if date_s is None:
            return answer
        # A `Date` has whole seconds, so its middle is the best guess; so is the middle between sending and now.
        self.clock_skew_ms = round(((sent_s + self._clock()) / 2 - (date_s + 0.5)) * 1000)
        off_s = abs(self.clock_skew_ms - skew_before_ms) / 1000
        return answer._replace(mistimed=self._request_signer is not None and off_s > MISTIMED_MIN_S)

    def backend_time_s(self) -> float:
        """Return the time by the backend's clock, as far as it is known, in seconds since 1970."""
        return self._clock() - self.clock_skew_ms / 1000

    def _signature(self, body: bytes, *, batch: bool) -> dict[str, str]:
        if self._request_signer is None:
            return {}
        return self._request_signer.headers(body, self.backend_time_s(), batch=batch)

    def _encode(self, outgoing: Outgoing, sent_s: float) -> bytes:
        record = outgoing.record
        if self._resigner is not None:
            record = sign_record(record, self._resigner)
        return encode_record(
            msgspec.structs.replace(
                record,
                attempt=record.attempt + outgoing.attempt - 1,
                sent_at=format_time(sent_s),
                ft=msgspec.structs.replace(record.ft, clock_skew_ms=self.clock_skew_ms),
            )
        )


def make_traceparent(pcs_id: str, random_bytes: RandomBytes) -> str:
    """Return the W3C trace context of one attempt: the record's own trace, in which all its attempts are.

    Args:
        pcs_id: The record's; the first half of the hash is the trace's id, so that one finds the other.
        random_bytes: Names the attempt.

    >>> make_traceparent("ab" * 32, lambda count: bytes(count - 1) + b"#")
    '00-abababababababababababababababab-0000000000000023-01'
    """
    return f"00-{pcs_id[:_TRACE_DIGITS]}-{random_bytes(_SPAN_BYTES).hex()}-{_SAMPLED}"
