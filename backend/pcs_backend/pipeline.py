"""READ FIRST: what becomes of a submitted record, in order (contract §4).

HTTP has done steps 1 and 2 — path, size, rate — before a request comes here. Then, for a sequence of requests:

    submit   3   append    the raw request is appended to the inbox WAL and synced
    judge    4–6 examine   request signature, decode, signature, tenant's limits, identity; refused ones are noted
                           in the WAL
             7   look up   a known record gets its first outcome, byte for byte
             8   verify    pure checks: accepted or escalated
             9   place     the store keeps the outcome unless another was first
             10  count     first outcomes that this process stored
             11  reply

What a crash leaves, and what recovery does, after

    append   a request without outcome: it is judged at the next start; its client got no answer and comes again.
    examine  the same; or a refusal in the WAL: it is not judged again.
    look up  the same as append: asking the store again finds the same first outcome.
    place    an outcome in the store: whoever asks again gets it, byte for byte. If the WAL does not note the request
             as settled, the next start asks the store and finds it known.
    count    counters restart at 0 with the process; the stored outcomes are the truth.

A store that is down leaves the request open: 503, and it is judged when the store is back. Nothing here knows HTTP,
and nothing changes an outcome once it is placed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import orjson
import structlog

from pcs_backend.dedup.store import Candidate, Conflict, DedupStore, Key, Outcome, Placed
from pcs_backend.effects.logs import LogBudget
from pcs_backend.effects.metrics import Metrics
from pcs_backend.effects.tap import Tap, sighting
from pcs_backend.errors import OutcomeUnreadableError, UnavailableError, place_of
from pcs_backend.exchange import Received, Reply, Request
from pcs_backend.inbox.frames import Refusal
from pcs_backend.inbox.inbox import Inbox
from pcs_backend.problems import Problem, malformed_reply, rate_limited_reply, unavailable_reply
from pcs_backend.trace_context import trace_id_of
from pcs_backend.trust.limits import TenantLimiter
from pcs_backend.trust.policy import Author, Trust
from pcs_core.canonical import canonical_payload
from pcs_core.errors import BadSignatureError, IdentityError, MalformedError
from pcs_core.params import Params
from pcs_core.ports import MonotonicClock, WallClock
from pcs_core.record import Record, check_identity, decode_record, sent_at_s
from pcs_core.verify import Verdict, verify

_log = structlog.get_logger(__name__)


class _Examined(NamedTuple):
    """A request whose record is well-formed, signed and its own."""

    received: Received
    record: Record
    author: Author
    fingerprint: str

    @property
    def key(self) -> Key:
        return Key(self.author.tenant, self.record.pcs_id)


class _Refused(NamedTuple):
    """A request refused for good; `record` and `reason` are for whoever listens."""

    received: Received
    problem: Problem
    reply: Reply
    record: Record | None = None
    reason: str = ""


class _Answered(NamedTuple):
    """An examined request and the outcome it is answered with."""

    examined: _Examined
    placed: Placed

    @property
    def conflicts(self) -> bool:
        return self.placed.winner.fingerprint != self.examined.fingerprint


class Pipeline:
    """The stages over one inbox. Collaborators are passed in; there is no other state."""

    def __init__(  # noqa: PLR0913 - every collaborator is passed in
        self,
        *,
        inbox: Inbox,
        store: DedupStore,
        trust: Callable[[], Trust],
        limiter: TenantLimiter,
        params: Params,
        metrics: Metrics,
        tap: Tap,
        now: WallClock,
        monotonic: MonotonicClock,
        dedup_ttl_s: float,
        inbox_is_own: bool = True,
    ) -> None:
        """Wire the stages.

        Args:
            inbox: Where requests lie.
            store: Where outcomes lie.
            trust: What is trusted now.
            limiter: What tenants may send.
            params: The parameters valid now.
            metrics: Counters.
            tap: Shown what becomes of requests while somebody listens.
            now: Stamps outcomes.
            monotonic: Times submits.
            dedup_ttl_s: How long an outcome is remembered.
            inbox_is_own: Whether the inbox is this worker's; the store may keep outcomes in that one only.
        """
        self._inbox = inbox
        self._store = store
        self._trust = trust
        self._limiter = limiter
        self._log_budget = LogBudget(now)
        self._params = params
        self._metrics = metrics
        self._tap = tap
        self._now = now
        self._monotonic = monotonic
        self._dedup_ttl_s = dedup_ttl_s
        self._inbox_is_own = inbox_is_own

    async def submit(self, requests: Sequence[Request]) -> list[Reply]:
        """Take requests in and answer them, in order. Never raises for what a request holds."""
        began_s = self._monotonic()
        try:
            received = await self._inbox.append(requests)  # 3
        except UnavailableError as error:
            return self._put_off(requests, str(error), backlog=False)
        replies = await self.judge(received, submitted=True)
        taken_s = self._monotonic() - began_s
        for reply in replies:
            if not reply.problem:
                self._metrics.verify_seconds.observe(taken_s)
        return replies

    async def judge(self, received: Sequence[Received], *, submitted: bool = False) -> list[Reply]:
        """Answer requests that are on disk, in order. One that cannot be judged now is deferred and answered 503.

        Args:
            received: The requests.
            submitted: Whether a client waits for them: limits apply, and replays are counted.
        """
        try:
            return await self._judge(received, submitted=submitted)
        except OutcomeUnreadableError as error:
            if len(received) > 1:
                return await self._judge_apart(received, submitted=submitted)
            detail = str(error)
        except UnavailableError as error:
            detail = str(error)
        except Exception as error:  # noqa: BLE001 - a defect must not lose a request that is on disk
            # Neither message nor arguments of an unforeseen exception are known to be free of payload.
            _log.error(
                "judging failed",
                error=type(error).__name__,
                place=place_of(error),
                request_ids=[each.request.envelope.request_id for each in received],
            )
            if len(received) > 1:
                return await self._judge_apart(received, submitted=submitted)
            detail = "the request is kept and will be judged later"
        self._inbox.defer([each.sequence for each in received])
        return self._put_off([each.request for each in received], detail, backlog=not submitted)

    async def _judge_apart(self, received: Sequence[Received], *, submitted: bool) -> list[Reply]:
        """Judge one by one, where one of them did it: so it does not keep the others from their outcome."""
        return [reply for each in received for reply in await self.judge([each], submitted=submitted)]

    async def _judge(self, received: Sequence[Received], *, submitted: bool) -> list[Reply]:
        stages = [self._examine(each, limited=submitted) for each in received]  # 4, 5, 6
        refused = [each for each in stages if isinstance(each, _Refused)]
        examined = [each for each in stages if isinstance(each, _Examined)]

        answered = await self._place(examined) if examined else []  # 7, 8, 9
        if refused:
            await self._inbox.refuse([Refusal(each.received.sequence, each.problem.code) for each in refused])
        await self._note_conflicts(answered)
        self._inbox.settle([each.examined.received.sequence for each in answered])
        if submitted:
            for each in answered:
                if not each.placed.first:
                    self._metrics.count_replay(each.examined.author.tenant)

        if self._tap.listeners:
            self._show(refused, answered, backlog=not submitted)

        replies = {each.received.sequence: each.reply for each in refused}  # 11
        replies |= {each.examined.received.sequence: _outcome_reply(each) for each in answered}
        return [replies[each.sequence] for each in received]

    def _examine(self, received: Received, *, limited: bool) -> _Examined | _Refused:
        """Steps 4, 5 and 6, with the request's own signature before them and the tenant's limits after 5."""
        trust = self._trust()
        request = received.request
        record = None
        try:
            signed_by = trust.check_request(request)
            record = decode_record(request.body)  # 4
            author = trust.check_record(record, request, signed_by)  # 5
            if limited and (wait_s := self._limiter.take(author.tenant)):
                self._metrics.count_limited(author.tenant)
                return _Refused(received, Problem.RATE_LIMITED, rate_limited_reply(wait_s), record)
            check_identity(record)  # 6
        except MalformedError as error:
            return _Refused(received, Problem.MALFORMED, malformed_reply(error))
        except BadSignatureError as error:
            self._metrics.signature_refused.labels(error.reason).inc()
            if self._log_budget.take():
                _log.info(
                    "signature refused",
                    reason=error.reason,
                    request_id=request.envelope.request_id,
                    trace_id=trace_id_of(request.envelope.traceparent),
                )
            field = str(error).partition(":")[0]
            reply = Problem.BAD_SIGNATURE.reply(str(error), field=field)
            return _Refused(received, Problem.BAD_SIGNATURE, reply, record, error.reason)
        except IdentityError as error:
            reply = Problem.IDENTITY_MISMATCH.reply(str(error), field="$.pcs_id")
            return _Refused(received, Problem.IDENTITY_MISMATCH, reply, record)
        self._metrics.sent_at_skew.observe(request.envelope.received_at_ms / 1_000 - sent_at_s(record))
        return _Examined(received, record, author, _fingerprint(record))

    async def _place(self, examined: Sequence[_Examined]) -> list[_Answered]:
        """Steps 7 to 10: the known get their first outcome, the others compete to be first."""
        known = await self._store.get([each.key for each in examined])  # 7
        unknown = [each for each, outcome in zip(examined, known, strict=True) if outcome is None]
        judged = [(each, verify(each.record, self._params)) for each in unknown]  # 8
        candidates = [self._candidate(each, verdict) for each, verdict in judged]
        placed = iter(await self._store.put_first(candidates) if candidates else [])  # 9
        answered = [
            _Answered(each, next(placed) if outcome is None else Placed(outcome, first=False))
            for each, outcome in zip(examined, known, strict=True)
        ]
        reasons = {each.received.sequence: verdict.reasons for each, verdict in judged}
        for each in answered:  # 10
            if each.placed.first:
                self._metrics.count_first(
                    each.examined.author.tenant,
                    each.placed.winner.status,
                    reasons[each.examined.received.sequence],
                )
        return answered

    def _candidate(self, examined: _Examined, verdict: Verdict) -> Candidate:
        now_ms = int(self._now() * 1_000)
        outcome = Outcome(
            tenant=examined.key.tenant,
            pcs_id=examined.record.pcs_id,
            status=200 if verdict.accepted else 202,
            body=_outcome_body(examined.record, verdict),
            fingerprint=examined.fingerprint,
            params_version=self._params.version,
            key_id=examined.author.key_id,
            stored_at_ms=now_ms,
            expires_at_ms=now_ms + int(self._dedup_ttl_s * 1_000),
        )
        return Candidate(outcome, examined.received.sequence if self._inbox_is_own else None)

    async def _note_conflicts(self, answered: Sequence[_Answered]) -> None:
        now_ms = int(self._now() * 1_000)
        conflicts = [
            Conflict(
                tenant=each.examined.key.tenant,
                pcs_id=each.examined.record.pcs_id,
                fingerprint=each.examined.fingerprint,
                seen_at_ms=now_ms,
            )
            for each in answered
            if each.conflicts
        ]
        if conflicts:
            await self._store.note_conflicts(conflicts)
            self._metrics.conflicts.inc(len(conflicts))

    def _put_off(self, requests: Sequence[Request], detail: str, *, backlog: bool) -> list[Reply]:
        """Answer 503, and show it."""
        reply = unavailable_reply(detail)
        if self._tap.listeners:
            at_ms = int(self._now() * 1_000)
            for request in requests:
                self._tap.show(sighting(request, at_ms, reply.status, problem=reply.problem, backlog=backlog))
        return [reply] * len(requests)

    def _show(self, refused: Sequence[_Refused], answered: Sequence[_Answered], *, backlog: bool) -> None:
        """Show what became of a batch to whoever listens."""
        at_ms = int(self._now() * 1_000)
        for each in refused:
            self._tap.show(
                sighting(
                    each.received.request,
                    at_ms,
                    each.reply.status,
                    record=each.record,
                    reasons=(each.reason,) if each.reason else (),
                    problem=each.problem.code,
                    backlog=backlog,
                )
            )
        for one in answered:
            outcome = one.placed.winner
            self._tap.show(
                sighting(
                    one.examined.received.request,
                    at_ms,
                    outcome.status,
                    record=one.examined.record,
                    tenant=outcome.tenant,
                    reasons=tuple(orjson.loads(outcome.body)["reasons"]),
                    replayed=not one.placed.first,
                    conflict=one.conflicts,
                    backlog=backlog,
                )
            )


def is_replay(reply: Reply) -> bool:
    """Whether a reply repeats a first outcome."""
    return "Idempotent-Replayed" in reply.headers


def _outcome_body(record: Record, verdict: Verdict) -> bytes:
    return orjson.dumps(
        {
            "pcs_id": record.pcs_id,
            "accepted": verdict.accepted,
            "escalated": not verdict.accepted,
            "reasons": verdict.reasons,
            "recomputed": msgspec.to_builtins(verdict.recomputed),
        }
    )


def _outcome_reply(answered: _Answered) -> Reply:
    headers = {}
    if not answered.placed.first:
        headers["Idempotent-Replayed"] = "true"
    if answered.conflicts:
        headers["PCS-Conflict"] = "true"
    return Reply(answered.placed.winner.status, answered.placed.winner.body, headers=headers)


def _fingerprint(record: Record) -> str:
    """Hash what makes two records with one id the same: the signed subset, scales and N_j."""
    counts = orjson.dumps([record.scales, record.counts])
    return hashlib.sha256(canonical_payload(record) + b"\n" + counts).hexdigest()
