"""Many streams in one run, as real processes: engines, bad files, dying workers, a killed parent."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent_commands import TIMEOUT_S, command, lines, run, start
from many_streams import KEY, EngineRuns, fill, silent_stream
from processes import Backend, Client

pytestmark = pytest.mark.slow

FILES = 24


class TestLocal(EngineRuns):
    engine = ()


class TestDask(EngineRuns):
    engine = ("--engine", "dask")


def fill_with_small(folder: Path) -> None:
    folder.mkdir()
    for number in range(FILES):
        rows = "".join(f"{number + row},{row}\n" for row in range(20))
        (folder / f"{number:02}.csv").write_text("x,y\n" + rows, encoding="utf-8")


async def test_a_parent_killed_again_and_again_has_every_record_counted_once(tmp_path: Path) -> None:
    fill_with_small(tmp_path / "data")
    arguments = ("run", "data", "--shard-id", "s", "--epoch", "0", "--jobs", "2", "--json")
    alone = {"BATCH_RECORDS": "1"}  # more answers, and so more moments to be killed at
    with Backend(tmp_path / "backend") as backend:
        endpoint = backend.url + "/v1/pcs/submit"
        for settled in (1, 4, 9):
            with start(tmp_path, endpoint, *arguments, **alone) as process:
                for _ in range(settled):
                    assert process.stdout.readline() != b""
                family = psutil.Process(process.pid).children(recursive=True)
                process.kill()
            assert psutil.wait_procs(family, timeout=TIMEOUT_S)[1] == []
        result = run(tmp_path, endpoint, *arguments)
        assert result.returncode == 0, result.stderr
        printed = lines(result.stdout)
        assert sorted(line["shard_id"] for line in printed) == [
            f"s/{number:02}.csv" for number in range(FILES)
        ]
        assert {line["verdict"] for line in printed} == {"accepted"}
        async with Client(backend) as client:
            ingested, replayed, accepted, escalated = await client.counters()
        assert (accepted, escalated) == (FILES, 0)
        assert ingested - replayed == FILES
    entries = lines(run(tmp_path, endpoint, "outbox", "list", "--json").stdout)
    assert sorted(entry["state"] for entry in entries) == ["acked"] * FILES
    assert len({entry["pcs_id"] for entry in entries}) == FILES


def test_a_worker_that_dies_once_costs_nothing_and_one_that_dies_again_its_file_alone(
    tmp_path: Path, threaded_backend: Any
) -> None:
    for name in ("slow.csv", "worse.csv"):
        os.mkfifo(tmp_path / name)
    for name in ("a.csv", "b.csv", "z.csv"):
        (tmp_path / name).write_text("x\n1\n2\n", encoding="utf-8")
    files = ("a.csv", "b.csv", "slow.csv", "worse.csv", "z.csv")
    arguments = ("run", *files, "--each", "--shard-id", "s", "--epoch", "0", "--jobs", "1", "--json")
    with start(tmp_path, threaded_backend.endpoint, *arguments) as process:

        def kill_worker_at(name: str) -> None:
            # It is stopped before the pipe is closed, and killed after: the next one must not find this end of it.
            with silent_stream(tmp_path / name):
                (worker,) = psutil.Process(process.pid).children()
                worker.suspend()
            worker.kill()
            psutil.wait_procs([worker], timeout=TIMEOUT_S)

        kill_worker_at("slow.csv")
        with silent_stream(tmp_path / "slow.csv") as pipe:
            pipe.write(b"x\n3\n4\n")
        for _ in range(2):
            kill_worker_at("worse.csv")
        printed, told = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert [line["shard_id"] for line in lines(printed)] == ["s/a.csv", "s/b.csv", "s/slow.csv", "s/z.csv"]
    assert told.decode().splitlines() == [
        "Warning: worse.csv: not summarised: its process ended again and again (SIGKILL)",
        "Warning: 1 of 5 files could not be summarised to the end; the others were",
    ]


def test_the_key_is_on_no_command_line_and_workers_compute_on_one_thread(
    tmp_path: Path, threaded_backend: Any
) -> None:
    os.mkfifo(tmp_path / "slow.csv")
    (tmp_path / "key").write_text("a-key-in-a-file-of-the-tests", encoding="ascii")
    (tmp_path / "key").chmod(0o600)
    arguments = ("run", "slow.csv", "--each", "--shard-id", "s", "--epoch", "0", "--key-file", "key")
    with start(
        tmp_path, threaded_backend.endpoint, *arguments, PCS_SIGN_ALG="hmac", OPENBLAS_NUM_THREADS="7"
    ) as process:
        with silent_stream(tmp_path / "slow.csv") as pipe:
            (worker,) = psutil.Process(process.pid).children()
            assert worker.cmdline()[1:] == ["-P", "-m", "pcs_agent.engines.worker"]
            environment = worker.environ()
            pipe.write(b"x\n1\n2\n")
        assert process.wait(TIMEOUT_S) == 0
    assert environment["OPENBLAS_NUM_THREADS"] == environment["OMP_NUM_THREADS"] == "1"
    assert not any("a-key-in-a-file" in value for value in environment.values())
    (document,) = threaded_backend.received
    assert len(document["sig"]) == 44


def test_ctrl_c_at_a_terminal_reaches_the_parent_alone_and_ends_all(
    tmp_path: Path, threaded_backend: Any
) -> None:
    fill(tmp_path / "data")
    os.mkfifo(tmp_path / "silent.csv")
    arguments = ("run", "data", "silent.csv", "--each", "--shard-id", "s", "--epoch", "0", "--jobs", "2")
    line, environment = command(tmp_path, threaded_backend.endpoint, *arguments)
    with subprocess.Popen(
        line,
        env=environment | KEY,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0,
    ) as process:
        with silent_stream(tmp_path / "silent.csv"):
            family = psutil.Process(process.pid).children(recursive=True)
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(TIMEOUT_S) == 1
        assert psutil.wait_procs(family, timeout=TIMEOUT_S)[1] == []
        assert process.stderr is not None
        (told,) = process.stderr.read().splitlines()
    assert told.startswith(b"Warning: interrupted; ")
