"""READ FIRST: what becomes of a submitted record, in order (contract §4).

HTTP has done steps 1 and 2 — path, size, rate — before a request comes here. A request is one record, or a batch of them
in one frame and one answer. What comes while others are appended or verified waits for its turn, and goes on together:

    submit   3   append    the raw requests are appended to the inbox WAL and synced
    judge        take apart  the signature of a whole request, its records, and step 2 for batches
             4–6 examine   decode, signature, tenant's limits, identity
             8   verify    pure checks: accepted or escalated; then the calibrated gate, if one is on
             7,9 place     in one call the store keeps each outcome unless another was first, which is the answer then
             10  count     first outcomes that this process stored
                 close     refused requests are noted in the WAL, and synced; settled ones without waiting
             11  compose   the replies

What a crash leaves, and what recovery does, after

    append   a request without outcome: it is judged at the next start; its client got no answer and comes again.
    place    outcomes in the store: whoever asks again gets them, byte for byte. If the WAL does not note the request as
             settled, the next start puts its records to the store again and finds them known.
    count    counters restart at 0 with the process; the stored outcomes are the truth.
    close    a request that is not judged again.

A store that is down leaves the request open: 503, and it is judged when the store is back. Nothing here knows HTTP,
and nothing changes an outcome once it is placed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import msgspec
import orjson
import structlog

from pcs_backend.batch import is_batch, join_replies, split_records
from pcs_backend.checking import Checker, Judged
from pcs_backend.conformal.in_force import Gates
from pcs_backend.conformal.watch import Watch
from pcs_backend.dedup.store import Candidate, Conflict, DedupStore, Placed
from pcs_backend.effects.metrics import Metrics
from pcs_backend.effects.tap import Tap, sighting
from pcs_backend.errors import (
    OutcomeUnreadableError,
    PartlyUnavailableError,
    TooLargeError,
    UnavailableError,
    place_of,
)
from pcs_backend.examine import Entry, Examined, Examiner, Refused
from pcs_backend.exchange import CONFLICT_HEADER, JSON_TYPE, REPLAYED_HEADER, Received, Reply, Request
from pcs_backend.gathering import Gathering
from pcs_backend.inbox.frames import Refusal
from pcs_backend.inbox.inbox import Inbox
from pcs_backend.inflate import inflate
from pcs_backend.outcome import Outcome, Shared
from pcs_backend.outcome_body import status_of, tell_outcomes
from pcs_backend.problems import Problem, malformed_reply, rate_limited_reply, unavailable_reply
from pcs_backend.trust.limits import TenantLimiter
from pcs_backend.trust.policy import Author, Trust
from pcs_backend.trust.token_bucket import TokenBucket
from pcs_core.errors import BadSignatureError, MalformedError
from pcs_core.params import Params
from pcs_core.ports import MonotonicClock, Offload, WallClock

JUDGED_TOGETHER_MAX = 1_024
"""Records that are judged in one go, unless one request has more."""

_NEIGHBOUR = "a record of the same batch cannot be judged now, so nothing in the batch is refused yet"

_MARKS: Mapping[tuple[bool, bool], Mapping[str, str]] = {
    (True, False): MappingProxyType({}),
    (True, True): MappingProxyType({CONFLICT_HEADER: "true"}),
    (False, False): MappingProxyType({REPLAYED_HEADER: "true"}),
    (False, True): MappingProxyType({REPLAYED_HEADER: "true", CONFLICT_HEADER: "true"}),
}
"""Headers of an outcome, by whether it is a first one and whether it conflicts."""

_log = structlog.get_logger(__name__)


class _Answered(msgspec.Struct, frozen=True, gc=False):
    """An examined entry and the outcome it is answered with."""

    examined: Examined
    placed: Placed

    @property
    def entry(self) -> Entry:
        return self.examined.entry

    @property
    def conflicts(self) -> bool:
        return self.placed.winner.fingerprint != self.examined.fingerprint

    @property
    def reply(self) -> Reply:
        outcome = self.placed.winner
        return Reply(
            outcome.shared.status, outcome.body, JSON_TYPE, _MARKS[self.placed.first, self.conflicts]
        )


class _Undecided(msgspec.Struct, frozen=True):
    """An entry that cannot be judged now."""

    entry: Entry
    detail: str

    @property
    def reply(self) -> Reply:
        return unavailable_reply(self.detail)


_Result = Refused | _Answered | _Undecided


class Answer(NamedTuple):
    """What a request is answered with.

    Attributes:
        reply: To the request.
        records: To each record of it, in order; the reply itself if it holds one or was refused as a whole.
    """

    reply: Reply
    records: Sequence[Reply]


class Pipeline:
    """The stages over one inbox. Collaborators are passed in; there is no other state."""

    def __init__(  # noqa: PLR0913 - every collaborator is passed in
        self,
        *,
        inbox: Inbox,
        store: DedupStore,
        trust: Callable[[], Trust],
        limiter: TenantLimiter,
        token_bucket: TokenBucket,
        params: Params,
        gates: Gates | None,
        watch: Watch,
        metrics: Metrics,
        tap: Tap,
        now: WallClock,
        monotonic: MonotonicClock,
        dedup_ttl_s: float,
        record_bytes_max: int,
        batch_bytes_max: int,
        offload: Offload,
        inbox_is_own: bool = True,
        outcomes_in_inbox: bool = False,
    ) -> None:
        """Wire the stages.

        Args:
            inbox: Where requests lie.
            store: Where outcomes lie.
            trust: What is trusted now.
            limiter: What tenants may send.
            token_bucket: What all may send together. Step 2 for batches, whose number of records is not known before.
            params: The parameters valid now.
            gates: What calibrated thresholds say; `None` where neither they nor labels are wanted.
            watch: Told what the gate did.
            metrics: Counters.
            tap: Shown what becomes of requests while somebody listens.
            now: Stamps outcomes.
            monotonic: Times submits.
            dedup_ttl_s: How long an outcome is remembered.
            record_bytes_max: Largest record of a batch.
            batch_bytes_max: Largest batch once inflated.
            offload: Where batches are inflated and proofs checked.
            inbox_is_own: Whether the inbox is this worker's; the store may keep outcomes in that one only.
            outcomes_in_inbox: Whether it does. Then groups of requests take turns, and what one stores is synced with what
                the next appends.
        """
        self._inbox = inbox
        self._store = store
        self._trust = trust
        self._token_bucket = token_bucket
        self._params = params
        self._watch = watch
        self._metrics = metrics
        self._tap = tap
        self._now = now
        self._monotonic = monotonic
        self._dedup_ttl_s = dedup_ttl_s
        self._batch_bytes_max = batch_bytes_max
        self._offload = offload
        self._examiner = Examiner(
            trust=trust, limiter=limiter, metrics=metrics, now=now, record_bytes_max=record_bytes_max
        )
        self._checker = Checker(trust=trust, params=params, gates=gates, offload=offload)
        self._gathering = Gathering(
            self._append, self._answer, lambda request: len(request.body), takes_turns=outcomes_in_inbox
        )
        self._inbox_is_own = inbox_is_own

    async def submit(self, requests: Sequence[Request]) -> list[Reply]:
        """Take requests in and answer them, in order. Never raises for what a request holds.

        What comes while others are appended or verified waits, and is appended and judged together.
        """
        began_s = self._monotonic()
        try:
            answers = await self._gathering.run(requests)
        except UnavailableError as error:
            answers = self._put_off(requests, str(error), backlog=False)
        taken_s = self._monotonic() - began_s
        outcomes = sum(1 for answer in answers for reply in answer.records if not reply.problem)
        self._metrics.observe_verify(taken_s, outcomes)
        return [answer.reply for answer in answers]

    async def _append(self, requests: Sequence[Request]) -> list[Received] | UnavailableError:
        try:
            return await self._inbox.append(requests)  # 3
        except UnavailableError as error:
            return error

    async def _answer(
        self, requests: Sequence[Request], received: list[Received] | UnavailableError
    ) -> list[Answer]:
        if isinstance(received, UnavailableError):
            return self._put_off(requests, str(received), backlog=False)
        return await self.judge(received, submitted=True)

    async def judge(self, received: Sequence[Received], *, submitted: bool = False) -> list[Answer]:
        """Answer requests that are on disk, in order. One that cannot be judged now is deferred and answered 503.

        Args:
            received: The requests.
            submitted: Whether a client waits for them: limits apply, and replays are counted.
        """
        by_request: dict[int, list[_Result]] = {}
        parts: list[list[list[Entry]]] = []
        room = 0
        trust = self._trust()
        for each in received:
            taken_apart: list[Entry] | Refused
            if is_batch(each.request):
                taken_apart = await self._take_apart(each, trust, submitted=submitted)
            else:
                taken_apart = self._take_whole(each, trust)
            if isinstance(taken_apart, Refused):
                by_request[each.sequence] = [taken_apart]
                continue
            if len(taken_apart) > room:
                parts.append([])
                room = JUDGED_TOGETHER_MAX
            parts[-1].append(taken_apart)
            room -= len(taken_apart)
        for part in parts:
            results = await self._decide(list(itertools.chain(*part)), submitted=submitted)
            first = 0
            for entries in part:
                by_request[entries[0].received.sequence] = list(results[first : first + len(entries)])
                first += len(entries)
        await self._close(by_request)
        answers = [self._compose(each, by_request[each.sequence], submitted=submitted) for each in received]
        if self._tap.listeners:
            self._show(by_request.values(), backlog=not submitted)
        return answers

    def _take_whole(self, received: Received, trust: Trust) -> list[Entry] | Refused:
        """Check the own signature of a request that is one record."""
        request = received.request
        try:
            signed_by = trust.check_request(request)
            return [Entry(received, request.body, 0, is_alone=True, signed_by=signed_by)]
        except BadSignatureError as error:
            whole = Entry(received, request.body, 0, is_alone=True, signed_by=None)
            return self._examiner.refuse_signature(whole, error)

    async def _take_apart(
        self, received: Received, trust: Trust, *, submitted: bool
    ) -> list[Entry] | Refused:
        """Check the own signature of a batch, and cut it into records."""
        request = received.request
        whole = Entry(received, request.body, 0, is_alone=True, signed_by=None)
        try:
            signed_by = trust.check_request(request)
            records = split_records(await self._inflate(request), request.envelope.content_type)
        except MalformedError as error:
            return Refused(whole, Problem.MALFORMED, malformed_reply(error))
        except TooLargeError as error:
            return Refused(whole, Problem.TOO_LARGE, Problem.TOO_LARGE.reply(str(error)))
        except BadSignatureError as error:
            return self._examiner.refuse_signature(whole, error)
        if submitted:
            self._metrics.ingest.inc(len(records) - 1)  # one was counted when the request came
            if wait_s := self._token_bucket.take(len(records)):  # 2
                return Refused(
                    whole, Problem.RATE_LIMITED, rate_limited_reply(wait_s, self._token_bucket.quota)
                )
        return [
            Entry(received, record, position, is_alone=False, signed_by=signed_by)
            for position, record in enumerate(records)
        ]

    async def _inflate(self, request: Request) -> bytes:
        """Return a body without its content encoding; inflated off the loop, which a small body may keep for long."""
        encoding, body = request.envelope.content_encoding, request.body
        if not encoding:
            return body
        self._gathering.let_in()
        return await self._offload.run(lambda: inflate(encoding, body, self._batch_bytes_max))

    async def _decide(self, entries: Sequence[Entry], *, submitted: bool) -> Sequence[_Result]:
        """Steps 4 to 10 for some records, in order. What cannot be judged now is undecided."""
        try:
            return await self._judge(entries, submitted=submitted)
        except OutcomeUnreadableError as error:
            detail = str(error)
        except UnavailableError as error:
            return [_Undecided(entry, str(error)) for entry in entries]
        except Exception as error:  # noqa: BLE001 - a defect must not lose a request that is on disk
            # Neither message nor arguments of an unforeseen exception are known to be free of payload.
            _log.error(
                "judging failed",
                error=type(error).__name__,
                place=place_of(error),
                request_ids=sorted({each.received.request.envelope.request_id for each in entries}),
            )
            detail = "the request is kept and will be judged later"
        if len(entries) == 1:
            return [_Undecided(entries[0], detail)]
        # One by one: so the one that did it does not keep the others from their outcome.
        return [result for each in entries for result in await self._decide([each], submitted=submitted)]

    async def _judge(self, entries: Sequence[Entry], *, submitted: bool) -> list[_Result]:
        stages = self._examiner.examine(entries, limited=submitted)  # 4, 5, 6
        examined = [each for each in stages if isinstance(each, Examined)]
        answered: Iterator[_Answered | _Undecided] = iter(())
        if examined:
            if self._checker.may_wait:
                self._gathering.let_in()  # the loop is free meanwhile
            judged = await self._checker.check(examined)  # 8
            if submitted:
                await self._gathering.hand_over(len({each.received.sequence for each in entries}))
            answered = iter(await self._place(examined, judged))  # 7, 9
        results = [each if isinstance(each, Refused) else next(answered) for each in stages]
        await self._note_conflicts([each for each in results if isinstance(each, _Answered)])
        return results

    async def _place(
        self, examined: Sequence[Examined], judged: Sequence[Judged]
    ) -> list[_Answered | _Undecided]:
        """Steps 7, 9 and 10 in one round trip: each wants to be first, and the known get their first outcome.

        A record that is known is verified in vain, which costs less than asking for it before; its verdict counts for
        nothing. Where there is no room for an outcome, or a first one cannot be read, the others have theirs all the same.
        """
        placed: Sequence[Placed | None]
        detail = ""
        try:
            with self._metrics.time_store(self._monotonic):
                placed = await self._store.put_first(self._candidates(examined, judged))  # 7, 9
        except PartlyUnavailableError as error:
            if len(error.placed) != len(examined):
                raise
            placed, detail = error.placed, str(error)
        are_first = [one is not None and one.first for one in placed]
        tenants = [each.author.tenant for each in itertools.compress(examined, are_first)]
        firsts = list(itertools.compress(judged, are_first))
        verdicts = [found.verdict for found in firsts]
        self._metrics.count_firsts(tenants, [verdict.reasons for verdict in verdicts])  # 10
        if judged[0].gate is not None:
            self._watch.note(tenants, [found.gate for found in firsts], verdicts)
        return [
            _Undecided(each.entry, detail) if one is None else _Answered(each, one)
            for each, one in zip(examined, placed, strict=True)
        ]

    def _candidates(self, examined: Sequence[Examined], judged: Sequence[Judged]) -> list[Candidate]:
        now_ms = int(self._now() * 1_000)
        expires_at_ms = now_ms + int(self._dedup_ttl_s * 1_000)
        told = tell_outcomes([each.record for each in examined], judged)
        all_shared: dict[tuple[Author, int, int], Shared] = {}
        candidates = []
        for each, found, (own, first, second, inputs, form) in zip(examined, judged, told, strict=True):
            author, status = each.author, status_of(found.verdict)
            alike = (author, status, id(form))
            if (shared := all_shared.get(alike)) is None:
                shared = all_shared[alike] = Shared(
                    tenant=author.tenant,
                    status=status,
                    params_version=self._params.version,
                    key_id=author.key_id,
                    stored_at_ms=now_ms,
                    expires_at_ms=expires_at_ms,
                    form=form,
                )
            outcome = Outcome(shared, each.record.pcs_id, each.fingerprint, own, first, second, inputs)
            entry = each.entry
            closes = entry.received.sequence if entry.is_alone and self._inbox_is_own else None
            candidates.append(Candidate(outcome, closes))
        return candidates

    async def _close(self, by_request: Mapping[int, list[_Result]]) -> None:
        """Note in the WAL what is decided, and put off what is not.

        Of a batch with a record that is undecided nothing is noted, and none of its records is refused: recovery judges
        all of it again, and must not find otherwise what was answered for good.
        """
        refusals, settled = [], []
        for sequence, results in by_request.items():
            kinds = set(map(type, results))
            if _Undecided in kinds:
                self._inbox.defer([sequence])
                results[:] = [
                    _Undecided(each.entry, _NEIGHBOUR) if isinstance(each, Refused) else each
                    for each in results
                ]
            elif Refused in kinds:
                refusals.append(_refusal(sequence, [each for each in results if isinstance(each, Refused)]))
            else:
                settled.append(sequence)
        self._inbox.settle(settled)
        if not refusals:
            return
        self._gathering.let_in()  # where all are refused nothing was stored, and nobody handed over
        try:
            await self._inbox.refuse(refusals)
        except UnavailableError as error:
            for refusal in refusals:
                self._inbox.defer([refusal.request])
                results = by_request[refusal.request]
                results[:] = [_Undecided(each.entry, str(error)) for each in results]

    def _compose(self, received: Received, results: Sequence[_Result], *, submitted: bool) -> Answer:
        """Step 11."""
        if submitted:
            for each in results:
                if isinstance(each, _Answered) and not each.placed.first:
                    self._metrics.count_replay(each.examined.author.tenant)
        replies = [each.reply for each in results]
        if results[0].entry.is_alone:
            return Answer(replies[0], replies)
        if all(isinstance(each, _Undecided) for each in results):
            return Answer(replies[0], replies)
        if submitted:
            for reply in replies:
                if reply.problem:
                    self._metrics.count_refused(reply.problem)
        return Answer(join_replies(replies, received.request.envelope.content_type), replies)

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

    def _put_off(self, requests: Sequence[Request], detail: str, *, backlog: bool) -> list[Answer]:
        """Answer 503, and show it."""
        reply = unavailable_reply(detail)
        if self._tap.listeners:
            at_ms = int(self._now() * 1_000)
            for request in requests:
                self._tap.show(sighting(request, at_ms, reply.status, problem=reply.problem, backlog=backlog))
        return [Answer(reply, [reply])] * len(requests)

    def _show(self, results: Iterable[Sequence[_Result]], *, backlog: bool) -> None:
        """Show what became of records to whoever listens."""
        at_ms = int(self._now() * 1_000)
        for each in itertools.chain.from_iterable(results):
            request = each.entry.received.request
            match each:
                case Refused():
                    seen = sighting(
                        request,
                        at_ms,
                        each.reply.status,
                        record=each.record,
                        reasons=(each.reason,) if each.reason else (),
                        problem=each.problem.code,
                        backlog=backlog,
                    )
                case _Undecided():
                    reply = each.reply
                    seen = sighting(request, at_ms, reply.status, problem=reply.problem, backlog=backlog)
                case _Answered():
                    outcome = each.placed.winner
                    seen = sighting(
                        request,
                        at_ms,
                        outcome.status,
                        record=each.examined.record,
                        tenant=outcome.tenant,
                        reasons=tuple(orjson.loads(outcome.body)["reasons"]),
                        replayed=not each.placed.first,
                        conflict=each.conflicts,
                        backlog=backlog,
                    )
            self._tap.show(seen)


def is_replay(reply: Reply) -> bool:
    """Whether a reply repeats a first outcome."""
    return REPLAYED_HEADER in reply.headers


def _refusal(sequence: int, refused: Sequence[Refused]) -> Refusal:
    if refused[0].entry.is_alone:
        return Refusal(sequence, refused[0].problem.code)
    return Refusal(sequence, "", {each.entry.position: each.problem.code for each in refused})
