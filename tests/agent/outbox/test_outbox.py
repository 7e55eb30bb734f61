"""The outbox through restarts, torn tails and compaction."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pcs_agent.outbox import Entry, Outbox, State, Verdict
from pcs_agent.outbox.entry import ENTRY_KIND
from pcs_agent.outbox.outbox import DAY_S
from pcs_core.errors import WalLockedError
from pcs_core.record import Record, decode_record
from pcs_core.wal import NewFrame, PosixFiles, Wal

OpenOutbox = Callable[..., Outbox]
MakeRecord = Callable[[int], Record]


def append(outbox: Outbox, *records: Record) -> list[Entry]:
    return outbox.append(list(records))


def epochs(outbox: Outbox, state: State) -> list[int]:
    return [decode_record(outbox.read(entry.seq)).epoch for entry in outbox.entries(state)]


def reopen(outbox: Outbox, open_outbox: OpenOutbox, **changes: Any) -> Outbox:
    outbox.close()
    return open_outbox(**changes)


def test_a_record_gets_its_position_and_keeps_it(open_outbox: OpenOutbox, make_record: MakeRecord) -> None:
    outbox = open_outbox()
    entries = append(outbox, make_record(1), make_record(2))
    assert [entry.seq for entry in entries] == [1, 2]
    outbox = reopen(outbox, open_outbox)
    records = [decode_record(outbox.read(entry.seq)) for entry in outbox.entries(State.PENDING)]
    assert [(record.epoch, record.ft.outbox_seq) for record in records] == [(1, 1), (2, 2)]


def test_states_survive_a_restart(open_outbox: OpenOutbox, make_record: MakeRecord) -> None:
    outbox = open_outbox()
    taken, dead, revived, _ = append(outbox, *(make_record(epoch) for epoch in range(4)))
    outbox.ack([(taken.seq, Verdict.ESCALATED)])
    outbox.bury([(dead.seq, "rejected: status 400")])
    outbox.bury([(revived.seq, "deadline")])
    outbox.redrive([revived.seq])
    outbox = reopen(outbox, open_outbox)
    assert epochs(outbox, State.PENDING) == [2, 3]
    assert [(entry.reason, entry.verdict) for entry in outbox.entries(State.DEAD)] == [
        ("rejected: status 400", Verdict.DEAD)
    ]
    found = outbox.find(make_record(0).pcs_id)
    assert found is not None
    assert (found.state, found.verdict) == (State.ACKED, Verdict.ESCALATED)


def test_a_new_record_takes_the_place_of_its_dead_letter(
    open_outbox: OpenOutbox, make_record: MakeRecord
) -> None:
    outbox = open_outbox()
    (dead,) = append(outbox, make_record(1))
    outbox.bury([(dead.seq, "refused")])
    append(outbox, make_record(1))
    assert (len(outbox.entries(State.DEAD)), len(outbox.entries(State.PENDING))) == (0, 1)
    outbox = reopen(outbox, open_outbox)
    assert (len(outbox.entries(State.DEAD)), len(outbox.entries(State.PENDING))) == (0, 1)


def test_appending_after_a_torn_tail_loses_nothing_and_repeats_no_number(
    open_outbox: OpenOutbox, make_record: MakeRecord, tmp_path: Path
) -> None:
    """Lesson L19: the tail is cut off before anything is appended; numbers go on above any seen."""
    outbox = open_outbox()
    append(outbox, make_record(1), make_record(2))
    outbox.close()
    (segment,) = (tmp_path / "outbox").glob("*.wal")
    segment.write_bytes(segment.read_bytes()[:-7])
    outbox = open_outbox()
    assert outbox.torn_bytes > 0
    assert epochs(outbox, State.PENDING) == [1]
    (entry,) = append(outbox, make_record(3))
    assert entry.seq > 2
    outbox = reopen(outbox, open_outbox)
    assert epochs(outbox, State.PENDING) == [1, 3]
    assert outbox.torn_bytes == 0


def test_a_damaged_entry_leaves_the_others_readable(
    open_outbox: OpenOutbox, make_record: MakeRecord, tmp_path: Path
) -> None:
    outbox = open_outbox()
    entries = append(outbox, *(make_record(epoch) for epoch in range(3)))
    outbox.close()
    (segment,) = (tmp_path / "outbox").glob("*.wal")
    data = bytearray(segment.read_bytes())
    data[entries[1].position.offset + 100] ^= 0xFF
    segment.write_bytes(data)
    outbox = open_outbox()
    assert epochs(outbox, State.PENDING) == [0, 2]
    assert len(outbox.damages) == 1


@pytest.mark.parametrize("envelope", [b'{"pcs_id": "\xff"}', b'{"later": ' + b"[" * 30_000, b"", b"null"])
def test_an_envelope_that_cannot_be_read_leaves_the_others_readable(
    open_outbox: OpenOutbox, make_record: MakeRecord, tmp_path: Path, envelope: bytes
) -> None:
    outbox = open_outbox()
    append(outbox, make_record(1))
    outbox.close()
    log = Wal(str(tmp_path / "outbox"), PosixFiles(), os.urandom)
    log.open(lambda _, __: None)
    log.commit([NewFrame(ENTRY_KIND, envelope)])
    log.close()
    outbox = open_outbox()
    assert epochs(outbox, State.PENDING) == [1]
    assert outbox.unreadable_frames == 1


def test_a_locked_outbox_is_not_opened(open_outbox: OpenOutbox) -> None:
    open_outbox()
    with pytest.raises(WalLockedError):
        open_outbox()


def test_compaction_keeps_what_lives_and_forgets_what_was_delivered(
    open_outbox: OpenOutbox, make_record: MakeRecord, fake_time: Any, tmp_path: Path
) -> None:
    outbox = open_outbox(segment_bytes=4096)
    entries = append_each(outbox, make_record, 30)
    for entry in entries:
        if entry.seq not in {entries[3].seq, entries[17].seq}:
            outbox.ack([(entry.seq, Verdict.ACCEPTED)])
    outbox.bury([(entries[17].seq, "rejected: status 400")])
    assert outbox.compact().segments == 0  # nothing is old enough
    fake_time.now_s += 15 * DAY_S
    before = sorted(path.name for path in (tmp_path / "outbox").glob("*.wal"))
    done = outbox.compact()
    after = sorted(path.name for path in (tmp_path / "outbox").glob("*.wal"))
    assert done.carried == 2
    assert done.segments == len(set(before) - set(after)) > 3
    for _ in range(2):  # the same as compacted and as read back
        assert epochs(outbox, State.PENDING) == [3]
        assert [(entry.seq, entry.reason) for entry in outbox.entries(State.DEAD)] == [
            (entries[17].seq, "rejected: status 400")
        ]
        assert outbox.entries(State.ACKED) == []
        outbox = reopen(outbox, open_outbox)


def append_each(outbox: Outbox, make_record: MakeRecord, count: int) -> list[Entry]:
    return [append(outbox, make_record(epoch))[0] for epoch in range(count)]


def test_nothing_is_removed_before_its_replacement_is_durable(
    open_outbox: OpenOutbox, make_record: MakeRecord, fake_time: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lesson L20: live entries are synced in their new place before the old segment goes; a crash between is harmless."""
    outbox = open_outbox(segment_bytes=4096)
    entries = append_each(outbox, make_record, 20)
    for entry in entries[1:]:
        outbox.ack([(entry.seq, Verdict.ACCEPTED)])
    fake_time.now_s += 15 * DAY_S
    calls: list[str] = []
    sync = PosixFiles.sync_data

    def note_sync(files: PosixFiles, handle: int) -> None:
        calls.append("sync")
        sync(files, handle)

    def die(files: PosixFiles, path: str) -> None:
        calls.append("remove")
        raise KeyboardInterrupt  # the process dies here

    monkeypatch.setattr(PosixFiles, "sync_data", note_sync)
    monkeypatch.setattr(PosixFiles, "remove", die)
    with pytest.raises(KeyboardInterrupt):
        outbox.compact()
    assert calls[-2:] == ["sync", "remove"]
    monkeypatch.undo()
    outbox = reopen(outbox, open_outbox)
    assert epochs(outbox, State.PENDING) == [0]
    assert outbox.compact().segments > 0
    assert epochs(reopen(outbox, open_outbox), State.PENDING) == [0]


def test_an_explicit_compaction_reaches_the_newest_segment_too(
    open_outbox: OpenOutbox, make_record: MakeRecord, fake_time: Any
) -> None:
    outbox = open_outbox()
    first, _ = append(outbox, make_record(1), make_record(2))
    outbox.ack([(first.seq, Verdict.ACCEPTED)])
    fake_time.now_s += 15 * DAY_S
    outbox = reopen(outbox, open_outbox)
    done = outbox.compact(seal=True)
    assert (done.segments, done.carried) == (1, 1)
    assert done.freed_bytes > 0
    assert epochs(reopen(outbox, open_outbox), State.PENDING) == [2]


def test_a_backlog_is_not_copied_at_every_compaction(
    open_outbox: OpenOutbox, make_record: MakeRecord, fake_time: Any
) -> None:
    outbox = open_outbox(segment_bytes=4096)
    append_each(outbox, make_record, 20)
    fake_time.now_s += 15 * DAY_S
    assert outbox.compact() == (0, 0, 0)
