"""A folder of streams run by an engine, as real processes: what every engine must show, in one class."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import psutil

from agent_commands import TIMEOUT_S, lines, run, start

KEY = {"PCS_SIGN_ALG": "hmac", "PCS_HMAC_KEY": "an-hmac-key-of-the-tests"}
OF_THE_DELIVERY = ("sent_at", "attempt", "ft")
"""What may differ between two runs over the same events."""


def fill(folder: Path) -> list[str]:
    """Put streams of several kinds below a folder; return their names below it."""
    (folder / "day 1").mkdir(parents=True)
    dice = np.random.default_rng(7)
    np.save(folder / "wide.npy", dice.random((3_000, 64)))
    np.save(folder / "day 1" / "flat.npy", dice.random((2_000, 3)))
    rows = "".join(f"{x:.6f},{y:.6f}\n" for x, y in dice.random((500, 2)))
    (folder / "day 1" / "a+b.csv").write_text("x,y\n" + rows, encoding="utf-8")
    (folder / "one.jsonl").write_text('{"x": 1}\n{"x": 2}\n', encoding="utf-8")
    return ["day 1/a+b.csv", "day 1/flat.npy", "one.jsonl", "wide.npy"]


def computed(received: list[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    """Return received records by shard and epoch, without what belongs to the delivery."""
    assert len({document["pcs_id"] for document in received}) == len(received)
    return {
        (document["shard_id"], document["epoch"]): {
            name: value for name, value in document.items() if name not in OF_THE_DELIVERY
        }
        for document in received
    }


def listening_addresses(process: psutil.Process) -> set[str]:
    """Return where a process and all below it listen."""
    found = set()
    for each in [process, *process.children(recursive=True)]:
        try:
            connections = each.net_connections("inet")
        except psutil.NoSuchProcess:
            continue
        found |= {held.laddr.ip for held in connections if held.status == psutil.CONN_LISTEN}
    return {address.removeprefix("::ffff:") for address in found}


class EngineRuns:
    """What every engine must show. A subclass names it."""

    engine: ClassVar[tuple[str, ...]]

    def test_the_records_are_those_of_each_file_in_a_run_of_its_own(
        self, tmp_path: Path, threaded_backend: Any
    ) -> None:
        names = fill(tmp_path / "data")
        common = ("--epoch", "5", "--window", "1000", "--json")
        # As many threads as there are cores, unless the agent says otherwise.
        for name in names:
            shard = "s/" + name.replace("+", "+2B").replace(" ", "+20")
            with start(
                tmp_path,
                threaded_backend.endpoint,
                *("run", f"data/{name}", "--shard-id", shard, *common),
                **KEY,
                OPENBLAS_NUM_THREADS=str(max(2, os.cpu_count() or 2)),
            ) as process:
                assert process.wait(TIMEOUT_S) == 0, process.stderr.read()
        alone = computed(threaded_backend.received)
        assert len(alone) == 3 + 2 + 1 + 1
        threaded_backend.received.clear()

        arguments = ("run", "data", "--shard-id", "s", *common, "--jobs", "2", *self.engine)
        other = KEY | {"OUTBOX_DIR": str(tmp_path / "other")}
        with start(tmp_path, threaded_backend.endpoint, *arguments, **other) as process:
            printed, told = process.communicate(timeout=2 * TIMEOUT_S)
        assert (process.returncode, told) == (0, b"")
        assert computed(threaded_backend.received) == alone
        assert {(line["shard_id"], line["epoch"]) for line in lines(printed)} == alone.keys()

        with start(tmp_path, threaded_backend.endpoint, *arguments, **other) as process:
            printed, _ = process.communicate(timeout=2 * TIMEOUT_S)
        assert [line["already_delivered"] for line in lines(printed)] == [True] * len(alone)
        assert len(threaded_backend.received) == len(alone)

    def test_a_bad_file_is_named_and_the_others_go_on(self, tmp_path: Path, threaded_backend: Any) -> None:
        names = fill(tmp_path / "data")
        (tmp_path / "data" / "bad.csv").write_text("x\n1\nsecret-value\n", encoding="utf-8")
        arguments = ("run", "data", "--shard-id", "s", "--epoch", "0", "--jobs", "2", *self.engine)
        result = run(tmp_path, threaded_backend.endpoint, *arguments)
        assert result.returncode == 2
        assert sorted(document["shard_id"] for document in threaded_backend.received) == [
            "s/" + name.replace("+", "+2B").replace(" ", "+20") for name in names
        ]
        problem, summary = result.stderr.decode().splitlines()
        assert problem.startswith("Warning: ")
        assert problem.endswith(
            "data/bad.csv: row 3, column 'x': found text of length 12; allowed: a finite number"
        )
        assert summary == "Error: 1 of 5 files could not be summarised to the end; the others were"

    def test_a_signal_ends_it_at_once_with_all_its_processes_which_listen_on_loopback_alone(
        self, tmp_path: Path, threaded_backend: Any
    ) -> None:
        fill(tmp_path / "data")
        os.mkfifo(tmp_path / "silent.csv")
        arguments = ("run", "data", "silent.csv", "--each", "--shard-id", "s", "--epoch", "0", "--jobs", "2")
        with start(tmp_path, threaded_backend.endpoint, *arguments, *self.engine) as process:
            with silent_stream(tmp_path / "silent.csv"):
                family = psutil.Process(process.pid).children(recursive=True)
                assert family
                assert listening_addresses(psutil.Process(process.pid)) <= {"127.0.0.1", "::1"}
                process.terminate()
                assert process.wait(TIMEOUT_S) == 1
            assert b"interrupted" in (told := process.stderr.read())
            assert b"Traceback" not in told
        gone, left = psutil.wait_procs(family, timeout=TIMEOUT_S)
        assert (len(gone), left) == (len(family), [])


@contextlib.contextmanager
def silent_stream(path: Path) -> Iterator[BinaryIO]:
    """Wait until a process reads from a named pipe, and keep it waiting for what is written."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:  # that one says that nobody reads yet
                raise
            continue
        with open(handle, "wb") as pipe:
            yield pipe
        return
    raise AssertionError("nobody reads")
