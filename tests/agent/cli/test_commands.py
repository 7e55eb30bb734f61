"""What the commands do when all is well, or when records are."""

from __future__ import annotations

import base64
import json
import os
import stat
import struct
from typing import Any

import pytest

from pcs_core.keyfile import parse_ed25519_secret
from pcs_core.merkle import merkle_root

RUN = ("--shard-id", "shard-a", "--epoch", "7")


def lines(result: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_run_delivers_one_record_per_window(agent: Any, events_csv: str, threaded_backend: Any) -> None:
    result = agent("run", events_csv, *RUN, "--window", "4", "--json", ENDPOINT=threaded_backend.endpoint)
    assert result.exit_code == 0, result.output
    found = sorted(lines(result), key=lambda line: line["epoch"])
    assert [(line["epoch"], line["events"], line["verdict"]) for line in found] == [
        (7, 4, "accepted"),
        (8, 4, "accepted"),
        (9, 2, "accepted"),
    ]
    assert sorted(threaded_backend.epochs()) == [7, 8, 9]
    again = agent("run", events_csv, *RUN, "--window", "4", "--json", ENDPOINT=threaded_backend.endpoint)
    assert again.exit_code == 0
    assert [line["already_delivered"] for line in lines(again)] == [True] * 3
    assert len(threaded_backend.received) == 3


def test_the_table_names_every_window(agent: Any, events_csv: str, threaded_backend: Any) -> None:
    threaded_backend.answer = lambda document: 202 if document["epoch"] == 8 else 200
    result = agent("run", events_csv, *RUN, "--window", "5", ENDPOINT=threaded_backend.endpoint)
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0][:3] == ["epoch", "events", "D̂"]
    assert [(row[0], row[1], row[5], row[7]) for row in rows[1:3]] == [
        ("7", "5", "mixed", "accepted"),
        ("8", "5", "mixed", "escalated"),
    ]
    assert result.stdout.splitlines()[3] == "escalated (1): degraded"
    assert "\x1b" not in result.output
    assert result.exit_code == 0


def test_a_run_delivers_what_an_earlier_one_left(agent: Any, events_csv: str, threaded_backend: Any) -> None:
    down = {
        "ENDPOINT": "http://127.0.0.1:9/v1/pcs/submit",
        "DELIVERY_DEADLINE_S": "0.001",
        "LOG_LEVEL": "critical",
    }
    first = agent("run", events_csv, *RUN, "--json", **down)
    assert first.exit_code == 1
    assert [line["verdict"] for line in lines(first)] == ["dead"]
    (dead,) = lines(agent("dlq", "list", "--json"))
    assert dead["reason"].startswith("deadline of 0.001 s passed")
    assert agent("dlq", "redrive", dead["pcs_id"]).exit_code == 0
    assert [line["state"] for line in lines(agent("outbox", "list", "--json"))] == ["pending"]
    other = agent.write("other.csv", "x\n1\n2\n")
    result = agent(
        "run", other, "--shard-id", "b", "--epoch", "0", "--json", ENDPOINT=threaded_backend.endpoint
    )
    assert result.exit_code == 0
    assert {(line["epoch"], line["events"]) for line in lines(result)} == {(7, None), (0, 2)}
    # Begun first; two requests on their way at once may arrive in any order.
    assert [
        document["epoch"] for document in threaded_backend.received if document["pcs_id"] == dead["pcs_id"]
    ] == [7]
    assert lines(agent("dlq", "list", "--json")) == []


def test_wrong_keys_pause_and_flush_with_the_right_one_delivers(
    agent: Any, events_csv: str, threaded_backend: Any
) -> None:
    quiet = {"ENDPOINT": threaded_backend.endpoint, "LOG_LEVEL": "critical", "PCS_SIGN_ALG": "hmac"}
    threaded_backend.answer = lambda _: 401
    result = agent("run", events_csv, *RUN, "--window", "2", "--json", PCS_HMAC_KEY="wrong", **quiet)
    assert result.exit_code == 1
    assert {line["verdict"] for line in lines(result)} == {"pending"}
    assert "delivery is paused: status 401" in result.stderr
    assert lines(agent("dlq", "list", "--json")) == []
    threaded_backend.answer = lambda _: 200
    threaded_backend.received.clear()
    result = agent("outbox", "flush", "--resign", "--json", PCS_HMAC_KEY="right", **quiet)
    assert (result.exit_code, len(lines(result))) == (0, 5)
    body = json.dumps(threaded_backend.received[0]).encode()
    checked = agent("verify", "-", stdin=body, PCS_SIGN_ALG="hmac", PCS_HMAC_KEY="right")
    assert checked.exit_code == 0, checked.output


def test_a_fault_in_the_middle_keeps_the_windows_before(agent: Any, threaded_backend: Any) -> None:
    path = agent.write("a.csv", "x\n" + "1\n" * 4 + "bad\n")
    result = agent("run", path, *RUN, "--window", "2", ENDPOINT=threaded_backend.endpoint)
    assert result.exit_code == 2
    assert "row 6, column 'x': found text of length 3" in result.stderr


@pytest.mark.parametrize("command", ["run", "flush"])
def test_a_record_lost_to_damage_is_not_taken_for_delivered(
    agent: Any, events_csv: str, threaded_backend: Any, command: str
) -> None:
    arguments = ("outbox", "flush") if command == "flush" else ("run", agent.write("b.csv", "x\n1\n"), *RUN)
    down = {"ENDPOINT": "http://127.0.0.1:9/x", "LOG_LEVEL": "critical", "DELIVERY_DEADLINE_S": "0.001"}
    agent("run", events_csv, *RUN, "--window", "2", **down)
    agent("dlq", "redrive")
    (segment,) = (agent.folder / "outbox").glob("*.wal")
    data = bytearray(segment.read_bytes())
    data[200] ^= 0xFF  # in the first entry
    segment.write_bytes(data)
    result = agent(*arguments, "--json", ENDPOINT=threaded_backend.endpoint)
    assert result.exit_code == 1
    assert {line["verdict"] for line in lines(result)} == {"accepted"}
    assert "the same command over the same input makes it again" in result.stderr
    agent("run", events_csv, *RUN, "--window", "2", ENDPOINT=threaded_backend.endpoint)
    assert sorted(set(threaded_backend.epochs())) == [7, 8, 9, 10, 11]
    agent("outbox", "compact", OUTBOX_RETENTION_DAYS="0")
    assert agent("outbox", "flush", ENDPOINT=threaded_backend.endpoint).exit_code == 0


@pytest.mark.parametrize(
    ("content", "code", "events"),
    [(None, "input_missing", 0), ("x\n", "input_empty", 0), ("x\n5\n", "too_few_events", 1)],
)
def test_degraded_records_say_so(
    agent: Any, threaded_backend: Any, content: str | None, code: str, events: int
) -> None:
    path = str(agent.folder / "a.csv") if content is None else agent.write("a.csv", content)
    threaded_backend.answer = lambda _: 202
    result = agent("run", path, *RUN, "--allow-missing", "--json", ENDPOINT=threaded_backend.endpoint)
    assert result.exit_code == 0
    (line,) = lines(result)
    assert (line["events"], line["degraded"], line["fallbacks"][0]) == (events, True, code)
    assert (line["D_hat"], line["coh_star"], line["verdict"]) == (0.0, 0.0, "escalated")
    counted = "1 event" if events == 1 else f"{events} events"
    assert f"Warning: epoch 7: {counted}, degraded: {code}" in result.stderr


def test_one_event_is_built_without_any_option(agent: Any) -> None:
    result = agent("build", agent.write("a.csv", "x\n5\n"), *RUN)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["ft"]["fallbacks"] == ["too_few_events", "r_clamped"]
    assert "Warning: epoch 7: 1 event, degraded: too_few_events, r_clamped" in result.stderr


def test_build_touches_no_outbox_and_the_options_count(agent: Any, events_csv: str) -> None:
    result = agent("build", events_csv, *RUN, "--scales", "2,3,5", "--seed", "9", "--bins", "1")
    record = json.loads(result.stdout)
    assert (record["scales"], record["seed"], record["coh_star"]) == ([2, 3, 5], 9, 1.0)
    assert record["ft"] == {"outbox_seq": 0, "degraded": False, "fallbacks": [], "clock_skew_ms": 0}
    assert not (agent.folder / "outbox").exists()


@pytest.mark.parametrize("algorithm", ["hmac", "ed25519"])
def test_verify_finds_what_was_changed(agent: Any, events_csv: str, algorithm: str) -> None:
    key_file = str(agent.folder / "a.key")
    assert agent("keygen", "--alg", algorithm, "--out", key_file).exit_code == 0
    options = {"PCS_SIGN_ALG": algorithm}
    record = agent("build", events_csv, *RUN, "--key-file", key_file, **options).stdout
    path = agent.write("record.json", record)
    assert agent("verify", path, "--key-file", key_file, **options).exit_code == 0
    changed = json.loads(record) | {"D_hat": 2.9, "epoch": 8}
    result = agent(
        "verify", "-", "--json", "--key-file", key_file, stdin=json.dumps(changed).encode(), **options
    )
    assert result.exit_code == 1
    finding = json.loads(result.stdout)
    failed = [check["check"] for check in finding["checks"] if check["ok"] is False]
    assert failed == ["identity", "signature", "slope_out_of_tolerance", "regime_mismatch", "budget_mismatch"]


def test_verify_shows_what_a_failed_check_compared(agent: Any, events_csv: str) -> None:
    record = json.loads(agent("build", events_csv, *RUN).stdout)
    changes = {
        "D_hat": 2.9,
        "coh_star": 1.2,
        "r": 1.5,
        "N_j": record["N_j"] | {"4": 1},
        "budget": 1.0,
        "ft": record["ft"] | {"degraded": True, "fallbacks": ["call +1 555 010 9977", "\x1b[2J"]},
    }
    result = agent("verify", "-", stdin=json.dumps(record | changes).encode())
    rows = [row.split(maxsplit=2) for row in result.stdout.splitlines()]
    found = {row[0]: [part.strip() for part in row[1:]] for row in rows}
    assert found["structure"] == found["identity"] == ["ok"]
    details = {name: found[name][1] for name in ("slope", "coherence", "compressibility", "counts", "regime")}
    assert details == {
        "slope": "slope_out_of_tolerance: D_hat 2.9, recomputed 0.677229028; tolerance 0.15",
        "coherence": "coherence_out_of_bounds: coh_star 1.2; allowed: 0 to 1.05",
        "compressibility": "compressibility_out_of_bounds: r 1.5; allowed: 0 to 1",
        "counts": "counts_not_monotone: an N_j is smaller than that of a divisor of its scale",
        "regime": "regime_mismatch: regime mixed; D_hat and coh_star as claimed give non_sticky",
    }
    assert found["budget"][1] == (
        "budget_mismatch: budget 1.0; D_hat, coh_star and r as claimed give 0.54; tolerance 0.01"
    )
    assert found["complete"][1] == "degraded: fallbacks: call [phone], ?[2J"


def test_verify_calls_checks_that_hold_by_what_they_are_about(agent: Any, events_csv: str) -> None:
    record = agent("build", events_csv, *RUN).stdout
    result = agent("verify", "-", stdin=record.encode())
    names = [row.split()[0] for row in result.stdout.splitlines() if row.split()[1:] == ["ok"]]
    assert names == [
        "structure",
        "identity",
        "slope",
        "coherence",
        "compressibility",
        "counts",
        "regime",
        "budget",
        "complete",
    ]


def test_verify_of_what_is_no_record(agent: Any) -> None:
    result = agent("verify", "-", stdin=b'{"pcs_id": 1}')
    assert result.exit_code == 1
    assert "$.pcs_id" in result.output
    assert agent("verify", "-", stdin=b"x" * 300_000).exit_code == 1
    assert agent("verify", str(agent.folder / "nope.json")).exit_code == 2


def test_keygen_writes_a_secret_only_its_owner_reads_and_prints_the_public_half(agent: Any) -> None:
    path = str(agent.folder / "a.key")
    result = agent("keygen", "--out", path)
    assert result.exit_code == 0
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with open(path, "rb") as file:
        secret = file.read()
    key = parse_ed25519_secret(secret)
    assert f"PCS_ED25519_PUB_B64={base64.b64encode(key.public_bytes).decode()}" in result.stdout
    assert secret.decode().strip() not in result.output
    pem = str(agent.folder / "a.pem")
    assert agent("keygen", "--pem", "--out", pem).exit_code == 0
    with open(pem, "rb") as file:
        assert parse_ed25519_secret(file.read()).key_id.startswith("ed25519-")


def test_keygen_says_first_what_is_where_and_then_each_side_s_settings(agent: Any) -> None:
    path = str(agent.folder / "a b.key")
    lines_ = agent("keygen", "--out", path).stdout.splitlines()
    assert lines_[0].endswith(f"; the secret is in {path}")
    assert lines_[1] == f"# agent, with --key-file '{path}', or PCS_ED25519_SECRET_B64=\"$(cat '{path}')\":"
    assert lines_[2:4] == ["PCS_SIGN_ALG=ed25519", "# backend, with PCS_SIGN_ALG=ed25519 too:"]
    assert lines_[4].startswith("PCS_ED25519_PUB_B64=")
    path = str(agent.folder / "shared.key")
    lines_ = agent("keygen", "--alg", "hmac", "--out", path).stdout.splitlines()
    assert lines_[0].endswith(f"; the secret is in {path}")
    assert lines_[1:] == [
        "# agent and backend, which share it:",
        "PCS_SIGN_ALG=hmac",
        f'PCS_HMAC_KEY="$(cat {path})"',
    ]


def test_help_says_whose_epoch(agent: Any) -> None:
    assert "Epoch of the record." in agent("build", "--help").stdout
    assert "Epoch of the first window." in agent("run", "--help").stdout


def test_outbox_compact_removes_what_was_delivered(
    agent: Any, events_csv: str, threaded_backend: Any
) -> None:
    agent("run", events_csv, *RUN, ENDPOINT=threaded_backend.endpoint)
    assert len(lines(agent("outbox", "list", "--json"))) == 1
    result = agent("outbox", "compact", "--json", OUTBOX_RETENTION_DAYS="0")
    assert json.loads(result.stdout)["segments_removed"] == 1
    assert lines(agent("outbox", "list", "--json")) == []


@pytest.mark.parametrize(
    "arguments", [("outbox", "list"), ("dlq", "list"), ("dlq", "redrive"), ("outbox", "compact")]
)
def test_looking_at_nothing_makes_no_folder(agent: Any, arguments: tuple[str, ...]) -> None:
    assert agent(*arguments).exit_code == 0
    assert not (agent.folder / "outbox").exists()


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("run",),
        ("build",),
        ("verify",),
        ("keygen",),
        ("outbox",),
        ("outbox", "list"),
        ("outbox", "flush"),
        ("outbox", "compact"),
        ("dlq",),
        ("dlq", "list"),
        ("dlq", "redrive"),
    ],
)
def test_every_help_has_an_example(agent: Any, command: tuple[str, ...]) -> None:
    result = agent(*command, "--help")
    assert result.exit_code == 0
    assert "Example" in result.stdout
    assert "pcs-agent" in result.stdout


def test_version(agent: Any) -> None:
    assert agent("--version").stdout == "pcs-agent, version 0.1.0\n"


def test_credentials_in_the_endpoint_never_print(agent: Any, events_csv: str) -> None:
    result = agent(
        "run",
        events_csv,
        *RUN,
        "--deadline",
        "0.001",
        ENDPOINT="http://anna:geheim@127.0.0.1:9/v1?token=geheim",
        LOG_LEVEL="debug",
    )
    assert result.exit_code == 1
    assert "geheim" not in result.output
    assert "dead_letter" in result.stderr


def test_build_summarises_text_and_tokens(agent: Any) -> None:
    text = "It loops. It loops again.\n"
    options = ("--text", "sentence", "--embedding-dimensions", "5")
    (record,) = lines(agent("build", agent.write("a.txt", text), *RUN, *options))
    assert record["merkle_root"] == merkle_root([b"It loops. ", b"It loops again.\n"])
    assert len(record["v_star"]) == 5
    (record,) = lines(agent("build", agent.write("a.tokens", "1\n[2, 3]\n"), *RUN))
    assert record["merkle_root"] == merkle_root([struct.pack("<I", token) for token in (1, 2, 3)])
    assert len(record["v_star"]) == 64
