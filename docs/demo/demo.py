"""`make demo`: agent and backend, end to end, on this machine.

Starts a backend on a free port with a key made for the occasion, runs the agent over sample streams, shows what was
found, sends one record twice and one with a broken signature, shows the four counters, and stops everything. It leaves
nothing behind and exits 0 only if every step went as it should.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from streams import Stream, write_streams

COMMAND_TIMEOUT_S = 60
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "TERM")
COUNTERS = ("flk_ingest_total", "flk_dedup_hits_total", "flk_accepted_total", "flk_escalated_total")

console = Console(width=None if sys.stdout.isatty() else 120)


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    replayed: bool
    body: bytes


def main() -> int:
    """Run the demo; returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="pcs-demo-") as folder:
        home = Path(folder)
        # Nothing of the caller's own settings: the demo shows the same everywhere.
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ} | {
            "PCS_SIGN_ALG": "hmac",
            "PCS_HMAC_KEY": secrets.token_urlsafe(32),
            "DATA_DIR": str(home / "data"),
            "OUTBOX_DIR": str(home / "outbox"),
            "HOST": "127.0.0.1",
            "PORT": "0",
            "DEDUP_BACKEND": "memory",
        }
        with serving(environment) as url:
            console.print(f"backend listening on {url}, memory store, HMAC signatures\n")
            environment["ENDPOINT"] = f"{url}/v1/pcs/submit"
            streams = write_streams(home)
            show_streams(
                [(stream, run_agent(stream, epoch, environment)) for epoch, stream in enumerate(streams)]
            )

            record = build(streams[0], 1_000, environment)
            first, again = submit(environment, record), submit(environment, record)
            console.print(f"\none record, sent once:    {first.status}")
            console.print(
                f"the same, sent again:     {again.status}, replayed: {again.replayed}, same bytes: "
                f"{again.body == first.body}"
            )
            broken = submit(environment, with_broken_signature(build(streams[1], 1_001, environment)))
            console.print(f"with a broken signature:  {broken.status}\n")

            counters = read_counters(url)
            for name in COUNTERS:
                console.print(f"  {name:<22} {counters[name]:>4.0f}")
    console.print("\nstopped cleanly")

    expected = {
        "flk_ingest_total": len(streams) + 3,
        "flk_dedup_hits_total": 1,
        "flk_accepted_total": len(streams),
        "flk_escalated_total": 1,
    }
    as_expected = (
        (first.status, first.replayed, broken.status) == (200, False, 401)
        and (again.status, again.replayed, again.body) == (200, True, first.body)
        and counters == expected
    )
    if not as_expected:
        console.print("something went another way than it should", style="red")
    return 0 if as_expected else 1


@contextmanager
def serving(environment: dict[str, str]) -> Iterator[str]:
    """Run a backend and yield its URL; afterwards it was stopped by SIGTERM and exited 0."""
    process = subprocess.Popen(
        [command("pcs-backend"), "serve"], env=environment, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if line.startswith("listening on "):
                url = line.split()[-1]
            elif '"event": "ready"' in line:
                break
        else:
            raise SystemExit("the backend did not start")
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        code = process.wait(COMMAND_TIMEOUT_S)
    if code:
        raise SystemExit(f"the backend exited {code}")


def run_agent(stream: Stream, epoch: int, environment: dict[str, str]) -> dict[str, object]:
    """Summarise and deliver a stream; returns what the agent says of it."""
    lines = agent(
        environment,
        "run",
        str(stream.path),
        "--shard-id",
        "demo",
        "--epoch",
        str(epoch),
        "--allow-missing",
        "--json",
    )
    return json.loads(lines.splitlines()[-1])


def build(stream: Stream, epoch: int, environment: dict[str, str]) -> bytes:
    """Return a signed record without sending it."""
    return agent(environment, "build", str(stream.path), "--shard-id", "demo", "--epoch", str(epoch))


def agent(environment: dict[str, str], *arguments: str) -> bytes:
    """Run the agent and return its standard output."""
    done = subprocess.run(
        [command("pcs-agent"), *arguments],
        env=environment,
        capture_output=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"the agent exited {done.returncode}: {done.stderr.decode()}")
    return done.stdout


def with_broken_signature(record: bytes) -> bytes:
    """Return the record with the first letter of its signature changed."""
    document = json.loads(record)
    sig = document["sig"]
    document["sig"] = ("B" if sig[0] == "A" else "A") + sig[1:]
    return json.dumps(document).encode()


def submit(environment: dict[str, str], body: bytes) -> Answer:
    """Post a record as any client would."""
    request = urllib.request.Request(
        environment["ENDPOINT"], data=body, headers={"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=COMMAND_TIMEOUT_S) as response:
            return Answer(response.status, response.headers["Idempotent-Replayed"] == "true", response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, replayed=False, body=error.read())


def read_counters(url: str) -> dict[str, float]:
    """Return the four counters."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=COMMAND_TIMEOUT_S) as response:
        lines = response.read().decode().splitlines()
    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(samples[name]) for name in COUNTERS}


def show_streams(results: list[tuple[Stream, dict[str, object]]]) -> None:
    """Print one row a stream."""
    table = Table()
    for title in ("stream", "events", "D̂", "coh★", "r", "regime", "budget", "verdict"):
        table.add_column(title, justify="left" if title in {"stream", "regime", "verdict"} else "right")
    for stream, found in results:
        table.add_row(
            stream.name,
            f"{found['events']:,}",
            *(f"{found[name]:.3f}" for name in ("D_hat", "coh_star", "r")),
            str(found["regime"]),
            f"{found['budget']:.3f}",
            str(found["verdict"]),
        )
    console.print(table)


def command(name: str) -> str:
    """Return the path of an installed command."""
    return str(Path(sys.executable).with_name(name))


if __name__ == "__main__":
    sys.exit(main())
