"""The agent killed between append and acknowledgement, as a real process."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from agent_commands import TIMEOUT_S, command, lines, run, start

pytestmark = pytest.mark.slow


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
def test_a_signal_while_standard_input_is_silent_ends_the_run_and_tells_what_waits(
    tmp_path: Path, threaded_backend: Any, number: signal.Signals
) -> None:
    threaded_backend.answer = lambda document: 200 if document["epoch"] == 0 else None
    arguments = ("run", "-", "--shard-id", "a", "--epoch", "0", "--window", "2", "--json")
    with start(tmp_path, threaded_backend.endpoint, *arguments) as process:
        process.stdin.write(b"x\n1\n2\n3\n")
        process.stdin.flush()
        (delivered,) = lines(process.stdout.readline())
        threaded_backend.arrived.clear()
        process.stdin.write(b"4\n5\n")
        process.stdin.flush()
        assert threaded_backend.arrived.wait(TIMEOUT_S)
        process.send_signal(number)
        assert process.wait(TIMEOUT_S) == 1
        (waiting,) = lines(process.stdout.read())
        printed = process.stderr.read()
    assert (delivered["epoch"], delivered["verdict"]) == (0, "accepted")
    assert (waiting["epoch"], waiting["events"], waiting["verdict"], waiting["attempts"]) == (
        1,
        2,
        "pending",
        1,
    )
    assert waiting["reason"] == "last attempt: no answer yet"
    assert printed == (
        b"Warning: interrupted; 1 record waits in the outbox; deliver with: pcs-agent outbox flush\n"
    )


def test_a_signal_leaves_the_table_of_what_was_delivered_and_what_waits(
    tmp_path: Path, threaded_backend: Any
) -> None:
    threaded_backend.answer = lambda _: None
    (tmp_path / "a.csv").write_text("x\n" + "1\n" * 6, encoding="utf-8")
    arguments = ("run", "a.csv", "--shard-id", "a", "--epoch", "7", "--window", "2")
    alone = {"BATCH_RECORDS": "1"}  # each in a request of its own, all at once
    with start(tmp_path, threaded_backend.endpoint, *arguments, **alone) as process:
        while len(threaded_backend.received) < 3:
            threaded_backend.arrived.wait(TIMEOUT_S)
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 1
        table = process.stdout.read().decode().splitlines()
        assert b"interrupted; 3 records wait" in process.stderr.read()
    assert [(row.split()[0], row.split()[7]) for row in table[1:4]] == [
        ("7", "pending"),
        ("8", "pending"),
        ("9", "pending"),
    ]
    assert table[4:] == ["pending (3): last attempt: no answer yet"]
    threaded_backend.release.set()
    threaded_backend.answer = lambda _: None
    with start(tmp_path, threaded_backend.endpoint, "outbox", "flush") as process:
        threaded_backend.arrived.clear()
        assert threaded_backend.arrived.wait(TIMEOUT_S)
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 1
        assert [row.split()[:2] for row in process.stdout.read().decode().splitlines()[1:4]] == [
            [epoch, "earlier"] for epoch in "789"
        ]
        assert b"interrupted; 3 records wait" in process.stderr.read()


@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_a_signal_before_the_first_byte_of_a_header_ends_the_run(
    tmp_path: Path, threaded_backend: Any, kind: str
) -> None:
    arguments = ("run", "-", "--format", kind, "--shard-id", "a", "--epoch", "0")
    with start(tmp_path, threaded_backend.endpoint, *arguments) as process:
        wait_until_it_catches(process.pid, signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 1
        assert process.stderr.read() == b"Warning: interrupted before anything was read\n"


def wait_until_it_catches(pid: int, number: signal.Signals) -> None:
    """Wait until the process has a handler of its own for a signal."""
    status = Path(f"/proc/{pid}/status")
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        caught = status.read_text(encoding="ascii").partition("SigCgt:")[2].split()[0]
        if int(caught, 16) >> (number - 1) & 1:
            return
    raise AssertionError(f"signal {number} is not caught")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_followed_file_and_what_was_read_is_delivered(
    tmp_path: Path, threaded_backend: Any, number: signal.Signals
) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b"one\ntwo\nthree\n")
    arguments = ("run", "app.log", "--follow", "--text", "line", "--window", "3", "--json")
    where = ("--shard-id", "a", "--epoch", "5")
    with start(tmp_path, threaded_backend.endpoint, *arguments, *where) as process:
        (first,) = lines(process.stdout.readline())
        with path.open("ab") as file:
            file.write(b"four\nfive\nsix\nseven\neight\nni")
        (second,) = lines(process.stdout.readline())
        process.send_signal(number)
        (third,) = lines(process.stdout.read())
        assert process.wait(TIMEOUT_S) == 0
        assert process.stderr.read().splitlines() == [
            b"Warning: the input is ended; what was read is delivered; once more to stop",
            b"Warning: app.log: the last line has no end yet and is left out",
        ]
    found = [(each["epoch"], each["events"], each["verdict"]) for each in (first, second, third)]
    assert found == [(5, 3, "accepted"), (6, 3, "accepted"), (7, 2, "accepted")]


def test_a_second_signal_stops_the_delivery_of_what_was_followed(
    tmp_path: Path, threaded_backend: Any
) -> None:
    threaded_backend.answer = lambda _: None
    (tmp_path / "app.log").write_bytes(b"one\ntwo\nthree\nfour\n")
    arguments = (
        "run",
        "app.log",
        "--follow",
        "--text",
        "line",
        "--window",
        "2",
        "--shard-id",
        "a",
        "--epoch",
        "0",
    )
    with start(tmp_path, threaded_backend.endpoint, *arguments, BATCH_RECORDS="1") as process:
        while len(threaded_backend.received) < 2:
            threaded_backend.arrived.wait(TIMEOUT_S)
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline().startswith(b"Warning: the input is ended")
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 1
        assert b"interrupted; 2 records wait in the outbox" in process.stderr.read()
