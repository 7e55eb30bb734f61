"""How many streams are told from one, and what is refused before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

COMMON = ("--shard-id", "s", "--epoch", "0")


@pytest.fixture
def tree(agent: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("data/a.csv", "more/a.csv", "b.csv"):
        (agent.folder / name).parent.mkdir(exist_ok=True)
        agent.write(name, "x\n1\n2\n")
    (agent.folder / "empty").mkdir()
    monkeypatch.chdir(agent.folder)
    return agent.folder


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            ("b.csv", "--jobs", "2"),
            "--jobs: found with one stream; allowed: with many, a folder, a pattern or --each",
        ),
        (("b.csv", "--engine", "dask"), "--engine: found with one stream"),
        (("data", "--cluster", "tcp://127.0.0.1:1"), "--cluster: found without a cluster's engine"),
        (("data", "b.csv"), "b.csv: found a file beside a folder or pattern; allowed: one kind, or --each"),
        (("data", "-"), "standard input: found beside many streams"),
        (("-", "--each"), "standard input: found beside many streams"),
        (("data", "more"), "more/a.csv: found the shard of data/a.csv"),
        (("empty",), "empty: found a folder without any file of events"),
        (("data/*.npy",), "data/*.npy: found a pattern without any file of events"),
        (("data", "--jobs", "0"), "'--jobs'"),
    ],
)
def test_what_is_no_run_over_many_streams_is_refused(
    agent: Any, tree: Path, arguments: tuple[str, ...], problem: str
) -> None:
    result = agent("run", *arguments, *COMMON, ENDPOINT="http://127.0.0.1:9/v1/pcs/submit")
    assert result.exit_code == 2
    assert problem in " ".join(result.stderr.split())
    assert not (tree / "outbox").exists()


def test_an_engine_that_is_not_installed_is_named(
    agent: Any, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for engine, package in (("ray", "ray"), ("dask", "distributed")):
        monkeypatch.setitem(__import__("sys").modules, package, None)
        result = agent("run", "data", "--engine", engine, *COMMON, ENDPOINT="http://127.0.0.1:9/x")
        assert result.exit_code == 2
        assert (
            f"--engine: found {engine}, which is not installed; allowed: local, or {engine} with "
            f"pcs-verification[{engine}]" in " ".join(result.stderr.split())
        )
