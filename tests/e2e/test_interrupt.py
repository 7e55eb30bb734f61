"""Ctrl-C in the first moments of either command, while its modules are imported."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from processes import WAIT_TIMEOUT_S, clean_environment

pytestmark = pytest.mark.slow

# A module that both command lines import, which interrupts its own process first.
CLICK = """
import os, signal
os.kill(os.getpid(), signal.SIGINT)
raise AssertionError("not interrupted")
"""
SCRIPT = "import sys; from {0}.__main__ import main; sys.argv = ['x', '--version']; main()"


@pytest.mark.parametrize("package", ["pcs_agent", "pcs_backend"])
def test_an_interrupt_during_the_imports_leaves_no_traceback(tmp_path: Path, package: str) -> None:
    (tmp_path / "click.py").write_text(CLICK, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(package)],
        env=clean_environment(PYTHONPATH=str(tmp_path)),
        capture_output=True,
        timeout=WAIT_TIMEOUT_S,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


@pytest.mark.parametrize("package", ["pcs_agent", "pcs_backend"])
def test_the_command_runs_as_a_module_and_an_interrupt_is_python_s_again(package: str) -> None:
    script = f"""
import signal, sys
from {package}.__main__ import main
sys.argv = ["x", "--version"]
try:
    main()
except SystemExit as ending:
    print(ending.code, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=clean_environment(),
        capture_output=True,
        timeout=WAIT_TIMEOUT_S,
        check=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert done.stdout.splitlines()[-1] == b"0 True"
