"""Standard output and error as a process may get them: closed, broken, full, or of an encoding that lacks letters.

None of that may stop a delivery or show a traceback. What standard error does not take is dropped; what standard output
does not take is an `OutputError`, for the caller to remember. After the first failure both lead nowhere.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO

import click

from pcs_agent.errors import OutputError


def prepare_streams() -> None:
    """Open closed streams on nothing, and let standard output escape what its encoding lacks (the D̂ of a table, say)."""
    # Left open: click and the interpreter use them to the end.
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def print_text(text: str) -> None:
    """Print text and a line end on standard output, at once.

    Raises:
        OutputError: It takes nothing more.
    """
    problem = ""
    try:
        click.echo(text)
    except OSError as error:
        problem = name_of(error)
    if problem:
        abandon(sys.stdout)
        raise OutputError(f"standard output cannot be written: {problem}")


def print_error(text: str) -> None:
    """Print text and a line end on standard error, if that takes it."""
    try:
        print(text, file=sys.stderr, flush=True)  # which a progress bar takes over, to print above itself
    except OSError:
        abandon(sys.stderr)


def abandon(stream: TextIO) -> None:
    """Lead a stream nowhere, or the interpreter fails over what is left in its buffer when it ends."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def name_of(error: OSError) -> str:
    """Return what went wrong in the system's words."""
    return os.strerror(error.errno) if error.errno else type(error).__name__
