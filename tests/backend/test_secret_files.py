"""`NAME_FILE` for settings that are secrets: what a file may hold, and that no message holds path or contents."""

from __future__ import annotations

from pathlib import Path

import pytest

from pcs_backend.config import load_config
from pcs_backend.errors import ConfigError
from pcs_backend.secret_files import SECRET_FILE_BYTES_MAX, SECRETS

CANARY = "canary-9b05688c"
LOGINS = ("METRICS", "CALIBRATION")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / CANARY


def refusal(**variables: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(variables)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert CANARY not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize(
    ("contents", "value"), [(b"s", "s"), (b"s\n", "s"), (b"s\r\n", "s"), (b"s\n\n", "s\n"), (b" s ", " s ")]
)
def test_a_file_holds_the_value_and_perhaps_one_line_end(
    path: Path, name: str, contents: bytes, value: str
) -> None:
    path.write_bytes(contents)
    settings = load_config(
        {f"{name}_FILE": str(path)} | {f"{login}_USER": "u" for login in LOGINS if name == f"{login}_PASS"}
    ).settings
    assert getattr(settings, name.lower()) == value


@pytest.mark.parametrize("name", SECRETS)
def test_both_are_refused(path: Path, name: str) -> None:
    path.write_text("s")
    message = refusal(**{name: CANARY, f"{name}_FILE": str(path)})
    assert message == f"{name}_FILE: found one beside {name}; allowed: one of the two"


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (None, "No such file or directory"),
        (b"", "empty"),
        (b"\n", "empty"),
        (CANARY.encode() + b"\xff", "not UTF-8"),
        (b"s" * (SECRET_FILE_BYTES_MAX + 1), "too large"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_by_its_variable(
    path: Path, contents: bytes | None, reason: str
) -> None:
    if contents is not None:
        path.write_bytes(contents)
    message = refusal(PCS_SIGN_ALG="hmac", PCS_HMAC_KEY_FILE=str(path))
    assert message.startswith(f"PCS_HMAC_KEY_FILE: found a file that cannot be used ({reason}); allowed: ")


def test_folder_and_nul() -> None:
    assert "(Is a directory)" in refusal(METRICS_PASS_FILE="/")
    assert "(no name of a file)" in refusal(METRICS_PASS_FILE=f"{CANARY}\0")


def test_what_a_file_holds_is_checked_like_a_variable(path: Path) -> None:
    path.write_text(CANARY)
    assert refusal(DEDUP_BACKEND="postgres", POSTGRES_DSN_FILE=str(path)).startswith(
        f"POSTGRES_DSN: found a string of length {len(CANARY)}; allowed: "
    )


def test_an_empty_variable_is_unset() -> None:
    assert load_config({"PCS_HMAC_KEY_FILE": ""}).settings.pcs_hmac_key == ""
