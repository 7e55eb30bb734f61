"""Spans of submits as a collector gets them, over real OTLP/HTTP; and nothing of it where its variables are not set."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

import pcs_records
from processes import HMAC_KEY, WAIT_TIMEOUT_S, Backend, Client, clean_environment, run
from servers import RedisServer

pytestmark = [pytest.mark.slow]

TRACE, SENDER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CANARY = "canary-5be0cd19"


def record(epoch: int, **fields: object) -> bytes:
    document = pcs_records.document(epoch=epoch, **fields) | {"note": CANARY}
    return pcs_records.body(pcs_records.sign(document, hmac_key=HMAC_KEY.encode()))


class Collector:
    """An OTLP/HTTP receiver that keeps what it is sent."""

    def __init__(self) -> None:
        self.url = ""
        self.received: list[ExportTraceServiceRequest] = []
        self.raw = b""
        self.hangs = False
        self._changed = asyncio.Condition()

    async def take(self, request: web.Request) -> web.Response:
        if self.hangs:
            await asyncio.sleep(3_600)
        assert request.headers["Content-Type"] == "application/x-protobuf"
        body = await request.read()
        async with self._changed:
            self.raw += body
            self.received.append(ExportTraceServiceRequest.FromString(body))
            self._changed.notify_all()
        return web.Response(body=b"", content_type="application/x-protobuf")

    def spans(self) -> list[Span]:
        return [
            span
            for each in self.received
            for resource in each.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    async def wait_for(self, count: int) -> list[Span]:
        async with asyncio.timeout(WAIT_TIMEOUT_S), self._changed:
            await self._changed.wait_for(lambda: len(self.spans()) >= count)
        return self.spans()


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    collector = Collector()
    application = web.Application()
    application.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        await runner.cleanup()


def attributes(span: Span) -> dict[str, object]:
    found: dict[str, object] = {}
    for each in span.attributes:
        kind = each.value.WhichOneof("value")
        value = getattr(each.value, kind)
        found[each.key] = [item.string_value for item in value.values] if kind == "array_value" else value
    return found


async def test_a_submit_is_a_span_of_its_senders_trace_with_its_stages_below(
    tmp_path: Path, hmac_variables: dict[str, str]
) -> None:
    with RedisServer() as redis:
        store = {"DEDUP_BACKEND": "redis", "REDIS_ADDR": redis.address}
        async with collecting() as collector:
            variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
            with Backend(tmp_path / "data", **hmac_variables, **store, **variables) as backend:
                async with Client(backend) as client:
                    body = record(1, r=1.5, budget=0.0)
                    answer = await client.submit(body, traceparent=f"00-{TRACE}-{SENDER}-01")
                    assert answer.status == 202
                    spans = {span.name: span for span in await collector.wait_for(3)}
                    assert (
                        await client.submit(record(2), traceparent=f"00-{TRACE}-{SENDER}-00")
                    ).status == 200
                    assert (await client.submit(b"{")).status == 400
                    later = (await collector.wait_for(5))[3:]
                assert await asyncio.to_thread(backend.stop) == 0
            resource = collector.received[0].resource_spans[0].resource
    assert spans.keys() == {"POST /v1/pcs/submit", "inbox append", "store put_first"}
    submit = spans.pop("POST /v1/pcs/submit")
    assert submit.trace_id.hex() == TRACE
    assert submit.parent_span_id.hex() == SENDER
    assert submit.kind == Span.SPAN_KIND_SERVER
    assert attributes(submit) == {
        "http.request.method": "POST",
        "url.path": "/v1/pcs/submit",
        "http.request.body.size": len(body),
        "http.response.status_code": 202,
        "pcs.request_id": answer.headers["X-Request-ID"],
        "pcs.pcs_id": answer.document["pcs_id"],
        "pcs.reasons": ["compressibility_out_of_bounds", "budget_mismatch"],
        "pcs.replayed": False,
    }
    for span in spans.values():
        assert (span.trace_id, span.parent_span_id) == (submit.trace_id, submit.span_id)
        assert submit.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= submit.end_time_unix_nano
    refused = {span.name: span for span in later}
    assert refused.keys() == {"POST /v1/pcs/submit", "inbox append"}, "what the sender does not sample is not"
    malformed = refused["POST /v1/pcs/submit"]
    assert malformed.parent_span_id == b""
    assert malformed.trace_id.hex() != TRACE
    assert attributes(malformed)["pcs.problem"] == "malformed"
    names = {each.key: each.value.string_value for each in resource.attributes}
    assert names["service.name"] == "pcs-backend"
    assert CANARY.encode() not in collector.raw


async def test_the_backlog_is_settled_without_spans_and_with_the_memory_store_too(
    tmp_path: Path, hmac_variables: dict[str, str]
) -> None:
    async with collecting() as collector:
        variables = {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.url}/v1/traces",
            "OTEL_SERVICE_NAME": "verification",
        }
        with Backend(tmp_path / "data", **hmac_variables, **variables) as backend:
            async with Client(backend) as client:
                assert (await client.submit(record(1))).status == 200
            assert await asyncio.to_thread(backend.stop) == 0, "a stop sends what is left"
        names = [span.name for span in collector.spans()]
        assert sorted(names) == ["POST /v1/pcs/submit", "inbox append", "store put_first"]
        resource = collector.received[0].resource_spans[0].resource
        assert {each.key: each.value.string_value for each in resource.attributes}["service.name"] == (
            "verification"
        )


async def test_a_collector_that_hangs_or_is_not_there_delays_neither_submits_nor_the_stop(
    tmp_path: Path, hmac_variables: dict[str, str]
) -> None:
    async with collecting() as collector:
        collector.hangs = True
        for url in (collector.url, "http://127.0.0.1:9"):
            variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "10"}
            with Backend(tmp_path / "data", **hmac_variables, **variables) as backend:
                async with Client(backend) as client:
                    for epoch in range(50):
                        assert (await client.submit(record(epoch))).status == 200
                began_s = time.monotonic()
                assert await asyncio.to_thread(backend.stop) == 0
                assert time.monotonic() - began_s < 6
            assert CANARY.encode() not in backend.output


def test_without_its_variables_nothing_of_it_is_imported_or_wrapped(tmp_path: Path) -> None:
    program = """
import sys
import pcs_backend.cli
from pcs_backend.app import Service, real_ports
from pcs_backend.config import load_config
from pcs_backend.dedup.memory_store import MemoryStore
from pcs_backend.inbox.inbox import Inbox

service = Service(load_config({}), real_ports())
pipeline = service._engine.pipeline
ours = ("opentelemetry.exporter", "opentelemetry.sdk.trace", "pcs_backend.effects.tracing")  # redis-py looks for the API
print(sorted(name for name in sys.modules if name.startswith(ours)))
print(type(pipeline._store) is MemoryStore, type(pipeline._inbox) is Inbox, service._spans)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=clean_environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=WAIT_TIMEOUT_S,
        check=True,
    )
    assert done.stdout.splitlines() == ["[]", "True True None"]


def test_without_the_extra_there_is_a_warning_and_the_service_starts(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden/opentelemetry"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("")
    checked = run(
        "pcs-backend",
        "check-config",
        DATA_DIR=str(tmp_path),
        PYTHONPATH=str(hidden.parent),
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4318",
    )
    assert checked.returncode == 0
    assert (
        b"warning: OTEL_EXPORTER_OTLP_ENDPOINT is set and nothing is traced: the extra `otel` is not installed"
        in checked.stderr
    )


def test_an_address_that_is_none_stops_the_start(tmp_path: Path) -> None:
    refused = run(
        "pcs-backend", "check-config", DATA_DIR=str(tmp_path), OTEL_EXPORTER_OTLP_ENDPOINT="collector:4318"
    )
    assert refused.returncode == 2
    assert (
        b"OTEL_EXPORTER_OTLP_ENDPOINT: found a string of length 14; allowed: an http or https URL"
        in refused.stderr
    )
