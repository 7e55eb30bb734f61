"""`python -m pcs_backend.probe`: what a container's health check asks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from processes import Backend, clean_environment

pytestmark = [pytest.mark.slow]


def probe(data_dir: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pcs_backend.probe", *arguments],
        env=clean_environment(DATA_DIR=str(data_dir)),
        capture_output=True,
        check=False,
        timeout=20,
    )
    assert done.stdout == b""
    return done.returncode, done.stderr.decode()


def test_answers_while_it_serves_and_not_before_or_after(tmp_path: Path) -> None:
    data = tmp_path / ("long" * 40)  # longer than a socket's address may be
    assert probe(data)[0] == 1
    with Backend(data) as backend:
        for arguments in ([], ["ready"], ["startup"], ["live"]):
            assert probe(data, *arguments) == (0, "")
        assert backend.stop() == 0
    code, message = probe(data)
    assert (code, message) == (
        1,
        "pcs-backend: the serving process does not answer (No such file or directory)\n",
    )


def test_says_why_it_is_not_ready(tmp_path: Path) -> None:
    with Backend(tmp_path, DISK_FREE_MIN_BYTES=str(2**50)) as backend:
        code, message = probe(tmp_path, "ready")
        assert (code, "the disk is nearly full" in message) == (1, True)
        assert probe(tmp_path, "live") == (0, "")
        assert backend.stop() == 0


@pytest.mark.parametrize("arguments", [["dead"], ["live", "ready"]])
def test_another_argument_is_refused(tmp_path: Path, arguments: list[str]) -> None:
    assert probe(tmp_path, *arguments) == (
        2,
        "pcs-backend: argument: found another one; allowed: live, startup, ready\n",
    )
