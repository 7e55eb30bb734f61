"""Where a report's streams come from, and whose word about a window counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pcs_agent.errors import InputError
from pcs_agent.outbox import Outbox, Verdict
from pcs_agent.report.streams import Streams
from pcs_agent.verification import RECORD_BYTES_MAX
from pcs_core.record import Record, encode_record

Gather = Callable[..., Streams]


def judged(streams: Streams) -> dict[str, list[tuple[int, str, tuple[str, ...]]]]:
    return {
        stream.name: [(view.epoch, view.judgement.word, view.judgement.reasons) for view in stream.windows()]
        for stream in streams
    }


def test_each_input_is_a_stream_of_its_own(kinds: dict[str, str], gather_files: Gather) -> None:
    streams = gather_files(kinds["healthy"], kinds["truncated"])
    assert {stream.name: stream.windows_seen for stream in streams} == {
        kinds["healthy"]: 4,
        kinds["truncated"]: 1,
    }
    assert [stream.events_seen for stream in streams] == [2_000, 9]


def test_with_a_shard_the_inputs_are_one_stream_as_in_a_run(
    kinds: dict[str, str], gather_files: Gather
) -> None:
    (stream,) = gather_files(kinds["healthy"], kinds["truncated"], shard_id="s1", epoch=7)
    assert stream.name == "s1"
    assert [(view.epoch, view.events) for view in stream.windows()] == [
        (7, 500),
        (8, 500),
        (9, 500),
        (10, 500),
        (11, 9),
    ]


def test_the_kinds_show_where_their_pictures_are_said_to(kinds: dict[str, str], gather_files: Gather) -> None:
    """The sentences below the pictures, on streams made to be of those kinds."""
    found = {name: next(iter(gather_files(path))) for name, path in kinds.items()}
    last = {name: stream.pictured()[-1][1] for name, stream in found.items()}
    lag = last["looping"].portrait.lag
    assert (lag.events, lag.share) == (40, 1.0)
    assert last["looping"].r < 0.2
    assert last["healthy"].r > 0.9
    assert last["healthy"].portrait.lag.share < 0.05
    # Dark along the diagonal, pale far from it: over the whole of a drift nothing comes back.
    whole = next(iter(gather_files(kinds["drifting"], window=None))).pictured()[0][1].portrait.whole.levels
    beside = np.mean([np.mean(np.diagonal(whole, k) >= 2) for k in range(1, 20)])
    far = np.mean([np.mean(np.diagonal(whole, k) >= 2) for k in range(120, 200)])
    assert far < 0.01
    assert beside > 0.2
    assert last["truncated"].counts[-1] == 9
    assert len(last["truncated"].portrait.whole.levels) == 9


def outbox_of(open_outbox: Callable[..., Outbox], records: list[Record], *answers: Verdict | None) -> str:
    outbox = open_outbox()
    entries = outbox.append(records)
    for entry, verdict in zip(entries, answers, strict=True):
        if verdict is Verdict.DEAD:
            outbox.bury([(entry.seq, "deadline of 1 s passed")])
        elif verdict is not None:
            outbox.ack([(entry.seq, verdict)])
    return str(outbox._wal._folder.path)


def test_an_outbox_in_use_is_shown_with_its_answers(
    open_outbox: Callable[..., Outbox], make_record: Any, gather_files: Gather
) -> None:
    folder = outbox_of(
        open_outbox,
        [make_record(epoch) for epoch in range(4)],
        Verdict.ACCEPTED,
        Verdict.ESCALATED,
        Verdict.DEAD,
        None,
    )
    assert judged(gather_files(outbox=folder)) == {
        "shard-a": [
            (0, "accepted", ()),
            (1, "escalated", ()),
            (2, "dead", ("deadline of 1 s passed",)),
            (3, "pending", ()),
        ]
    }


def test_the_same_events_in_the_outbox_lend_their_answer_once(
    open_outbox: Callable[..., Outbox], make_record: Any, gather_files: Gather, tmp_path: Path
) -> None:
    """The record is of another shard than the file's name gives; the events and the epoch are the same."""
    folder = outbox_of(open_outbox, [make_record(7), make_record(8)], Verdict.ESCALATED, Verdict.ACCEPTED)
    path = str(tmp_path / "events.npy")
    np.save(path, np.random.default_rng(7).random((16, 2)))
    assert judged(gather_files(path, outbox=folder, epoch=7)) == {
        path: [(7, "escalated", ())],
        "shard-a": [(8, "accepted", ())],
    }
    assert judged(gather_files(path, outbox=folder, epoch=7, shard_id="shard-a")) == {
        "shard-a": [(7, "escalated", ()), (8, "accepted", ())],
    }
    other_epoch = judged(gather_files(path, outbox=folder, epoch=9))
    assert other_epoch[path] == [(9, "checks hold", ())]


def test_records_are_checked_and_shown(make_record: Any, gather_files: Gather, tmp_path: Path) -> None:
    good, bad = make_record(1), json.loads(encode_record(make_record(2)))
    bad["budget"], bad["D_hat"] = 0.5, 9.0
    path = tmp_path / "records.jsonl"
    path.write_bytes(encode_record(good) + b"\n\n" + json.dumps(bad).encode() + b"\n")
    (windows,) = judged(gather_files(records=(str(path),))).values()
    assert windows == [
        (1, "checks hold", ()),
        (2, "checks fail", ("slope_out_of_tolerance", "regime_mismatch", "budget_mismatch")),
    ]
    pretty = tmp_path / "pretty.json"
    pretty.write_text(json.dumps(json.loads(encode_record(good)), indent=2))
    assert judged(gather_files(records=(str(pretty),))) == {"shard-a": [(1, "checks hold", ())]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{}\n", r"records.jsonl: line 1: \$\.\w+: found nothing"),
        (b"\n[1, 2]\n", "records.jsonl: line 2: \\$: found"),
        (b"{" * 10, "records.jsonl: line 1: \\$: found 10 bytes that are not JSON"),
        (
            b" " * (RECORD_BYTES_MAX + 1) + b"1",
            "line 1: \\$: found 26214[56] bytes or more; allowed: up to 262144",
        ),
    ],
)
def test_what_is_no_record_is_refused_by_its_line(
    gather_files: Gather, tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        gather_files(records=(str(path),))


def test_one_of_several_inputs_that_cannot_be_read_is_noted_and_the_others_are_shown(
    kinds: dict[str, str], gather_files: Gather, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.csv"
    broken.write_text("x,y\n" + "1,2\n" * 700 + "3,oops\n")
    warnings: list[str] = []
    streams = gather_files(kinds["truncated"], str(broken), str(tmp_path / "gone.csv"), warnings=warnings)
    assert streams.has_problems
    problems = {stream.name: (stream.problem, stream.windows_seen) for stream in streams}
    assert problems == {
        kinds["truncated"]: ("", 1),
        str(broken): (f"{broken}: row 702, column 'y': found text of length 4; allowed: a finite number", 1),
        str(tmp_path / "gone.csv"): (
            f"{tmp_path}/gone.csv: cannot be read: no such file (with --allow-missing a degraded record is made)",
            0,
        ),
    }
    assert warnings == [problems[str(broken)][0], problems[str(tmp_path / "gone.csv")][0]]
    with pytest.raises(InputError, match="row 702"):
        gather_files(str(broken))
    with pytest.raises(InputError, match=r"gone\.csv: cannot be read"):
        gather_files(str(tmp_path / "gone.csv"), str(tmp_path / "gone too.csv"))


@pytest.mark.parametrize("name", ["gone", "file", "no\0name"])
def test_what_is_no_outbox_is_refused(gather_files: Gather, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"^--outbox: .*: cannot be read: "):
        gather_files(outbox=str(tmp_path / name))


def test_nothing_to_show_is_refused(gather_files: Gather, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.jsonl").write_bytes(b"\n")
    for sources in ({"outbox": str(tmp_path / "empty")}, {"records": (str(tmp_path / "empty.jsonl"),)}):
        with pytest.raises(InputError, match="found no event and no record"):
            gather_files(**sources)
