"""The agent killed between append and acknowledgement, as a real process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

TIMEOUT_S = 60


def command(folder: Path, endpoint: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    environment = {"PATH": os.environ["PATH"], "ENDPOINT": endpoint, "OUTBOX_DIR": str(folder / "outbox")}
    return [str(Path(sys.executable).with_name("pcs-agent")), *arguments], environment


def run(folder: Path, endpoint: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    line, environment = command(folder, endpoint, *arguments)
    return subprocess.run(
        line, env=environment, cwd=folder, capture_output=True, timeout=TIMEOUT_S, check=False
    )


def lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


def test_nothing_is_lost_and_nothing_doubled_by_a_kill_before_the_acknowledgement(
    tmp_path: Path, threaded_backend: Any
) -> None:
    (tmp_path / "a.csv").write_text("x\n" + "".join(f"{index}\n" for index in range(12)), encoding="utf-8")
    arguments = ("run", "a.csv", "--shard-id", "a", "--epoch", "0", "--window", "4", "--json")
    threaded_backend.answer = lambda _: None  # takes the record and never answers
    line, environment = command(tmp_path, threaded_backend.endpoint, *arguments)
    with subprocess.Popen(line, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        assert threaded_backend.arrived.wait(TIMEOUT_S)
        process.kill()
        process.wait(TIMEOUT_S)
    threaded_backend.release.set()
    pending = lines(run(tmp_path, threaded_backend.endpoint, "outbox", "list", "--json").stdout)
    assert 1 <= len(pending) <= 3
    assert {entry["state"] for entry in pending} == {"pending"}

    threaded_backend.answer = lambda _: 200
    threaded_backend.received.clear()
    again = run(tmp_path, threaded_backend.endpoint, *arguments)
    assert again.returncode == 0, again.stderr
    assert sorted(threaded_backend.epochs()) == [0, 1, 2]
    entries = lines(run(tmp_path, threaded_backend.endpoint, "outbox", "list", "--json").stdout)
    assert [entry["state"] for entry in entries] == ["acked"] * 3
    assert len({entry["pcs_id"] for entry in entries}) == 3

    once_more = run(tmp_path, threaded_backend.endpoint, *arguments)
    assert [found["already_delivered"] for found in lines(once_more.stdout)] == [True] * 3
    assert len(threaded_backend.received) == 3


def test_the_installed_command_streams_windows_while_standard_input_is_open(
    tmp_path: Path, threaded_backend: Any
) -> None:
    """A window is delivered when it is full, not when the stream ends."""
    arguments = ("run", "-", "--shard-id", "a", "--epoch", "0", "--window", "2", "--json")
    line, environment = command(tmp_path, threaded_backend.endpoint, *arguments)
    with subprocess.Popen(
        line, env=environment, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x\n1\n2\n3\n")
        process.stdin.flush()
        assert threaded_backend.arrived.wait(TIMEOUT_S)
        process.stdin.close()
        assert [found["epoch"] for found in lines(process.stdout.read())] == [0, 1]
        assert process.wait(TIMEOUT_S) == 0


def test_an_unknown_option_and_a_missing_key_leave_no_traceback(tmp_path: Path) -> None:
    for arguments in (("run", "--nope"), ("build", "nope.csv", "--shard-id", "a", "--epoch", "0")):
        result = run(tmp_path, "http://127.0.0.1:9/", *arguments)
        assert result.returncode == 2
        assert b"Traceback" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_standard_input_is_silent_ends_the_process(
    tmp_path: Path, threaded_backend: Any, number: signal.Signals
) -> None:
    arguments = ("run", "-", "--shard-id", "a", "--epoch", "0", "--window", "2")
    line, environment = command(tmp_path, threaded_backend.endpoint, *arguments)
    with subprocess.Popen(
        line, env=environment, cwd=tmp_path, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"x\n1\n2\n3\n")
        process.stdin.flush()
        assert threaded_backend.arrived.wait(TIMEOUT_S)
        process.send_signal(number)
        assert process.wait(TIMEOUT_S) == 1
        assert process.stderr.read().endswith(b"Aborted!\n")
