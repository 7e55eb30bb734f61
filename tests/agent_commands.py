"""The installed `pcs-agent` as a process, in a folder and an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

TIMEOUT_S = 60


def command(folder: Path, endpoint: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    environment = {"PATH": os.environ["PATH"], "ENDPOINT": endpoint, "OUTBOX_DIR": str(folder / "outbox")}
    return [str(Path(sys.executable).with_name("pcs-agent")), *arguments], environment


def run(folder: Path, endpoint: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    line, environment = command(folder, endpoint, *arguments)
    return subprocess.run(
        line, env=environment, cwd=folder, capture_output=True, timeout=TIMEOUT_S, check=False
    )


def lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


class _Process(subprocess.Popen):
    """One that a failed test does not wait for."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, error, trace)


def start(folder: Path, endpoint: str, *arguments: str, **variables: str) -> Any:
    line, environment = command(folder, endpoint, *arguments)
    environment = environment | variables
    pipe = subprocess.PIPE
    return _Process(line, env=environment, cwd=folder, stdin=pipe, stdout=pipe, stderr=pipe)
