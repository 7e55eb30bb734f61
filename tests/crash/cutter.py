"""Inside the process under test: knows which place it is in, and cuts at the planned system call.

It stands between the product's file primitives and `os`; the product itself has no switch for it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from crash.image import cut_power
from crash.plan import Moment, Place, Plan

PATIENCE_S = 1.0
"""When the planned call has not come so long after the arming, any call in the place will do."""

_WATCHED = ("writev", "write", "fdatasync", "fsync", "ftruncate", "rename", "unlink", "mkdir", "open")
_ALIASES = {"write": "writev"}


class Cutter:
    """One cut, once armed."""

    def __init__(self, control: socket.socket, cut_folder: str | None) -> None:
        """Take the line to the harness, and a folder of the disk to cut; `None` kills this process and no more."""
        self._control = control
        self._folder = None if cut_folder is None else os.open(cut_folder, os.O_RDONLY | os.O_DIRECTORY)
        self._plan: Plan | None = None
        self._others: Sequence[int] = ()
        self._patient_until_s = 0.0
        self._calls = 0
        self._guard = threading.Lock()
        self._thread = threading.local()
        self.armed = threading.Event()

    def arm(self, plan: Plan, others: Sequence[int]) -> None:
        """Cut as planned from now on, and let the processes die that share the machine."""
        self._others = others
        self._patient_until_s = time.monotonic() + PATIENCE_S
        self._plan = plan
        self.armed.set()

    @property
    def here(self) -> Place | None:
        """The place this thread is in."""
        place: Place | None = getattr(self._thread, "place", None)
        return place

    @contextlib.contextmanager
    def at(self, place: Place) -> Iterator[None]:
        """Be in a place, in this thread; the innermost counts."""
        outer = self.here
        self._thread.place = place
        try:
            yield
        finally:
            self._thread.place = outer

    def place_of(self, place: Place, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method, being in that place while it runs."""

        @functools.wraps(method)
        def placed(*args: Any, **kwargs: Any) -> Any:
            with self.at(place):
                return method(*args, **kwargs)

        return placed

    def watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the call, with the cut before, during or after it if it is the planned one."""
        name = _ALIASES.get(name, name)

        @functools.wraps(call)
        def around(*args: Any, **kwargs: Any) -> Any:
            plan = self._plan_for(name)
            if plan is None:
                return call(*args, **kwargs)
            if plan.moment is Moment.BEFORE:
                self._cut(plan, name)
            if plan.moment is Moment.DURING:
                threading.Thread(target=self._cut_soon, args=(plan, name), daemon=True).start()
            result = call(*args, **kwargs)
            if plan.moment is Moment.AFTER:
                self._cut(plan, name)
            return result

        return around

    def _plan_for(self, name: str) -> Plan | None:
        plan = self._plan
        if plan is None or self.here is not plan.place:
            return None
        with self._guard:
            if self._plan is None:
                return None  # another thread was first
            self._calls += name == plan.call
            planned = name == plan.call and self._calls == plan.nth
            if not planned and time.monotonic() < self._patient_until_s:
                return None
            self._plan = None
        return plan

    def _cut_soon(self, plan: Plan, name: str) -> None:
        time.sleep(plan.delay_s)
        self._cut(plan, name)

    def _cut(self, plan: Plan, name: str) -> None:
        """Tell the harness, cut, die. Nobody acknowledges anything after the cut."""
        told = {"place": plan.place, "call": name, "moment": plan.moment, "at_s": time.monotonic()}
        self._control.sendall(json.dumps(told).encode() + b"\n")
        for process in self._others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        if self._folder is not None:
            cut_power(self._folder)
        os.kill(os.getpid(), signal.SIGKILL)
        threading.Event().wait()  # the signal is on its way: nothing more happens in this thread


class WatchedOs:
    """`os` for the module of file primitives, its writing calls watched."""

    def __init__(self, cutter: Cutter, real: Any) -> None:
        self._real = real
        for name in _WATCHED:
            setattr(self, name, cutter.watched(name, getattr(real, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)
