"""Frames of outcomes: as they are written, and as earlier versions wrote them."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inboxes import Clock, running_inbox
from memory_stores import opened
from outcomes import LIFE_MS, NOW_MS, outcome, pcs_id
from pcs_backend.inbox.frames import FrameKind, decode_outcomes, outcomes_frame, requests_closed, stored_at_ms
from pcs_backend.outcome import Form, Key, Outcome, Shared
from pcs_core.wal import Frame, NewFrame

BLOCK = Form(b',"benign":', b',"bad":', b"}", b'{"v":1,"inputs":')
ALONE = Form(head=b'{"v":1,"inputs":')


def named(number: int, **fields: Any) -> dict[str, Any]:
    """An outcome as versions before kind 11 wrote it."""
    return {
        "tenant": "default",
        "pcs_id": pcs_id(number),
        "status": 200,
        "body": b'{"accepted":true}',
        "fingerprint": f"{number:064x}",
        "params_version": "defaults-1",
        "key_id": "3f2a",
        "provenance": '{"v":1}',
        "stored_at_ms": NOW_MS,
        "expires_at_ms": NOW_MS + LIFE_MS,
    } | fields


def pack(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


EARLIER = {
    "one, of 0.1.0": (NewFrame(FrameKind.OUTCOME, b'{"request":7}', pack(named(1))), 1),
    "several": (
        NewFrame(
            FrameKind.NAMED_OUTCOMES,
            b'{"requests":[7],"stored_at_ms":%d}' % NOW_MS,
            pack([named(1), named(2, status=202, provenance="")]),
        ),
        2,
    ),
}


def read(frame: NewFrame) -> Frame:
    return Frame(frame.kind, 1, frame.envelope, frame.payload)


@pytest.mark.parametrize(("frame", "count"), EARLIER.values(), ids=EARLIER.keys())
async def test_what_earlier_versions_wrote_is_answered_as_it_was(
    tmp_path: Path, frame: NewFrame, count: int
) -> None:
    assert (requests_closed(read(frame)), stored_at_ms(read(frame))) == ([7], NOW_MS)
    for each in decode_outcomes(read(frame)):
        number = 1 if each.pcs_id == pcs_id(1) else 2
        fields = named(number) if number == 1 else named(number, status=202, provenance="")
        assert {name: getattr(each, name) for name in fields} == fields
    async with running_inbox(tmp_path / "log") as inbox:
        await inbox._commits.commit([frame])
    async with opened(tmp_path, Clock()) as it:
        found = await it.store.get([Key("default", pcs_id(number)) for number in range(1, count + 1)])
        assert [each and (each.status, each.body) for each in found] == [
            (200, b'{"accepted":true}'),
            (202, b'{"accepted":true}'),
        ][:count]
        await it.save()
    async with opened(tmp_path, Clock()) as it:
        assert it.store.covered_sequence > 0
        assert await it.store.get([each.key for each in found if each is not None]) == found


def test_outcomes_of_several_forms_come_back_in_order_and_share_what_they_shared() -> None:
    gated = Shared("default", 200, "defaults-1", "3f2a", NOW_MS, NOW_MS + LIFE_MS, BLOCK)
    logged = Shared("plants", 200, "defaults-1", "3f2a", NOW_MS, NOW_MS + LIFE_MS, ALONE)
    written = [
        Outcome(gated, pcs_id(1), "f1", b'{"a":1', b"0.25", b"0.75", b"[1]}"),
        Outcome(logged, pcs_id(2), "f2", b'{"a":2}', inputs=b"[2]}"),
        outcome(3),
        Outcome(gated, pcs_id(4), "f4", b'{"a":4', b"0.5", b"", b"[4]}"),
    ]
    frame = outcomes_frame(written, [7, 9])
    assert (frame.kind, requests_closed(read(frame)), stored_at_ms(read(frame))) == (11, [7, 9], NOW_MS)
    found = decode_outcomes(read(frame))
    assert found == written
    assert found[0].shared is found[3].shared
    assert [(each.body, each.provenance) for each in found] == [
        (b'{"a":1,"benign":0.25,"bad":0.75}', '{"v":1,"inputs":[1]}'),
        (b'{"a":2}', '{"v":1,"inputs":[2]}'),
        (b'{"accepted":true}', ""),
        (b'{"a":4,"benign":0.5,"bad":}', '{"v":1,"inputs":[4]}'),
    ]


def test_what_outcomes_share_is_written_once() -> None:
    shared = Shared("default", 200, "defaults-1", "3f2a", NOW_MS, NOW_MS + LIFE_MS, BLOCK)
    frame = outcomes_frame([Outcome(shared, pcs_id(at), "f", b"{}") for at in range(100)], [])
    for text in (BLOCK.before, BLOCK.between, BLOCK.head, b"defaults-1"):
        assert frame.payload.count(text) == 1


def test_forms_are_one_again_across_frames_and_outcomes_that_came_one_by_one() -> None:
    frames = []
    for at in range(3):
        shared = Shared("default", 200, "defaults-1", "3f2a", NOW_MS + at, NOW_MS + LIFE_MS + at, BLOCK)
        frames.append([Outcome(shared, pcs_id(at), "f", b"{}")])
    together = outcomes_frame([each for (each,) in frames], [])
    assert together.payload.count(BLOCK.head) == 1
    found = decode_outcomes(read(together))
    found += [each for frame in frames for each in decode_outcomes(read(outcomes_frame(frame, [])))]
    assert found == [each for (each,) in frames] * 2
    assert {id(each.shared.form) for each in found} == {id(found[0].shared.form)}
    assert {id(each.shared.key_id) for each in found} == {id(found[0].shared.key_id)}


def test_what_is_stored_together_is_shared_again_from_a_frame_of_earlier_versions() -> None:
    payload = pack([named(at, provenance=f'{{"v":{at}}}') for at in range(3)])
    frame = NewFrame(FrameKind.NAMED_OUTCOMES, b'{"requests":[],"stored_at_ms":0}', payload)
    found = decode_outcomes(read(frame))
    assert [each.provenance for each in found] == ['{"v":0}', '{"v":1}', '{"v":2}']
    assert {id(each.shared) for each in found} == {id(found[0].shared)}


def test_outcomes_are_nothing_to_the_garbage_collector() -> None:
    shared = Shared("default", 200, "defaults-1", "3f2a", NOW_MS, NOW_MS + LIFE_MS, BLOCK)
    assert not any(map(gc.is_tracked, (shared, BLOCK, Outcome(shared, pcs_id(1), "f", b"{}"))))
