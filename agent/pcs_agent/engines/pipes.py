"""Messages over the pipes between the parent and a worker: a length, then the bytes of a pickle.

Both ends are processes of this program and of this user, so that pickle is no door for a stranger.
"""

from __future__ import annotations

from typing import IO

_LENGTH_BYTES = 8


def write_message(pipe: IO[bytes], data: bytes) -> None:
    """Write one message and flush it.

    Raises:
        OSError: The other end is gone.
    """
    pipe.write(len(data).to_bytes(_LENGTH_BYTES, "little"))
    pipe.write(data)
    pipe.flush()


def read_message(pipe: IO[bytes]) -> bytes | None:
    """Return the next message, `None` where the other end is gone, also in the middle of one."""
    head = pipe.read(_LENGTH_BYTES)
    if len(head) < _LENGTH_BYTES:
        return None
    length = int.from_bytes(head, "little")
    data = pipe.read(length)
    return data if len(data) == length else None
