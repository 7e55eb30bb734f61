"""A disk that fails at one call: the boundary is where `pcs_core.wal.files` calls the system, everything else is real.

A call site is where product code asks the disk for something, the way through `files.py`, and the system call at its end:

    log.Wal._sync_made  sync_folder/_folder  open

Sites are found twice. `static_sites` reads them from the source, `DiskFaults` takes them from the stack as they are passed.
What one finds and the other does not is a call that no test fails, and the tests of the tables say so.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Self

import pcs_core.wal.files as product
from pcs_core.wal import PosixFiles

CALLS = (
    "open",
    "mkdir",
    "listdir",
    "writev",
    "write",
    "fdatasync",
    "fsync",
    "ftruncate",
    "rename",
    "unlink",
)
"""System calls that can fail here; `open` is both `os.open` and the built-in."""

TAKES_EFFECT = ("mkdir", "fdatasync", "fsync", "ftruncate", "rename", "unlink")
"""Those that may take effect and still report an error."""

ROOT = Path(__file__).resolve().parents[1]
ROOMS = (
    "core/pcs_core/wal",
    "agent/pcs_agent/outbox",
    "backend/pcs_backend/inbox",
    "backend/pcs_backend/dedup/memory_store.py",
    "backend/pcs_backend/engine.py",
    "backend/pcs_backend/fsck.py",
)
"""Where the disk is asked for something."""

_FILES_PY = str(Path(product.__file__))
_METHODS = {name for name in vars(PosixFiles) if not name.startswith("_")}


class Site(NamedTuple):
    """Where a system call comes from.

    Attributes:
        place: Module and function that ask the disk.
        way: What they ask for, and what that calls in turn.
        call: The system call.
    """

    place: str
    way: str
    call: str

    @property
    def asked(self) -> str:
        """What the product asks for, without how the disk does it."""
        return f"{self.place} {self.way.partition('/')[0]}"


class Fault(NamedTuple):
    """One failure.

    Attributes:
        site: Where.
        code: The error.
        after: Whether the call takes effect all the same.
        skip: How often the site is passed before.
    """

    site: Site
    code: int
    after: bool = False
    skip: int = 0

    def __str__(self) -> str:
        when = " after it took effect" if self.after else ""
        return f"{' '.join(self.site)}: {errno.errorcode[self.code]}{when}"


class DiskFaults:
    """Watches every system call of `files.py` while it is entered, and fails those that `decide` says.

    Attributes:
        seen: Sites in the order they were passed.
        decide: Returns the error of a call, and whether it takes effect first; `None` lets it be.
    """

    def __init__(self, decide: Callable[[Site], Fault | None] = lambda _site: None) -> None:
        self.seen: list[Site] = []
        self.decide = decide
        self.shorten_writev_of: Site | None = None

    def __enter__(self) -> Self:
        product.os = _System(self)  # type: ignore[assignment]
        product.open = self._wrap("open", builtins.open)  # type: ignore[attr-defined]
        return self

    def __exit__(self, *_: object) -> None:
        product.os = os
        del product.open  # type: ignore[attr-defined]

    def fail_once(self, fault: Fault) -> list[Site]:
        """Let one call at the fault's site fail, and what must fail before it. Returns what has failed so far."""
        first = cause_of(fault.site)
        left = (
            [fault] if first is None else [Fault(first, fault.code, skip=fault.skip), fault._replace(skip=0)]
        )
        passed: list[Site] = []
        failed: list[Site] = []

        def decide(site: Site) -> Fault | None:
            if not left or site != left[0].site:
                return None
            passed.append(site)
            if len(passed) <= left[0].skip:
                return None
            passed.clear()
            failed.append(site)
            return left.pop(0)

        self.decide = decide
        # A second write is only made after a first one that took a part; so a part is all the first one takes.
        self.shorten_writev_of = fault.site._replace(call="writev") if fault.site.call == "write" else None
        return failed

    def heal(self) -> None:
        """Let everything succeed."""
        self.decide = lambda _site: None
        self.shorten_writev_of = None

    def _wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            site = _site_of(sys._getframe(1), name)
            self.seen.append(site)
            fault = self.decide(site)
            if fault is not None:
                if fault.after:
                    with contextlib.suppress(OSError):
                        call(*arguments, **options)
                raise OSError(fault.code, os.strerror(fault.code))
            if name == "writev" and site == self.shorten_writev_of:
                handle, buffers = arguments
                data = b"".join(buffers)
                return os.write(handle, data[: max(1, len(data) // 2)])
            return call(*arguments, **options)

        return wrapped


def cause_of(site: Site) -> Site | None:
    """Return what must fail before a site is passed at all, where it is there for that case."""
    if site.call == "unlink" and site.way.endswith("replace"):
        return site._replace(call="fsync")
    if site == Site("log.Wal._write", "truncate", "ftruncate"):
        return Site("log.Wal._write", "append", "writev")
    return None


def with_consequences(seen: Iterable[Site]) -> list[Site]:
    """Return the sites, and those that are passed only after one of them failed or took a part."""
    found = list(dict.fromkeys(seen))
    possible = static_sites()
    found += [site for site in sorted(possible) if cause_of(site) in found]
    found += [write for site in found if (write := site._replace(call="write")) in possible]
    return list(dict.fromkeys(found))


class _System:
    """The module `os` with its calls watched."""

    def __init__(self, faults: DiskFaults) -> None:
        for name in CALLS:
            setattr(self, name, faults._wrap(name, getattr(os, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def _site_of(frame: FrameType | None, call: str) -> Site:
    """Return the site of a call from the stack above it."""
    way: list[str] = []
    inner = call
    while frame is not None:
        name, code = frame.f_code.co_filename, frame.f_code
        if name == _FILES_PY:
            label = _label(name, code.co_qualname, frame.f_lineno, inner)
            if inner == call and not way:
                call_label = label
            else:
                way.insert(0, label)
            inner = code.co_name
        elif "/pcs_" in name and str(ROOT) in name:
            way.insert(0, _asked_label(name, code.co_qualname, frame.f_lineno, inner))
            return Site(f"{Path(name).stem}.{code.co_qualname}", "/".join(_merge(way)), call_label)
        frame = frame.f_back
    return Site("tests", "/".join(_merge([inner, *way])), call)


def _merge(way: Sequence[str]) -> list[str]:
    """Return the way without a function's calls of itself."""
    return [step for index, step in enumerate(way) if index == 0 or step != way[index - 1]]


# The same from the source


@cache
def _functions(path: str) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return the functions of a file by qualified name."""
    found: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = {}

    def walk(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                walk(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                found[prefix + child.name] = child
                walk(child, f"{prefix}{child.name}.<locals>.")

    walk(ast.parse(Path(path).read_text(encoding="utf-8")), "")
    return found


def _calls(function: ast.AST) -> list[tuple[str, ast.expr, ast.Call]]:
    """Return the calls in a function in the order of the source: name, what it is called on, the call."""
    found = []
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            found.append((node.func.attr, node.func.value, node))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found.append((node.func.id, node.func, node))
    return sorted(found, key=lambda each: (each[2].lineno, each[2].col_offset))


@cache
def _label(path: str, qualname: str, line: int, name: str) -> str:
    """Return a called function's name, numbered where the caller calls it in several places."""
    return _numbered(name, line, _calls(_functions(path)[qualname]))


@cache
def _asked_label(path: str, qualname: str, line: int, name: str) -> str:
    """The same where the disk is asked."""
    calls = _calls(_functions(path)[qualname])
    return _numbered(name, line, [each for each in calls if _is_disk(each[1])])


def _numbered(name: str, line: int, calls: list[tuple[str, ast.expr, ast.Call]]) -> str:
    same = [call for each, _, call in calls if each == name]
    for number, call in enumerate(same, start=1):
        if len(same) > 1 and call.lineno <= line <= (call.end_lineno or line):
            return f"{name}#{number}"
    return name


def _is_disk(owner: ast.expr) -> bool:
    return ast.unparse(owner).rpartition(".")[2] in {"files", "_files"}


def _ways(method: str, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield each way from a method of the disk to a system call."""
    functions = _functions(_FILES_PY)
    qualname = f"PosixFiles.{method}" if f"PosixFiles.{method}" in functions else method
    for name, owner, call in _calls(functions[qualname]):
        label = _label(_FILES_PY, qualname, call.lineno, name)
        is_system = isinstance(owner, ast.Name) and (
            owner.id == "os" or (name == "open" and owner.id == "open")
        )
        if is_system and name in CALLS:
            yield above, label
        elif name != method and ast.unparse(owner) in {"self", "_folder"}:
            yield from _ways(name, (*above, label))


def static_sites() -> set[Site]:
    """Return every site that the source has."""
    sites = set()
    for path, qualname, name, call in _asked():
        label = _asked_label(path, qualname, call.lineno, name)
        place = f"{Path(path).stem}.{qualname}"
        sites |= {Site(place, "/".join(_merge((label, *way))), last) for way, last in _ways(name)}
    return sites


def _asked() -> Iterator[tuple[str, str, str, ast.Call]]:
    for path in _sources():
        for qualname, function in _functions(str(path)).items():
            for name, owner, call in _calls(function):
                if _is_disk(owner) and name in _METHODS:
                    yield str(path), qualname, name, call


def system_calls_elsewhere() -> list[str]:
    """Return the calls of the system in the rooms that do not go through `files.py`."""
    return [
        f"{path.stem}.{qualname} os.{name}"
        for path in _sources()
        for qualname, function in _functions(str(path)).items()
        for name, owner, _ in _calls(function)
        if (isinstance(owner, ast.Name) and owner.id == "os" and name in CALLS)
        or ast.unparse(owner) == "open"
    ]


def _sources() -> list[Path]:
    paths = [ROOT / room for room in ROOMS]
    found = [each for path in paths for each in (sorted(path.glob("*.py")) if path.is_dir() else [path])]
    return [path for path in found if str(path) != _FILES_PY]


@contextlib.contextmanager
def watched() -> Iterator[DiskFaults]:
    """Watch the disk; nothing fails before it is told to."""
    with DiskFaults() as faults:
        yield faults
