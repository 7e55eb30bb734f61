"""A worker process: takes tasks from standard input, one after another, and writes results to standard output.

It owns nothing that outlives it, so it may be killed at any moment. It ends with its parent, however that ends: a
thread of its own reads ahead, and when the pipe ends the process does, in the middle of a task too. Started by
`pcs_agent.engines.local`; what is printed meanwhile goes to standard error.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
from typing import IO

from pcs_agent.engines.pipes import read_message, write_message


def main() -> None:
    """Work until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this one
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.dup2(2, 1)
    threading.Thread(target=_read, args=(source, tasks), name="tasks", daemon=True).start()
    while True:
        work, task = pickle.loads(tasks.get())  # noqa: S301  # from the parent, see pipes
        result = pickle.dumps(work(task))
        try:
            write_message(sink, result)
        except BrokenPipeError:
            os._exit(0)


def _read(source: IO[bytes], tasks: queue.SimpleQueue[bytes]) -> None:
    while (message := read_message(source)) is not None:
        tasks.put(message)
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
