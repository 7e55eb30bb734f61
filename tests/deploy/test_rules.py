"""The Prometheus rules: accepted by promtool, each alert tested and with a runbook that is there.

What the promtool tests say of each alert is checked here: that it is silent, fires, and clears. That its fault sets it
off in a running backend is in tests/e2e/test_alerts.py.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pcs_backend.app import Service, real_ports
from pcs_backend.config import load_config
from tools import tool

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "grafana/rules/pcs-backend.rules.yaml"
TESTS = sorted(RULES.parent.glob("*.tests.yaml"))
PROMTOOL_TIMEOUT_S = 50


def load(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return document


GROUPS = load(RULES)["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
RECORDED = {rule["record"] for group in GROUPS for rule in group["rules"] if "record" in rule}
CASES = {case["name"]: case for path in TESTS for case in load(path)["tests"]}

every_alert = pytest.mark.parametrize("alert", ALERTS)


def promtool(*arguments: str) -> str:
    done = subprocess.run(
        [tool("promtool"), *arguments],
        cwd=RULES.parent,
        capture_output=True,
        text=True,
        timeout=PROMTOOL_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_promtool_takes_the_rules() -> None:
    count = len(ALERTS) + len(RECORDED)
    assert f"SUCCESS: {count} rules found" in promtool("check", "rules", RULES.name)


@pytest.mark.slow
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_promtool_tests_pass(path: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", path.name)


@pytest.mark.slow
def test_promtool_tests_can_fail(tmp_path: Path) -> None:
    """With each threshold out of reach no alert fires, and every test that expects one says so."""
    document = load(RULES)
    for group in document["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                rule["expr"] = "vector(0) > 1"
    (tmp_path / RULES.name).write_text(yaml.safe_dump(document))
    (tmp_path / "minutes.tests.yaml").write_bytes((RULES.parent / "minutes.tests.yaml").read_bytes())
    done = subprocess.run(
        [tool("promtool"), "test", "rules", str(tmp_path / "minutes.tests.yaml")],
        capture_output=True,
        text=True,
        timeout=PROMTOOL_TIMEOUT_S,
        check=False,
    )
    failed = set(re.findall(r"alertname: (\w+),", done.stdout + done.stderr))
    expected = {
        each["alertname"]
        for case in load(RULES.parent / "minutes.tests.yaml")["tests"]
        for each in case["alert_rule_test"]
        if each.get("exp_alerts")
    }
    assert (done.returncode, failed) == (1, expected)


@every_alert
def test_alert_has_a_test_in_which_it_is_silent_then_fires_then_clears(alert: str) -> None:
    steps = [step for step in CASES[alert]["alert_rule_test"] if step["alertname"] == alert]
    assert [bool(step.get("exp_alerts")) for step in steps] == [False, True, False]
    times = [minutes(step["eval_time"]) for step in steps]
    assert times == sorted(times)


def test_no_alert_fires_in_four_healthy_days() -> None:
    """In that test no expression over all alerts has a result."""
    case = CASES["healthy"]
    assert "alert_rule_test" not in case
    assert {step["expr"] for step in case["promql_expr_test"]} == {
        "ALERTS",
        'count_over_time(ALERTS{alertstate="firing"}[4d])',
    }
    assert all("exp_samples" not in step for step in case["promql_expr_test"])
    named = {name for each in case["input_series"] for name in re.findall(r"^\w+", each["series"])}
    needed = {name for rule in ALERTS.values() for name in inputs(rule["expr"])}
    assert needed - named == set(), "an alert without its series is silent for the wrong reason"


def minutes(duration: str) -> int:
    units = {"m": 1, "h": 60, "d": 1_440}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([mhd])", duration))


def inputs(expr: str) -> set[str]:
    """Return the names of the exported series that an expression stands on, recorded ones resolved."""
    found = set(re.findall(r"(?<![\w:])(?:flk_\w+|up)\b(?!:)", expr))
    for name in re.findall(r"(?:job|instance):flk_\w+:\w+", expr):
        (rule,) = [rule for group in GROUPS for rule in group["rules"] if rule.get("record") == name]
        found |= inputs(rule["expr"])
    return found


def test_rules_name_what_a_backend_exports_or_a_rule_records(tmp_path: Path) -> None:
    service = Service(load_config({"DATA_DIR": str(tmp_path)}), real_ports())
    families = list(service._engine.metrics.registry.collect())
    exported = {sample.name for family in families for sample in family.samples} | {"up"}
    for group in GROUPS:
        for rule in group["rules"]:
            assert inputs(rule["expr"]) - exported == set(), rule
            assert set(re.findall(r"(?:job|instance):flk_\w+:\w+", rule["expr"])) <= RECORDED, rule


@every_alert
def test_alert_has_severity_words_and_a_link(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert re.fullmatch(r"docs/runbooks/[a-z0-9-]+\.md", rule["annotations"]["runbook_url"])


@pytest.mark.slow
@every_alert
def test_runbook_of_an_alert_is_there_and_names_it(alert: str) -> None:
    runbook = ROOT / ALERTS[alert]["annotations"]["runbook_url"]
    assert alert in runbook.read_text(encoding="utf-8")
