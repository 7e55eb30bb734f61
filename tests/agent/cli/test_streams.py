"""Standard output and error that break, lack letters or are closed: delivery goes on, and no traceback shows."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import termios
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from processes import clean_environment, command

pytestmark = pytest.mark.slow

TIMEOUT_S = 60
WINDOWS = 6
RUN = ("run", "a.csv", "--shard-id", "a", "--epoch", "0", "--window", "2")
BUILD_AND_SEND = ("run", "a.csv", "--shard-id", "a", "--epoch", "0")
BUILD = ("build", "a.csv", "--shard-id", "a", "--epoch", "0")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = "".join(f"{index}\n" for index in range(2 * WINDOWS))
    (tmp_path / "a.csv").write_text("x\n" + rows, encoding="utf-8")
    return tmp_path


def run(
    folder: Path, arguments: Sequence[str], endpoint: str, *, stdout: int, stderr: int, **variables: str
) -> tuple[int, bytes]:
    """Run the installed command; returns its exit code and, where stderr is a pipe, what it printed there."""
    environment = clean_environment(ENDPOINT=endpoint, OUTBOX_DIR=str(folder / "outbox"), **variables)
    with subprocess.Popen(
        [command("pcs-agent"), *arguments], env=environment, cwd=folder, stdout=stdout, stderr=stderr
    ) as process:
        _, printed = process.communicate(timeout=TIMEOUT_S)
        return process.returncode, printed or b""


def broken_pipe() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def full() -> int:
    return os.open("/dev/full", os.O_WRONLY)


@pytest.mark.parametrize(("broken", "why"), [(broken_pipe, b"Broken pipe"), (full, b"No space left")])
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_broken_standard_output_does_not_stop_a_run(
    folder: Path, threaded_backend: Any, broken: Any, why: bytes, form: tuple[str, ...]
) -> None:
    handle = broken()
    code, printed = run(
        folder, (*RUN, *form), threaded_backend.endpoint, stdout=handle, stderr=subprocess.PIPE
    )
    os.close(handle)
    assert code == 1
    assert sorted(threaded_backend.epochs()) == list(range(WINDOWS))
    (line,) = printed.splitlines()
    assert line.startswith(b"Warning: standard output cannot be written: " + why)


@pytest.mark.parametrize("broken", [broken_pipe, full])
@pytest.mark.parametrize("arguments", [BUILD, ("outbox", "list"), ("verify", "a.csv"), ("dlq", "redrive")])
def test_a_broken_standard_output_is_one_line_on_standard_error(
    folder: Path, arguments: tuple[str, ...], broken: Any
) -> None:
    handle = broken()
    code, printed = run(folder, arguments, "", stdout=handle, stderr=subprocess.PIPE)
    os.close(handle)
    assert code == 1
    (line,) = printed.splitlines()
    assert line.startswith(b"Error: standard output cannot be written: ")


def test_help_that_a_full_disk_does_not_take_leaves_no_traceback(folder: Path) -> None:
    handle = full()
    code, printed = run(folder, ("run", "--help"), "", stdout=handle, stderr=subprocess.PIPE)
    os.close(handle)
    assert (code, printed.splitlines()) == (1, [b"Error: No space left on device"])


def test_a_broken_standard_error_does_not_stop_a_run(folder: Path, threaded_backend: Any) -> None:
    """Logs and warnings go nowhere then; records go on being delivered."""
    handle = full()
    code, _ = run(
        folder, RUN, threaded_backend.endpoint, stdout=subprocess.DEVNULL, stderr=handle, LOG_LEVEL="debug"
    )
    os.close(handle)
    assert code == 0
    assert sorted(threaded_backend.epochs()) == list(range(WINDOWS))


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_do_not_stop_a_run(folder: Path, threaded_backend: Any, redirection: str) -> None:
    environment = clean_environment(ENDPOINT=threaded_backend.endpoint, OUTBOX_DIR=str(folder / "outbox"))
    line = " ".join([command("pcs-agent"), *RUN, redirection])
    done = subprocess.run(
        ["/bin/sh", "-c", line], env=environment, cwd=folder, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0
    assert sorted(threaded_backend.epochs()) == list(range(WINDOWS))


@pytest.mark.parametrize("arguments", [RUN, ("run", "--help")])
def test_letters_that_the_output_lacks_are_escaped(
    folder: Path, threaded_backend: Any, arguments: tuple[str, ...]
) -> None:
    with (folder / "out").open("wb") as out:
        code, printed = run(
            folder,
            arguments,
            threaded_backend.endpoint,
            stdout=out.fileno(),
            stderr=subprocess.PIPE,
            PYTHONIOENCODING="latin-1",
        )
    assert (code, printed) == (0, b"")
    assert (b"D\\u0302" if arguments is RUN else b"INPUT\\u2026") in (folder / "out").read_bytes()


def test_json_goes_into_the_file_it_is_sent_to_while_a_progress_bar_is_shown(
    folder: Path, threaded_backend: Any
) -> None:
    """A terminal on standard error shows the bar, which must not draw what is printed elsewhere to itself."""
    terminal, side = pty.openpty()
    with (folder / "out").open("wb") as out:
        code, _ = run(
            folder,
            (*RUN, "--json"),
            threaded_backend.endpoint,
            stdout=out.fileno(),
            stderr=side,
            TERM="xterm",
        )
    os.close(side)
    os.close(terminal)
    assert code == 0
    lines = (folder / "out").read_bytes().splitlines()
    assert sorted(json.loads(line)["epoch"] for line in lines) == list(range(WINDOWS))


def test_ids_stay_on_one_line_of_a_narrow_terminal(folder: Path, threaded_backend: Any) -> None:
    threaded_backend.answer = lambda _: 400
    run(folder, RUN, threaded_backend.endpoint, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    terminal, side = pty.openpty()
    termios.tcsetwinsize(side, (24, 80))
    run(folder, ("dlq", "list"), "", stdout=side, stderr=subprocess.DEVNULL, TERM="xterm")
    os.close(side)
    shown = os.read(terminal, 65_536).decode()
    os.close(terminal)
    rows = re.findall(r"^\d+ +[0-9a-f]{12} +a +\d+ +dead ", shown, re.MULTILINE)
    assert len(rows) == WINDOWS, shown


def test_on_a_terminal_logs_are_lines_for_people_above_the_progress_bar(
    folder: Path, threaded_backend: Any
) -> None:
    terminal, side = pty.openpty()
    termios.tcsetwinsize(side, (24, 250))
    code, _ = run(
        folder,
        BUILD_AND_SEND,
        threaded_backend.endpoint,
        stdout=subprocess.DEVNULL,
        stderr=side,
        TERM="xterm",
        LOG_LEVEL="info",
    )
    os.close(side)
    shown = os.read(terminal, 65_536).decode()
    os.close(terminal)
    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert re.search(
        r"(?:^|\r)\d\d:\d\d:\d\d \[info +\] delivered attempts=1 pcs_id=[0-9a-f]{64}", plain, re.MULTILINE
    )
    assert "\x1b[" in shown
    assert '{"' not in shown


def test_without_a_terminal_logs_are_json(folder: Path, threaded_backend: Any) -> None:
    _, printed = run(
        folder,
        BUILD_AND_SEND,
        threaded_backend.endpoint,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        LOG_LEVEL="info",
    )
    (line,) = printed.splitlines()
    assert json.loads(line)["event"] == "delivered"
