"""The engine of one machine: clean worker processes, one task each at a time and one that waits.

No forks: a worker is a new interpreter, which loads its libraries with one thread each. Keys and settings reach it
through its pipe and stand on no command line. Workers that die are replaced when there is work for them.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from pcs_agent.engines.pipes import read_message, write_message
from pcs_agent.engines.port import Done, EngineClosedError, Lost
from pcs_agent.errors import ConfigError
from pcs_agent.threads import ONE_THREAD

T = TypeVar("T")
R = TypeVar("R")

TASKS_PER_WORKER_MAX = 2
"""One is worked on, one waits in the pipe, so that a worker is not idle while the parent is busy."""


class _Worker:
    """One process, the numbers of its tasks, the first of them under way, and the thread that reads its results."""

    def __init__(self, read: Callable[[_Worker], None]) -> None:
        self.numbers: deque[int] = deque()
        self.reader = threading.Thread(target=read, args=(self,), name="worker's results", daemon=True)
        self.process = subprocess.Popen(
            # `-P`, so that nothing is imported from where it is started.
            [sys.executable, "-P", "-m", "pcs_agent.engines.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | ONE_THREAD,
            process_group=0,  # Ctrl-C reaches the whole terminal at once, and is the parent's
        )


class LocalEngine(Generic[T, R]):
    """`Engine` over processes of this machine."""

    def __init__(self, work: Callable[[T], R], jobs: int) -> None:
        """Start nothing yet: a worker is started when there is work for it.

        Args:
            work: What is done with each task; found by its name in the workers, so not a closure.
            jobs: Workers at most, ≥ 1.
        """
        self._work = work
        self._jobs = jobs
        self._lock = threading.Lock()  # over the workers and their numbers
        self._workers: list[_Worker] = []
        self._closed = False
        self._done: queue.SimpleQueue[Done[R] | None] = queue.SimpleQueue()

    @property
    def slots(self) -> int:
        """As `Engine.slots`."""
        return self._jobs * TASKS_PER_WORKER_MAX

    @property
    def process_ids(self) -> list[int]:
        """The workers that run now."""
        with self._lock:
            return [worker.process.pid for worker in self._workers]

    def submit(self, number: int, task: T) -> None:
        """As `Engine.submit`."""
        message = pickle.dumps((self._work, task))
        with self._lock:
            if self._closed:
                return
            worker = min(self._workers, key=lambda each: len(each.numbers), default=None)
            if worker is None or (worker.numbers and len(self._workers) < self._jobs):
                worker = self._start()
            worker.numbers.append(number)
            pipe = worker.process.stdin
            assert pipe is not None
            with contextlib.suppress(OSError):  # it died; its reader finds out, and hands the number back
                write_message(pipe, message)

    def wait(self) -> Done[R]:
        """As `Engine.wait`."""
        done = self._done.get()
        if done is None or self._closed:
            self._done.put(None)
            raise EngineClosedError("the engine was closed")
        return done

    def close(self) -> None:
        """As `Engine.close`: kills the workers, which own nothing, and waits for their end."""
        self._closed = True
        for worker in list(
            self._workers
        ):  # before the lock: who holds it may be writing to one that does not read
            worker.process.kill()
        with self._lock:
            workers = list(self._workers)
        for worker in workers:
            worker.process.kill()
            worker.reader.join()
        self._done.put(None)

    def _start(self) -> _Worker:
        problem = ""
        try:
            worker = _Worker(self._read)
        except OSError as error:
            problem = os.strerror(error.errno) if error.errno else type(error).__name__
        if problem:
            raise ConfigError(
                f"--jobs: a process cannot be started: {problem}; allowed: what the system grants"
            )
        self._workers.append(worker)
        worker.reader.start()
        return worker

    def _read(self, worker: _Worker) -> None:
        """Hand on a worker's results until it is gone, then what it left."""
        pipe = worker.process.stdout
        assert pipe is not None
        while (message := read_message(pipe)) is not None:
            result: R = pickle.loads(message)  # noqa: S301  # from a worker of this process
            with self._lock:
                number = worker.numbers.popleft()
            self._done.put(Done(number, result))
        reason = _describe_end(worker.process.wait())
        with self._lock:
            self._workers.remove(worker)
            left = list(worker.numbers)
            pipe.close()
            assert worker.process.stdin is not None
            with contextlib.suppress(OSError):  # what was still to be written
                worker.process.stdin.close()
        for place, number in enumerate(left):
            self._done.put(Done(number, Lost(reason, blamed=place == 0)))


def _describe_end(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
