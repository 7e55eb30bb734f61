"""`outbox list|flush|compact` and `dlq list|redrive`: what people read, and what they can name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

DOWN = {
    "ENDPOINT": "http://127.0.0.1:9/v1/pcs/submit",
    "DELIVERY_DEADLINE_S": "0.001",
    "LOG_LEVEL": "critical",
}
SHARD = "runs/anna@example.org"
COMMANDS = [
    ("outbox", "list"),
    ("outbox", "flush"),
    ("outbox", "compact"),
    ("dlq", "list"),
    ("dlq", "redrive"),
]


def lines(result: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def dead(agent: Any, events_csv: str) -> list[dict[str, Any]]:
    """Five dead letters, epochs 7 to 11."""
    agent("run", events_csv, "--shard-id", SHARD, "--epoch", "7", "--window", "2", **DOWN)
    return lines(agent("dlq", "list", "--json"))


def test_lists_show_shard_and_epoch(agent: Any, dead: list[dict[str, Any]]) -> None:
    assert [(letter["shard_id"], letter["epoch"]) for letter in dead] == [
        ("runs/[email]", epoch) for epoch in range(7, 12)
    ]
    rows = [row.split() for row in agent("dlq", "list").stdout.splitlines()]
    assert rows[0] == ["seq", "pcs_id", "shard", "epoch", "state", "since", "why"]
    assert [row[1:5] for row in rows[1:]] == [
        [letter["pcs_id"][:12], "runs/[email]", str(letter["epoch"]), "dead"] for letter in dead
    ]
    agent("dlq", "redrive")
    rows = [row.split() for row in agent("outbox", "list").stdout.splitlines()]
    assert [row.count("pending") for row in rows[1:]] == [1] * 5


def test_a_damaged_record_is_not_listed_and_the_others_are(agent: Any, dead: list[dict[str, Any]]) -> None:
    agent("dlq", "redrive")
    (segment,) = (agent.folder / "outbox").glob("*.wal")
    shown = lines(agent("outbox", "list", "--json"))
    assert [entry["epoch"] for entry in shown] == [7, 8, 9, 10, 11]
    data = segment.read_bytes()
    assert data.count(b'"epoch":9,') == 1
    segment.write_bytes(data.replace(b'"epoch":9,', b'"epoch":0,'))
    assert [entry["epoch"] for entry in lines(agent("outbox", "list", "--json"))] == [7, 8, 10, 11]


@pytest.mark.parametrize("digits", [8, 12, 64])
def test_a_dead_letter_is_named_by_its_first_digits(
    agent: Any, dead: list[dict[str, Any]], digits: int
) -> None:
    result = agent("dlq", "redrive", dead[2]["pcs_id"][:digits])
    assert (result.exit_code, result.stdout) == (
        0,
        "1 dead letter is pending again; deliver with: pcs-agent outbox flush\n",
    )
    assert [entry["epoch"] for entry in lines(agent("outbox", "list", "--json"))] == [9]
    assert agent("dlq", "redrive").stdout.startswith("4 dead letters are pending again")
    assert agent("dlq", "redrive").stdout == "no dead letters\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("0123456", "found a string of length 7; allowed: 8 to 64 lower-case hex digits"),
        ("ABCDEF01", "found a string of length 8; allowed: 8 to 64"),
        ("00000000", "PCS_ID 00000000: found no such dead letter"),
    ],
)
def test_names_of_no_dead_letter(agent: Any, dead: list[dict[str, Any]], name: str, message: str) -> None:
    result = agent("dlq", "redrive", name)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(lines(agent("dlq", "list", "--json"))) == len(dead)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_does_not_exist_is_named_and_not_made(agent: Any, command: tuple[str, ...]) -> None:
    folder = agent.folder / "mistyped"
    result = agent(*command, ENDPOINT=DOWN["ENDPOINT"], OUTBOX_DIR=str(folder))
    assert result.exit_code == 0
    assert result.stdout == f"nothing in {folder} (no such folder)\n"
    assert not folder.exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_in_place_of_the_folder_is_refused(agent: Any, command: tuple[str, ...]) -> None:
    path = agent.write("outbox.wal", "")
    result = agent(*command, ENDPOINT=DOWN["ENDPOINT"], OUTBOX_DIR=path)
    assert result.exit_code == 2
    assert f"OUTBOX_DIR: {path}: found no folder" in result.stderr


def test_an_empty_outbox_says_so(agent: Any, events_csv: str, threaded_backend: Any) -> None:
    folder = Path(agent.folder / "outbox")
    folder.mkdir()
    assert agent("outbox", "list").stdout == f"nothing in {folder}\n"
    assert agent("outbox", "flush", ENDPOINT=threaded_backend.endpoint).stdout == "nothing to deliver\n"


def test_compact_says_what_is_still_there(
    agent: Any, dead: list[dict[str, Any]], threaded_backend: Any
) -> None:
    agent("dlq", "redrive", dead[0]["pcs_id"], dead[1]["pcs_id"], dead[2]["pcs_id"])
    threaded_backend.answer = lambda document: 200 if document["epoch"] < 9 else 400
    agent("outbox", "flush", ENDPOINT=threaded_backend.endpoint, LOG_LEVEL="critical")
    agent("dlq", "redrive", dead[3]["pcs_id"])
    result = agent("outbox", "compact")
    assert result.stdout == (
        "removed 0 segments, freed 0 bytes; still there: 1 pending, 2 dead letters, 2 delivered within 14 days\n"
    )
    found = json.loads(agent("outbox", "compact", "--json", OUTBOX_RETENTION_DAYS="0").stdout)
    assert found.pop("freed_bytes") > 0
    assert found.pop("segments_removed") >= 1
    assert found == {"entries_kept": 3, "pending": 1, "dead": 2, "delivered": 0}
