"""Steps 4 to 6 for each record of a request: is it well-formed, signed, and its own (contract §4)?

What is good and ordinary is found out for many records at once; every other record is examined alone, which alone says
what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

import msgspec
import structlog

from pcs_backend.bulk import BULK_MIN, fingerprint, read_records
from pcs_backend.effects.logs import LogBudget
from pcs_backend.effects.metrics import Metrics
from pcs_backend.exchange import Received, Reply
from pcs_backend.outcome import Key
from pcs_backend.problems import Problem, malformed_reply, rate_limited_reply
from pcs_backend.trace_context import trace_id_of
from pcs_backend.trust.limits import TenantLimiter
from pcs_backend.trust.policy import Author, Trust
from pcs_core.errors import BadSignatureError, IdentityError, MalformedError
from pcs_core.keyring import KeyEntry
from pcs_core.ports import WallClock
from pcs_core.record import Record, check_identity, decode_record, sent_at_s

_log = structlog.get_logger(__name__)


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One record of a request.

    Attributes:
        received: The request.
        body: The record's bytes.
        position: Which of the request's records it is, from 0.
        is_alone: Whether the request holds this record alone.
        signed_by: The key that signed the request as a whole, if one did.
    """

    received: Received
    body: bytes
    position: int
    is_alone: bool
    signed_by: KeyEntry | None


class Examined(msgspec.Struct, frozen=True, gc=False):
    """An entry whose record is well-formed, signed and its own."""

    entry: Entry
    record: Record
    author: Author
    fingerprint: str

    @property
    def key(self) -> Key:
        """What dedup is by."""
        return Key(self.author.tenant, self.record.pcs_id)


class Refused(msgspec.Struct, frozen=True, gc=False):
    """An entry refused for good; `record` and `reason` are for whoever listens."""

    entry: Entry
    problem: Problem
    reply: Reply
    record: Record | None = None
    reason: str = ""


class Examiner:
    """Examines records by what is trusted now."""

    def __init__(
        self,
        *,
        trust: Callable[[], Trust],
        limiter: TenantLimiter,
        metrics: Metrics,
        now: WallClock,
        record_bytes_max: int,
    ) -> None:
        """Take what it examines by.

        Args:
            trust: What is trusted now.
            limiter: What tenants may send.
            metrics: Counters.
            now: Tells when something was logged.
            record_bytes_max: Largest record.
        """
        self._trust = trust
        self._limiter = limiter
        self._metrics = metrics
        self._log_budget = LogBudget(now)
        self._record_bytes_max = record_bytes_max

    def examine(self, entries: Sequence[Entry], *, limited: bool) -> list[Examined | Refused]:
        """Examine records, in order.

        Args:
            entries: The records.
            limited: Whether limits apply.
        """
        trust = self._trust()
        if len(entries) < BULK_MIN:
            results = [self._examine(entry, trust, limited=limited) for entry in entries]
        else:
            results = self._examine_many(entries, trust, limited=limited)
        self._metrics.observe_skews(
            [
                each.entry.received.request.envelope.received_at_ms / 1_000 - sent_at_s(each.record)
                for each in results
                if isinstance(each, Examined)
            ]
        )
        return results

    def refuse_signature(
        self, entry: Entry, error: BadSignatureError, record: Record | None = None
    ) -> Refused:
        """Return the refusal of a signature, of a record or of a whole request, counted and logged."""
        envelope = entry.received.request.envelope
        self._metrics.signature_refused.labels(error.reason).inc()
        if self._log_budget.take():
            _log.info(
                "signature refused",
                reason=error.reason,
                request_id=envelope.request_id,
                trace_id=trace_id_of(envelope.traceparent),
            )
        field = str(error).partition(":")[0]
        reply = Problem.BAD_SIGNATURE.reply(str(error), field=field)
        return Refused(entry, Problem.BAD_SIGNATURE, reply, record, error.reason)

    def _examine_many(
        self, entries: Sequence[Entry], trust: Trust, *, limited: bool
    ) -> list[Examined | Refused]:
        results: list[Examined | Refused] = []
        origin, recognise = None, None
        limits: Container[str] = self._limiter.limited if limited else ()
        for entry, checked in zip(entries, read_records([each.body for each in entries]), strict=True):
            request = entry.received.request
            # All that a recogniser depends on: requests that came together share one.
            same = (request.envelope.received_at_ms, request.envelope.peer, entry.signed_by)
            if same != origin or recognise is None:
                origin, recognise = same, trust.recogniser(request, entry.signed_by)
            author = None
            if checked is not None and len(entry.body) <= self._record_bytes_max:
                author = recognise(checked.record, checked.digest)
            if checked is None or author is None or author.tenant in limits:
                results.append(self._examine(entry, trust, limited=limited))
            else:
                results.append(Examined(entry, checked.record, author, checked.fingerprint))
        return results

    def _examine(self, entry: Entry, trust: Trust, *, limited: bool) -> Examined | Refused:
        """Steps 4, 5 and 6, with the tenant's limits after 5."""
        if len(entry.body) > self._record_bytes_max:
            detail = f"record: found more than is allowed; allowed: up to {self._record_bytes_max} bytes"
            return Refused(entry, Problem.TOO_LARGE, Problem.TOO_LARGE.reply(detail))
        record = None
        try:
            record = decode_record(entry.body)  # 4
            author = trust.check_record(record, entry.received.request, entry.signed_by)  # 5
            if limited and (wait_s := self._limiter.take(author.tenant)):
                self._metrics.count_limited(author.tenant)
                reply = rate_limited_reply(wait_s, self._limiter.quota(author.tenant))
                return Refused(entry, Problem.RATE_LIMITED, reply, record)
            check_identity(record)  # 6
        except MalformedError as error:
            return Refused(entry, Problem.MALFORMED, malformed_reply(error))
        except BadSignatureError as error:
            return self.refuse_signature(entry, error, record)
        except IdentityError as error:
            reply = Problem.IDENTITY_MISMATCH.reply(str(error), field="$.pcs_id")
            return Refused(entry, Problem.IDENTITY_MISMATCH, reply, record)
        return Examined(entry, record, author, fingerprint(record))
