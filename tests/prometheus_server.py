"""A real Prometheus that scrapes backends of a test.

    with PrometheusServer({"pcs-backend": [backend.url]}, rules=[path]) as prometheus:
        prometheus.wait_for("flk_ready == 1", count=1)
        prometheus.alerts()

Intervals are a fraction of a second, so that a test need not wait for minutes.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import yaml

from servers import Server
from tools import tool

INTERVAL_S = 0.25
WAIT_TIMEOUT_S = 30.0
_POLL_S = 0.1
_CALL_TIMEOUT_S = 20.0


class QueryError(Exception):
    """Prometheus refused an expression."""


class Sample(NamedTuple):
    """One series of an answer and its value now."""

    labels: dict[str, str]
    value: float


class PrometheusServer(Server):
    """Prometheus with one job a deployment, rules, and an empty database."""

    def __init__(
        self,
        jobs: Mapping[str, Iterable[str]],
        *,
        rules: Iterable[Path] = (),
        interval_s: float = INTERVAL_S,
        lookback_s: float = 300.0,
    ) -> None:
        """Choose a port; nothing runs yet.

        Args:
            jobs: URLs of backends by the name of their job.
            rules: Rule files.
            interval_s: Between scrapes, and between evaluations of the rules.
            lookback_s: How long a series counts that got no further sample.
        """
        super().__init__()
        interval = f"{interval_s * 1_000:.0f}ms"
        config = {
            "global": {
                "scrape_interval": interval,
                "scrape_timeout": interval,
                "evaluation_interval": interval,
            },
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [urlsplit(url).netloc for url in urls]}]}
                for job, urls in jobs.items()
            ],
        }
        self._config = self._folder / "prometheus.yml"
        self._config.write_text(yaml.safe_dump(config))
        self._lookback_s = lookback_s

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def query(self, expr: str) -> list[Sample]:
        """Return what an expression is now; a scalar or a string is one sample without labels.

        Raises:
            QueryError: It does not parse, or cannot be evaluated.
        """
        data = self._get("query", query=expr)
        if data["resultType"] in {"scalar", "string"}:
            return [Sample({}, float(data["result"][1]))]
        return [Sample(series["metric"], float(series["value"][1])) for series in data["result"]]

    def query_range(self, expr: str, *, start_s: float, end_s: float, step_s: float) -> list[dict[str, Any]]:
        """Return series as Prometheus gives them: `metric`, and `values` as pairs of time and text."""
        found: list[dict[str, Any]] = self._get(
            "query_range", query=expr, start=start_s, end=end_s, step=step_s
        )["result"]
        return found

    def wait_for(self, expr: str, *, count: int = 1, timeout_s: float = WAIT_TIMEOUT_S) -> list[Sample]:
        """Wait until an expression has that many series."""
        deadline_s = time.monotonic() + timeout_s
        while len(found := self.query(expr)) != count:
            if time.monotonic() > deadline_s:
                raise AssertionError(f"{expr}: {len(found)} series instead of {count} after {timeout_s:g} s")
            time.sleep(_POLL_S)
        return found

    def alerts(self) -> list[dict[str, Any]]:
        """Return pending and firing alerts as Prometheus tells them: `labels`, `annotations`, `state`."""
        found: list[dict[str, Any]] = self._get("alerts")["alerts"]
        return found

    def _get(self, path: str, **parameters: object) -> Any:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=_CALL_TIMEOUT_S) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise QueryError(error.read().decode()) from None

    def _command(self) -> list[str]:
        return [
            tool("prometheus"),
            f"--config.file={self._config}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            f"--query.lookback-delta={self._lookback_s * 1_000:.0f}ms",
            "--log.level=warn",
        ]

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=_CALL_TIMEOUT_S) as answer:
                return answer.status == 200
        except OSError:
            return False
