"""Lines of a text input: bounded, decoded, numbered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from pcs_agent.errors import InputError
from pcs_agent.events.source import LINE_BYTES_MAX

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def iter_lines(name: str, file: BinaryIO, bytes_max: int = LINE_BYTES_MAX) -> Iterator[bytes]:
    """Yield the lines with their ends; a byte order mark before the first is dropped.

    Args:
        name: What messages call the input.
        file: Binary.
        bytes_max: Bytes of a line, its end included.

    Raises:
        InputError: A line is longer than that, or the disk refused.
    """
    number = 0
    while line := _read_line(name, file, bytes_max):
        number += 1
        if len(line) > bytes_max:
            raise InputError(
                f"{name}: row {number}: found a line of over {bytes_max} bytes; allowed: up to {bytes_max}"
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


def _read_line(name: str, file: BinaryIO, bytes_max: int) -> bytes:
    try:
        return file.readline(bytes_max + 1)
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror or type(error).__name__}") from None
