"""The shipped commands as real processes, and a client that shows all of an answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import aiohttp

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 45.0
"""A stop has `DRAIN_TIMEOUT_S` several times: for requests, for the last frames, for the last snapshot."""

WAIT_TIMEOUT_S = 20.0
HMAC_KEY = "an-hmac-key-of-the-tests"

_INHERITED = ("PATH", "HOME", "TMPDIR", "LANG")


class Answer(NamedTuple):
    """All of an HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, object]:
        return json.loads(self.body)

    @property
    def replayed(self) -> bool:
        return self.headers.get("Idempotent-Replayed") == "true"


def command(name: str) -> str:
    """Return the path of an installed command."""
    return str(Path(sys.executable).with_name(name))


def clean_environment(**variables: str) -> dict[str, str]:
    """Return an environment with these variables and nothing of the project's from outside."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ} | variables


def run(
    name: str, *arguments: str, stdin: bytes = b"", **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """Run an installed command to its end."""
    return subprocess.run(
        [command(name), *arguments],
        env=clean_environment(**variables),
        input=stdin,
        capture_output=True,
        timeout=WAIT_TIMEOUT_S * 3,
        check=False,
    )


class Backend:
    """`pcs-backend serve` on a free port. Everything it prints is kept in `output`."""

    def __init__(self, data_dir: Path, **variables: str) -> None:
        self.data_dir = data_dir
        self.command = [command("pcs-backend"), "serve"]
        self.variables = {"DATA_DIR": str(data_dir), "PORT": "0", **variables}
        self.url = ""
        self.output = b""
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._listening = threading.Event()
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        running = self._process is not None and self._process.poll() is None
        return self if running else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, *, wait_ready: bool = True, timeout_s: float = START_TIMEOUT_S) -> Self:
        self._listening.clear()
        self._ready.clear()
        self._process = subprocess.Popen(
            self.command,
            env=clean_environment(**self.variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        event = self._ready if wait_ready else self._listening
        if not event.wait(timeout_s):
            raise AssertionError(f"the backend did not start: {self.output.decode()}")
        return self

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """SIGKILL."""
        return self._end(signal.SIGKILL)

    def wait(self) -> int:
        """Wait for the process to end by itself; returns the exit code."""
        assert self._process is not None
        assert self._reader is not None
        try:
            code = self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._reader.join(STOP_TIMEOUT_S)
            raise AssertionError(f"the backend did not end: {self.output[-4_000:].decode()}") from None
        self._reader.join(STOP_TIMEOUT_S)
        return code

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self.wait()

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                self.output += line
                if line.startswith(b"listening on "):
                    self.url = line.split()[-1].decode()
                    self._listening.set()
                elif b'"event": "ready"' in line:
                    self._ready.set()
        self._ready.set()  # the process ended: whoever waits finds out by asking


class Listening(Protocol):
    """A backend as a client sees it."""

    url: str


class Client:
    """An HTTP client of one backend."""

    def __init__(self, backend: Listening, connections: int = 64) -> None:
        self.backend = backend
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections),
            timeout=aiohttp.ClientTimeout(total=WAIT_TIMEOUT_S),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def request(self, method: str, path: str, **arguments: object) -> Answer:
        async with self._session.request(
            method, self.backend.url + path, allow_redirects=False, **arguments
        ) as response:
            return Answer(response.status, dict(response.headers), await response.read())

    async def get(self, path: str, **arguments: object) -> Answer:
        return await self.request("GET", path, **arguments)

    async def submit(self, body: bytes, **headers: str) -> Answer:
        headers = {"Content-Type": "application/json"} | headers
        return await self.request("POST", "/v1/pcs/submit", data=body, headers=headers)

    async def metrics(self) -> dict[str, float]:
        """Return every sample by its name with labels."""
        text = (await self.get("/metrics")).body.decode()
        samples = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    async def counters(self) -> tuple[int, int, int, int]:
        """Return ingest, dedup hits, accepted, escalated."""
        metrics = await self.metrics()
        names = ("flk_ingest_total", "flk_dedup_hits_total", "flk_accepted_total", "flk_escalated_total")
        ingest, hits, accepted, escalated = (int(metrics[name]) for name in names)
        return ingest, hits, accepted, escalated

    async def wait_for_metric(self, name: str, value: float) -> None:
        """Ask until a metric has a value; each question is a round trip, so this does not spin."""
        deadline = time.monotonic() + WAIT_TIMEOUT_S
        while (found := (await self.metrics())[name]) != value:
            if time.monotonic() > deadline:
                raise AssertionError(f"{name} is {found}, not {value}")
