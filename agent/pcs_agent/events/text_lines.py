"""Lines of a text input: bounded, decoded, numbered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from pcs_agent.errors import InputError
from pcs_agent.events.source import LINE_BYTES_MAX

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def iter_lines(name: str, file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines with their ends; a byte order mark before the first is dropped.

    Raises:
        InputError: A line is longer than `LINE_BYTES_MAX`, or is not UTF-8, or the disk refused.
    """
    number = 0
    while line := _read_line(name, file):
        number += 1
        if len(line) > LINE_BYTES_MAX:
            raise InputError(
                f"{name}: row {number}: found a line of over {LINE_BYTES_MAX} bytes; allowed: up to {LINE_BYTES_MAX}"
            )
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        yield line


def decode_line(name: str, number: int, line: bytes) -> str:
    """Return the line as text.

    Raises:
        InputError: It is not UTF-8.
    """
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        pass
    raise InputError(f"{name}: row {number}: found bytes that are not UTF-8; allowed: text in UTF-8")


def _read_line(name: str, file: BinaryIO) -> bytes:
    try:
        return file.readline(LINE_BYTES_MAX + 1)
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror or type(error).__name__}") from None
