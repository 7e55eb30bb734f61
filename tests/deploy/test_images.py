"""The Dockerfiles: linted by hadolint, and what they copy and install is enough for the command, and no more.

No container engine is at hand, so no image is built. What a build would do is done in a folder instead: the files that
the first stage copies, installed with the pinned versions into an environment of their own.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from composing import BASE, ROOT, resolve
from processes import clean_environment, command

pytestmark = [pytest.mark.slow]

SIDES = ("backend", "agent")
EXTRAS = {"backend": "backend,otel", "agent": "agent"}
TIMEOUT_S = 300.0
every_side = pytest.mark.parametrize("side", SIDES)


class Instruction(NamedTuple):
    name: str
    text: str


def instructions(side: str) -> list[list[Instruction]]:
    """Return the instructions of each stage; the first list is what comes before any."""
    text = (ROOT / "compose" / f"{side}.Dockerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    stages: list[list[Instruction]] = [[]]
    for line in filter(None, text.splitlines()):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            stages.append([])
        stages[-1].append(Instruction(name, " ".join(rest.split())))
    return stages


def named(stage: list[Instruction], name: str) -> list[str]:
    return [each.text for each in stage if each.name == name]


def lint(path: Path) -> subprocess.CompletedProcess[str]:
    options = ["--failure-threshold", "style", "--no-color"]
    return subprocess.run(
        [command("hadolint"), *options, str(path)], capture_output=True, text=True, check=False
    )


@every_side
def test_hadolint_has_nothing_to_say(side: str) -> None:
    done = lint(ROOT / "compose" / f"{side}.Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_would_say_it(tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text("FROM python:latest\nRUN cd /tmp\n")
    done = lint(path)
    assert (done.returncode, sorted(set(re.findall(r"DL\d+", done.stdout)))) == (1, ["DL3003", "DL3007"])


@every_side
def test_last_stage_holds_what_was_built_and_runs_as_nobody_special(side: str) -> None:
    before, build, last = instructions(side)
    assert named(build, "FROM") == ["${PYTHON_IMAGE} AS build"]
    assert named(last, "FROM") == ["${PYTHON_IMAGE}"]
    assert named(last, "COPY") == ["--from=build /opt/pcs /opt/pcs"]
    assert not re.search(r"apt|apk|gcc|g\+\+|make|pip install|curl|wget", " ".join(named(last, "RUN")))
    assert "pip uninstall --quiet --yes pip setuptools wheel" in " ".join(named(last, "RUN"))
    assert named(last, "USER") == ["10001:10001"]
    assert named(last, "ENTRYPOINT") == [f'["pcs-{side}"]']
    assert named(last, "VOLUME") == ['["/data"]' if side == "backend" else '["/outbox"]']
    (default,) = named(before, "ARG")
    service = resolve(BASE)["services"][side]
    assert default == f"PYTHON_IMAGE={service['build']['args']['PYTHON_IMAGE']}"
    assert service["user"] == "10001:10001"
    assert Path(service["build"]["context"]) == ROOT
    if side == "backend":
        check = service["healthcheck"]
        assert named(last, "HEALTHCHECK")[0].endswith('CMD ["python", "-m", "pcs_backend.probe"]')
        assert check["test"] == ["CMD", "python", "-m", "pcs_backend.probe"]


@every_side
def test_what_is_copied_is_let_through_and_little_else(side: str) -> None:
    _, build, _ = instructions(side)
    copied = {word for text in named(build, "COPY") for word in text.split()[:-1]}
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied


@every_side
def test_first_stage_builds_the_command_and_only_its_side(side: str, tmp_path: Path) -> None:
    _, build, _ = instructions(side)
    source, environment = tmp_path / "src", tmp_path / "opt"
    source.mkdir()
    for text in named(build, "COPY"):
        *what, place = text.split()
        for each in what:
            if (ROOT / each).is_dir():
                shutil.copytree(ROOT / each, source / place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / each, source)
    make, install = named(build, "RUN")
    assert shlex.split(make) == ["python", "-m", "venv", "--without-pip", "/opt/pcs"]
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    words = shlex.split(install)
    assert words[:6] == ["python", "-m", "pip", "--python", "/opt/pcs/bin/python", "install"]
    assert words[6:] == [
        "--no-cache-dir",
        "--disable-pip-version-check",
        "--constraint",
        "constraints.txt",
        f".[{EXTRAS[side]}]",
    ]
    # uv in the place of pip: the same versions in a tenth of the time.
    uv = [command("uv"), "pip", "install", "--quiet", "--python", environment / "bin" / "python"]
    subprocess.run([*uv, *words[8:]], cwd=source, check=True, timeout=TIMEOUT_S)
    variables = clean_environment(PATH=f"{environment}/bin:/usr/bin:/bin")
    done = subprocess.run(
        [f"pcs-{side}", "--version"], env=variables, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.startswith(f"pcs-{side}, version ")
    packages = {path.name for path in (environment / "lib").glob("python3.*/site-packages/*")}
    other = {"backend": {"pyarrow"}, "agent": {"asyncpg", "redis", "prometheus_client", "uvloop"}}
    tests = {"pytest", "hypothesis", "mypy", "pip", "tests"}
    assert packages & (other[side] | tests) == set()
    assert {"pcs_core", f"pcs_{side}", *({"opentelemetry"} if side == "backend" else ())} <= packages
