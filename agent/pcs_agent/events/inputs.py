"""Opening what the command line names: files by their ending, `-` as standard input by `--format`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import BinaryIO

from pcs_agent.errors import InputError
from pcs_agent.events.csv_rows import CsvSource
from pcs_agent.events.json_lines import JsonLinesSource
from pcs_agent.events.numpy_rows import NumpySource
from pcs_agent.events.parquet_rows import ParquetSource
from pcs_agent.events.source import EventSource
from pcs_core.redact import redact

FORMATS = ("csv", "jsonl", "npy", "parquet")
STANDARD_INPUT = "-"
FORMAT_DEFAULT = "csv"

_ENDINGS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".npy": "npy", ".parquet": "parquet"}


def open_sources(
    paths: Sequence[str],
    *,
    stdin: Callable[[], BinaryIO],
    files: contextlib.ExitStack,
    format_name: str | None = None,
    columns: Sequence[str] | None = None,
    allow_missing: bool = False,
) -> tuple[list[EventSource], int]:
    """Open every input, in order, before the first event is read.

    Args:
        paths: Files, and at most one `-`.
        stdin: Gives standard input, binary.
        files: Closes what is opened here.
        format_name: Format of standard input and of files without a known ending; CSV for standard input if `None`.
        columns: Chosen columns; `None` for all numeric ones.
        allow_missing: Whether a file that does not exist is counted instead of refused.

    Returns:
        The sources, and how many files were missing.

    Raises:
        InputError: A file is missing, cannot be read or is not of its format.
    """
    if paths.count(STANDARD_INPUT) > 1:
        raise InputError("standard input: found it named twice; allowed: once")
    sources: list[EventSource] = []
    missing = 0
    for path in paths:
        if path == STANDARD_INPUT:
            kind = format_name or FORMAT_DEFAULT
            sources.append(_make_source("standard input", stdin(), kind, columns, path=None))
            continue
        name = display_name(path)
        kind = _ENDINGS.get(os.path.splitext(path)[1].lower()) or format_name or ""
        if not kind:
            raise InputError(f"{name}: found no known ending; allowed: {', '.join(_ENDINGS)}, or --format")
        file = _open(name, path, allow_missing=allow_missing)
        if file is None:
            missing += 1
        else:
            sources.append(_make_source(name, files.enter_context(file), kind, columns, path=path))
    return sources, missing


def display_name(path: str) -> str:
    """Return what messages call a file: redacted, and without anything a terminal would obey."""
    return redact("".join(character if character.isprintable() else "?" for character in path))


def _open(name: str, path: str, *, allow_missing: bool) -> BinaryIO | None:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        if allow_missing:
            return None
        problem = "no such file (with --allow-missing a degraded record is made)"
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or "not a file name"
    raise InputError(f"{name}: cannot be read: {problem}")


def _make_source(
    name: str, file: BinaryIO, kind: str, columns: Sequence[str] | None, *, path: str | None
) -> EventSource:
    if kind == "csv":
        return CsvSource(name, file, columns)
    if kind == "jsonl":
        return JsonLinesSource(name, file, columns)
    if path is not None and not os.path.isfile(path):
        path = None  # a pipe can be read and not mapped
    if kind == "npy":
        return NumpySource(name, file, columns, path=path)
    return ParquetSource(name, file, columns, is_stream=path is None)
