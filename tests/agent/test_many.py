"""What one worker makes of one file, and what is handed to it."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from pcs_agent.app import StreamRequest
from pcs_agent.config import load_config
from pcs_agent.many import ShardTask, plan_tasks, summarise_shard
from pcs_agent.signals import SignalSettings
from pcs_core.identity import ShardId
from pcs_core.signing import HmacKey

SECRET = "a-secret-of-the-tests"
SEED_BASE64 = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
VRF_SEED_BASE64 = "HxwdHhsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA="
KEYS = {"hmac": {"PCS_HMAC_KEY": SECRET}, "ed25519": {"PCS_ED25519_SECRET_B64": SEED_BASE64}}


def task(path: Path, algorithm: str = "hmac", **changes: object) -> ShardTask:
    config = load_config(
        {
            "PCS_SIGN_ALG": algorithm,
            "ENDPOINT": f"http://user:{SECRET}@127.0.0.1/x",
            "PCS_VRF_SECRET_B64": VRF_SEED_BASE64,
            **KEYS[algorithm],
        }
    )
    settings = {
        "inputs": [str(path)],
        "shard_id": ShardId("s"),
        "epoch": 0,
        "settings": SignalSettings(directions=5),
    }
    request = StreamRequest(**(settings | changes))
    (planned,) = plan_tasks(config, request, pytest.fail)
    return planned


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text("x,y\n" + "".join(f"{row},{row * row}\n" for row in range(10)), encoding="utf-8")
    return path


@pytest.mark.parametrize("algorithm", ["hmac", "ed25519"])
def test_a_task_that_was_pickled_makes_the_same_signed_records(rows: Path, algorithm: str) -> None:
    first = task(rows, algorithm, window_rows=4)
    shards = [summarise_shard(each) for each in (first, pickle.loads(pickle.dumps(first)))]
    records = [[summary.record for summary in shard.summaries] for shard in shards]
    assert [record.epoch for record in records[0]] == [0, 1, 2]
    assert {record.shard_id for record in records[0]} == {"s/rows.csv"}
    assert [record.sig for record in records[0]] == [record.sig for record in records[1]]
    assert [record.direction_proof for record in records[0]] == [
        record.direction_proof for record in records[1]
    ]
    assert len({record.seed for record in records[0]}) == 3
    assert pickle.loads(pickle.dumps(shards[0])) == shards[0]


def test_a_task_holds_the_key_and_neither_prints_it_nor_knows_where_records_go(rows: Path) -> None:
    planned = task(rows)
    assert repr(planned) == "ShardTask(s/rows.csv)"
    assert planned.config.endpoint is None
    assert planned.config.message_signer is None
    pickled = pickle.dumps(planned)
    assert pickled.count(SECRET.encode()) == 1  # the key; not the endpoint's password, which is the same here
    assert SECRET not in f"{planned.config} {planned.config!r}"
    signer = pickle.loads(pickled).config.with_signer().signer
    assert signer is not None
    assert signer.key_id == HmacKey(SECRET.encode()).key_id


def test_windows_before_a_bad_row_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("x\n1\n2\n3\n4\nfive\n", encoding="utf-8")
    shard = summarise_shard(task(path, window_rows=2))
    # The batch with the bad row is refused as a whole, and a batch is a window's worth.
    assert [summary.record.epoch for summary in shard.summaries] == [0, 1]
    assert shard.problem.endswith("row 6, column 'x': found text of length 4; allowed: a finite number")


def test_a_fault_of_the_program_is_told_by_its_kind_alone(
    rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a value of the input")

    monkeypatch.setattr("pcs_agent.many.iter_summaries", fail)
    assert summarise_shard(task(rows)).problem == f"{rows}: cannot be summarised: KeyError"


def test_a_file_of_too_many_records_is_refused_and_told_how_to_run(
    rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pcs_agent.many.SHARD_BYTES_MAX", 2_000)
    shard = summarise_shard(task(rows, window_rows=1))
    assert "found records of over 2000 bytes" in shard.problem
    assert "--window" in shard.problem
