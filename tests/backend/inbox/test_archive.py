"""The inbox read back for people: every request that came, newest first, with what the log says became of it."""

from __future__ import annotations

from pathlib import Path

import pcs_records
from inboxes import NOW_S, Clock, request, running_inbox, running_rig, signed
from pcs_backend.errors import StoreUnavailableError
from pcs_backend.exchange import Request
from pcs_backend.inbox.archive import Arrival, Wanted, read_arrivals
from pcs_backend.inbox.frames import Refusal
from pcs_core.wal import PosixFiles


def arrivals(folder: Path, **wanted: object) -> list[Arrival]:
    return list(read_arrivals(str(folder), "0", PosixFiles(), Wanted(**wanted)))


async def test_each_request_has_what_became_of_it(tmp_path: Path) -> None:
    async with running_rig(tmp_path) as rig:
        await rig.submit(
            signed(epoch=1), b"{", pcs_records.body(pcs_records.document(epoch=2)), b'["no object"]', b"\xff"
        )
        rig.store.moods["put_first"] = StoreUnavailableError("the store is down")
        await rig.submit(signed(epoch=3))
        found = arrivals(tmp_path)
        assert [(each.epoch, each.refusal, each.settled) for each in found] == [
            (3, "", False),
            (None, "malformed", False),
            (None, "malformed", False),
            (2, "bad-signature", False),
            (None, "malformed", False),
            (1, "", True),
        ]
        assert [each.shard_id for each in found] == ["shard-a", "", "", "shard-a", "", "shard-a"]
        assert found[0].pcs_id == pcs_records.document(epoch=3)["pcs_id"]
        assert found[-1].request.body == signed(epoch=1)


async def test_notes_in_later_segments_reach_requests_in_earlier_ones(tmp_path: Path) -> None:
    async with running_inbox(tmp_path / "small", segment_bytes=1_500) as inbox:
        received = []
        for epoch in range(8):
            received += await inbox.append([_request(epoch)])
        await inbox.refuse([Refusal(received[0].sequence, "malformed")])
        inbox.settle([received[1].sequence, received[7].sequence])
        await inbox.append([_request(8)])
    found = {each.epoch: each for each in arrivals(tmp_path / "small")}
    assert list(found) == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert {epoch: each.refusal for epoch, each in found.items() if each.refusal} == {0: "malformed"}
    assert [epoch for epoch, each in found.items() if each.settled] == [7, 1]


async def test_filters_by_id_shard_and_time(tmp_path: Path) -> None:
    ids = {epoch: str(pcs_records.document(epoch=epoch)["pcs_id"]) for epoch in range(4)}
    async with running_rig(tmp_path, clock=(clock := Clock())) as rig:
        for epoch in range(4):
            await rig.submit(signed(epoch=epoch, shard_id="shard-b" if epoch == 2 else "shard-a"))
            clock.move(10)
        spelled = signed(epoch=1).replace(b"shard-a", b"shard\\u002da")
        await rig.submit(spelled)
    at_ms = int(NOW_S * 1_000)

    def epochs(**wanted: object) -> list[int | None]:
        return [each.epoch for each in arrivals(tmp_path, **wanted)]

    assert epochs() == [1, 3, 2, 1, 0]
    assert epochs(pcs_id=ids[1]) == [1, 1]
    assert epochs(shard_id="shard-b") == [2]
    assert epochs(shard_id="shard-a") == [1, 3, 1, 0], "also where JSON spells it in another way"
    assert epochs(shard_id="shard") == []
    assert epochs(since_ms=at_ms + 20_000) == [1, 3, 2]
    assert epochs(since_ms=at_ms + 10_000, until_ms=at_ms + 30_000) == [2, 1]
    assert epochs(pcs_id="0" * 64) == []


async def test_older_segments_are_not_read_when_one_is_all_too_old(tmp_path: Path) -> None:
    class CountingFiles(PosixFiles):
        reads = 0

        def read(self, path: str) -> bytes:
            self.reads += path.endswith(".wal")
            return super().read(path)

    async with running_inbox(tmp_path, segment_bytes=1_500) as inbox:
        for epoch in range(12):
            await inbox.append([_request(epoch, received_at_s=NOW_S + epoch)])
    segments = len(list(tmp_path.glob("*.wal")))
    files = CountingFiles()
    since_ms = int((NOW_S + 11) * 1_000)
    found = list(read_arrivals(str(tmp_path), "0", files, Wanted(since_ms=since_ms)))
    assert [each.epoch for each in found] == [11]
    assert segments > 4
    assert files.reads <= 3


def _request(epoch: int, received_at_s: float = NOW_S) -> Request:

    return request(signed(epoch=epoch), received_at_s=received_at_s)
