"""The benchmark of the signals runs, and its run from a file stays within its memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from processes import clean_environment

SCRIPT = Path(__file__).parents[2] / "load/agent_signals.py"


@pytest.mark.slow
def test_short_run() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--short"],
        env=clean_environment(OPENBLAS_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line for line in done.stdout.splitlines() if " × " in line and line.startswith("| 1")]
    assert [line.split(" | ")[0] for line in lines] == [
        "| 1,000 × 3",
        "| 10,000 × 3",
        "| 1,000 × 64",
        "| 10,000 × 64",
    ]
    assert "20,000 × 64 float32 from a file of 5 MiB" in done.stdout
