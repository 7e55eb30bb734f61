"""The runbooks, as they stand: their commands are taken from the Markdown and run on a machine that has the trouble.

For each: the trouble is made; what is below *Over* says that it is not over; *Look* shows the trouble; *Do* ends it; *Over*
says so. `systemctl` is the one command that is not the machine's own: here it starts and stops the test's processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import re
import shlex
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, Self, get_args
from urllib.parse import urlsplit

import msgspec
import pytest

import pcs_records
from gates import promote, set_of
from labels import labelled, now_ms, put_labels
from pcs_backend.conformal.calibration import Label, Signals
from processes import HMAC_KEY, WAIT_TIMEOUT_S, Backend, clean_environment, command
from servers import RedisServer
from small_disk import small_disk

pytestmark = [pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
RUNBOOKS = ROOT / "docs/runbooks"
LAUNCHER = [sys.executable, str(ROOT / "tests/faulty_command.py"), "pcs-backend", "serve"]
SMALL = {"TEST_SEGMENT_BYTES": "200000", "TEST_HOUSEKEEPING_S": "0.2"}
PHASE_TIMEOUT_S = 60.0
OLD_KEY, NEW_KEY = "the key of plant 7 until now", "the key of plant 7 from now on"
MIB = 1 << 20

SYSTEMCTL = """#!/bin/bash
exec 3<>/dev/tcp/127.0.0.1/{port}
echo "$*" >&3
read -r answer <&3
echo "$answer"
[ "$answer" != failed ] && [ "$answer" != inactive ]
"""


class Runbook:
    """One page: commands by section."""

    def __init__(self, name: str) -> None:
        text = (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
        sections = re.split(r"^## (\w+)$", text, flags=re.MULTILINE)
        self.commands = {
            heading: re.findall(r"^```\n(.*?)^```$", body, re.MULTILINE | re.DOTALL)
            for heading, body in zip(sections[1::2], sections[2::2], strict=True)
        }
        assert list(self.commands) == ["Look", "Do", "Over"]
        assert all(self.commands.values()), "each section has commands"


class Unit(Protocol):
    """What a process manager starts and stops."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def reload(self) -> None: ...
    def is_active(self) -> bool: ...


class Service:
    """A backend whose environment is in a file."""

    def __init__(self, settings: Path, backend: Backend) -> None:
        self.settings = settings
        self.backend = backend
        self._extra = {
            name: value for name, value in backend.variables.items() if name.startswith(("TEST_", "QUOTA_"))
        }
        shown = {name: value for name, value in backend.variables.items() if name not in self._extra}
        settings.write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in shown.items()))

    @property
    def variables(self) -> dict[str, str]:
        pairs = (word.partition("=") for word in shlex.split(self.settings.read_text()))
        return {name: value for name, _, value in pairs}

    def start(self) -> None:
        self.backend.variables = self.variables | self._extra
        self.backend.start()

    def stop(self) -> None:
        assert self.backend.stop() == 0, self.backend.output

    def reload(self) -> None:
        self.backend.signal(signal.SIGHUP)

    def is_active(self) -> bool:
        process = self.backend._process
        return process is not None and process.poll() is None


class Store:
    """Redis as a unit."""

    def __init__(self, redis: RedisServer) -> None:
        self.start = redis.start
        self.stop = redis.stop
        self.reload = lambda: None
        self.is_active = lambda: redis.running


class Machine:
    """A shell in which a runbook's commands run."""

    def __init__(self, folder: Path, units: dict[str, Unit], **names: str) -> None:
        self.folder = folder
        self.units = units
        self._names = names
        self._bin = folder / "bin"
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    def __enter__(self) -> Self:
        self._bin.mkdir()
        script = self._bin / "systemctl"
        script.write_text(SYSTEMCTL.format(port=self._server.server_address[1]))
        script.chmod(0o755)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        for unit in self.units.values():
            if isinstance(unit, Service):
                unit.backend.__exit__(None, None, None)

    @property
    def service(self) -> Service:
        unit = self.units["pcs-backend"]
        assert isinstance(unit, Service)
        return unit

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run commands in a new shell of the service's user, output and errors together."""
        environment = clean_environment(**self.service.variables, **self._names)
        environment["PATH"] = f"{self._bin}:{Path(command('pcs-backend')).parent}:{environment['PATH']}"
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            env=environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PHASE_TIMEOUT_S,
            check=False,
        )

    def phase(self, runbook: Runbook, heading: str) -> str:
        """Run all commands of a section; returns what they printed."""
        done = self.run("\n".join(runbook.commands[heading]))
        assert done.returncode == 0, f"{heading}: {done.stdout}"
        return done.stdout

    def is_over(self, runbook: Runbook) -> bool:
        """Whether every line below *Over* succeeds, each in a shell of its own, so that one with `!` counts too."""
        lines = "".join(runbook.commands["Over"]).splitlines()
        return all(self.run(line).returncode == 0 for line in lines)

    def wait_over(self, runbook: Runbook) -> None:
        deadline_s = time.monotonic() + PHASE_TIMEOUT_S
        while not self.is_over(runbook):
            assert time.monotonic() < deadline_s, runbook.commands["Over"]

    def follow(
        self, runbook: Runbook, *, seen: tuple[str, ...], before_over: Callable[[], object] = lambda: None
    ) -> str:
        """Do all that the page says, and check that each part of it tells the truth. Returns what *Do* printed."""
        assert not self.is_over(runbook)
        shown = self.phase(runbook, "Look")
        for each in seen:
            assert each in shown, f"Look shows no {each!r}: {shown}"
        printed = self.phase(runbook, "Do")
        before_over()
        self.wait_over(runbook)
        return printed

    def _handler(self) -> type[socketserver.StreamRequestHandler]:
        machine = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                verb, name = self.rfile.readline().decode().split()
                try:
                    answer = machine._manage(verb, machine.units[name])
                except Exception as error:  # noqa: BLE001 - the shell is told
                    print(f"systemctl {verb} {name}: {error!r}")
                    answer = "failed"
                self.wfile.write(answer.encode() + b"\n")

        return Handler

    def _manage(self, verb: str, unit: Unit) -> str:
        if verb in {"stop", "restart"} and unit.is_active():
            unit.stop()
        if verb in {"start", "restart"}:
            unit.start()
        if verb == "reload":
            unit.reload()
        if verb == "stop":
            return "stopped"
        return "active" if unit.is_active() else "inactive"


class Load:
    """Sends new records for as long as it is entered."""

    def __init__(
        self, backend: Backend, *, key: str = HMAC_KEY, interval_s: float = 0.05, padding: int = 0
    ) -> None:
        self._backend = backend
        self.key = key
        self._interval_s = interval_s
        self._padding = "x" * padding
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.statuses: Counter[int] = Counter()
        self._epoch = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(WAIT_TIMEOUT_S)

    def send(self) -> int:
        """Send one record; returns the status, or 0 where nobody answers."""
        self._epoch += 1
        document = pcs_records.document(epoch=self._epoch, shard_id="plant-7/a")
        body = pcs_records.body(
            pcs_records.sign(document | {"padding": self._padding}, hmac_key=self.key.encode())
        )
        address = urlsplit(self._backend.url)
        connection = http.client.HTTPConnection(
            str(address.hostname), address.port or 0, timeout=WAIT_TIMEOUT_S
        )
        try:
            connection.request("POST", "/v1/pcs/submit", body, {"Content-Type": "application/json"})
            return connection.getresponse().status
        except OSError:
            return 0
        except http.client.HTTPException:
            return 0
        finally:
            connection.close()

    def wait_for(self, status: int, count: int = 1) -> None:
        deadline_s = time.monotonic() + WAIT_TIMEOUT_S
        wanted = self.statuses[status] + count
        while self.statuses[status] < wanted:
            assert time.monotonic() < deadline_s, self.statuses
            time.sleep(0.02)

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self.statuses[self.send()] += 1


@contextlib.contextmanager
def machine(
    folder: Path,
    units: dict[str, Unit] | None = None,
    *,
    data: Path | None = None,
    names: dict[str, str] | None = None,
    **variables: str,
) -> Iterator[Machine]:
    """A machine whose service runs with these variables."""
    settings = folder / "backend.env"
    backend = Backend(data or folder / "data", **variables)
    if any(name.startswith(("TEST_", "QUOTA_")) for name in variables):
        backend.command = LAUNCHER
    service = Service(settings, backend)
    with Machine(
        folder, {"pcs-backend": service, **(units or {})}, settings=str(settings), **(names or {})
    ) as made:
        service.start()
        yield made


@pytest.fixture
def hmac_file(tmp_path: Path) -> Path:
    """A key file with the old key; the new one lies beside it."""
    keys = tmp_path / "keys.toml"
    (tmp_path / "plant-7-old.key").write_text(OLD_KEY)
    (tmp_path / "plant-7-new.key").write_text(NEW_KEY)
    keys.write_text('[[keys]]\nid = "plant-7-old"\nalgorithm = "hmac"\nsecret = "file:plant-7-old.key"\n')
    return keys


def test_throttling(tmp_path: Path, hmac_variables: dict[str, str]) -> None:
    with (
        machine(tmp_path, TOKEN_RATE="5", **hmac_variables) as here,
        Load(here.service.backend) as load,
    ):
        load.wait_for(429)
        here.follow(Runbook("throttling"), seen=("rate-limited", "429 refused", "TOKEN_RATE=5"))
        load.wait_for(200, 20)
        assert here.service.variables["TOKEN_RATE"] == "1000"


def test_store_outage(tmp_path: Path, hmac_variables: dict[str, str]) -> None:
    with (
        RedisServer() as redis,
        machine(
            tmp_path,
            {"redis": Store(redis)},
            DEDUP_BACKEND="redis",
            REDIS_ADDR=redis.address,
            **hmac_variables,
        ) as here,
        Load(here.service.backend) as load,
    ):
        load.wait_for(200)
        redis.stop()
        load.wait_for(503)
        here.follow(
            Runbook("store-outage"),
            seen=("store redis DOWN", "the dedup store cannot be asked", " open "),
            before_over=lambda: (load.wait_for(200), load.stop()),
        )


def test_spike_401(tmp_path: Path, hmac_file: Path) -> None:
    with (
        machine(tmp_path, names={"keys": str(hmac_file)}, PCS_KEYS_FILE=str(hmac_file)) as here,
        Load(here.service.backend, key=NEW_KEY) as load,
    ):
        load.wait_for(401)
        here.follow(Runbook("spike-401"), seen=("bad-signature, no_key", "plant-7/a", "plant-7-old"))
        load.wait_for(200, 5)


def test_escalation_spike(tmp_path: Path, hmac_variables: dict[str, str]) -> None:
    params = tmp_path / "params.toml"
    params.write_text('version = "2026-11-wrong"\nalpha = 0.9\n')
    params.with_suffix(".toml.previous").write_text('version = "2026-10"\n')
    with (
        machine(
            tmp_path, names={"params": str(params)}, PCS_PARAMS_FILE=str(params), **hmac_variables
        ) as here,
        Load(here.service.backend) as load,
    ):
        load.wait_for(202, 3)
        printed = here.follow(Runbook("escalation-spike"), seen=("budget_mismatch", "plant-7/a"))
        assert re.search(r"^[1-9]\d* acknowledged, 0 not in the queue$", printed, re.MULTILINE)
        load.wait_for(200, 5)


def test_wal_growth(tmp_path: Path, hmac_variables: dict[str, str]) -> None:
    names = {"allowed": "500000"}
    with machine(tmp_path, names=names, WAL_RETENTION_DAYS="14", **SMALL, **hmac_variables) as here:
        with Load(here.service.backend, interval_s=0.001, padding=20_000) as load:
            load.wait_for(200, 40)
        here.follow(Runbook("wal-growth"), seen=("WAL_RETENTION_DAYS=14", "WAL "))
        assert load.send() == 200


def test_disk_full(tmp_path: Path, hmac_variables: dict[str, str]) -> None:
    with (
        small_disk(tmp_path) as disk,
        machine(
            tmp_path,
            data=disk.folder / "data",
            names={"ballast": str(disk.folder / "ballast")},
            DISK_FREE_MIN_BYTES=str(8 * MIB),
            **disk.variables,
            **hmac_variables,
        ) as here,
        Load(here.service.backend) as load,
    ):
        load.wait_for(200)
        disk.fill(4 * MIB)
        load.wait_for(503)
        here.follow(Runbook("disk-full"), seen=("NOT READY", "ballast" if disk.variables else "small disk"))
        load.wait_for(200)


def test_key_rotation(tmp_path: Path, hmac_file: Path) -> None:
    good = hmac_file.read_text()
    with (
        machine(tmp_path, names={"keys": str(hmac_file)}, PCS_KEYS_FILE=str(hmac_file)) as here,
        Load(here.service.backend, key=OLD_KEY) as load,
    ):
        hmac_file.with_suffix(".toml.previous").write_text(good)
        hmac_file.write_text(good + "[[keys]\n")
        here.service.reload()
        load.wait_for(200, 5)
        here.follow(Runbook("key-rotation"), seen=("PCS_KEYS_FILE: ", "STALE"))
        load.wait_for(401)
        load.stop()
        load.key = NEW_KEY
        assert load.send() == 200


def test_restore_after_crash(tmp_path: Path, hmac_variables: dict[str, str]) -> None:
    with machine(tmp_path, **SMALL, **hmac_variables) as here:
        backend = here.service.backend
        with Load(backend, interval_s=0.001, padding=20_000) as load:
            load.wait_for(200, 30)
            backend.kill()
        segment = min((tmp_path / "data/wal/0").glob("*.wal"))
        data = bytearray(segment.read_bytes())
        data[len(data) // 2] ^= 0xFF
        segment.write_bytes(data)
        printed = here.follow(Runbook("restore-after-crash"), seen=("inactive", "DAMAGED", "damaged: 0/"))
        assert "good frames" in printed
        assert (tmp_path / "data.before-repair/wal/0" / segment.name).read_bytes() == data
        assert load.send() == 200


def test_canary_gone_wrong(tmp_path: Path, hmac_variables: dict[str, str]) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('version = "canary"\nalpha = 0.9\n')
    with RedisServer() as redis:
        store = {"DEDUP_BACKEND": "redis", "REDIS_ADDR": redis.address, **hmac_variables}
        canary = Service(
            tmp_path / "canary.env", Backend(tmp_path / "canary", PCS_PARAMS_FILE=str(wrong), **store)
        )
        canary.start()
        names = {"canary": str(tmp_path / "canary")}
        with (
            machine(tmp_path, {"pcs-backend-canary": canary}, names=names, **store) as here,
            Load(canary.backend) as share,
        ):
            share.wait_for(202, 3)
            printed = here.follow(
                Runbook("canary-gone-wrong"),
                seen=("budget_mismatch", "escalated"),
                before_over=share.stop,
            )
            assert "0 deferred, 0 too old, 0 unreadable" in printed
            assert re.search(r"^[1-9]\d* acknowledged, 0 not in the queue$", printed, re.MULTILINE)
            assert not canary.is_active()
            with Load(here.service.backend) as rest:
                rest._epoch = 100_000
                rest.wait_for(200, 3)


def test_calibration(tmp_path: Path, hmac_variables: dict[str, str]) -> None:
    variables = hmac_variables | {
        "ENABLE_CONFORMAL_GATE": "true",
        "CALIBRATION_RECALIBRATE": "manual",
        "CALIBRATION_SCORE": "weighted",
    }
    environ = clean_environment(DATA_DIR=str(tmp_path / "data"), **variables)
    spread = [number / 200 for number in range(200)]
    asyncio.run(promote(environ, msgspec.structs.replace(set_of(spread, spread), made_at_ms=now_ms())))
    usual = pcs_records.document()
    signals = {
        "benign": Signals(round(usual["D_hat"], 9), usual["coh_star"], usual["r"]),
        "bad": Signals(0.0, 0.0, 0.0),
    }
    asyncio.run(put_labels(environ, *(labelled(label, signals[label], 150) for label in get_args(Label))))
    with (
        machine(tmp_path, **variables) as here,
        Load(here.service.backend, interval_s=0.02) as load,
    ):
        load.wait_for(202, 120)
        runbook = Runbook("calibration")
        while here.is_over(runbook):  # until the next turn of the monitors
            assert load.statuses[202] < 1_000, "no drift is seen"
        printed = here.follow(
            runbook,
            seen=(
                'flk_calibration_drift{monitor="ks",tenant="default"} 1.0',
                "CALIBRATION_RECALIBRATE=manual",
                "a test",
            ),
        )
        assert "version 2 is in force" in printed
        load.wait_for(200, 5)


def test_every_runbook_is_run_and_is_in_the_table() -> None:
    pages = {page.stem for page in RUNBOOKS.glob("*.md")} - {"README"}
    run = {name.removeprefix("test_").replace("_", "-") for name in globals() if name.startswith("test_")}
    assert pages <= run
    assert len(pages) == 10
    table = (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    for page in pages:
        assert f"]({page}.md)" in table
        alerts = set(re.findall(r"`(Pcs\w+)`", (RUNBOOKS / f"{page}.md").read_text(encoding="utf-8")))
        row = next(line for line in table.splitlines() if f"]({page}.md)" in line)
        assert set(re.findall(r"`(Pcs\w+)`", row)) == alerts
