"""OpenTelemetry spans of submits, exported over OTLP/HTTP. Imported only where its variables are set (extra `otel`).

The spans are made by what wraps the seams of the submit path: submitter, inbox and store. Without them the path is what it is
without this module, to the last instruction. A span names request, status, `pcs_id` and reasons, never a payload.

    POST /v1/pcs/submit     the server's span, child of the sender's `traceparent`
        inbox append        the sync of step 3
        store put_first     steps 7 and 9

The exporter has a thread and a bounded queue of its own, and drops what has no room. The SDK reads its other variables itself.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import orjson
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.util.types import AnyValue

from pcs_backend import __version__
from pcs_backend.dedup.store import Candidate, Conflict, DedupStore, Escalation, Placed
from pcs_backend.exchange import REPLAYED_HEADER, Received, Reply, Request
from pcs_backend.inbox.inbox import Inbox
from pcs_backend.outcome import Key, Outcome
from pcs_backend.trace_context import parent_of
from pcs_core.ports import Offload
from pcs_core.wal import Wal

SPANS_FLUSH_TIMEOUT_S = 2.0
"""How long a stop waits for the last spans to leave; then they are lost."""

_SERVICE_NAME = "pcs-backend"


class _Submitter(Protocol):
    async def submit(self, requests: Sequence[Request]) -> list[Reply]: ...


class Spans:
    """Makes and exports spans."""

    def __init__(self) -> None:
        """Make what makes spans; nothing is exported before `open`."""
        named = Resource({"service.name": _SERVICE_NAME, "service.version": __version__})
        self._provider = TracerProvider(
            resource=named.merge(OTELResourceDetector().detect()), shutdown_on_exit=False
        )
        self._tracer = self._provider.get_tracer("pcs_backend", __version__)

    def open(self) -> None:
        """Export from now on."""
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))

    async def close(self) -> None:
        """Send what is left, for `SPANS_FLUSH_TIMEOUT_S` at most."""
        loop, sent = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            loop.call_soon_threadsafe(sent.set)

        # A thread that the end of the process does not wait for: a collector may hang.
        threading.Thread(target=shut_down, name="last-spans", daemon=True).start()
        try:
            async with asyncio.timeout(SPANS_FLUSH_TIMEOUT_S):
                await sent.wait()
        except TimeoutError:
            pass

    def submitter(self, submitter: _Submitter) -> TracedSubmitter:
        """Return the submitter with a span around each submit."""
        return TracedSubmitter(submitter, self._tracer)

    def store(self, store: DedupStore) -> TracedStore:
        """Return the store with spans around what a submit asks of it."""
        return TracedStore(store, self._tracer)

    def inbox(
        self,
        wal: Wal,
        offload: Offload,
        time_sync: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> Inbox:
        """Return an inbox with a span around each append."""
        return _TracedInbox(wal, offload, time_sync, self._tracer)


class TracedSubmitter:
    """A submitter whose submits are spans."""

    def __init__(self, submitter: _Submitter, tracer: Tracer) -> None:
        """Wrap it."""
        self._submitter = submitter
        self._tracer = tracer

    async def submit(self, requests: Sequence[Request]) -> list[Reply]:
        """As the pipeline's, within a span that continues the trace of the first request."""
        envelope = requests[0].envelope
        attributes: dict[str, AnyValue] = {
            "http.request.method": "POST",
            "url.path": envelope.path,
            "http.request.body.size": len(requests[0].body),
            "pcs.request_id": envelope.request_id,
        }
        with self._tracer.start_as_current_span(
            f"POST {envelope.path}",
            context=_parent(envelope.traceparent),
            kind=SpanKind.SERVER,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            replies = await self._submitter.submit(requests)
            _describe(span, replies[0])
            return replies


class _TracedInbox(Inbox):
    def __init__(
        self,
        wal: Wal,
        offload: Offload,
        time_sync: Callable[[], AbstractContextManager[None]],
        tracer: Tracer,
    ) -> None:
        super().__init__(wal, offload, time_sync)
        self._tracer = tracer

    async def append(self, requests: Sequence[Request]) -> list[Received]:
        with _child(self._tracer, "inbox append"):
            return await super().append(requests)


class TracedStore:
    """A store whose calls within a submit are spans; as `DedupStore`."""

    def __init__(self, store: DedupStore, tracer: Tracer) -> None:
        """Wrap it."""
        self._tracer = tracer
        self._store = store
        self.open = store.open
        self.close = store.close
        self.ping = store.ping
        self.purge_expired = store.purge_expired
        self.durability_warnings = store.durability_warnings
        self.calibrations = store.calibrations

    async def get(self, keys: Sequence[Key]) -> list[Outcome | None]:
        """As `DedupStore.get`."""
        with _child(self._tracer, "store get"):
            return await self._store.get(keys)

    async def put_first(self, candidates: Sequence[Candidate]) -> list[Placed]:
        """As `DedupStore.put_first`."""
        with _child(self._tracer, "store put_first"):
            return await self._store.put_first(candidates)

    async def note_conflicts(self, conflicts: Sequence[Conflict]) -> None:
        """As `DedupStore.note_conflicts`."""
        await self._store.note_conflicts(conflicts)

    async def list_conflicts(self, tenant: str, limit: int) -> list[Conflict]:
        """As `DedupStore.list_conflicts`."""
        return await self._store.list_conflicts(tenant, limit)

    async def list_escalations(self, tenant: str, limit: int) -> list[Escalation]:
        """As `DedupStore.list_escalations`."""
        return await self._store.list_escalations(tenant, limit)

    async def ack_escalations(self, keys: Sequence[Key]) -> list[bool]:
        """As `DedupStore.ack_escalations`."""
        return await self._store.ack_escalations(keys)


def _child(tracer: Tracer, name: str) -> AbstractContextManager[object]:
    """Return a span below the submit's; nothing where there is none, as when the backlog is settled."""
    if not get_current_span().is_recording():
        return nullcontext()
    # What an exception says may hold a payload: only that there was one is told.
    return tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False)


def _parent(traceparent: str) -> Context:
    if not traceparent:
        return Context()
    trace_id, span_id, flags = parent_of(traceparent)
    sender = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    return set_span_in_context(NonRecordingSpan(sender), Context())


def _describe(span: Span, reply: Reply) -> None:
    if not span.is_recording():
        return
    span.set_attribute("http.response.status_code", reply.status)
    if reply.problem:
        span.set_attribute("pcs.problem", reply.problem)
        if reply.status >= 500:
            span.set_status(StatusCode.ERROR)
        return
    outcome = orjson.loads(reply.body)
    span.set_attribute("pcs.pcs_id", outcome["pcs_id"])
    span.set_attribute("pcs.replayed", REPLAYED_HEADER in reply.headers)
    if outcome["reasons"]:
        span.set_attribute("pcs.reasons", outcome["reasons"])
