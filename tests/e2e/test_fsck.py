"""`pcs-backend fsck` over the data of a real service: says what is damaged, changes nothing, repairs once."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

import pcs_records
from processes import HMAC_KEY, Answer, Backend, Client, run

pytestmark = [pytest.mark.slow]

RECORDS = 20


def signed(epoch: int) -> bytes:
    document = pcs_records.document(epoch=epoch)
    return pcs_records.body(pcs_records.sign(document, hmac_key=HMAC_KEY.encode()))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def fsck(backend: Backend, *options: str) -> tuple[int, dict[str, Any]]:
    """Return exit code and document."""
    done = run("pcs-backend", "fsck", "--json", *options, **backend.variables)
    assert b"Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


def offsets_of_frames(segment: bytes) -> list[int]:
    """Walk a segment by the lengths in its frames' headers."""
    offsets, offset = [], 28
    while offset < len(segment):
        offsets.append(offset)
        envelope, payload = struct.unpack_from("<II", segment, offset + 16)
        offset += 28 + envelope + payload + 4
    assert offset == len(segment)
    return offsets


@pytest.fixture
async def served(tmp_path: Path, hmac_variables: dict[str, str]) -> tuple[Backend, dict[int, Answer], Path]:
    """A service that took some records and stopped, its answers, and its segment."""
    backend = Backend(tmp_path / "data", **hmac_variables)
    with backend.start():
        async with Client(backend) as client:
            answers = {epoch: await client.submit(signed(epoch)) for epoch in range(RECORDS)}
        assert backend.stop() == 0
    (segment,) = (backend.data_dir / "wal" / "0").glob("*.wal")
    return backend, answers, segment


async def assert_serves(backend: Backend, answers: dict[int, Answer], *, clean: bool) -> None:
    """Start the service and ask for everything again."""
    backend.output = b""
    with backend.start():
        assert (b"damaged" not in backend.output) is clean
        async with Client(backend) as client:
            for epoch, first in answers.items():
                again = await client.submit(signed(epoch))
                assert (again.status, again.body, again.replayed) == (200, first.body, True)
        assert backend.stop() == 0


async def test_whole_data_is_no_damage(served: tuple[Backend, dict[int, Answer], Path]) -> None:
    backend, _, segment = served
    before = contents(backend.data_dir)
    for options in ([], ["--repair"]):
        code, found = fsck(backend, *options)
        assert (code, found["damaged"], found["repairs"]) == (0, False, [])
        assert found["snapshot"] == {"exists": True, "problem": ""}
        (log,) = found["logs"]
        assert (log["worker"], log["aside"], log["damages"]) == ("0", [], [])
        (only,) = log["segments"]
        frames = len(offsets_of_frames(segment.read_bytes()))
        assert only == {
            "name": segment.name,
            "size_bytes": segment.stat().st_size,
            "frames": frames,
            "is_sealed": False,
            "torn_bytes": 0,
            "damages": [],
        }
    human = run("pcs-backend", "fsck", **backend.variables)
    assert human.returncode == 0
    assert segment.name in human.stdout.decode()
    assert human.stdout.decode().splitlines()[-1] == "no damage"
    assert contents(backend.data_dir) == before


async def test_damage_is_named_repaired_once_and_the_start_is_clean_afterwards(
    served: tuple[Backend, dict[int, Answer], Path],
) -> None:
    backend, answers, segment = served
    data = bytearray(segment.read_bytes())
    offsets = offsets_of_frames(data)
    place, end = offsets[5], offsets[6]
    data[place + 40] ^= 1
    segment.write_bytes(data)
    before = contents(backend.data_dir)

    code, found = fsck(backend)
    assert (code, found["damaged"]) == (1, True)
    assert found["logs"][0]["segments"][0]["damages"] == [
        {"segment": segment.name, "offset": place, "size_bytes": end - place, "what": "frames"}
    ]
    human = run("pcs-backend", "fsck", **backend.variables)
    assert human.returncode == 1
    line = f"damaged: 0/{segment.name}, offset {place}, {end - place} bytes: frames"
    assert line in human.stdout.decode().splitlines()
    assert contents(backend.data_dir) == before, "a check changes nothing"

    code, found = fsck(backend, "--repair")
    assert (code, found["damaged"]) == (0, False)
    assert found["repairs"] == [
        {
            "name": f"0/{segment.name}",
            "what": f"rewritten with its {len(offsets) - 1} good frames; {end - place} damaged bytes are in aside",
            "done": True,
        }
    ]
    (kept,) = (backend.data_dir / "wal" / "0" / "aside").iterdir()
    assert kept.read_bytes() == bytes(data[place:end])
    after = contents(backend.data_dir)
    assert fsck(backend, "--repair")[1]["repairs"] == []
    assert contents(backend.data_dir) == after
    await assert_serves(backend, answers, clean=True)


async def test_damage_does_not_block_the_start_and_is_named_there_too(
    served: tuple[Backend, dict[int, Answer], Path],
) -> None:
    backend, answers, segment = served
    data = bytearray(segment.read_bytes())
    data[offsets_of_frames(data)[7]] ^= 1
    segment.write_bytes(data)
    for _ in range(2):
        await assert_serves(backend, answers, clean=False)
        assert segment.name.encode() in backend.output
        assert b'"offset": %d' % offsets_of_frames(bytes(data))[7] in backend.output
    assert len(list((backend.data_dir / "wal" / "0" / "aside").iterdir())) == 1
    assert segment.read_bytes() == bytes(data)


async def test_a_folder_that_is_served_is_not_looked_at(
    tmp_path: Path, hmac_variables: dict[str, str]
) -> None:
    backend = Backend(tmp_path / "data", **hmac_variables)
    with backend.start():
        for options in ([], ["--repair"]):
            refused = run("pcs-backend", "fsck", *options, **backend.variables)
            assert refused.returncode == 2
            assert refused.stderr.decode() == (
                "pcs-backend: DATA_DIR: the folder is locked by another process; "
                "allowed: a folder that no other process uses\n"
            )
        assert backend.stop() == 0


async def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    refused = run("pcs-backend", "fsck", DATA_DIR=str(tmp_path / "data"))
    assert refused.returncode == 2
    assert b"DATA_DIR: found no folder with a WAL" in refused.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("content", [b"", b"not a snapshot"])
async def test_a_damaged_snapshot_beside_a_whole_log_is_moved_away(
    served: tuple[Backend, dict[int, Answer], Path], content: bytes
) -> None:
    backend, answers, _ = served
    snapshot = backend.data_dir / "memory" / "outcomes.snap"
    snapshot.write_bytes(content)
    code, found = fsck(backend)
    assert (code, found["snapshot"]) == (1, {"exists": True, "problem": "is damaged or cut short"})
    code, found = fsck(backend, "--repair")
    assert code == 0
    assert [each["name"] for each in found["repairs"]] == ["outcomes.snap"]
    assert (backend.data_dir / "memory" / "outcomes.snap.damaged").read_bytes() == content
    assert not snapshot.exists()
    assert fsck(backend, "--repair")[1]["repairs"] == []
    await assert_serves(backend, answers, clean=True)


async def test_a_snapshot_nothing_can_replace_is_left_and_said(
    served: tuple[Backend, dict[int, Answer], Path],
) -> None:
    """The start is refused then too; a repair must not make it look as if there had been none."""
    backend, _, segment = served
    snapshot = backend.data_dir / "memory" / "outcomes.snap"
    whole = snapshot.read_bytes()
    segment.rename(segment.with_name("00000000000000000900.wal"))
    (segment.parent / "anchor").unlink()
    snapshot.write_bytes(whole[:-1])
    before = contents(backend.data_dir)
    for options in ([], ["--repair"]):
        code, found = fsck(backend, *options)
        assert (code, found["snapshot"]["problem"]) == (1, "is damaged or cut short")
    assert contents(backend.data_dir) == before
    snapshot.write_bytes(whole)
    code, found = fsck(backend)
    assert (code, found["snapshot"]["problem"]) == (1, "is older than the log beside it")
    snapshot.unlink()
    code, found = fsck(backend)
    problem = "is missing, and the log no longer reaches back to the first record"
    assert (code, found["snapshot"]) == (1, {"exists": False, "problem": problem})
    snapshot.write_bytes(whole)
    segment.with_name("00000000000000000900.wal").rename(segment)
    cut = offsets_of_frames(segment.read_bytes())[3]
    segment.write_bytes(segment.read_bytes()[:cut])
    code, found = fsck(backend)
    assert (code, found["snapshot"]["problem"]) == (1, "is newer than the log beside it")
    refused = run("pcs-backend", "serve", **backend.variables)
    assert refused.returncode == 1
    assert b"the memory store's snapshot is newer than the log beside it" in refused.stderr


async def test_the_logs_of_every_worker_are_read(
    served: tuple[Backend, dict[int, Answer], Path],
) -> None:
    backend, _, segment = served
    segment.parent.rename(segment.parent.with_name("7"))
    backend.variables |= {"DEDUP_BACKEND": "redis", "REDIS_ADDR": "127.0.0.1:1"}
    moved = segment.parent.with_name("7") / segment.name
    data = bytearray(moved.read_bytes())
    data[3] ^= 1
    moved.write_bytes(data)
    code, found = fsck(backend)
    assert code == 1
    ((worker, damage),) = [
        (log["worker"], damage)
        for log in found["logs"]
        for each in log["segments"]
        for damage in each["damages"]
    ]
    assert (worker, damage["offset"], damage["what"]) == ("7", 0, "segment header")
    code, found = fsck(backend, "--repair")
    assert (code, [each["name"] for each in found["repairs"]]) == (0, [f"7/{segment.name}"])
    data[3] ^= 1
    repaired = moved.read_bytes()
    assert repaired.startswith(bytes(data)), "header and frames as they were, and a seal"
