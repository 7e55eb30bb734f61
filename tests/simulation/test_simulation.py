"""The simulation as a test: seeds keep every promise, a seed is the same again, and each mutant is caught."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from simulation import __main__ as command
from simulation.coverage import BRANCHES_SHARE_MIN, MEASURED_SEEDS, PARTS, Covered, measure
from simulation.mutants import MUTANTS, catch
from simulation.summary import Summary, describe_failure
from simulation.world import Result, run_seed

pytestmark = [pytest.mark.slow]

KINDS = {
    *("power cut", "kill", "stop", "night", "power cut after a failed sync", "kill after a failed sync"),
    *(
        "disk",
        "disk full",
        "disk slow",
        "damage",
        "clock jump",
        "network",
        "partition",
        "store",
        "store outage",
    ),
}


@pytest.fixture(name="measured", scope="session")
def _measured() -> tuple[list[Result], list[Covered]]:
    return measure(range(MEASURED_SEEDS))


def test_seeds_break_no_promise(measured: tuple[list[Result], list[Covered]]) -> None:
    failures = [line for result in measured[0] if result.violations for line in describe_failure(result)]
    assert failures == []


def test_every_kind_of_fault_is_injected(measured: tuple[list[Result], list[Covered]]) -> None:
    faults = sum((result.faults for result in measured[0]), Counter[str]())
    assert KINDS - {kind.partition(":")[0] for kind in faults} == set()
    figures = sum((result.figures for result in measured[0]), Counter[str]())
    assert figures["acknowledged"] > 20 * MEASURED_SEEDS
    assert figures["damages reported"] > 0


@pytest.mark.parametrize("part", PARTS)
def test_seeds_cover_the_branches_of_the_shipped_code(
    measured: tuple[list[Result], list[Covered]], part: str
) -> None:
    (covered,) = [each for each in measured[1] if each.name == part]
    assert covered.branches > 20
    assert covered.share >= BRANCHES_SHARE_MIN, [each for each in measured[1] if each.missing]


@pytest.mark.parametrize("seed", [6, 5], ids=["memory store", "shared store"])
def test_a_seed_is_the_same_again_in_another_process(seed: int) -> None:
    """Also where strings have other hashes, and whatever ran before."""
    once = run_seed(seed)
    program = "import sys; from simulation.world import run_seed; print(run_seed(int(sys.argv[1])).digest)"
    again = subprocess.run(
        [sys.executable, "-c", program, str(seed)],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert once.events > 100
    assert again.stdout.strip() == once.digest


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str) -> None:
    caught = catch(name)
    assert caught is not None


def test_a_seed_that_breaks_a_promise_fails_the_run_and_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    caught = catch("reused sequence number")
    assert caught is not None
    summary = Summary()
    summary.add(caught.result)
    assert list(summary.lines())[-1].endswith(f"violations {len(caught.result.violations)}")
    seed = caught.result.seed
    assert list(describe_failure(caught.result))[-1].endswith(f"make simulate SEED={seed}")

    mutant = MUTANTS["reused sequence number"]
    monkeypatch.setattr(
        command, "run_seed", lambda seed, echo: run_seed(seed, echo=echo, changed=mutant.apply)
    )
    assert command.run_one(seed) == 1
    printed = capsys.readouterr().out.splitlines()
    assert f"seed {seed}: {caught.result.violations[0]}" in printed
    assert printed[-1].split()[5] == caught.result.digest
