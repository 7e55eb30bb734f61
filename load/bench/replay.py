"""`python -m bench.replay ANSWERS… --logs FOLDERS…`: whether everything that was answered is there after the service is gone.

The environment is that of the service, or of one of several that share a store. Each answered record must stand in a request
frame of one of the WALs, and the store, which for memory is what replaying the WAL gives, must have its outcome with the
answered bytes. Prints JSON.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import orjson
import uvloop

from pcs_backend.cli.folder import direct_store, prepare
from pcs_backend.config import Config
from pcs_backend.engine import WAL_FOLDER
from pcs_backend.inbox.frames import FrameKind
from pcs_backend.outcome import Key
from pcs_core.identity import PcsId
from pcs_core.keyring import DEFAULT_TENANT
from pcs_core.wal import PosixFiles, read_newest_first

KEYS_AT_ONCE = 1_000

_ID = re.compile(rb'"pcs_id":"([0-9a-f]{64})"')


def requested_ids(wal: Path) -> set[bytes]:
    """Return the ids that stand in request frames of a service, of all its workers."""
    files = PosixFiles()
    return {
        pcs_id
        for worker in files.list_names(str(wal))
        for frames in read_newest_first(str(wal / worker), files)
        for frame in frames
        if frame.kind == FrameKind.REQUEST
        for pcs_id in _ID.findall(frame.payload)
    }


async def compare(
    config: Config, logs: list[Path], answered: list[tuple[bytes, bytes, bytes]]
) -> dict[str, int]:
    """Count what is missing."""
    requested = set().union(*map(requested_ids, logs))
    no_request = sum(pcs_id not in requested for pcs_id, _, _ in answered)
    no_outcome = other_outcome = 0
    async with direct_store(config) as store:
        assert store is not None  # nothing serves any more
        for at in range(0, len(answered), KEYS_AT_ONCE):
            part = answered[at : at + KEYS_AT_ONCE]
            keys = [Key(DEFAULT_TENANT, PcsId(pcs_id.decode())) for pcs_id, _, _ in part]
            for (_, status, body), outcome in zip(part, await store.get(keys), strict=True):
                if outcome is None:
                    no_outcome += 1
                elif (outcome.status, outcome.body) != (int(status), body):
                    other_outcome += 1
    return {
        "answered": len(answered),
        "no_request": no_request,
        "no_outcome": no_outcome,
        "other_outcome": other_outcome,
    }


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(prog="bench.replay", description=__doc__)
    parser.add_argument("answers", type=Path, nargs="+", help="lines of `pcs_id status body`")
    parser.add_argument("--logs", type=Path, nargs="+", required=True, help="data folders")
    arguments = parser.parse_args()
    answered = []
    for path in arguments.answers:
        for line in path.read_bytes().splitlines():
            pcs_id, status, body = line.split(b" ", 2)
            answered.append((pcs_id, status, body))
    logs = [folder / WAL_FOLDER for folder in arguments.logs]
    sys.stdout.buffer.write(orjson.dumps(uvloop.run(compare(prepare(), logs, answered))))


if __name__ == "__main__":
    main()
