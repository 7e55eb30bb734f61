"""A backend in a thread, for commands that run their own event loop or their own process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pcs_agent.cli import main


class ThreadedBackend:
    """Takes records on a thread. `answer` returns a status, or `None` to hold the request until `release` is set."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.arrived = threading.Event()
        self.release = threading.Event()
        self.answer: Callable[[dict[str, Any]], int | None] = lambda _: 200
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._make_handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1/pcs/submit"

    def epochs(self) -> list[int]:
        return [document["epoch"] for document in self.received]

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _make_handler(self) -> type[BaseHTTPRequestHandler]:
        backend = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # http.server's name
                body = self.rfile.read(int(self.headers["Content-Length"]))
                is_batch = self.path.endswith("/batch")
                documents = [json.loads(line) for line in (body.splitlines() if is_batch else [body])]
                backend.received += documents
                backend.arrived.set()
                statuses = [backend.answer(document) for document in documents]
                if None in statuses:
                    backend.release.wait()
                    self.close_connection = True
                    return
                outcomes = [
                    {
                        "pcs_id": document["pcs_id"],
                        "accepted": status == 200,
                        "escalated": status == 202,
                        "reasons": [] if status == 200 else ["degraded"],
                    }
                    for document, status in zip(documents, statuses, strict=True)
                ]
                data = json.dumps(outcomes[0]).encode()
                if is_batch:
                    entries = [
                        {"status": status, "replayed": False, "conflict": False, "body": outcome}
                        for status, outcome in zip(statuses, outcomes, strict=True)
                    ]
                    data = b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)
                self.send_response(200 if is_batch else statuses[0])
                self.send_header("Content-Type", "application/x-ndjson" if is_batch else "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def threaded_backend() -> Iterator[ThreadedBackend]:
    backend = ThreadedBackend()
    yield backend
    backend.close()


class Agent:
    """The command line in this process, in a folder and an environment of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment: dict[str, str | None] = dict.fromkeys(
            [
                "ENDPOINT",
                "PCS_SIGN_ALG",
                "PCS_HMAC_KEY",
                "PCS_ED25519_SECRET_B64",
                "OUTBOX_RETENTION_DAYS",
                "DELIVERY_DEADLINE_S",
                "PCS_PARAMS_FILE",
                "LOG_LEVEL",
            ]
        )
        self.environment["OUTBOX_DIR"] = str(folder / "outbox")

    def __call__(self, *arguments: str, stdin: bytes = b"", **variables: str) -> Result:
        return CliRunner().invoke(main, list(arguments), input=stdin, env=self.environment | variables)

    def write(self, name: str, content: str) -> str:
        path = self.folder / name
        path.write_text(content, encoding="utf-8")
        return str(path)


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return Agent(tmp_path)


@pytest.fixture
def events_csv(agent: Agent) -> str:
    return agent.write("events.csv", "x,y\n" + "".join(f"{index},{index * 2}\n" for index in range(10)))
