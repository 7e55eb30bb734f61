"""What an evaluation found: one row for each length, kind, and signal or score, and where and with what it was run."""

from __future__ import annotations

import csv
import os
import platform
import subprocess
import zlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from evaluate.auroc import interval
from evaluate.streams import HEALTHY
from evaluate.tuning import HIGH, TUNING_FILE, Measured, Pinned, Tuning, digest, names_for

ROOT = Path(__file__).resolve().parents[2]
_MEASURED_PATHS = ("load/evaluate", "agent", "core", "backend/pcs_backend/conformal")


class Row(msgspec.Struct, frozen=True):
    """The AUROC of a signal or score for a kind at a length, in the direction that tuning fixed."""

    length: int
    kind: str
    signal: str
    bad_when: str
    auroc: float
    low: float
    high: float
    bad_streams: int
    healthy_streams: int


class Run(msgspec.Struct, frozen=True):
    """Where results are from.

    Attributes:
        command: What was run.
        commit: Short hash of the commit, with `+` where agent, core, conformal or evaluation had changes that were not committed.
        tuning_commit: The last commit that changed the decisions.
        digest: As `evaluate.tuning.digest` says.
        streams: How many were measured for the rows; those that verdicts take come on top.
        seconds: How long it took.
        machine: Processor, cores and Python.
        tuned_on: Texts of tuning.
        tested_on: Texts of these streams.
    """

    command: str
    commit: str
    tuning_commit: str
    digest: str
    streams: int
    seconds: int
    machine: str
    tuned_on: list[Pinned]
    tested_on: list[Pinned]


def judge(measured: Measured, tuning: Tuning) -> list[Row]:
    """Return a row for each length, kind, and signal or score."""
    rows = []
    for length, values in measured.items():
        for kind in values:
            if kind == HEALTHY:
                continue
            for name in names_for(kind):
                bad_when = tuning.directions[name][kind]
                sign = 1.0 if bad_when == HIGH else -1.0
                bad, good = sign * values[kind][name], sign * values[HEALTHY][name]
                seed = zlib.crc32(f"{length} {kind} {name}".encode())
                middle, low, high = (round(each, 4) for each in interval(bad, good, seed))
                rows.append(Row(length, kind, name, bad_when, middle, low, high, len(bad), len(good)))
    return rows


def describe(
    command: str, streams: int, seconds: float, tuned_on: list[Pinned], tested_on: list[Pinned]
) -> Run:
    """Return where the results are from."""
    commit = _git("log", "-1", "--format=%h")
    if _git("status", "--porcelain", "--", *_MEASURED_PATHS):
        commit += "+"
    return Run(
        command=command,
        commit=commit,
        tuning_commit=_git("log", "-1", "--format=%h", "--", str(TUNING_FILE)) or "not committed",
        digest=digest(),
        streams=streams,
        seconds=round(seconds),
        machine=f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        tuned_on=tuned_on,
        tested_on=tested_on,
    )


def write(folder: Path, rows: Sequence[Row], run: Run) -> None:
    """Write `results.csv` and `run.json` into a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "results.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row.__struct_fields__)
        writer.writerows(msgspec.structs.astuple(row) for row in rows)
    (folder / "run.json").write_bytes(msgspec.json.format(msgspec.json.encode(run)) + b"\n")


def read(folder: Path) -> tuple[list[Row], Run]:
    """Return what `write` wrote.

    Raises:
        msgspec.ValidationError: The files hold something else.
    """
    with open(folder / "results.csv", encoding="utf-8", newline="") as file:
        rows = [msgspec.convert(row, Row, strict=False) for row in csv.DictReader(file)]
    return rows, msgspec.json.decode((folder / "run.json").read_bytes(), type=Run)


def join(earlier: tuple[list[Row], Run], rows: Sequence[Row], run: Run) -> tuple[list[Row], Run]:
    """Return results of other lengths put before or behind these, by length.

    Raises:
        ValueError: The earlier results are of another commit, code or tuning.
    """
    earlier_rows, earlier_run = earlier
    if (earlier_run.commit, earlier_run.digest) != (run.commit, run.digest):
        raise ValueError("the results that are there are of another commit; allowed: those of the same")
    lengths = {row.length for row in rows}
    kept = [row for row in earlier_rows if row.length not in lengths]
    counts = {(row.length, row.kind): row.bad_streams for row in kept}
    healthy = {row.length: row.healthy_streams for row in kept}
    joined = msgspec.structs.replace(
        run,
        streams=run.streams + sum(counts.values()) + sum(healthy.values()),
        seconds=run.seconds + earlier_run.seconds,
    )
    return sorted([*kept, *rows], key=lambda row: row.length), joined


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments],  # noqa: S607 - the one on PATH
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()
