"""Every shipped alert fires for its fault, names its runbook, clears when it is mended, and is silent otherwise.

A backend for each fault and a healthy one, all under the same load, are scraped by one real Prometheus. It runs the shipped
rules with one change: the durations in brackets, after `offset` and after `for` are replaced by those of `SCALE`, which keeps
their order; days become seconds. Expressions, thresholds, labels and annotations stay as they are. So what is shown here is
that expressions and metrics fit what a backend really does; that windows of hours and days work is shown by the promtool
tests beside the rules.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from alert_faults import BUSY_S, Fault, every_fault, prefer
from processes import Client
from prometheus_server import PrometheusServer

pytestmark = [pytest.mark.slow]

RULES = Path(__file__).resolve().parents[2] / "grafana/rules/pcs-backend.rules.yaml"
SCALE = {
    "1m": "1500ms",
    "2m": "2s",
    "5m": "3s",
    "10m": "4s",
    "15m": "5s",
    "30m": "6s",
    "1h": "7s",
    "2h": "8s",
    "6h": "10s",
    "1d": "12s",
    "3d": "15s",
}
DURATION = re.compile(r"(\[|offset )(\d+[smhd])\b")
INTERVAL_S = 0.5
POLL_S = 0.25
HISTORY_S = 20.0
FIRES_WITHIN_S = 30.0
CLEARS_WITHIN_S = 40.0
TITLE = "alerts: fault | alert | fired after | cleared after"


class Firing(NamedTuple):
    """An alert that fires."""

    job: str
    alert: str
    runbook: str


def scaled(document: dict[str, Any]) -> dict[str, Any]:
    """Return rules with other durations; a duration that is not in the table is an error."""
    for group in document["groups"]:
        for rule in group["rules"]:
            rule["expr"] = DURATION.sub(lambda found: found[1] + SCALE[found[2]], rule["expr"])
            if "for" in rule:
                rule["for"] = SCALE[rule["for"]]
    return document


def shipped() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return document


def runbooks() -> dict[str, str]:
    rules = [rule for group in shipped()["groups"] for rule in group["rules"]]
    return {rule["alert"]: rule["annotations"]["runbook_url"] for rule in rules if "alert" in rule}


def seconds(duration: str) -> float:
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
    (found,) = re.findall(r"^(\d+)(\w+)$", duration)
    return int(found[0]) * units[found[1]]


def test_scale_keeps_the_order_of_durations_and_nothing_else_changes() -> None:
    ordered = sorted(SCALE, key=seconds)
    assert sorted(SCALE.values(), key=seconds) == [SCALE[each] for each in ordered]
    assert len(set(SCALE.values())) == len(SCALE)
    text, changed = yaml.safe_dump(shipped()), yaml.safe_dump(scaled(shipped()))
    back = {value: key for key, value in SCALE.items()}
    restored = re.sub(r"(\[|offset |for: )(\d+m?s)\b", lambda found: found[1] + back[found[2]], changed)
    assert restored == text


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory if there is such a place: the disk is not what this is about."""
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="pcs-alerts-", dir=memory if memory.is_dir() else None))
    yield path
    shutil.rmtree(path)


class Watch:
    """What fires, asked for again and again.

    Without a job it is PcsDown of a Prometheus that has no target, as this one is before its first scrape.
    """

    def __init__(self, prometheus: PrometheusServer) -> None:
        self._prometheus = prometheus
        self._now: list[Firing] = []
        self._turned = asyncio.Condition()
        self.ever: set[Firing] = set()

    async def run(self) -> None:
        while True:
            alerts = await asyncio.to_thread(self._prometheus.alerts)
            self._now = [
                Firing(
                    each["labels"]["job"],
                    each["labels"]["alertname"],
                    each["annotations"]["runbook_url"],
                )
                for each in alerts
                if each["state"] == "firing" and "job" in each["labels"]
            ]
            self.ever |= set(self._now)
            async with self._turned:
                self._turned.notify_all()
            await asyncio.sleep(POLL_S)

    def of(self, job: str) -> set[str]:
        return {each.alert for each in self._now if each.job == job}

    async def turn(self) -> None:
        async with self._turned:
            await self._turned.wait()


async def life(fault: Fault, watch: Watch) -> list[tuple[str, float, float]]:
    """Strike, wait until every alert of the fault has fired, heal, and wait until none does."""
    fired: dict[str, float] = {}
    struck_s = time.monotonic()
    await fault.strike()
    while fault.alerts - fired.keys():
        for alert in watch.of(fault.job) - fired.keys():
            fired[alert] = time.monotonic() - struck_s
        missing = sorted(fault.alerts - fired.keys())
        assert time.monotonic() < struck_s + FIRES_WITHIN_S, f"{fault.name}: {missing} did not fire"
        await fault.next_strike(watch.of(fault.job))
        await watch.turn()
    healed_s = time.monotonic()
    await fault.heal()
    cleared: dict[str, float] = {}
    while len(cleared) < len(fired):
        await watch.turn()
        for alert in fired.keys() - watch.of(fault.job) - cleared.keys():
            cleared[alert] = time.monotonic() - healed_s
        stuck = sorted(watch.of(fault.job))
        assert time.monotonic() < healed_s + CLEARS_WITHIN_S, f"{fault.name}: {stuck} did not clear"
    return [(alert, fired[alert], cleared[alert]) for alert in sorted(fired)]


async def test_every_alert_fires_for_its_fault_names_its_runbook_and_clears(
    folder: Path, record_property: Any
) -> None:
    rules = folder / "rules.yaml"
    rules.write_text(yaml.safe_dump(scaled(shipped())))
    with contextlib.ExitStack() as stack:
        faults = [kind(folder / kind.__name__, stack) for kind in every_fault()]
        assert set().union(*(fault.alerts for fault in faults)) == runbooks().keys()
        await asyncio.gather(*(asyncio.to_thread(fault.start) for fault in faults))
        jobs = {fault.job: [fault.backend.url] for fault in faults}
        prometheus = stack.enter_context(PrometheusServer(jobs, rules=[rules], interval_s=INTERVAL_S))
        prefer(prometheus.pid)
        prometheus.wait_for("up == 1", count=len(faults))
        async with contextlib.AsyncExitStack() as clients:
            running = [
                asyncio.create_task(fault.run(await clients.enter_async_context(Client(fault.backend, 8))))
                for fault in faults
            ]
            watch = Watch(prometheus)
            running.append(asyncio.create_task(watch.run()))
            try:
                lives = await observe(faults, watch, prometheus)
            finally:
                for task in running:
                    task.cancel()
                results = await asyncio.gather(*running, return_exceptions=True)
        assert [each for each in results if not isinstance(each, asyncio.CancelledError)] == []
    for fault, rows in zip(faults, lives, strict=True):
        fired = {each.alert for each in watch.ever if each.job == fault.job}
        assert fault.alerts <= fired <= fault.alerts | fault.healing, fault.name
        for alert, after_s, clear_s in rows:
            record_property(TITLE, f"{fault.name} | {alert} | {after_s:.0f} s | {clear_s:.0f} s")
    assert {(each.alert, each.runbook) for each in watch.ever} == set(runbooks().items())


async def observe(
    faults: list[Fault], watch: Watch, prometheus: PrometheusServer
) -> list[list[tuple[str, float, float]]]:
    """A healthy time for all, then the fault of each."""
    busy = [fault.job for fault in faults if fault.turn_s == BUSY_S]
    history = f'job:flk_dedup_hits:ratio_rate1d{{job=~"{"|".join(busy)}"}} offset {SCALE["1h"]} >= 0.4'
    await asyncio.to_thread(prometheus.wait_for, history, count=len(busy), timeout_s=HISTORY_S)
    assert watch.ever == set(), "healthy backends set off an alert"
    return await asyncio.gather(*(life(fault, watch) for fault in faults))
