"""Finding the files of many streams: in folders, by patterns, or listed, each with the name its stream goes by.

The name is the file's path below the folder that was given, below the last folder before the first wildcard of a
pattern, or without any folder where the file itself was listed: a folder, a pattern in it and the list that a shell
makes of that pattern give the same names. What begins with a dot is left out, as a shell does; so is what is no regular
file. Links to files are followed, links to folders below a folder are not.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pcs_agent.errors import InputError
from pcs_agent.wording import display_name

FILES_MAX = 1_000_000
"""Files of one run; each costs some hundred bytes until the run ends."""


class Found(NamedTuple):
    """A file, as it is opened and as its stream is named."""

    path: str
    name: str


def names_many(path: str) -> bool:
    """Whether an input stands for many streams: a folder, or a pattern that is no file's name."""
    return os.path.isdir(path) or (glob.has_magic(path) and not os.path.lexists(path))


def find_files(inputs: Sequence[str], is_readable: Callable[[str], bool]) -> tuple[list[Found], int]:
    """Return the files of folders, patterns and listed files, sorted by name, and how many were left out.

    Args:
        inputs: Folders, patterns and files.
        is_readable: Whether a file in a folder or under a pattern is one of events; others are left out. Listed files
            are taken as they are, existing or not.

    Raises:
        InputError: A folder cannot be read, or an input stands for no file, or they are more than `FILES_MAX`.
    """
    found: list[Found] = []
    left_out = 0
    for path in inputs:
        if not names_many(path):
            found.append(Found(path, os.path.basename(os.path.normpath(path))))
            continue
        before = len(found)
        for each in _walk(path) if os.path.isdir(path) else _match(path):
            if is_readable(each.path):
                found.append(each)
            else:
                left_out += 1
            if len(found) > FILES_MAX:
                raise InputError(f"input: found over {FILES_MAX} files; allowed: up to that in one run")
        if len(found) == before:
            kind = "folder" if os.path.isdir(path) else "pattern"
            raise InputError(
                f"{display_name(path)}: found a {kind} without any file of events; allowed: one or more"
            )
    return sorted(found, key=lambda each: os.fsencode(each.name)), left_out


def _walk(root: str) -> Iterator[Found]:
    for folder, folders, names in os.walk(root, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = os.path.join(folder, name)
            if not name.startswith(".") and os.path.isfile(path):
                yield Found(path, os.path.relpath(path, root))


def _match(pattern: str) -> Iterator[Found]:
    root = pattern
    while glob.has_magic(root):
        root = os.path.dirname(root)
    for path in glob.iglob(pattern, recursive=True):
        if os.path.isfile(path):
            yield Found(path, os.path.relpath(path, root or os.curdir))


def _refuse(error: OSError) -> None:
    raise InputError(
        f"{display_name(str(error.filename))}: cannot be read: {error.strerror or type(error).__name__}"
    ) from None
