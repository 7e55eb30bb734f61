"""Power cuts and kills under load: nothing acknowledged is lost, nothing is doubled; and the harness would notice."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from crash.image import why_unavailable
from processes import clean_environment

pytestmark = [pytest.mark.slow]

POWER_CUTS = 25
KILLS = 10
MUTANT_CUTS_MAX = 40
TIMEOUT_S = 600.0
TABLE = "power cuts and kills: level | place | cuts | least acknowledged since the last | least in flight"
_LAST_LINE = re.compile(r"cuts (\d+) acknowledged (\d+) lost (\d+) doubled (\d+)")


@pytest.fixture(name="level", params=["power", "kill"])
def _level(request: pytest.FixtureRequest, record_property: object) -> str:
    return require_level(request.param, record_property)


@pytest.fixture(name="power_level")
def _power_level(record_property: object) -> str:
    return require_level("power", record_property)


def require_level(level: str, record_property: object) -> str:
    """Skip, and let the summary say so, where this machine cannot cut power."""
    assert callable(record_property)
    name = "power cut" if level == "power" else "kill"
    reason = why_unavailable() if level == "power" else None
    record_property("durability_level", f"{name}: {reason}" if reason else "")
    if reason:
        pytest.skip(f"{name}: {reason}")
    return level


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "crash", *arguments]


def environment() -> dict[str, str]:
    return clean_environment(PYTHONPATH=str(Path(__file__).parents[1]))


def run(*arguments: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, *command(*arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def sums(done: subprocess.CompletedProcess[str]) -> tuple[int, int, int, int]:
    """Return cuts, acknowledged, lost and doubled of the last line."""
    found = _LAST_LINE.fullmatch(done.stdout.splitlines()[-1] if done.stdout else "")
    assert found is not None, done.stdout + done.stderr
    cuts, acknowledged, lost, doubled = map(int, found.groups())
    return cuts, acknowledged, lost, doubled


def places(done: subprocess.CompletedProcess[str]) -> dict[str, tuple[int, int, int]]:
    """Return cuts, least acknowledged under load and least in flight by place."""
    rows = re.findall(r"^(\w[\w ]*?)  +(\d+) +(\d+) +(\d+) +(\d+)$", done.stdout, re.MULTILINE)
    return {name: (int(cuts), int(under_load), int(least)) for name, cuts, _, under_load, least in rows}


def test_cuts_under_load_lose_nothing_and_double_nothing(level: str, record_property: object) -> None:
    """L3, L4, L7, L19, L20, at the places where each of them would show."""
    assert callable(record_property)
    wanted = POWER_CUTS if level == "power" else KILLS
    done = run("--level", level, "--cuts", str(wanted))
    cuts, acknowledged, lost, doubled = sums(done)
    assert (cuts, lost, doubled, done.returncode) == (wanted, 0, 0, 0), done.stdout + done.stderr
    assert acknowledged >= 100 * wanted
    found = places(done)
    for place, (count, under_load, in_flight) in found.items():
        record_property(TABLE, f"{level} | {place} | {count} | {under_load} | {in_flight}")
    assert sum(cuts for cuts, _, _ in found.values()) == wanted
    assert all(under_load >= 100 and in_flight >= 32 for _, under_load, in_flight in found.values())
    if level == "power":
        assert found.keys() >= {"append", "rotation", "snapshot", "compaction", "replay"}


@pytest.mark.parametrize(
    ("mutant", "place"),
    [
        ("no-sync", "append"),
        ("early-acknowledgement", "append"),
        ("sync-before-write", "append"),
        ("rename-before-sync", "compaction"),
        ("no-sync", "outbox append"),
    ],
)
def test_power_cuts_show_what_a_broken_product_loses(power_level: str, mutant: str, place: str) -> None:
    """A harness that cannot fail is worth nothing."""
    done = run(
        *("--level", power_level, "--cuts", str(MUTANT_CUTS_MAX), "--stop-at-loss", "--no-postgres"),
        *("--mutant", mutant, "--place", place),
    )
    _, _, lost, _ = sums(done)
    assert (lost > 0, done.returncode) == (True, 1), done.stdout + done.stderr


def test_kills_show_what_a_broken_product_doubles() -> None:
    """A kill leaves the kernel's caches, so that a missing sync does not show; a wrong step does, on any machine."""
    done = run(
        *("--level", "kill", "--cuts", str(MUTANT_CUTS_MAX), "--stop-at-loss", "--no-postgres"),
        *("--mutant", "no-dedup", "--place", "append"),
    )
    _, _, _, doubled = sums(done)
    assert (doubled > 0, done.returncode) == (True, 1), done.stdout + done.stderr


def is_held(backing: Path) -> bool:
    """Whether a loop device still has an image of ours."""
    try:
        return "pcs-crash" in backing.read_text()
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_stays_behind_a_run_that_is_ended(power_level: str, number: signal.Signals) -> None:
    with subprocess.Popen(
        command("--level", power_level, "--cuts", "1000", "--no-postgres", "--verbose"),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        _, folder, device = process.stderr.readline().split()
        assert "CutRecord" in process.stderr.readline()  # under way: a mount, backends, a server of forks
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 2
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as Ctrl-C does
        else:
            process.kill()
        process.stderr.read()
        process.wait(TIMEOUT_S)
    assert psutil.wait_procs(family, TIMEOUT_S)[1] == []
    assert list(Path(folder).glob("*")) == []
    assert Path(folder).exists() is (number == signal.SIGKILL)
    backing = Path("/sys/block") / Path(device).name / "loop" / "backing_file"
    gone_until_s = (
        time.monotonic() + TIMEOUT_S
    )  # the kernel gives the device back a moment after its last user
    while is_held(backing):
        assert time.monotonic() < gone_until_s
        time.sleep(0.05)


def test_without_root_the_reason_is_one_line() -> None:
    """In a user namespace without a mapping nobody is root."""
    done = run(before=("unshare", "--user") if os.geteuid() == 0 else ())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "the power cut cannot run here: needs root\n"
