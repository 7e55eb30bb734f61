"""What the docs say is what the code has (lesson L28: documented settings and metrics that did not exist)."""

from __future__ import annotations

import ast
import doctest
import importlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

import click
import msgspec
import pytest
import yaml

import pcs_agent.config
from pcs_agent.cli import main as agent_main
from pcs_agent.errors import ConfigError
from pcs_backend.app import Service, real_ports
from pcs_backend.cli.root import cli as backend_cli
from pcs_backend.config import ALLOWED, Settings, load_config
from pcs_backend.problems import Problem
from pcs_backend.secret_files import SECRETS, SUFFIX
from pcs_core.errors import ParamsError
from pcs_core.params import Params, parse_params
from pcs_core.record import ADDED_FIELDS, Record
from pcs_core.verify import Reason

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("docs/**/*.md"), ROOT / "README.md", ROOT / "CLAUDE.md", ROOT / "CHANGELOG.md"])
PACKAGES = [ROOT / "core/pcs_core", ROOT / "backend/pcs_backend", ROOT / "agent/pcs_agent"]
COMMANDS: dict[str, click.Command] = {"pcs-agent": agent_main, "pcs-backend": backend_cli}
AGENT_VARIABLES = {name for name, value in vars(pcs_agent.config).items() if name == value}
SECRET_FILES = {name + SUFFIX for name in SECRETS}
VARIABLES = {*ALLOWED, *AGENT_VARIABLES, *SECRET_FILES, "NAME_FILE"}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def table(path: str, section: str, first_heading: str) -> dict[str, list[str]]:
    """Return the rows of one table by their first cell, which loses its back-ticks."""
    text = read(path).partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        lines = [[cell.strip() for cell in line[1:-1].split(" | ")] for line in block.splitlines()]
        if lines[0][0] == first_heading:
            found = {row[0].strip("`"): row[1:] for row in lines[2:]}
            assert len(found) == len(lines) - 2, f"{path}: a row stands twice"
            return found
    raise AssertionError(f"{path}, {section}: no table of {first_heading}")


def defaults_and_rules(section: str, first_heading: str) -> dict[str, tuple[str, str]]:
    rows = table("docs/configuration.md", section, first_heading)
    return {name: (default.strip("`"), allowed) for name, (default, allowed, _) in rows.items()}


def code(text: str) -> list[str]:
    """Return code spans, and the lines of code blocks."""
    fenced = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^ {4}(.+)$", prose, re.MULTILINE)
    return [*re.findall(r"`([^`\n]+)`", prose), *indented, *"\n".join(fenced).splitlines()]


def constants() -> dict[str, float]:
    """Return every public numeric constant that a module of the packages defines, by dotted name."""
    found = {}
    for module_name, tree in syntax_trees():
        module = importlib.import_module(module_name)
        for node in tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            for name in (
                each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)
            ):
                value = getattr(module, name)
                if name.isupper() and not name.startswith("_") and isinstance(value, int | float):
                    found[f"{module_name}.{name}"] = value
    return found


def syntax_trees() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package.parent).with_suffix("").parts
            name = ".".join(parts).removesuffix(".__init__")
            if not name.endswith("__main__"):
                yield name, ast.parse(path.read_text(encoding="utf-8"))


def strings() -> list[str]:
    trees = [tree for _, tree in syntax_trees()]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return [node.value for node in nodes if isinstance(node.value, str)]


def spell(default: object) -> str:
    """Return a default as the tables write it."""
    match default:
        case None | "":
            return "unset"
        case bool():
            return str(default).lower()
        case float():
            return f"{default:.17g}" if default.is_integer() else repr(default)
        case _:
            return str(default)


# --- settings -------------------------------------------------------------------------------------------------------


def test_backend_table_has_every_variable_with_default_and_rule() -> None:
    documented = defaults_and_rules("Backend", "variable")
    fields = {field.encode_name: field.default for field in msgspec.structs.fields(Settings)}
    assert documented == {name: (spell(fields[name]), ALLOWED[name]) for name in fields}


def test_secrets_that_files_may_hold_are_named() -> None:
    text = read("docs/configuration.md").partition("\n### Secrets in files\n")[2].partition("\n### ")[0]
    named = text.partition("for these: ")[2].partition(". ")[0]
    assert re.findall(r"`([A-Z_0-9]+)`", named) == list(SECRETS)


def test_agent_table_has_every_variable_with_its_default() -> None:
    documented = {name: default for name, (default, _) in defaults_and_rules("Agent", "variable").items()}
    config = pcs_agent.config.load_config({})
    assert (config.signer, config.algorithm, config.params) == (None, "none", Params())
    assert documented == dict.fromkeys(AGENT_VARIABLES, "unset") | {
        "ENDPOINT": spell(config.endpoint),
        "SIGN_REQUESTS": "true",
        "TLS_VERIFY": "true",
        "OUTBOX_DIR": config.outbox_dir,
        "OUTBOX_RETENTION_DAYS": spell(config.retention_days),
        "DELIVERY_DEADLINE_S": spell(config.deadline_s),
        "BATCH_RECORDS": spell(config.batch_records),
        "BATCH_GZIP": spell(config.batch_gzip),
        "LOG_LEVEL": config.log_level,
    }


@pytest.mark.parametrize(
    "name",
    [
        "ENDPOINT",
        "PCS_SIGN_ALG",
        "SIGN_REQUESTS",
        "TLS_VERIFY",
        "OUTBOX_RETENTION_DAYS",
        "DELIVERY_DEADLINE_S",
        "BATCH_RECORDS",
        "BATCH_GZIP",
        "LOG_LEVEL",
    ],
)
def test_agent_table_allows_what_the_agent_says_it_allows(name: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        pcs_agent.config.load_config({name: "?"})
    allowed = str(refusal.value).partition("allowed: ")[2]
    assert defaults_and_rules("Agent", "variable")[name][1] == allowed


def test_parameter_table_has_every_parameter_with_default_and_rule() -> None:
    documented = defaults_and_rules("Parameters", "name")
    expected = {}
    for field in msgspec.structs.fields(Params):
        with pytest.raises(ParamsError) as refusal:
            parse_params(f"{field.name} = -1")
        expected[field.name] = (spell(field.default), str(refusal.value).partition("allowed: ")[2])
    assert documented == expected


# --- metrics, messages, bounds, contract ----------------------------------------------------------------------------


def test_metrics_table_has_every_metric_of_a_service_with_type_and_label(tmp_path: Path) -> None:
    service = Service(load_config({"DATA_DIR": str(tmp_path)}), real_ports())
    expected = {}
    for family in service._engine.metrics.registry.collect():
        labels = {name for sample in family.samples for name in sample.labels if name != "le"}
        name = family.name + ("_total" if family.type == "counter" else "")
        expected[name] = family.type + "".join(f" by `{label}`" for label in sorted(labels))
    documented = table("docs/operations.md", "Metrics", "metric")
    assert {name: cells[0] for name, cells in documented.items()} == expected


@every_page
def test_metrics_a_page_names_exist(page: Path) -> None:
    named = set(re.findall(r"\bflk_[a-z_]*[a-z]\b", page.read_text(encoding="utf-8"))) - {"flk_tenant"}
    assert named <= set(table("docs/operations.md", "Metrics", "metric"))


def test_alerts_table_has_every_alert_with_severity_and_runbook() -> None:
    rules = yaml.safe_load(read("grafana/rules/pcs-backend.rules.yaml"))
    expected = {
        rule["alert"]: [rule["labels"]["severity"], rule["annotations"]["runbook_url"]]
        for group in rules["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    documented = table("docs/observability.md", "Alerts", "alert")
    found = {
        alert: [severity, *(f"docs/{path}" for path in re.findall(r"\]\(([^)]+)\)", runbook))]
        for alert, (severity, runbook, _) in documented.items()
    }
    assert found == expected


def test_pictures_are_of_panels_and_all_are_shown() -> None:
    panels = {
        panel["title"]
        for path in ROOT.glob("grafana/dashboards/*.json")
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]
    }
    shown = re.findall(r"!\[([^\]]+)\]\(pictures/([a-z0-9-]+\.svg)\)", read("docs/observability.md"))
    assert "](pictures/evaluation.svg)" in read("docs/evaluation.md")
    names = {name for _, name in shown} | {"evaluation.svg"}
    assert names == {path.name for path in ROOT.glob("docs/pictures/*.svg")}
    for title, name in shown:
        assert title in panels
        assert f"<title>{title}</title>" in read(f"docs/pictures/{name}")


def test_pictures_of_pages_are_shown_and_small() -> None:
    shown = re.findall(r"!\[[^\]]+\]\(pictures/([a-z0-9-]+\.png)\)", read("docs/report.md"))
    found = {path.name: path.stat().st_size for path in ROOT.glob("docs/pictures/*.png")}
    assert set(shown) == found.keys()
    assert max(found.values()) < 200_000


def test_messages_in_operations_are_messages_of_the_code() -> None:
    said = strings()
    documented = table("docs/operations.md", "What the backend says, and what to do", "message")
    assert [message for message in documented if not any(message in each for each in said)] == []


def test_bounds_table_has_every_bound_with_its_value() -> None:
    known = constants()
    documented = {
        name: float(cells[0].replace(",", ""))
        for name, cells in table("docs/architecture.md", "Bounds", "constant").items()
    }
    assert documented == {name: float(known[name]) for name in documented}
    bounds = {name for name in known if {"MAX", "TIMEOUT", "INTERVAL"} & set(name.split(".")[-1].split("_"))}
    assert bounds - documented.keys() == set()


def test_contract_lists_the_fields_reasons_and_problems_of_the_code() -> None:
    added = list(table("docs/contract.md", "1. The record", "field of 0.2"))
    assert added == list(ADDED_FIELDS)
    fields = list(table("docs/contract.md", "1. The record", "field"))
    assert [*fields, *added] == list(Record.__struct_encode_fields__)
    text = read("docs/contract.md")
    reasons = text.partition("The reasons are stable codes:")[2].partition(".")[0]
    assert re.findall(r"`(\w+)`", reasons) == list(get_args(Reason))
    problems = text.partition("`urn:pcs:problem:` and one of ")[2].partition(".")[0]
    assert re.findall(r"`([\w-]+)`", problems) == [problem.code for problem in Problem]


# --- names, paths, commands -----------------------------------------------------------------------------------------


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, target


def test_every_threat_is_met_by_a_test_that_exists() -> None:
    rows = table("docs/security.md", "Threats", "threat")
    assert len(rows) > 20
    for threat, (_, tests) in rows.items():
        named = code(tests)
        assert named, threat
        for each in named:
            path, _, name = each.partition("::")
            source = read(path)
            assert not name or re.search(rf"^class {name}\b|^(async )?def {name}\b", source, re.MULTILINE), (
                each
            )


@every_page
def test_files_a_page_names_exist(page: Path) -> None:
    made = {"build", "dist"}  # by commands that need not have run
    rooms = {path.name for path in ROOT.iterdir() if path.is_dir()} - made | {
        "helm",
        "compose",
        "grafana",
        "load",
    }
    for span in code(page.read_text(encoding="utf-8")):
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", span) is None:
            continue
        first, slash, _ = span.partition("/")
        if slash and first in rooms:
            assert (ROOT / span).exists(), span
        elif not slash and re.search(r"\.(py|md|toml)$", span):
            assert (ROOT / span).exists() or [*ROOT.glob(f"*/pcs_*/**/{span}")] != [], span


def test_map_names_files_in_their_rooms() -> None:
    rooms = table("CLAUDE.md", "Map", "room")
    assert {str(package.relative_to(ROOT)) + "/" for package in PACKAGES} <= rooms.keys()
    for room, (held,) in rooms.items():
        assert (ROOT / room).is_dir(), room
        for name in re.findall(r"`(\w+\.py)`", held):
            assert (ROOT / room / name).is_file(), f"{room}{name}"


@every_page
def test_python_names_a_page_names_exist(page: Path) -> None:
    for span in code(page.read_text(encoding="utf-8")):
        for dotted in re.findall(r"\bpcs_(?:core|backend|agent)(?:\.\w+)+", span):
            assert resolves(dotted), dotted


def resolves(dotted: str) -> bool:
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            fields = getattr(found, "__struct_fields__", ())
            if not hasattr(found, name) and name not in fields:
                return False
            found = getattr(found, name, None)
        return True
    return False


@every_page
def test_variables_a_page_names_are_known(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    placeholders = {
        word
        for command in commands(COMMANDS.values())
        for parameter in command.params
        for word in re.findall(r"\w+", parameter.metavar or "")
    }
    names = {name.split(".")[-1] for name in constants()} | VARIABLES | placeholders | compose_variables()
    assert set(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", text)) - names == set()
    known = VARIABLES | make_variables() | load_variables()
    assert set(re.findall(r"(?<![\w.])([A-Z][A-Z0-9_]*)=", text)) - known == set()


def load_variables() -> set[str]:
    """What the load scripts read, and Python itself."""
    k6, locust = read("load/k6.js"), read("load/locustfile.py")
    return {"PYTHONPATH", *re.findall(r"__ENV\.([A-Z]+)", k6), *re.findall(r'environ\["([A-Z]+)"\]', locust)}


def compose_variables() -> set[str]:
    return set(re.findall(r"^([A-Z_]+)=", read("compose/.env"), re.MULTILINE))


def commands(roots: Iterable[click.Command]) -> Iterator[click.Command]:
    for command in roots:
        yield command
        if isinstance(command, click.Group):
            yield from commands(command.commands.values())


@every_page
def test_commands_and_options_a_page_names_exist(page: Path) -> None:
    for line in code(page.read_text(encoding="utf-8")):
        for match in re.finditer(r"(?:^|[\s/])(pcs-agent|pcs-backend)((?: +[^\s|#;&]+)*)", line):
            command, options = COMMANDS[match[1]], {"--help", "--version"}
            for word in match[2].split():
                if isinstance(command, click.Group) and not word.startswith("-"):
                    assert word in command.commands, line
                    command = command.commands[word]
                options |= {option for parameter in command.params for option in parameter.opts}
                assert not word.startswith("-") or word == "-" or word in options, line


def test_every_command_is_in_the_changelog() -> None:
    leaves = {" ".join((*path, name)) for root in COMMANDS.values() for path, name in leaf_names(root, ())}
    assert leaves - set(code(read("CHANGELOG.md"))) == set()


def leaf_names(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    assert isinstance(command, click.Group)
    for name, child in command.commands.items():
        if isinstance(child, click.Group):
            yield from leaf_names(child, (*path, name))
        else:
            yield path, name


@every_page
def test_make_targets_a_page_names_exist(page: Path) -> None:
    named = {
        target
        for line in code(page.read_text(encoding="utf-8"))
        for target in re.findall(r"\bmake ([a-z-]+)", line)
    }
    assert named - make_targets() == set()


def test_every_make_target_is_in_the_table_of_commands() -> None:
    documented = {name.removeprefix("make ") for name in table("CLAUDE.md", "Commands", "command")}
    assert documented == make_targets() - {"help"}


def make_variables() -> set[str]:
    return set(re.findall(r"^([A-Z]+) \?=", read("Makefile"), re.MULTILINE))


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", read("Makefile"), re.MULTILINE))


# --- examples, form -------------------------------------------------------------------------------------------------


@every_page
def test_examples_run(page: Path) -> None:
    text = re.sub(r"^```.*$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    examples = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    assert doctest.DocTestRunner().run(examples).failed == 0


def test_pages_with_examples_have_them() -> None:
    with_examples = {page.name for page in PAGES if ">>> " in page.read_text(encoding="utf-8")}
    assert with_examples >= {"contract.md", "configuration.md", "extending.md"}


def test_decisions_are_numbered_without_gaps_and_have_their_three_parts() -> None:
    decisions = sorted((ROOT / "docs/adr").iterdir())
    assert [path.name[:4] for path in decisions] == [
        f"{number:04}" for number in range(1, len(decisions) + 1)
    ]
    for number, path in enumerate(decisions, start=1):
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {number}. "), path.name
        assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]


@every_page
def test_no_page_names_a_path_or_address_of_some_machine(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"(?:/home/|/root/|/work/|/Users/)\S*", text) == []
    addresses = re.findall(r"\b\d{1,3}(?:\.\d{1,3}){3}\b", text)
    assert {address for address in addresses if not address.startswith(("127.0.0.", "0.0.0.0"))} == set()
