"""Every mistake a user can make ends in a documented exit code and a message that names the thing; never in a traceback."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from pcs_core.wal import PosixFiles

RUN = ("--shard-id", "shard-a", "--epoch", "0")
ENDPOINT = "http://127.0.0.1:9/v1/pcs/submit"
SECRET = "geheim-geheim"


def assert_refused(result: Any, *parts: str, code: int = 2) -> None:
    output = result.output
    assert result.exit_code == code, output
    for part in parts:
        assert part in output
    assert "Traceback" not in output
    assert SECRET not in output
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize("command", ["run", "build"])
def test_a_missing_file(agent: Any, command: str) -> None:
    result = agent(command, str(agent.folder / "nope.csv"), *RUN, ENDPOINT=ENDPOINT)
    assert_refused(result, "nope.csv", "no such file", "--allow-missing")
    assert not (agent.folder / "outbox").exists()


@pytest.mark.parametrize("command", ["run", "build"])
@pytest.mark.parametrize("content", ["", "x,y\n", "\n\n"])
def test_an_empty_stream(agent: Any, command: str, content: str) -> None:
    result = agent(command, agent.write("empty.csv", content), *RUN, ENDPOINT=ENDPOINT)
    assert_refused(result, "empty.csv: found no events", "--allow-missing")


def test_many_empty_inputs(agent: Any) -> None:
    paths = [agent.write(f"{index}.csv", "x\n") for index in range(5)]
    result = agent("run", *paths, *RUN, ENDPOINT=ENDPOINT)
    assert_refused(result, "0.csv, ", "2.csv and 2 more: found no events")


def test_nan_in_a_row(agent: Any) -> None:
    assert_refused(
        agent("build", agent.write("a.csv", "x,y\n1,2\n3,nan\n"), *RUN), "a.csv", "row 3", "column 'y'", "NaN"
    )


def test_a_wrong_column(agent: Any, events_csv: str) -> None:
    assert_refused(agent("build", events_csv, *RUN, "--columns", "x,z"), "column 'z'", "no such column")


@pytest.mark.parametrize(
    ("variables", "parts"),
    [
        ({"PCS_SIGN_ALG": "rot13"}, ["PCS_SIGN_ALG", "none, hmac, ed25519"]),
        ({"PCS_SIGN_ALG": "hmac"}, ["PCS_HMAC_KEY", "found nothing"]),
        ({"PCS_SIGN_ALG": "hmac", "PCS_HMAC_KEY": ""}, ["PCS_HMAC_KEY", "found nothing"]),
        ({"PCS_SIGN_ALG": "ed25519"}, ["PCS_ED25519_SECRET_B64", "found nothing"]),
        (
            {"PCS_SIGN_ALG": "ed25519", "PCS_ED25519_SECRET_B64": SECRET},
            ["PCS_ED25519_SECRET_B64", "not base64"],
        ),
        (
            {"PCS_SIGN_ALG": "ed25519", "PCS_ED25519_SECRET_B64": base64.b64encode(b"x" * 31).decode()},
            ["PCS_ED25519_SECRET_B64", "found 31 bytes", "32 bytes"],
        ),
        ({"OUTBOX_RETENTION_DAYS": "-1"}, ["OUTBOX_RETENTION_DAYS"]),
        ({"OUTBOX_RETENTION_DAYS": "nan"}, ["OUTBOX_RETENTION_DAYS"]),
        ({"DELIVERY_DEADLINE_S": "soon"}, ["DELIVERY_DEADLINE_S"]),
        *[
            ({"BATCH_RECORDS": text}, ["BATCH_RECORDS", "an integer from 1 to 1000"])
            for text in ("0", "1001", "-1", "1.0", "1e2", " 5", "²", "9" * 5_000)
        ],
        ({"BATCH_GZIP": "yes"}, ["BATCH_GZIP", "true or false"]),
        ({"LOG_LEVEL": "loud"}, ["LOG_LEVEL", "warning"]),
        ({"PCS_PARAMS_FILE": "/nope.toml"}, ["PCS_PARAMS_FILE", "No such file"]),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
@pytest.mark.parametrize("command", ["run", "build", "verify"])
def test_settings_that_cannot_be_used(
    agent: Any, events_csv: str, command: str, variables: dict[str, str], parts: list[str]
) -> None:
    options = () if command == "verify" else RUN
    assert_refused(agent(command, events_csv, *options, **({"ENDPOINT": ENDPOINT} | variables)), *parts)


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8080/v1/pcs/submit",
        "ftp://host/x",
        "http://",
        "http://host",
        "http://host:8080?x=1",
        f"http://host:{SECRET}/x",
        f"http://{SECRET}@/x",
        "http://host:0/x",
        f"http://ho st/{SECRET}",
        "http://[::1/x",
    ],
)
@pytest.mark.parametrize("command", ["run", "flush"])
def test_an_endpoint_that_is_no_url(agent: Any, events_csv: str, url: str, command: str) -> None:
    arguments = ("outbox", "flush") if command == "flush" else ("run", events_csv, *RUN)
    assert_refused(agent(*arguments, ENDPOINT=url), "ENDPOINT", "http or https")


@pytest.mark.parametrize("arguments", [("outbox", "flush"), ("run", "x.csv", *RUN)])
def test_no_endpoint(agent: Any, arguments: tuple[str, ...]) -> None:
    assert_refused(agent(*arguments), "ENDPOINT", "found nothing")


@pytest.mark.parametrize(
    ("algorithm", "content", "parts"),
    [
        ("ed25519", SECRET, ["--key-file", "not base64"]),
        (
            "ed25519",
            "-----BEGIN PRIVATE KEY-----\ngeheim\n-----END PRIVATE KEY-----\n",
            ["--key-file", "PEM of another"],
        ),
        ("hmac", "\n", ["--key-file", "empty HMAC key"]),
        ("none", SECRET, ["PCS_SIGN_ALG", "--key-file"]),
        ("", SECRET, ["--key-file", "not base64"]),
        ("hmac", SECRET * 2000, ["--key-file", "over 16384 bytes"]),
    ],
)
def test_key_files_that_cannot_be_used(
    agent: Any, events_csv: str, algorithm: str, content: str, parts: list[str]
) -> None:
    key_file = agent.write("a.key", content)
    result = agent("build", events_csv, *RUN, "--key-file", key_file, PCS_SIGN_ALG=algorithm)
    assert_refused(result, *parts)
    if algorithm != "none":
        assert f"--key-file: {key_file}: " in result.output


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (
            "version = '1'\ntol_D = 1",
            ["found an unknown member 'tol_D'; allowed: a table with only these names"],
        ),
        ("tol_d = 1", ["$.version: found nothing"]),
        ("tol_d", ["not valid TOML"]),
        ("version = '1'\n'anna@example.org' = 1", ["found an unknown member '[email]'"]),
    ],
)
def test_parameter_files_that_cannot_be_used(
    agent: Any, events_csv: str, content: str, parts: list[str]
) -> None:
    path = agent.write("params.toml", content)
    result = agent("build", events_csv, *RUN, PCS_PARAMS_FILE=path)
    assert_refused(result, f"PCS_PARAMS_FILE: {path}: ", *parts)


def test_a_key_file_that_does_not_exist(agent: Any, events_csv: str) -> None:
    result = agent("build", events_csv, *RUN, "--key-file", "/nope.key")
    assert_refused(result, "--key-file", "/nope.key", "No such file")


def test_a_public_key_does_not_sign(agent: Any, events_csv: str) -> None:
    public = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n"
    key_file = agent.write("a.pem", public)
    assert_refused(agent("build", events_csv, *RUN, "--key-file", key_file), "--key-file", "public key")


@pytest.mark.parametrize("arguments", [("run", "EVENTS", *RUN), ("outbox", "list"), ("dlq", "redrive")])
def test_a_locked_outbox(agent: Any, events_csv: str, arguments: tuple[str, ...]) -> None:
    files = PosixFiles()
    folder = str(agent.folder / "outbox")
    files.make_folder(folder)
    handle = files.lock(folder)
    try:
        result = agent(*(events_csv if part == "EVENTS" else part for part in arguments), ENDPOINT=ENDPOINT)
    finally:
        files.close(handle)
    assert_refused(result, "OUTBOX_DIR", "locked")


def test_an_outbox_that_is_a_file(agent: Any, events_csv: str) -> None:
    path = agent.write("file", "")
    assert_refused(agent("run", events_csv, *RUN, ENDPOINT=ENDPOINT, OUTBOX_DIR=path + "/x"), "OUTBOX_DIR")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--shard-id", "a b", "--epoch", "0"), "--shard-id"),
        (("--shard-id", "x" * 129, "--epoch", "0"), "found a string of length 129"),
        (("--shard-id", "a", "--epoch", "-1"), "--epoch"),
        (("--shard-id", "a", "--epoch", str(2**53)), "--epoch"),
        (("--shard-id", "a"), "--epoch"),
        ((*RUN, "--scales", "2"), "--scales"),
        ((*RUN, "--scales", "2,2"), "--scales"),
        ((*RUN, "--scales", "4,2"), "--scales"),
        ((*RUN, "--scales", "0,2"), "--scales"),
        ((*RUN, "--scales", "a,b"), "--scales"),
        ((*RUN, "--scales", ",".join(map(str, range(1, 34)))), "--scales"),
        ((*RUN, "--seed", str(2**63)), "--seed"),
        ((*RUN, "--directions", "0"), "--directions"),
        ((*RUN, "--bins", "0"), "--bins"),
        ((*RUN, "--columns", "x,"), "--columns"),
        ((*RUN, "--columns", "x, x"), "found a column named twice"),
        ((*RUN, "--format", "parquet"), "found no Parquet document"),
        ((*RUN, "--format", "xml"), "--format"),
    ],
)
def test_options_out_of_range(agent: Any, events_csv: str, options: tuple[str, ...], part: str) -> None:
    """A shard name with a vertical bar or a blank would make the pcs_id ambiguous (lesson L22)."""
    assert_refused(agent("build", events_csv, *options), part)


def test_a_vertical_bar_in_the_shard(agent: Any, events_csv: str) -> None:
    """Lesson L22."""
    assert_refused(agent("build", events_csv, "--shard-id", "a|b", "--epoch", "0"), "--shard-id")


def test_epochs_that_would_pass_the_end_are_refused_before_anything_is_sent(agent: Any) -> None:
    import numpy as np

    path = str(agent.folder / "a.npy")
    np.save(path, np.arange(10.0))
    last = str(2**53 - 1)
    result = agent("run", path, "--shard-id", "a", "--epoch", last, "--window", "5", ENDPOINT=ENDPOINT)
    assert_refused(result, "--epoch", "2 windows")
    assert not (agent.folder / "outbox").exists()


def test_unknown_dead_letters(agent: Any) -> None:
    assert_refused(agent("dlq", "redrive", "xyz"), "PCS_ID")
    assert_refused(agent("dlq", "redrive", "ab" * 32), "PCS_ID", "no such dead letter")


def test_an_existing_key_file_is_not_overwritten(agent: Any) -> None:
    path = agent.write("a.key", "precious")
    assert_refused(agent("keygen", "--out", path), "--out", "existing file")
    with open(path, encoding="utf-8") as file:
        assert file.read() == "precious"


def test_an_unknown_format_names_those_there_are(agent: Any, events_csv: str) -> None:
    result = agent("build", events_csv, *RUN, "--format", "xml")
    assert_refused(
        result, "--format", "'csv', 'jsonl', 'npy', 'npz', 'parquet', 'arrow', 'text', 'chat', 'tokens'"
    )


def test_an_unknown_ending_names_endings_and_formats(agent: Any) -> None:
    result = agent("build", agent.write("a.xml", SECRET), *RUN)
    assert_refused(
        result, "a.xml: found no known ending", ".arrow", ".txt", "--format with one of csv, jsonl,"
    )


@pytest.mark.parametrize(
    ("content", "options", "parts"),
    [
        (
            '{"messages": [{"role": "user", "content": 7}]}',
            ["--format", "chat"],
            ["row 1", "messages[0].content"],
        ),
        (f'[1, "{SECRET}"]', ["--format", "tokens"], ["row 1, position 1", "a string of length 13"]),
        ("a", ["--format", "text", "--columns", "x"], ["--columns for format text"]),
        ("a", ["--format", "text", "--embedder", "word2vec"], ["--embedder", "'hash', 'minilm'"]),
        ("a", ["--format", "text", "--text", "page"], ["--text", "'token', 'sentence', 'line'"]),
        ("a", ["--format", "text", "--context", "0"], ["--context", "1<=x<=1024"]),
    ],
)
def test_text_that_cannot_be_read(agent: Any, content: str, options: list[str], parts: list[str]) -> None:
    assert_refused(agent("build", agent.write("a.jsonl", content), *RUN, *options), *parts)


def test_what_cannot_be_followed(agent: Any) -> None:
    result = agent("run", "-", *RUN, "--follow", ENDPOINT=ENDPOINT)
    assert_refused(result, "--follow: found standard input as the last input")
