"""Every call site of the disk fails once with each error: the table says what happens, and nothing acknowledged is lost.

`EIO` and `ENOSPC` before the call takes effect, and `EIO` after it where that can be (`EIO*`). After each: everything is
opened again on a healthy disk, what was acknowledged is there byte for byte, no number names two things.
"""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import NamedTuple

import pytest

from disk_faults import (
    TAKES_EFFECT,
    DiskFaults,
    Fault,
    Site,
    static_sites,
    system_calls_elsewhere,
    with_consequences,
)
from disk_scenarios import (
    AGENT_GOES_ON,
    AGENT_STOPPED,
    EXIT_1,
    GOES_ON,
    NAMED,
    NOT_KEPT,
    NOT_NEEDED,
    OLD_SNAPSHOT,
    READ_ANYWAY,
    SCENARIOS,
    START_REFUSED,
    STAYS,
    STOPPED,
    UNREADABLE,
)

WAIT_S = 60.0

pytestmark = [pytest.mark.slow]

TITLE = "disk errors: step | who asks the disk for what | system calls | errors (* = it took effect) | what happens"

_APPEND = {
    "log.Wal._write append": GOES_ON,
    "log.Wal._write truncate": STOPPED,
    "log.Wal.commit sync_data": STOPPED,
}
_MAKE = (
    "log.Wal._make_segment open_append",
    "log.Wal._make_segment truncate",
    "log.Wal._make_segment append",
)
_SYNC = ("log.Wal._sync_made sync_data", "log.Wal._sync_made sync_folder")
_AGENT_APPEND = {
    "log.Wal._write append": AGENT_GOES_ON,
    "log.Wal._write truncate": AGENT_STOPPED,
    "log.Wal.commit sync_data": AGENT_STOPPED,
}
_AGENT_ROTATION = dict.fromkeys(_MAKE, AGENT_GOES_ON) | dict.fromkeys(
    ("log.Wal._rotate sync_data", *_SYNC), AGENT_STOPPED
)
_FSCK = {
    "fsck.owned list_names": EXIT_1,
    "fsck.owned lock": EXIT_1,
    "folder.LogFolder.segments list_names": EXIT_1,
    "folder.LogFolder._read_anchor read": NAMED,
    "folder.LogFolder._read_start read_range": EXIT_1,
    "folder.LogFolder.read_segment read": EXIT_1,
    "folder.LogFolder.aside_names list_names": EXIT_1,
    "snapshot.read_snapshot read": EXIT_1,
}

EXPECTED: dict[str, dict[str, str]] = {
    "records": {
        "folder.LogFolder.segments list_names": EXIT_1,
        "folder.LogFolder._read_anchor read": READ_ANYWAY,
        "folder.LogFolder._read_start read_range": EXIT_1,
        "reading.read_newest_first read": EXIT_1,
    },
    "start": {
        "engine.lock_folder make_folder": START_REFUSED,
        "engine.lock_folder lock": START_REFUSED,
        "engine.Engine._open_logs make_folder": START_REFUSED,
        "engine.Engine._open_logs list_names": START_REFUSED,
        "snapshot.read_snapshot read": START_REFUSED,
        "log.Wal._open make_folder": START_REFUSED,
        "log.Wal._open lock": START_REFUSED,
        "folder.LogFolder.segments list_names": START_REFUSED,
        "folder.LogFolder._read_anchor read": NOT_NEEDED,
        "folder.LogFolder._read_start read_range": START_REFUSED,
        "folder.LogFolder.number_after_tails list_names": START_REFUSED,
        "folder.LogFolder.read_segment read": START_REFUSED,
        "folder.LogFolder.keep_tail make_folder": START_REFUSED,
        "folder.LogFolder.keep_tail replace": START_REFUSED,
        "folder.LogFolder.keep_tail list_names": START_REFUSED,
        "folder.LogFolder.keep_tail remove": START_REFUSED,
        "folder.LogFolder._keep_damaged list_names": NOT_NEEDED,
        "folder.LogFolder._keep_damaged make_folder": NOT_NEEDED,
        "folder.LogFolder._keep_damaged replace": NOT_NEEDED,
        "log.Wal._read_segment remove": START_REFUSED,
        "log.Wal._read_segment rewrite#1": START_REFUSED,
        "log.Wal._read_segment rewrite#2": START_REFUSED,
        "log.Wal._resume_segment open_append": START_REFUSED,
        "log.Wal._resume_segment sync_folder": START_REFUSED,
        **dict.fromkeys((*_MAKE, *_SYNC), START_REFUSED),
        "folder.LogFolder.write_anchor replace": NOT_NEEDED,
    },
    "a request is appended": _APPEND,
    "an outcome is appended": _APPEND,
    "a refusal is appended": _APPEND,
    "a segment is sealed, the next begun": _APPEND
    | dict.fromkeys(_MAKE, GOES_ON)
    | dict.fromkeys(("log.Wal._rotate sync_data", *_SYNC), STOPPED),
    "the backlog is read": {"log.Wal.read read_range": UNREADABLE},
    "the snapshot is written": {"snapshot.write_snapshot replace": OLD_SNAPSHOT},
    "retention": {
        "folder.LogFolder.write_anchor replace": STAYS,
        "log.Wal._remove remove": STAYS,
        "log.Wal._remove sync_folder": STAYS,
    },
    "fsck": _FSCK,
    "fsck --repair": _FSCK
    | {
        "folder.LogFolder.number_after_tails list_names": EXIT_1,
        "folder.LogFolder._keep_damaged list_names": NOT_KEPT,
        "folder.LogFolder._keep_damaged make_folder": NOT_KEPT,
        "folder.LogFolder._keep_damaged replace": NOT_KEPT,
        "check.LogCheck._rewrite replace": EXIT_1,
        "check.LogCheck._mend_start replace": EXIT_1,
        "folder.LogFolder.write_anchor replace": EXIT_1,
        "folder.LogFolder.remove_anchor remove": EXIT_1,
        "fsck.DataFolder._repair_snapshot read": EXIT_1,
        "fsck.DataFolder._repair_snapshot replace": EXIT_1,
        "fsck.DataFolder._repair_snapshot remove": EXIT_1,
    },
    "outbox: append": _AGENT_APPEND,
    "outbox: ack": _AGENT_APPEND,
    "outbox: bury": _AGENT_APPEND,
    "outbox: redrive": _AGENT_APPEND,
    "outbox: append, with rotation": _AGENT_APPEND | _AGENT_ROTATION,
    "outbox: compaction": _AGENT_APPEND
    | _AGENT_ROTATION
    | {
        "log.Wal.read read_range": AGENT_GOES_ON,
        "folder.LogFolder.write_anchor replace": AGENT_GOES_ON,
        "log.Wal._remove remove": AGENT_GOES_ON,
    },
    "outbox: a record is read": {"log.Wal.read read_range": AGENT_GOES_ON},
}
"""What happens by step and by who asks the disk. The outbox is opened by the same code as an inbox."""


class Row(NamedTuple):
    """One failure of one site."""

    group: str
    asked: str
    call: str
    error: str
    behaviour: str


def faults_at(site: Site, skip: int) -> list[Fault]:
    faults = [Fault(site, code, skip=skip) for code in (errno.EIO, errno.ENOSPC)]
    if site.call in TAKES_EFFECT:
        faults.append(Fault(site, errno.EIO, after=True, skip=skip))
    return faults


BEFORE_THE_SITUATION = {
    "engine.lock_folder",
    "engine.Engine._open_logs",
    "snapshot.read_snapshot",
    "log.Wal._open",
    "folder.LogFolder.segments",
    "folder.LogFolder._read_anchor",
    "folder.LogFolder._read_start",
    "folder.LogFolder.number_after_tails",
}
"""What every start asks before it matters what it finds. Failed in two situations, not in all ten."""


def is_repeated(name: str, site: Site) -> bool:
    return (
        name.startswith("start: ")
        and name not in {"start: empty", "start: clean"}
        and site.place in BEFORE_THE_SITUATION
    )


async def sites_of(name: str, folder: Path) -> list[Site]:
    """Return the sites that a scenario passes on a healthy disk, and those that follow from their failure."""
    folder.mkdir(parents=True)
    with DiskFaults() as faults:
        await SCENARIOS[name].make(folder / "data", faults).run(None)
        return with_consequences(faults.seen)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_each_site_fails_once_with_each_error(
    name: str, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    group, make = SCENARIOS[name]
    sites = [site for site in await sites_of(name, tmp_path / "healthy") if not is_repeated(name, site)]
    rows, wrong = [], []
    for number, site in enumerate(sites):
        for fault in faults_at(site, make(tmp_path, DiskFaults()).skip):
            folder = tmp_path / f"{number} {errno.errorcode[fault.code]} {fault.after}"
            folder.mkdir()
            with DiskFaults() as faults:
                scenario = make(folder / "data", faults)
                try:
                    async with asyncio.timeout(WAIT_S):
                        behaviour = await scenario.run(fault)
                except Exception as error:
                    raise AssertionError(f"{name}: {fault}") from error
            assert scenario.failed[-1:] == [site], f"{name}: {fault} was never reached"
            expected = EXPECTED[group].get(site.asked, "no row: a new call site needs one")
            if behaviour != expected:
                wrong.append(f"{fault}: {behaviour}; the table has: {expected}")
            error_name = errno.errorcode[fault.code] + "*" * fault.after
            rows.append(Row(group, site.asked, site.call, error_name, behaviour))
    assert wrong == []
    for row in rows:
        record_property(TITLE, " | ".join(row))


async def test_every_call_site_of_the_source_is_in_the_table(tmp_path: Path) -> None:
    """A call that nobody makes fail is a promise that nobody checks."""
    passed: dict[str, set[Site]] = {group: set() for group, _ in SCENARIOS.values()}
    for index, (name, (group, _)) in enumerate(SCENARIOS.items()):
        passed[group] |= set(await sites_of(name, tmp_path / str(index)))
    assert static_sites() - set().union(*passed.values()) == set(), "no scenario passes these"
    assert set().union(*passed.values()) - static_sites() == set(), "the source does not show these"
    assert {group: {site.asked for site in sites} for group, sites in passed.items()} == {
        group: set(rows) for group, rows in EXPECTED.items()
    }


def test_nothing_but_the_files_port_touches_the_disk() -> None:
    assert system_calls_elsewhere() == []
