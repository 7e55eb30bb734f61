"""Opening what the command line names: files by their ending, `-` as standard input by `--format`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO

from pcs_agent.errors import InputError
from pcs_agent.events.columns import LeftOutColumns
from pcs_agent.events.csv_rows import CsvSource
from pcs_agent.events.json_lines import JsonLinesSource
from pcs_agent.events.numpy_rows import NumpySource
from pcs_agent.events.parquet_rows import ParquetSource
from pcs_agent.events.source import EventSource
from pcs_agent.wording import display_name

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
    warn: Callable[[str], None] = lambda _: None,
) -> tuple[list[EventSource], int]:
    """Open every input, in order, before the first event is read.

    Args:
        paths: Files, and at most one `-`.
        stdin: Gives standard input, binary.
        files: Closes what is opened here.
        format_name: Format of standard input and of files without a known ending; CSV for standard input if `None`.
        columns: Chosen columns; `None` for all numeric ones.
        allow_missing: Whether a file that does not exist is counted instead of refused.
        warn: Told of columns that are left out.

    Returns:
        The sources, and how many files were missing.

    Raises:
        InputError: A file is missing, cannot be read or is not of its format.
    """
    if paths.count(STANDARD_INPUT) > 1:
        raise InputError("standard input: found it named twice; allowed: once")
    sources: list[EventSource] = []
    left_out = LeftOutColumns(warn)
    missing = 0
    kinds = {path: _kind_of(path, format_name) for path in paths}
    _require_use(format_name, kinds)
    for path in paths:
        if path == STANDARD_INPUT:
            source = _make_source("standard input", stdin(), kinds[path], columns, left_out, path=None)
            sources.append(source)
            continue
        name = display_name(path)
        file = _open(name, path, allow_missing=allow_missing)
        if file is None:
            missing += 1
        else:
            file = files.enter_context(file)
            sources.append(_make_source(name, file, kinds[path], columns, left_out, path=path))
    return sources, missing


def _kind_of(path: str, format_name: str | None) -> str:
    if path == STANDARD_INPUT:
        return format_name or FORMAT_DEFAULT
    if os.path.isdir(path):
        raise InputError(f"{display_name(path)}: found a folder; allowed: a file")
    kind = _ending_of(path) or format_name
    if kind is None:
        raise InputError(
            f"{display_name(path)}: found no known ending; allowed: {', '.join(_ENDINGS)}, or --format"
        )
    return kind


def has_known_ending(path: str) -> bool:
    """Whether the ending of a file's name tells its format."""
    return _ending_of(path) is not None


def _ending_of(path: str) -> str | None:
    return _ENDINGS.get(os.path.splitext(path)[1].lower())


def _require_use(format_name: str | None, kinds: Mapping[str, str]) -> None:
    """Refuse a format that no input is read in, because each has the ending of another."""
    if format_name is not None and format_name not in kinds.values():
        raise InputError(
            f"--format: found {format_name}, and only files whose endings tell another format; allowed: it is for standard "
            "input and files without a known ending"
        )


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
    name: str,
    file: BinaryIO,
    kind: str,
    columns: Sequence[str] | None,
    left_out: LeftOutColumns,
    *,
    path: str | None,
) -> EventSource:
    if kind == "csv":
        return CsvSource(name, file, columns, left_out)
    if kind == "jsonl":
        return JsonLinesSource(name, file, columns, left_out)
    if path is not None and not os.path.isfile(path):
        path = None  # a pipe can be read and not mapped
    if kind == "npy":
        return NumpySource(name, file, columns, path=path)
    return ParquetSource(name, file, columns, left_out, is_stream=path is None)
