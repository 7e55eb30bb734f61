"""`make pictures`: runs a backend under load with faults, lets a real Prometheus record it, and draws panels of the dashboards.

The pictures in docs/pictures come from one run of this script. They are not screenshots of Grafana: `drawing.py` draws
them, from the queries of `dashboards.py`. What happens in the run is in `STORY`; docs/observability.md tells it, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pcs_records
from dashboards import BACKEND, TENANTS
from drawing import Line, draw, legend
from faulty_proxy import FaultyProxy
from panels import Panel
from processes import Backend, Client
from prometheus_server import PrometheusServer
from servers import RedisServer

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "pictures"
RULES = ROOT / "grafana" / "rules" / "pcs-backend.rules.yaml"
JOB = "pcs-backend"

STORY = (
    (40, "calm"),
    (25, "the way to Redis is slow"),
    (20, "calm"),
    (15, "Redis is stopped"),
    (20, "calm"),
    (20, "a fifth of the records is escalated, some signatures are bad"),
    (20, "calm"),
)
"""What is the case for how many seconds."""

RECORDS_PER_S = {"plants": 40, "fleet": 20, "lab": 5}
REPLAYED_SHARE = 0.45
STEP_S = 1
WINDOW = "10s"

PICTURES = (
    "Records a second",
    "Answers that are no outcome, by problem",
    "Heatmap",
    "Percentiles",
    "Dedup hit ratio",
    "Escalations, by reason",
    "Budget burn: latency",
    "Budget burn: escalations",
    "WAL size",
    "Time of a write and sync",
    "Store answers",
    "Requests without an outcome",
    "Accepted, by tenant",
    "Escalated share, by tenant",
)
"""Titles of the panels that are drawn."""


def file_name(title: str) -> str:
    """Return the name of a panel's picture."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") + ".svg"


def drawn_panels() -> Iterator[Panel]:
    """Yield each panel that is drawn; of two with one title the first."""
    rows = [*BACKEND.rows, *TENANTS.rows]
    panels = {panel.title: panel for row in reversed(rows) for panel in row.panels if panel.kind != "stat"}
    for title in PICTURES:
        yield panels[title]


def key_of(tenant: str) -> str:
    """Return a key for the occasion."""
    return f"only for pictures, of {tenant}"


class Load:
    """Senders of all tenants."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._random = random.Random(1)  # noqa: S311 - the same mixture each time, no secret
        self._sent: dict[str, list[bytes]] = {tenant: [] for tenant in RECORDS_PER_S}
        self.bad = False

    async def run(self) -> None:
        """Send for ever."""
        async with asyncio.TaskGroup() as group:
            for tenant in RECORDS_PER_S:
                group.create_task(self._send(tenant))

    async def _send(self, tenant: str) -> None:
        due_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(self._submit(self._next_body(tenant)))
                due_s += self._random.expovariate(RECORDS_PER_S[tenant])
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    async def _submit(self, body: bytes) -> None:
        with contextlib.suppress(TimeoutError):
            await self._client.submit(body)

    def _next_body(self, tenant: str) -> bytes:
        sent = self._sent[tenant]
        if sent and self._random.random() < REPLAYED_SHARE:
            return self._random.choice(sent)
        given: dict[str, object] = {"epoch": len(sent), "shard_id": f"{tenant}/line-1"}
        if self.bad and self._random.random() < 0.2:
            degraded = {"outbox_seq": 1, "degraded": True, "fallbacks": ["no_input"], "clock_skew_ms": 0}
            given |= self._random.choice([{"ft": degraded}, {"regime": "mixed"}, {"budget": 0.9}])
        key = "of nobody" if self.bad and self._random.random() < 0.1 else key_of(tenant)
        body = pcs_records.body(pcs_records.sign(pcs_records.document(**given), hmac_key=key.encode()))
        sent.append(body)
        return body


async def act(load: Load, redis: RedisServer, proxy: FaultyProxy) -> None:
    """Let the story happen."""
    for length_s, what in STORY:
        print(f"{length_s} s: {what}")
        proxy.set(latency_s=0.06 if "slow" in what else 0.0)
        load.bad = "bad" in what
        if "stopped" in what:
            await asyncio.to_thread(redis.stop)
        await asyncio.sleep(length_s)
        if "stopped" in what:
            await asyncio.to_thread(redis.start)


def filled_in(expr: str) -> str:
    """Put in what Grafana would."""
    for name, value in {"$__rate_interval": WINDOW, "$job": JOB, "$instance": ".*", "$tenant": ".*"}.items():
        expr = expr.replace(name, value)
    return expr


def lines_of(panel: Panel, prometheus: PrometheusServer, start_s: float, end_s: float) -> list[Line]:
    """Return what the panel's queries found."""
    found = []
    for query in panel.queries:
        for series in prometheus.query_range(
            filled_in(query.expr), start_s=start_s, end_s=end_s, step_s=STEP_S
        ):
            labels = {**series["metric"], "instance": "backend"}
            points = [(float(at), float(value)) for at, value in series["values"]]
            if panel.kind == "heatmap" or len(points) > 1:
                found.append(Line(legend(query.legend, labels), points))
    # What stayed at 0 all the time only crowds the picture, unless nothing else is there.
    told = [line for line in found if any(value for _, value in line.points)]
    return found if panel.kind == "heatmap" else told or found[:1]


async def record(folder: Path) -> None:
    """Make the run and draw it."""
    keys = folder / "keys.toml"
    keys.write_text(
        "\n".join(
            f'[[keys]]\nid = "{tenant}"\nalgorithm = "hmac"\nsecret = "{key_of(tenant)}"\ntenant = "{tenant}"\n'
            for tenant in RECORDS_PER_S
        )
    )
    keys.chmod(0o600)
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        proxy = stack.enter_context(FaultyProxy("127.0.0.1", redis.port))
        variables = {"DEDUP_BACKEND": "redis", "REDIS_ADDR": f"127.0.0.1:{proxy.port}"}
        trust = {"PCS_KEYS_FILE": str(keys), "MULTI_TENANT": "true"}
        backend = stack.enter_context(Backend(folder / "data", **variables, **trust))
        prometheus = stack.enter_context(
            PrometheusServer({JOB: [backend.url]}, rules=[RULES], interval_s=STEP_S)
        )
        async with Client(backend) as client:
            load = Load(client)
            sending = asyncio.create_task(load.run())
            start_s = time.time() + 5
            await act(load, redis, proxy)
            end_s = time.time()
            if sending.done():  # it never ends by itself
                print(backend.output.decode())
                sending.result()
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        for panel in drawn_panels():
            picture = draw(panel, lines_of(panel, prometheus, start_s, end_s), start_s, end_s)
            (FOLDER / file_name(panel.title)).write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pcs-pictures-") as temporary:
        asyncio.run(record(Path(temporary)))
