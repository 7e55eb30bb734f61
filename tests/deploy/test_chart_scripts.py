"""The chart's own scripts, run with the command lines of the manifests against a running backend and a real Prometheus."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pcs_records
from deploy.charts import (
    CASES,
    ROOT,
    SHARED,
    Manifest,
    below,
    manifests,
    materialise,
    of_kind,
    only,
    rendered,
    template,
)
from processes import HMAC_KEY, Backend, Client, clean_environment, run
from servers import RedisServer
from tools import tool

pytestmark = [pytest.mark.slow]

Secrets = dict[str, dict[str, str]]
SCRIPT_TIMEOUT_S = 60.0
PROMETHEUS_TIMEOUT_S = 30.0


def pod_of(release: tuple[Manifest, ...] | list[Manifest]) -> dict[str, Any]:
    return of_kind(release, "StatefulSet")[0]["spec"]["template"]["spec"]


def start(folder: Path, variables: dict[str, str]) -> Backend:
    """A backend with a pod's environment, on a free port of loopback."""
    return Backend(Path(variables["DATA_DIR"]), **variables | {"HOST": "127.0.0.1", "PORT": "0"})


def script(command: list[str], folder: Path, **variables: str) -> subprocess.Popen[str]:
    """Start a command of a manifest whose `/etc/pcs` is below a folder."""
    assert command[0] == "python3"
    return subprocess.Popen(
        [sys.executable, *(below(folder, word) for word in command[1:])],
        env=clean_environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=SCRIPT_TIMEOUT_S)
    return process.returncode, output


def run_script(command: list[str], folder: Path, **variables: str) -> tuple[int, str]:
    return end(script(command, folder, **variables))


def beside(backend: Backend, variables: dict[str, str]) -> dict[str, str]:
    """The environment of a script in the backend's container."""
    return variables | {"PORT": backend.url.rpartition(":")[2]}


def log_size(backend: Backend) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (backend.data_dir / "wal" / "0").iterdir()}


class TestProbes:
    """Without client certificates the kubelet asks by itself; with them a command in the container does."""

    @pytest.mark.parametrize("case", ["defaults", "mutual TLS"])
    def test_each_is_answered(self, case: str, secrets: Secrets, tmp_path: Path) -> None:
        pod = pod_of(rendered(case))
        variables = materialise(rendered(case), pod, secrets, tmp_path)
        with start(tmp_path, variables) as backend:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                asked = pod["containers"][0][probe]
                if case == "mutual TLS":
                    assert run_script(asked["exec"]["command"], tmp_path, **variables) == (0, "")
                else:
                    url = backend.url + asked["httpGet"]["path"]
                    with urllib.request.urlopen(url, timeout=SCRIPT_TIMEOUT_S) as answer:
                        assert answer.status == 200
            assert backend.stop() == 0
            if case == "mutual TLS":
                code, _ = run_script(
                    pod["containers"][0]["livenessProbe"]["exec"]["command"], tmp_path, **variables
                )
                assert code == 1


class TestDrain:
    """What happens in a pod before SIGTERM."""

    def render(self, case: str, endpoint_s: float, settle_s: float) -> tuple[list[str], list[Manifest]]:
        """Return the command line and the release."""
        drain = {"endpointSeconds": endpoint_s, "settleSeconds": settle_s}
        release = manifests(template(CASES[case] | {"drain": drain}).output)
        return pod_of(release)["containers"][0]["lifecycle"]["preStop"]["exec"]["command"], release

    @pytest.mark.parametrize("case", ["defaults", "mutual TLS"])
    def test_nothing_open(self, case: str, secrets: Secrets, tmp_path: Path) -> None:
        command, release = self.render(case, 0.2, 50)
        variables = materialise(release, pod_of(release), secrets, tmp_path)
        with start(tmp_path, variables) as backend:
            began = time.monotonic()
            assert run_script(command, tmp_path, **beside(backend, variables)) == (0, "")
            assert 0.2 <= time.monotonic() - began < 25  # not the time that it might have taken

    async def test_open_requests_are_waited_for_and_settled(self, secrets: Secrets, tmp_path: Path) -> None:
        command, release = self.render("redis by secret", 0, 50)
        briefly, _ = self.render("redis by secret", 0, 1)
        with RedisServer() as redis:
            own = secrets["pcs-verification-keys"] | {"REDIS_ADDR": redis.address}
            variables = materialise(release, pod_of(release), {"pcs-verification-keys": own}, tmp_path)
            with start(tmp_path, variables) as backend:
                given = beside(backend, variables)
                async with Client(backend) as client:
                    redis.stop()
                    record = pcs_records.sign(pcs_records.document(), hmac_key=HMAC_KEY.encode())
                    assert (await client.submit(pcs_records.body(record))).status == 503
                began = time.monotonic()
                assert await asyncio.to_thread(run_script, briefly, tmp_path, **given) == (0, "")
                assert time.monotonic() - began >= 1
                draining = script(command, tmp_path, **given)
                assert draining.poll() is None
                redis.start()
                began = time.monotonic()
                assert await asyncio.to_thread(end, draining) == (0, "")
                assert time.monotonic() - began < 25
                assert backend.stop() == 0

    def test_a_service_that_is_gone_is_not_waited_for(self, tmp_path: Path, secrets: Secrets) -> None:
        command, release = self.render("defaults", 0, 50)
        variables = materialise(release, pod_of(release), secrets, tmp_path) | {"PORT": str(free_port())}
        began = time.monotonic()
        code, output = run_script(command, tmp_path, **variables)
        assert (code, output.partition(":")[0]) == (0, "not waiting")
        assert time.monotonic() - began < 25


class TestSettle:
    """The Job for a volume without a pod."""

    async def test_it_fails_until_nothing_is_left(self, secrets: Secrets, tmp_path: Path) -> None:
        values = CASES["redis by secret"] | {"settle": {"claims": ["data-pcs-verification-1"]}}
        release = manifests(template(values).output)
        job = only(of_kind(release, "Job"))["spec"]["template"]["spec"]
        command, *arguments = job["containers"][0]["command"]
        with RedisServer() as redis:
            own = secrets["pcs-verification-keys"] | {"REDIS_ADDR": redis.address}
            variables = materialise(release, job, {"pcs-verification-keys": own}, tmp_path)
            with start(tmp_path, variables) as backend:
                async with Client(backend) as client:
                    redis.stop()
                    record = pcs_records.sign(pcs_records.document(), hmac_key=HMAC_KEY.encode())
                    assert (await client.submit(pcs_records.body(record))).status == 503
                backend.kill()
            left = run(command, *arguments, **variables)
            assert (left.returncode, b"Redis: ConnectionError" in left.stderr) == (1, True), left
            redis.start()
            done = run(command, *arguments, **variables)
            assert (done.returncode, done.stdout.startswith(b"1 accepted")) == (0, True), done


class TestSmoke:
    """`helm test`."""

    @pytest.mark.parametrize("case", ["defaults", "mutual TLS", "metrics open"])
    def test_every_answer_is_as_it_should_be(self, case: str, secrets: Secrets, tmp_path: Path) -> None:
        release = rendered(case)
        (container,) = only(of_kind(release, "Pod"))["spec"]["containers"]
        login = materialise(release, only(of_kind(release, "Pod"))["spec"], secrets, tmp_path)
        with start(tmp_path, materialise(release, pod_of(release), secrets, tmp_path)) as backend:
            before = log_size(backend)
            url, *rest = container["args"][1:]
            assert re.fullmatch(r"https?://pcs-verification\.plant\.svc:8080", url)
            command = [*container["command"], container["args"][0], backend.url, *rest]
            code, output = run_script(command, tmp_path, **login)
            assert code == 0, output
            assert "GET /health/ready: 200, should be 200\n" in output
            assert ("GET /metrics: 401, should be 401\n" in output) == (case != "metrics open")
            assert log_size(backend) == before  # not even a refusal was written

    def test_a_wrong_password_is_found(self, secrets: Secrets, tmp_path: Path) -> None:
        release = rendered("defaults")
        (container,) = only(of_kind(release, "Pod"))["spec"]["containers"]
        with start(tmp_path, materialise(release, pod_of(release), secrets, tmp_path)) as backend:
            command = [*container["command"], container["args"][0], backend.url]
            code, output = run_script(command, tmp_path, METRICS_USER="prometheus", METRICS_PASS="another")
        assert code == 1
        assert "GET /metrics: 401, should be 200\n" in output


# --- the canary's gate -----------------------------------------------------------------------------------------------

CANARIES: dict[str, dict[str, float]] = {
    "good": {"accepted": 990, "escalated": 10, "unavailable": 0, "slow": 20},
    "escalating": {"accepted": 900, "escalated": 100, "unavailable": 0, "slow": 20},
    "failing": {"accepted": 990, "escalated": 10, "unavailable": 40, "slow": 20},
    "slow": {"accepted": 990, "escalated": 10, "unavailable": 0, "slow": 200},
    "idle": {"accepted": 9, "escalated": 1, "unavailable": 0, "slow": 0},
}
"""What a canary answered in the quarter of an hour behind, by namespace. The pods beside it only ever escalate."""

EXPECTED = {
    "good": (0, "every budget holds"),
    "escalating": (1, "burnt faster than 1: escalated"),
    "failing": (1, "burnt faster than 1: unavailable"),
    "slow": (1, "burnt faster than 1: slower than 200 ms"),
    "idle": (2, "requests are too few; 200 are needed"),
    "unmeasured": (2, "it cannot be told"),
    "unknown": (2, "it cannot be told"),
}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def series(namespace: str, track: str, totals: dict[str, float], now: float) -> dict[str, list[str]]:
    """Return lines of OpenMetrics text by metric: counters that rise evenly for half an hour until now."""
    labels = f'namespace="{namespace}",service="pcs-verification",track="{track}"'
    judged = totals["accepted"] + totals["escalated"]
    finals = {
        "flk_ingest_total": {labels: judged + totals["unavailable"]},
        "flk_accepted_total": {labels: totals["accepted"]},
        "flk_escalated_total": {labels: totals["escalated"]},
        "flk_refused_total": {f'{labels},problem="unavailable"': totals["unavailable"]},
        "flk_verify_seconds_count": {labels: judged},
        "flk_verify_seconds_bucket": {f'{labels},le="0.2"': judged - totals["slow"]},
    }
    return {
        metric: [
            f"{metric}{{{each}}} {final * 2 * step / 120} {now - 1800 + 15 * step:.3f}"
            for each, final in values.items()
            for step in range(121)
        ]
        for metric, values in finals.items()
    }


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prometheus that holds the canaries' last half hour; its URL."""
    folder = tmp_path_factory.mktemp("prometheus")
    now = time.time()
    lines: dict[str, list[str]] = {}
    bad = {"accepted": 0, "escalated": 5_000, "unavailable": 5_000, "slow": 5_000}
    for namespace, totals in (CANARIES | {"unmeasured": CANARIES["good"]}).items():
        for track, each in (("canary", totals), ("stable", bad)):
            for metric, more in series(namespace, track, each, now).items():
                if (namespace, metric) == ("unmeasured", "flk_refused_total"):
                    continue  # a canary whose failures nobody counts
                lines.setdefault(metric, []).extend(more)
    text = "".join(f"# TYPE {metric} gauge\n" + "\n".join(each) + "\n" for metric, each in lines.items())
    (folder / "data.om").write_text(text + "# EOF\n", encoding="utf-8")
    (folder / "prometheus.yml").write_text("{}\n", encoding="utf-8")
    blocks = [tool("promtool"), "tsdb", "create-blocks-from", "openmetrics", "data.om", "tsdb"]
    subprocess.run(blocks, cwd=folder, check=True, capture_output=True, timeout=PROMETHEUS_TIMEOUT_S)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                tool("prometheus"),
                "--config.file=prometheus.yml",
                "--storage.tsdb.path=tsdb",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + PROMETHEUS_TIMEOUT_S
        while not is_ready(url):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(PROMETHEUS_TIMEOUT_S)


def is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


def gate(namespace: str, url: str, canary: dict[str, Any]) -> tuple[int, str]:
    values = SHARED | {"canary": canary | {"gate": {"prometheusUrl": url} | canary.get("gate", {})}}
    release = manifests(template(values, "--namespace", namespace).output)
    (container,) = only(of_kind(release, "Job"))["spec"]["template"]["spec"]["containers"]
    return run_script([*container["command"], *container["args"]], Path("/nowhere"))


PROMOTION = {"promote": True}


class TestGate:
    @pytest.mark.parametrize("namespace", EXPECTED)
    def test_a_promotion_is_let_through_only_within_the_budgets(
        self, namespace: str, prometheus: str
    ) -> None:
        code, output = gate(namespace, prometheus, PROMOTION)
        assert (code, output.splitlines()[-1].endswith(EXPECTED[namespace][1])) == (
            EXPECTED[namespace][0],
            True,
        ), output

    def test_a_canary_that_burns_too_fast_ends_the_watch_at_once(self, prometheus: str) -> None:
        began = time.monotonic()
        code, output = gate("failing", prometheus, {"enabled": True, "image": {"tag": "2"}})
        assert code == 1, output
        assert time.monotonic() - began < 30  # of the 900 seconds that it might have watched

    def test_a_wider_budget_lets_it_through(self, prometheus: str) -> None:
        code, output = gate("escalating", prometheus, PROMOTION | {"gate": {"escalatedBudget": 0.2}})
        assert code == 0, output

    def test_no_prometheus_is_no_permission(self) -> None:
        code, output = gate("good", f"http://127.0.0.1:{free_port()}", PROMOTION)
        assert (code, output.splitlines()[-1]) == (2, "it cannot be told")

    def test_an_answer_of_something_else_is_no_permission(self, secrets: Secrets, tmp_path: Path) -> None:
        release = rendered("defaults")
        with start(tmp_path, materialise(release, pod_of(release), secrets, tmp_path)) as backend:
            code, output = gate("good", backend.url, PROMOTION)
        assert (code, output.splitlines()[-1]) == (2, "it cannot be told")

    def test_its_metrics_are_the_backends(self) -> None:
        job = only(of_kind(rendered("canary"), "Job"))
        plan = job["spec"]["template"]["spec"]["containers"][0]["args"][1]
        json.loads(plan)
        named = {name.removesuffix("_count").removesuffix("_bucket") for name in re.findall(r"flk_\w+", plan)}
        documented = (ROOT / "docs/operations.md").read_text(
            encoding="utf-8"
        )  # which a test compares with the code
        assert {name for name in named if f"| `{name}` |" not in documented} == set()
