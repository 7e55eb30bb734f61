"""Reading an outbox while its owner has it open: what it shows is what the owner knows, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pcs_agent.outbox import Outbox, State, Verdict, beside
from pcs_agent.outbox.beside import read_beside
from pcs_core.record import Record, decode_record
from pcs_core.wal import PosixFiles

OpenOutbox = Callable[..., Outbox]
MakeRecord = Callable[[int], Record]


def shown(folder: Path) -> list[tuple[int, str, str]]:
    """Epoch, verdict and reason of every record."""
    seen, more = read_beside(str(folder), PosixFiles())
    assert not more
    return [(decode_record(each.body).epoch, str(each.verdict), each.reason) for each in seen]


def owned(outbox: Outbox) -> set[tuple[int, str, str]]:
    entries = [entry for state in State for entry in outbox.entries(state)]
    return {
        (decode_record(outbox.read(entry.seq)).epoch, str(entry.verdict), entry.reason) for entry in entries
    }


def test_every_state_is_shown_while_the_owner_holds_the_lock(
    open_outbox: OpenOutbox, make_record: MakeRecord, tmp_path: Path
) -> None:
    outbox = open_outbox()
    entries = outbox.append([make_record(epoch) for epoch in range(5)])
    outbox.ack([(entries[0].seq, Verdict.ACCEPTED), (entries[1].seq, Verdict.ESCALATED)])
    outbox.bury([(entries[2].seq, "refused: 400"), (entries[3].seq, "deadline")])
    outbox.redrive([entries[3].seq])
    assert shown(tmp_path / "outbox") == [
        (0, "accepted", ""),
        (1, "escalated", ""),
        (2, "dead", "refused: 400"),
        (3, "pending", ""),
        (4, "pending", ""),
    ]


def test_it_agrees_with_the_owner_over_segments_and_compaction(
    open_outbox: OpenOutbox, make_record: MakeRecord, tmp_path: Path
) -> None:
    outbox = open_outbox(segment_bytes=4_000, retention_days=0.0)
    for round_ in range(6):
        entries = outbox.append([make_record(round_ * 10 + place) for place in range(5)])
        outbox.ack([(entries[0].seq, Verdict.ACCEPTED), (entries[1].seq, Verdict.ACCEPTED)])
        outbox.bury([(entries[2].seq, f"dead in round {round_}")])
        if round_ % 2:
            outbox.redrive([entries[2].seq])
    assert len(list((tmp_path / "outbox").glob("*.wal"))) > 3
    live = {each for each in owned(outbox) if each[1] != "accepted"}
    assert {each for each in shown(tmp_path / "outbox") if each[1] != "accepted"} == live
    outbox.compact(seal=True)
    assert {each for each in shown(tmp_path / "outbox") if each[1] != "accepted"} == live
    assert len(live) == 18


def test_a_dead_letter_that_was_built_again_is_shown_once(
    open_outbox: OpenOutbox, make_record: MakeRecord, tmp_path: Path
) -> None:
    outbox = open_outbox()
    (dead,) = outbox.append([make_record(1)])
    outbox.bury([(dead.seq, "deadline")])
    outbox.append([make_record(1)])
    assert shown(tmp_path / "outbox") == [(1, "pending", "")]


def test_nothing_is_changed(open_outbox: OpenOutbox, make_record: MakeRecord, tmp_path: Path) -> None:
    open_outbox().append([make_record(1)])
    (segment,) = (tmp_path / "outbox").glob("*.wal")
    with segment.open("ab") as file:
        file.write(b"PCSF torn")
    before = {path: path.read_bytes() for path in (tmp_path / "outbox").rglob("*") if path.is_file()}
    assert shown(tmp_path / "outbox") == [(1, "pending", "")]
    after = {path: path.read_bytes() for path in (tmp_path / "outbox").rglob("*") if path.is_file()}
    assert after == before


def test_of_more_than_can_be_shown_the_newest_are_read(
    open_outbox: OpenOutbox, make_record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = open_outbox(segment_bytes=2_000)
    for epoch in range(12):
        outbox.append([make_record(epoch)])
    monkeypatch.setattr(beside, "RECORDS_MAX", 4)
    seen, more = read_beside(str(tmp_path / "outbox"), PosixFiles())
    found = [decode_record(each.body).epoch for each in seen]
    assert more
    assert found == list(range(found[0], 12))
    assert 4 <= len(found) < 8


def test_what_became_of_a_record_may_stand_in_a_later_segment(
    open_outbox: OpenOutbox, make_record: MakeRecord, tmp_path: Path
) -> None:
    outbox = open_outbox(segment_bytes=2_000)
    entries = outbox.append([make_record(0), make_record(1)])
    for epoch in range(2, 10):
        outbox.append([make_record(epoch)])
    outbox.ack([(entries[0].seq, Verdict.ESCALATED)])
    outbox.bury([(entries[1].seq, "deadline")])
    assert len(list((tmp_path / "outbox").glob("*.wal"))) > 2
    assert shown(tmp_path / "outbox")[:3] == [
        (0, "escalated", ""),
        (1, "dead", "deadline"),
        (2, "pending", ""),
    ]
