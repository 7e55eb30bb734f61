"""Checking and repairing a data folder that no process serves: every worker's log, what is aside, the snapshot.

A check changes nothing but the lock files it takes. A repair never drops a good frame and never a number.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from pcs_backend.dedup.memory_store import snapshot_coverage
from pcs_backend.engine import FIRST_WORKER, SNAPSHOT, WAL_FOLDER, WORKER_NAME
from pcs_backend.errors import ConfigError
from pcs_core.errors import WalError
from pcs_core.wal import Files, LogReport, Repair, check_log, read_snapshot, repair_log

DAMAGED_SNAPSHOT_SUFFIX = ".damaged"


class SnapshotReport(NamedTuple):
    """The memory store's snapshot.

    Attributes:
        exists: Whether there is one.
        problem: What is wrong, or nothing.
        is_expendable: Whether the log alone can rebuild what it held.
    """

    exists: bool
    problem: str
    is_expendable: bool


class DataReport(NamedTuple):
    """A data folder.

    Attributes:
        logs: By worker.
        snapshot: Of the memory store.
    """

    logs: dict[str, LogReport]
    snapshot: SnapshotReport

    @property
    def is_damaged(self) -> bool:
        """Whether anything is wrong. A torn tail is not: it is what a crash leaves."""
        return bool(self.snapshot.problem) or any(log.all_damages for log in self.logs.values())


@contextlib.contextmanager
def owned(files: Files, data_dir: str) -> Iterator[DataFolder]:
    """Take a data folder for as long as it is looked at.

    Args:
        files: The disk.
        data_dir: The folder.

    Raises:
        ConfigError: There is none.
        WalLockedError: A process owns it, or one of its logs.
    """
    data_dir = os.path.abspath(data_dir)
    wal = os.path.join(data_dir, WAL_FOLDER)
    if not os.path.isdir(wal):  # looking makes no folder
        raise ConfigError("DATA_DIR: found no folder with a WAL; allowed: the folder that `serve` uses")
    workers = [name for name in files.list_names(wal) if WORKER_NAME.fullmatch(name)]
    folders = {worker: os.path.join(wal, worker) for worker in workers}
    with contextlib.ExitStack() as stack:
        for folder in (data_dir, *folders.values()):
            stack.callback(files.close, files.lock(folder))
        yield DataFolder(files, os.path.join(data_dir, SNAPSHOT), folders)


class DataFolder:
    """A data folder that is owned."""

    def __init__(self, files: Files, snapshot: str, folders: dict[str, str]) -> None:
        """Take what `owned` found."""
        self._files = files
        self._snapshot = snapshot
        self._folders = folders

    def check(self, *, needs_snapshot: bool) -> DataReport:
        """Read everything.

        Args:
            needs_snapshot: Whether the store is the memory store, which needs snapshot and log to fit together.

        Raises:
            WalError, OSError: The disk does not give it.
        """
        logs = {worker: check_log(folder, self._files) for worker, folder in self._folders.items()}
        return DataReport(logs, self._check_snapshot(logs.get(FIRST_WORKER), needs_snapshot=needs_snapshot))

    def repair(self, report: DataReport) -> list[Repair]:
        """Repair what can be. Returns what was done, and what could not be.

        Args:
            report: Of this folder, now.

        Raises:
            WalError, OSError: The disk refused; what was done is done, and a second repair does the rest.
        """
        repairs = []
        for worker, folder in self._folders.items():
            repairs += [
                each._replace(name=f"{worker}/{each.name}") for each in repair_log(folder, self._files)
            ]
        if report.snapshot.problem:
            repairs.append(self._repair_snapshot(report.snapshot))
        return repairs

    def _check_snapshot(self, own: LogReport | None, *, needs_snapshot: bool) -> SnapshotReport:
        reaches_back = own is None or own.first_segment <= 1
        try:
            covered = snapshot_coverage(read_snapshot(self._files, self._snapshot))
        except FileNotFoundError:
            is_missed = needs_snapshot and not reaches_back
            problem = (
                "is missing, and the log no longer reaches back to the first record" if is_missed else ""
            )
            return SnapshotReport(exists=False, problem=problem, is_expendable=False)
        except WalError:
            return SnapshotReport(exists=True, problem="is damaged or cut short", is_expendable=reaches_back)
        problem = ""
        if needs_snapshot and covered > (own.synced_sequence if own is not None else 0):
            problem = "is newer than the log beside it"
        elif needs_snapshot and own is not None and covered < own.first_segment - 1:
            problem = "is older than the log beside it"
        return SnapshotReport(exists=True, problem=problem, is_expendable=False)

    def _repair_snapshot(self, report: SnapshotReport) -> Repair:
        name = os.path.basename(self._snapshot)
        if not report.is_expendable:
            what = f"not repaired: it {report.problem}; restore the data folder from a backup"
            return Repair(name, what, done=False)
        self._files.replace(self._snapshot + DAMAGED_SNAPSHOT_SUFFIX, [self._files.read(self._snapshot)])
        self._files.remove(self._snapshot)
        what = f"moved to {name}{DAMAGED_SNAPSHOT_SUFFIX}; the next start rebuilds it from the log"
        return Repair(name, what, done=True)
