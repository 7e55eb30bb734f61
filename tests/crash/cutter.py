"""Inside the process under test: knows which place it is in, and cuts at the planned system call.

It stands between the product's file primitives and `os`; the product itself has no switch for it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from crash.image import cut_power
from crash.plan import Moment, Place, Plan

PATIENCE_S = 1.0
"""When the planned call has not come so long after the arming, any call in the place will do."""

_WATCHED = ("writev", "write", "fdatasync", "fsync", "ftruncate", "rename", "unlink", "mkdir", "open")
_ALIASES = {"write": "writev"}


class Cutter:
    """One cut, once armed."""

    def __init__(self, control: socket.socket, cut_folder: str | None) -> None:
        """Fork the executioner. Call it before any thread is started.

        Args:
            control: The line to the harness.
            cut_folder: A folder of the disk to cut; `None` kills and no more.
        """
        receiving, self._executioner = os.pipe()
        if os.fork() == 0:
            os.close(self._executioner)
            _execute(receiving, control, cut_folder)
        os.close(receiving)
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
        """Have the cut made. Does not return."""
        processes = [os.getpid(), *self._others]
        order = {"place": plan.place, "call": name, "moment": plan.moment, "processes": processes}
        os.write(self._executioner, json.dumps(order).encode())
        threading.Event().wait()


def _execute(orders: int, control: socket.socket, cut_folder: str | None) -> NoReturn:
    """Wait for the order, then cut: kill, and only then shut the disk down, so that nobody acknowledges what is lost.

    A process of its own, because no process can do both. It ends with its parent.
    """
    try:
        for number in range(3):
            os.close(number)
        folder = None if cut_folder is None else os.open(cut_folder, os.O_RDONLY | os.O_DIRECTORY)
        if order := os.read(orders, select.PIPE_BUF):
            told = json.loads(order)
            told["at_s"] = time.monotonic()
            for process in told.pop("processes"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            if folder is not None:
                cut_power(folder)
            control.sendall(json.dumps(told).encode() + b"\n")
    finally:  # nothing of the parent runs a second time here
        os._exit(0)


class WatchedOs:
    """`os` for the module of file primitives, its writing calls watched."""

    def __init__(self, cutter: Cutter, real: Any) -> None:
        self._real = real
        for name in _WATCHED:
            setattr(self, name, cutter.watched(name, getattr(real, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)
