"""Worker processes: what they do, and how they end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import psutil
import pytest

from pcs_agent.engines import EngineClosedError, Lost, in_order
from pcs_agent.engines.local import LocalEngine

pytestmark = pytest.mark.slow

TIMEOUT_S = 60.0


@pytest.fixture
def engine() -> Iterator[LocalEngine[str, str]]:
    opened: LocalEngine[str, str] = LocalEngine(os.path.basename, jobs=2)
    yield opened
    opened.close()


def test_tasks_and_results_of_several_megabytes_pass(engine: LocalEngine[str, str]) -> None:
    tasks = ["/" + str(number) * 3_000_000 for number in range(6)]
    assert list(in_order(engine, tasks)) == [task[1:] for task in tasks]
    assert len(engine.process_ids) == 2


def test_an_idle_worker_that_dies_is_replaced_when_there_is_work(engine: LocalEngine[str, str]) -> None:
    assert list(in_order(engine, ["/a"])) == ["a"]
    (pid,) = engine.process_ids
    os.kill(pid, signal.SIGKILL)
    assert list(in_order(engine, ["/b", "/c"])) == ["b", "c"]
    assert pid not in engine.process_ids


def test_a_worker_that_ends_by_itself_is_told_with_its_status() -> None:
    engine: LocalEngine[int, None] = LocalEngine(os._exit, jobs=1)
    try:
        assert list(in_order(engine, [3, 4])) == [Lost("exit status 3"), Lost("exit status 4")]
    finally:
        engine.close()


def test_closing_wakes_who_waits_and_leaves_no_process() -> None:
    engine: LocalEngine[float, None] = LocalEngine(signal.sigwait, jobs=2)  # type: ignore[arg-type]
    ended = threading.Event()

    def wait() -> None:
        try:
            engine.wait()
        except EngineClosedError:
            ended.set()

    for number in range(4):
        engine.submit(number, {signal.SIGUSR1})  # type: ignore[arg-type]
    processes = [psutil.Process(pid) for pid in engine.process_ids]
    assert len(processes) == 2
    waiting = threading.Thread(target=wait)
    waiting.start()
    engine.close()
    waiting.join(TIMEOUT_S)
    assert ended.is_set()
    assert not any(process.is_running() for process in processes)
