"""What a pod does before SIGTERM: wait while others still send to it, then until every request on its disk has an outcome.

    drain.py ENDPOINT_S SETTLE_S [FOLDER]      FOLDER holds tls.crt and tls.key to show

It waits ENDPOINT_S seconds, then SETTLE_S at most. What is open after that stays in the volume. A service that does not
answer is not waited for. Standard library only; settings come from the backend's own environment. The server's
certificate is not checked: both ends are this pod.
"""

from __future__ import annotations

import base64
import os
import re
import ssl
import sys
import time
import urllib.request
from pathlib import Path

ANSWER_TIMEOUT_S = 2.0
POLL_INTERVAL_S = 0.5
_OPEN_REQUESTS = re.compile(r"^flk_open_requests (\S+)$", re.MULTILINE)


def main() -> None:
    """Wait."""
    endpoint_s, settle_s = map(float, sys.argv[1:3])
    folder = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    time.sleep(endpoint_s)
    until = time.monotonic() + settle_s
    while time.monotonic() < until:
        try:
            found = _OPEN_REQUESTS.search(metrics(folder))
        except OSError as error:  # other statuses than 200 too
            print(f"not waiting: {error}", file=sys.stderr)
            return
        if found is None or float(found[1]) == 0:
            return
        time.sleep(POLL_INTERVAL_S)


def metrics(folder: Path | None) -> str:
    """Return the service's metrics.

    Raises:
        OSError: No connection, or another status than 200.
    """
    scheme = "https" if os.environ.get("TLS_CERT") else "http"
    request = urllib.request.Request(f"{scheme}://127.0.0.1:{os.environ['PORT']}/metrics")
    if user := os.environ.get("METRICS_USER"):
        login = f"{user}:{os.environ['METRICS_PASS']}".encode()
        request.add_header("Authorization", f"Basic {base64.b64encode(login).decode()}")
    context = None
    if scheme == "https":
        context = ssl._create_unverified_context()  # see the docstring
        if folder is not None:
            context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S, context=context) as response:
        return response.read().decode()


if __name__ == "__main__":
    main()
