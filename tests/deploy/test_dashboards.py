"""The dashboards: rendered as checked in, of a form Grafana knows, and each query returns data from a running backend.

No Grafana server can be had here. Its own schema, as its SDK has it, stands for it: what the SDK reads and writes again
without losing a field is known to Grafana. The queries are run by a real Prometheus over a backend under a mixed load.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

import dashboards
import pcs_records
from pcs_backend.app import Service, real_ports
from pcs_backend.config import load_config
from processes import Backend, Client
from prometheus_server import PrometheusServer, QueryError

RULES = dashboards.FOLDER.parent / "rules" / "pcs-backend.rules.yaml"
FILES = sorted(dashboards.FOLDER.glob("*.json"))
JOB = "pcs-backend"
TENANT_KEYS = {"plants": b"a key of plants, of the tests", "fleet": b"a key of the fleet, of tests"}

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)


def load(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def queries() -> Iterator[tuple[str, str]]:
    """Every expression and where it stands."""
    for path in FILES:
        for panel in load(path)["panels"]:
            for target in panel.get("targets", []):
                yield f"{path.stem}: {panel['title']} {target['refId']}", target["expr"]


def lost(given: Any, kept: Any, place: str = "$") -> list[str]:
    """Where what was given is not what was kept; what was added is no matter."""
    if isinstance(given, dict) and isinstance(kept, dict):
        return [
            each
            for key in given
            for each in (lost(given[key], kept[key], f"{place}.{key}") if key in kept else [f"{place}.{key}"])
        ]
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        pairs = zip(given, kept, strict=True)
        return [each for index, pair in enumerate(pairs) for each in lost(*pair, f"{place}[{index}]")]
    return [] if given == kept else [place]


def read_by_grafana(document: dict[str, Any]) -> dict[str, Any]:
    plugins.register_default_plugins()
    kept: dict[str, Any] = json.loads(JSONEncoder().encode(Dashboard.from_json(copy.deepcopy(document))))
    return kept


def test_rendered_files_are_what_the_generator_makes() -> None:
    assert {path.name: path.read_text(encoding="utf-8") for path in FILES} == dashboards.rendered()


@every_file
def test_grafanas_own_schema_knows_every_field(path: Path) -> None:
    assert lost(load(path), read_by_grafana(load(path))) == []


def test_a_field_that_grafana_does_not_know_is_found() -> None:
    document = load(FILES[0])
    document["panels"][1]["targets"][0]["expression"] = document["panels"][1]["targets"][0].pop("expr")
    document["panels"][1]["fieldConfig"]["defaults"]["units"] = "s"
    assert lost(document, read_by_grafana(document)) == [
        "$.panels[1].targets[0].expression",
        "$.panels[1].fieldConfig.defaults.units",
    ]


@every_file
def test_panels_have_their_own_place_and_number(path: Path) -> None:
    panels = load(path)["panels"]
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells)), "panels overlap"
    assert max(x for x, _ in cells) < 24
    assert all(panel["title"] for panel in panels)


@every_file
def test_variables_and_data_source_are_those_of_the_dashboard(path: Path) -> None:
    document = load(path)
    known = {variable["name"] for variable in document["templating"]["list"]}
    text = json.dumps([document["panels"], document["templating"]])
    used = set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval", "__range", "__all"}
    assert used == known
    sources = [target["datasource"] for panel in document["panels"] for target in panel.get("targets", [])]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)


def test_titles_and_uids_differ() -> None:
    documents = [load(path) for path in FILES]
    for name in ("uid", "title"):
        assert len({document[name] for document in documents}) == len(documents)


def test_every_metric_of_a_service_is_on_a_dashboard(tmp_path: Path) -> None:
    service = Service(load_config({"DATA_DIR": str(tmp_path)}), real_ports())
    families = service._engine.metrics.registry.collect()
    exported = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    rules = RULES.read_text(encoding="utf-8")
    shown = {name.removesuffix("_bucket") for _, expr in queries() for name in re.findall(r"\bflk_\w+", expr)}
    recorded = {name for _, expr in queries() for name in re.findall(r"\b(?:job|instance):flk_\w+:\w+", expr)}
    assert recorded <= {rule["record"] for rule in rule_list(rules) if "record" in rule}
    assert exported - shown == set()


def rule_list(text: str) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def filled_in(expr: str) -> str:
    """Put in what Grafana would."""
    for variable, value in {
        "$__rate_interval": "10s",
        "$__range": "1m",
        "$job": JOB,
        "$instance": ".*",
        "$tenant": ".*",
    }.items():
        expr = expr.replace(variable, value)
    assert "$" not in expr
    return expr


def keys_file(folder: Path) -> Path:
    entries = [
        f'[[keys]]\nid = "{tenant}"\nalgorithm = "hmac"\nsecret = "{key.decode()}"\ntenant = "{tenant}"\n'
        for tenant, key in TENANT_KEYS.items()
    ]
    path = folder / "keys.toml"
    path.write_text("\n".join(entries))
    path.chmod(0o600)
    return path


async def mixed_load(client: Client, first: int) -> None:
    """Some of everything: accepted, escalated, replayed, in conflict, of no signature, of no form."""
    degraded = {"outbox_seq": 1, "degraded": True, "fallbacks": ["no_input"], "clock_skew_ms": 0}
    for epoch in range(first, first + 5):
        for tenant, key in TENANT_KEYS.items():
            given = {"epoch": epoch, "shard_id": tenant}
            good = pcs_records.sign(pcs_records.document(**given), hmac_key=key)
            other = pcs_records.document(**given, N_j={"2": 3, "4": 5, "8": 9, "16": 17, "32": 33})
            doubtful = pcs_records.document(epoch=epoch, shard_id=f"{tenant}/doubtful", ft=degraded)
            bad = pcs_records.sign(pcs_records.document(epoch=epoch), hmac_key=b"of nobody")
            documents = [
                good,
                good,
                pcs_records.sign(other, hmac_key=key),
                pcs_records.sign(doubtful, hmac_key=key),
                bad,
            ]
            statuses = [(await client.submit(pcs_records.body(each))).status for each in documents]
            assert statuses == [200, 200, 200, 202, 401]
    assert (await client.submit(b"{")).status == 400


@pytest.mark.slow
async def test_every_query_returns_data_of_a_running_backend(tmp_path: Path) -> None:
    variables = {"PCS_KEYS_FILE": str(keys_file(tmp_path)), "MULTI_TENANT": "true"}
    with Backend(tmp_path / "data", **variables) as backend:
        async with Client(backend) as client:
            exported = {name.partition("{")[0] for name in await client.metrics()}
            with PrometheusServer({JOB: [backend.url]}, rules=[RULES]) as prometheus:
                prometheus.wait_for(f'flk_ready{{job="{JOB}"}} == 1')
                await mixed_load(client, 0)
                prometheus.wait_for("flk_escalated_total == 10")
                await mixed_load(client, 5)
                prometheus.wait_for("flk_escalated_total == 20")
                # The last step of the ratios recorded by the rules.
                prometheus.wait_for("job:flk_escalated:ratio_rate1d > 0")
                unfit = {}
                for place, expr in queries():
                    assert set(re.findall(r"(?<!:)\bflk_\w+", expr)) <= exported, place
                    if found := why_unfit(prometheus, filled_in(expr)):
                        unfit[place] = found
                assert unfit == {}


def why_unfit(prometheus: PrometheusServer, expr: str) -> str:
    """Why a query would show nothing; empty if it shows something."""
    try:
        samples = prometheus.query(expr)
    except QueryError as error:
        return str(error)
    if not samples:
        return "no series"
    return "" if any(math.isfinite(sample.value) for sample in samples) else "no number"
