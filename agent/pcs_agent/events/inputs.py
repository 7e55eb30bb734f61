"""Opening what the command line names: files by their ending or `--format`, `-` as standard input by `--format`."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO, cast

from pcs_agent.embed import Embedder
from pcs_agent.embed.choice import TextSettings, make_text_embedder, make_token_embedder
from pcs_agent.errors import InputError
from pcs_agent.events.arrow_rows import ArrowSource
from pcs_agent.events.chat_logs import ChatSource
from pcs_agent.events.columns import LeftOutColumns
from pcs_agent.events.csv_rows import CsvSource
from pcs_agent.events.followed import FollowedFile
from pcs_agent.events.json_lines import JsonLinesSource
from pcs_agent.events.npz_rows import NpzSource
from pcs_agent.events.numpy_rows import NumpySource
from pcs_agent.events.parquet_rows import ParquetSource
from pcs_agent.events.source import EventSource
from pcs_agent.events.texts import TextSource
from pcs_agent.events.token_ids import TokenArraySource, TokenLinesSource
from pcs_agent.events.units import SPLITS
from pcs_agent.wording import display_name

FORMATS = ("csv", "jsonl", "npy", "npz", "parquet", "arrow", "text", "chat", "tokens")
STANDARD_INPUT = "-"
FORMAT_DEFAULT = "csv"
TEXT_DEFAULT = TextSettings()

LINE_FORMATS = ("csv", "jsonl", "text", "chat", "tokens")
"""Formats that can be read while they are written."""

_ENDINGS = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".npy": "npy",
    ".npz": "npz",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
}
# Anything may be in these: they tell the format only where nobody else does.
_WEAK_ENDINGS = {".txt": "text", ".md": "text", ".log": "text", ".tokens": "tokens"}
_OF_TEXT = frozenset({"text", "chat", "tokens"})


def open_sources(
    paths: Sequence[str],
    *,
    stdin: Callable[[], BinaryIO],
    files: contextlib.ExitStack,
    format_name: str | None = None,
    columns: Sequence[str] | None = None,
    text: TextSettings = TEXT_DEFAULT,
    allow_missing: bool = False,
    follow: threading.Event | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> tuple[list[EventSource], int]:
    """Open every input, in order, before the first event is read.

    Args:
        paths: Files, and at most one `-`.
        stdin: Gives standard input, binary.
        files: Closes what is opened here.
        format_name: Format of standard input and of files whose ending tells none; CSV for standard input if `None`. Of
            every file, where all endings tell one or where it is `text`, `chat` or `tokens`.
        columns: Chosen columns; `None` for all numeric ones.
        text: How text and tokens become rows.
        allow_missing: Whether a file that does not exist is counted instead of refused.
        follow: Ends the last input, which is read as it grows until then; `None`: it ends where it ends.
        warn: Told of columns that are left out.

    Returns:
        The sources, and how many files were missing.

    Raises:
        InputError: A file is missing, cannot be read or is not of its format.
    """
    if paths.count(STANDARD_INPUT) > 1:
        raise InputError("standard input: found it named twice; allowed: once")
    kinds = kinds_of(paths, format_name)
    if follow is not None:
        _require_follow(paths[-1], kinds[paths[-1]])
    opener = _Opener(columns, text, LeftOutColumns(warn), warn)
    sources: list[EventSource] = []
    missing = 0
    for index, path in enumerate(paths):
        if path == STANDARD_INPUT:
            sources.append(opener.make("standard input", stdin(), kinds[path], path=None))
            continue
        name = display_name(path)
        file = _open(name, path, allow_missing=allow_missing)
        if file is None:
            missing += 1
            continue
        is_followed = follow is not None and index == len(paths) - 1
        if follow is not None and is_followed:
            followed = FollowedFile(name, path, file, follow, warn)
            file = cast("BinaryIO", files.enter_context(contextlib.closing(followed)))
        else:
            file = files.enter_context(file)
        sources.append(opener.make(name, file, kinds[path], path=path, is_followed=is_followed))
    return sources, missing


def kinds_of(paths: Sequence[str], format_name: str | None) -> Mapping[str, str]:
    """Return the format of each input.

    Raises:
        InputError: One is a folder, or its format is told by nobody.
    """
    told = {path: None if path == STANDARD_INPUT else _ENDINGS.get(_ending_of(path)) for path in paths}
    of_all = format_name in _OF_TEXT or None not in told.values()
    kinds = {}
    for path, ending in told.items():
        if path != STANDARD_INPUT and os.path.isdir(path):
            raise InputError(f"{display_name(path)}: found a folder; allowed: a file")
        by_default = FORMAT_DEFAULT if path == STANDARD_INPUT else _WEAK_ENDINGS.get(_ending_of(path))
        kind = (format_name if of_all else None) or ending or format_name or by_default
        if kind is None:
            endings = ", ".join((*_ENDINGS, *_WEAK_ENDINGS))
            raise InputError(
                f"{display_name(path)}: found no known ending; allowed: {endings}, or --format "
                f"with one of {', '.join(FORMATS)}"
            )
        kinds[path] = kind
    return kinds


def has_known_ending(path: str) -> bool:
    """Whether the ending of a file's name tells its format."""
    return _ending_of(path) in _ENDINGS or _ending_of(path) in _WEAK_ENDINGS


def _ending_of(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _require_follow(path: str, kind: str) -> None:
    if path == STANDARD_INPUT:
        raise InputError(
            "--follow: found standard input as the last input; allowed: a file (standard input is read until it ends)"
        )
    if kind not in LINE_FORMATS or (kind == "tokens" and _is_array(path)):
        raise InputError(
            f"--follow: found format {kind} for the last input; allowed: {', '.join(LINE_FORMATS)}, by lines"
        )


def _is_array(path: str | None) -> bool:
    return path is not None and _ending_of(path) == ".npy"


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


class _Opener:
    """Makes sources, all with the same settings."""

    def __init__(
        self,
        columns: Sequence[str] | None,
        text: TextSettings,
        left_out: LeftOutColumns,
        warn: Callable[[str], None],
    ) -> None:
        self._columns = columns
        self._text = text
        self._left_out = left_out
        self._warn = warn
        self._embedder: Embedder | None = None  # one for all inputs: its weights are read once

    def make(
        self, name: str, file: BinaryIO, kind: str, *, path: str | None, is_followed: bool = False
    ) -> EventSource:
        if kind in _OF_TEXT:
            return self._make_of_text(name, file, kind, path)
        columns = self._columns
        if kind == "csv":
            return CsvSource(name, file, columns, self._left_out, header_again=is_followed)
        if kind == "jsonl":
            return JsonLinesSource(name, file, columns, self._left_out)
        if path is not None and not os.path.isfile(path):
            path = None  # a pipe can be read and not mapped
        if kind == "npy":
            return NumpySource(name, file, columns, path=path)
        if kind == "npz":
            return NpzSource(name, file, columns, self._left_out, is_stream=path is None)
        if kind == "parquet":
            return ParquetSource(name, file, columns, self._left_out, is_stream=path is None)
        return ArrowSource(name, file, columns, self._left_out, is_stream=path is None)

    def _make_of_text(self, name: str, file: BinaryIO, kind: str, path: str | None) -> EventSource:
        if self._columns is not None:
            raise InputError(
                f"{name}: found --columns for format {kind}, which has none; allowed: without it"
            )
        if kind == "tokens":
            embedder = make_token_embedder(self._text)
            if _is_array(path):
                return TokenArraySource(NumpySource(name, file, None, path=path), embedder)
            return TokenLinesSource(name, file, embedder)
        if self._embedder is None:
            self._embedder = make_text_embedder(self._text)
        split = SPLITS[self._text.unit]
        if kind == "chat":
            return ChatSource(name, file, split, self._embedder, self._warn)
        return TextSource(name, file, split, self._embedder)
