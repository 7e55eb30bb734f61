"""Starts the engine on one target for one turn, and reads what it did."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.targets import TARGETS

TESTS = Path(__file__).parents[1]
CORPUS = Path(__file__).parent / "corpus"
INPUT_BYTES_MAX = 16_384
INPUT_S_MAX = 10
"""An input that takes longer is a crash."""

MEMORY_MB_MAX = 1_024
TURN_TIMEOUT_S = 180.0
"""Beyond the turn's own length: start, and the corpora read at first."""

_EXECUTIONS = re.compile(r"^stat::number_of_executed_units:\s*(\d+)", re.MULTILINE)
_NEW_INPUTS = re.compile(r"^stat::new_units_added:\s*(\d+)", re.MULTILINE)
_SECONDS = re.compile(r"^Done \d+ runs in (\d+) second", re.MULTILINE)
_SAVED = re.compile(r"Test unit written to (\S+)")
_ERROR = re.compile(r"^([\w.]*(?:Error|Exception|Interrupt|Exit)\b.*)$", re.MULTILINE)


@dataclass
class Tally:
    """What a target did.

    Attributes:
        executions: Inputs it was given.
        seconds: For how long.
        new_inputs: Inputs that took a new branch.
        crashes: What went wrong, with the file of the input.
    """

    executions: int = 0
    seconds: float = 0.0
    new_inputs: int = 0
    crashes: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.executions += other.executions
        self.seconds += other.seconds
        self.new_inputs += other.new_inputs
        self.crashes += other.crashes


def run_turn(
    name: str,
    seconds: float,
    work: Path,
    scratch: Path,
    *,
    corpus: Path = CORPUS,
    options: Sequence[str] = (),
) -> Tally:
    """Fuzz one target.

    Args:
        name: Of the target, or `module:function`.
        seconds: For how long.
        work: Folder of the inputs found; made if missing.
        scratch: Where the dictionary goes.
        corpus: Folder of the first inputs, a folder a target; crashes are saved there.
        options: Further ones of libFuzzer.
    """
    first = corpus / name.rpartition(":")[2]
    for folder in (work, first):
        folder.mkdir(parents=True, exist_ok=True)
    words = scratch / "words"
    target = TARGETS.get(name)
    words.write_text(
        "".join(f'"{_escape(word)}"\n' for word in target.words) if target else "# none\n", encoding="ascii"
    )
    bounds = (
        f"-max_len={INPUT_BYTES_MAX}",
        f"-timeout={INPUT_S_MAX}",
        f"-rss_limit_mb={MEMORY_MB_MAX}",
        f"-max_total_time={max(1, round(seconds))}",
    )
    output = (f"-dict={words}", f"-artifact_prefix={first}{os.sep}", "-print_final_stats=1", "-verbosity=1")
    done = subprocess.run(
        [sys.executable, "-m", "fuzz.engine", name, *bounds, *output, *options, str(work), str(first)],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        timeout=seconds + TURN_TIMEOUT_S,
        check=False,
    )
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    crashes = []
    if done.returncode:
        saved = _SAVED.search(said)
        error = (_ERROR.findall(said) or [f"exit code {done.returncode}"])[0]
        crashes.append(f"{error}; input {saved[1] if saved else 'not saved: ' + said[-2_000:]}")
    return Tally(
        _number(_EXECUTIONS, said), _number(_SECONDS, said) or seconds, _number(_NEW_INPUTS, said), crashes
    )


def _number(pattern: re.Pattern[str], text: str) -> int:
    match = pattern.search(text)
    return int(match[1]) if match else 0


def _escape(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)
