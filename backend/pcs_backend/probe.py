"""`python -m pcs_backend.probe [live|startup|ready]`: ask the serving process of this machine how it is.

For health checks of containers. It asks over the administration socket in `DATA_DIR`, so it needs no certificate where
clients need one, and imports nothing but the socket, so it may run every few seconds. Exit code 0 if the answer is 200; 1
with the reason otherwise; 2 for another argument.
"""

from __future__ import annotations

import os
import socket
import sys

TIMEOUT_S = 5.0
ANSWER_BYTES_MAX = 16_384

_SOCKET_NAME = "admin.sock"  # as in http/admin.py, which is slow to import
_STATES = ("live", "startup", "ready")


def main(arguments: list[str]) -> int:
    """Ask once.

    Args:
        arguments: At most one: which health endpoint; `ready` otherwise.

    Returns:
        The exit code.
    """
    state = "".join(arguments) or "ready"
    if state not in _STATES:
        return _fail(f"argument: found another one; allowed: {', '.join(_STATES)}", 2)
    try:
        answer = _ask(os.environ.get("DATA_DIR") or "./data", f"/health/{state}")
    except OSError as error:
        return _fail(f"the serving process does not answer ({error.strerror or 'too slow'})", 1)
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.split(b" ", 2)[1:2] == [b"200"]:
        return 0
    return _fail(body.decode("utf-8", "replace"), 1)


def _ask(folder: str, path: str) -> bytes:
    os.chdir(folder)  # the socket's own path may be too long for its address
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT_S)
        connection.connect(_SOCKET_NAME)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while len(answer) < ANSWER_BYTES_MAX and (more := connection.recv(ANSWER_BYTES_MAX)):
            answer += more
    return answer


def _fail(message: str, code: int) -> int:
    print(f"pcs-backend: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
