"""`helm test`: ask the Service what a client, a probe and Prometheus would, without leaving anything in its log.

    smoke.py URL [FOLDER]      FOLDER holds tls.crt and tls.key to show; METRICS_USER and METRICS_PASS, if set, log in

Standard library only. The server's certificate is not checked: whether it fits is for those who rely on it.
"""

from __future__ import annotations

import base64
import os
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path

ANSWER_TIMEOUT_S = 10.0


def main() -> None:
    """Print a line for each question; exit 1 if an answer was another than it should be."""
    url, folder = sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None
    login = {}
    if user := os.environ.get("METRICS_USER"):
        password = os.environ["METRICS_PASS"]
        login = {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
    questions = [
        ("GET", "/health/live", {}, 200),
        ("GET", "/health/startup", {}, 200),
        ("GET", "/health/ready", {}, 200),
        ("GET", "/openapi.json", {}, 200),
        ("GET", "/metrics", login, 200),
        # Refused before anything is written: no record is made for a test.
        ("GET", "/v1/pcs/submit", {}, 405),
        ("POST", "/v1/pcs/submit", {"Content-Type": "text/plain"}, 415),
    ]
    if login:
        questions.append(("GET", "/metrics", {}, 401))
    good = True
    for method, path, headers, wanted in questions:
        status = ask(method, url + path, headers, folder)
        good = good and status == wanted
        print(f"{method} {path}: {status}, should be {wanted}")
    sys.exit(0 if good else 1)


def ask(method: str, url: str, headers: dict[str, str], folder: Path | None) -> int | str:
    """Return the status, or in words why there is none."""
    context = None
    if url.startswith("https:"):
        context = ssl._create_unverified_context()  # see the docstring
        if folder is not None:
            context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    data = b"" if method == "POST" else None
    request = urllib.request.Request(url, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S, context=context) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return f"no answer ({error})"


if __name__ == "__main__":
    main()
