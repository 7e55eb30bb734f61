"""What the chart sets is what the backend takes: every variable is one of its settings, and the values are good ones."""

from __future__ import annotations

import functools
import re
import shlex
from pathlib import Path

import msgspec
import pytest
import yaml

from deploy.charts import CASES, CHART, ROOT, SHARED, Manifest, materialise, of_kind, rendered, template
from pcs_backend.config import ALLOWED, Settings, load_config
from processes import run

pytestmark = [pytest.mark.slow]

Secrets = dict[str, dict[str, str]]
UNSIGNED = "PCS_SIGN_ALG is none: any record is believed to be from whom it says"


def backends(case: str) -> list[Manifest]:
    return of_kind(rendered(case), "StatefulSet")


def environment(case: str, secrets: Secrets, folder: Path) -> dict[str, str]:
    return materialise(rendered(case), backends(case)[0]["spec"]["template"]["spec"], secrets, folder)


@pytest.mark.parametrize("case", CASES)
def test_backend_takes_what_the_chart_sets(case: str, secrets: Secrets, tmp_path: Path) -> None:
    variables = environment(case, secrets, tmp_path)
    assert variables.keys() - ALLOWED.keys() == set()
    assert "" not in variables.values()
    config = load_config(variables)
    warnings = [
        warning for warning in config.warnings if "`otel`" not in warning
    ]  # an extra that may be absent here
    assert warnings == ([UNSIGNED] if case in {"signing off", "nothing secret"} else [])
    assert config.settings.host == "0.0.0.0"
    assert config.settings.dedup_backend == variables["DEDUP_BACKEND"]


def test_every_setting_of_the_backend_can_be_made(secrets: Secrets, tmp_path: Path) -> None:
    made = {
        name
        for number, case in enumerate(CASES)
        for name in environment(case, secrets, tmp_path / str(number))
    }
    with_secret = made | {"PCS_HMAC_KEYS"}  # a key of the Secret that may be absent, as it is here
    # The full URL of the same collector needs no value of its own.
    assert ALLOWED.keys() - with_secret == {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"}


def test_numbers_arrive_in_full(secrets: Secrets, tmp_path: Path) -> None:
    settings = load_config(environment("large numbers", secrets, tmp_path)).settings
    assert settings.bodies_max_bytes == 2**40
    assert settings.disk_free_min_bytes == 2**50
    assert settings.token_rate == 1_000_000
    assert settings.drain_timeout_s == 0.25
    assert settings.message_signature_max_age_s == 0.00001


def test_parameters_and_keys_arrive(secrets: Secrets, tmp_path: Path) -> None:
    assert load_config(environment("parameters", secrets, tmp_path / "a")).params.tol_d == 0.1
    trust = load_config(environment("production", secrets, tmp_path / "b")).trust.current
    assert [entry.tenant for entry in trust.keyring.entries][:1] == ["plants"]
    assert trust.require_message_signature is True


def test_defaults_of_the_chart_are_those_of_the_backend() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["env"]
    defaults = {field.encode_name: field.default for field in msgspec.structs.fields(Settings)}
    assert {name: defaults[snake(name)] for name in values} == values


def snake(name: str) -> str:
    """`maxBodyBytes` → `MAX_BODY_BYTES`, as the chart spells it."""
    return "".join(f"_{letter}" if letter.isupper() else letter.upper() for letter in name)


@pytest.mark.parametrize("case", ["defaults", "redis by secret", "postgres"])
def test_check_config_is_content(
    case: str, secrets: Secrets, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    own = dict(secrets["pcs-verification-keys"])
    if case == "redis by secret":
        own["REDIS_ADDR"] = request.getfixturevalue("redis_address")
    if case == "postgres":
        own["POSTGRES_DSN"] = request.getfixturevalue("postgres_dsn")
    variables = environment(case, secrets | {"pcs-verification-keys": own}, tmp_path)
    done = run("pcs-backend", "check-config", **variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"configuration is valid")


def test_check_config_names_a_setting_that_the_backend_does_not_take(
    secrets: Secrets, tmp_path: Path
) -> None:
    variables = environment("defaults", secrets, tmp_path) | {"TOKEN_RATE": "many"}
    done = run("pcs-backend", "check-config", **variables)
    assert done.returncode == 2
    assert b"TOKEN_RATE" in done.stderr


def test_values_and_defaults_of_the_docs_are_those_of_the_chart() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    page = (ROOT / "docs/helm.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-zA-Z.]+)` \| (?:`(.+?)`|none) \|", page, re.MULTILINE)
    assert len(rows) > 10
    documented = {name: yaml.safe_load(default) if default else [] for name, default in rows}
    assert documented == {
        name: functools.reduce(dict.__getitem__, name.split("."), values) for name in documented
    }
    # Those named in the text, too.
    for name in re.findall(r"`([a-z][a-zA-Z]*(?:\.[a-zA-Z]+)+)`", page):
        assert functools.reduce(dict.__getitem__, name.split("."), values) is not None, name


def test_sets_of_the_docs_are_taken() -> None:
    """What the page sets on command lines is what the schema takes."""
    page = (ROOT / "docs/helm.md").read_text(encoding="utf-8")
    lines = [line for line in re.sub(r"\\\n", "", page).splitlines() if line.startswith("helm upgrade")]
    assert len(lines) == 3
    for line in lines:
        options = [word for word in shlex.split(line) if "=" in word]
        done = template(SHARED, *(each for option in options for each in ("--set", option)))
        assert done.code == 0, done.error
