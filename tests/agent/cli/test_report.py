"""`pcs-agent report` from the command line: what is written where, and with which exit code."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RUN = ("--shard-id", "shard-a", "--epoch", "7")


def test_a_page_is_written_in_place_of_the_old_one(agent: Any, events_csv: str) -> None:
    page = agent.folder / "report.html"
    page.write_text("old")
    os.symlink(page, agent.folder / "link.html")
    result = agent("report", events_csv, "--window", "5", "-o", str(agent.folder / "link.html"))
    assert (result.exit_code, result.output) == (0, "")
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>\n")
    assert "1 stream, 2 windows, 10 events" in text
    assert "Epoch 1 (last)" in text
    assert (agent.folder / "link.html").is_symlink()
    assert stat.S_IMODE(page.stat().st_mode) == 0o644
    assert sorted(path.name for path in agent.folder.iterdir()) == ["events.csv", "link.html", "report.html"]


def test_without_a_terminal_the_page_goes_to_standard_output_unless_text_is_asked_for(
    agent: Any, events_csv: str
) -> None:
    page = agent("report", events_csv)
    assert page.exit_code == 0
    assert page.stdout.startswith("<!DOCTYPE html>")
    text = agent("report", events_csv, "--terminal")
    assert text.exit_code == 0
    assert "10 events against each other, from event 0" in text.stdout
    assert "<html" not in text.stdout


def test_a_shard_makes_one_stream_of_the_inputs_and_finds_its_answers(
    agent: Any, events_csv: str, threaded_backend: Any
) -> None:
    threaded_backend.answer = lambda document: 202 if document["epoch"] == 8 else 200
    ran = agent("run", events_csv, *RUN, "--window", "5", ENDPOINT=threaded_backend.endpoint)
    assert ran.exit_code == 0
    outbox = str(agent.folder / "outbox")
    result = agent("report", events_csv, *RUN, "--window", "5", "--outbox", outbox, "--terminal")
    assert "2 windows; mixed 2; accepted 1, escalated 1" in result.stdout
    assert "escalated by the backend" in result.stdout
    of_outbox = agent("report", "--outbox", outbox, "--terminal")
    assert (of_outbox.exit_code, "accepted 1, escalated 1" in of_outbox.stdout) == (0, True)


def test_records_of_build_are_shown_from_standard_input(agent: Any, events_csv: str) -> None:
    record = agent("build", events_csv, *RUN).stdout_bytes
    result = agent("report", "--records", "-", "--terminal", stdin=record)
    assert result.exit_code == 0
    assert "shard-a" in result.stdout
    assert "Epoch 7: mixed, checks hold" in result.stdout


def test_a_signature_is_checked_where_there_is_a_key(agent: Any, events_csv: str) -> None:
    key = {"PCS_SIGN_ALG": "hmac", "PCS_HMAC_KEY": "k" * 43}
    record = agent("build", events_csv, *RUN, **key).stdout_bytes
    good = agent("report", "--records", "-", "--terminal", stdin=record, **key)
    assert "Epoch 7: mixed, checks hold" in good.stdout
    other = agent("report", "--records", "-", "--terminal", stdin=record, **key | {"PCS_HMAC_KEY": "x" * 43})
    assert "Epoch 7: mixed, checks fail: signature" in other.stdout


def test_one_unreadable_input_of_several_gives_a_report_and_exit_code_1(agent: Any, events_csv: str) -> None:
    gone = str(agent.folder / "gone.csv")
    out = str(agent.folder / "report.html")
    result = agent("report", events_csv, gone, "-o", out)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Warning: {gone}: cannot be read: no such file")
    assert "not read to its end: " in Path(out).read_text(encoding="utf-8")
    alone = agent("report", gone, "-o", out)
    assert (alone.exit_code, alone.stderr.startswith(f"Error: {gone}: cannot be read")) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "found nothing to show; allowed: an INPUT, --outbox or --records"),
        (
            ("events.csv", "--terminal", "-o", "x.html"),
            "--terminal and --out: found both; allowed: one of them",
        ),
        (("-", "--records", "-"), "standard input: found it named twice; allowed: once"),
        (("--outbox", "gone"), "Error: --outbox: gone: cannot be read: no such folder"),
        (("events.csv", "--scales", "4,2"), "--scales"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    agent: Any, events_csv: str, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(agent.folder)
    result = agent("report", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("gone/report.html", "cannot be written: No such file or directory"),
        (".", "cannot be written: Is a directory"),
    ],
)
def test_a_page_that_cannot_be_written_leaves_nothing(
    agent: Any, events_csv: str, monkeypatch: pytest.MonkeyPatch, out: str, message: str
) -> None:
    monkeypatch.chdir(agent.folder)
    result = agent("report", events_csv, "-o", out)
    assert (result.exit_code, result.stderr) == (2, f"Error: --out: {out}: {message}\n")
    assert sorted(path.name for path in agent.folder.iterdir()) == ["events.csv"]


def test_a_page_that_fails_half_way_leaves_the_old_one(
    agent: Any, events_csv: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = agent.folder / "report.html"
    page.write_text("old")
    monkeypatch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    result = agent("report", events_csv, "-o", str(page))
    assert (result.exit_code, result.stderr) == (
        2,
        f"Error: --out: {page}: cannot be written: No space left on device\n",
    )
    assert page.read_text() == "old"
    assert sorted(path.name for path in agent.folder.iterdir()) == ["events.csv", "report.html"]


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
def test_without_the_extra_the_page_is_refused_before_anything_is_read_and_text_works(
    events_csv: str, missing: str
) -> None:
    """In a process of its own, which cannot import it."""
    command = f"import sys; sys.modules[{missing!r}] = None; from pcs_agent.cli import main; main()"
    page = subprocess.run(
        [sys.executable, "-c", command, "report", "gone.csv"], capture_output=True, text=True, check=False
    )
    assert (page.returncode, page.stdout) == (2, "")
    assert page.stderr == (
        f"Error: report: found no {missing}; allowed: pip install 'pcs-verification[report]', or --terminal for text\n"
    )
    text = subprocess.run(
        [sys.executable, "-c", command, "report", events_csv, "--terminal"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (text.returncode, text.stderr) == (0, "")
    assert "10 events" in text.stdout


@pytest.mark.slow
def test_other_commands_import_nothing_of_the_extra() -> None:
    command = "import sys, pcs_agent.cli; print({'matplotlib', 'jinja2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
