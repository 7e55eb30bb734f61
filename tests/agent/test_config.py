"""Settings from the environment. What cannot be used is tested through the command line, in cli/test_user_errors.py."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from pcs_agent.config import load_config
from pcs_core.keyfile import encode_ed25519_public
from pcs_core.params import Params
from pcs_core.signing import Ed25519SecretKey, SigningAlgorithm

SEED = base64.b64encode(bytes(range(32))).decode()


def test_defaults() -> None:
    config = load_config({})
    assert (config.endpoint, config.algorithm, config.signer) == (None, SigningAlgorithm.NONE, None)
    assert (config.outbox_dir, config.retention_days, config.deadline_s) == ("./outbox", 14.0, 900.0)
    assert (config.log_level, config.params, config.warnings) == ("warning", Params(), ())


def test_an_empty_variable_means_unset() -> None:
    names = ["ENDPOINT", "PCS_SIGN_ALG", "PCS_HMAC_KEY", "OUTBOX_DIR", "OUTBOX_RETENTION_DAYS", "LOG_LEVEL"]
    assert load_config(dict.fromkeys(names, "")) == load_config({})


def test_every_variable_is_read(tmp_path: Path) -> None:
    params = tmp_path / "params.toml"
    params.write_text('version = "9"\nbase = 0.5\n', encoding="utf-8")
    config = load_config(
        {
            "ENDPOINT": "https://user:secret@[::1]:8443/v1/pcs/submit?x=secret",
            "PCS_SIGN_ALG": "ed25519",
            "PCS_ED25519_SECRET_B64": SEED,
            "OUTBOX_DIR": "/x",
            "OUTBOX_RETENTION_DAYS": "0.5",
            "DELIVERY_DEADLINE_S": "60",
            "BATCH_RECORDS": "1",
            "BATCH_GZIP": "true",
            "PCS_PARAMS_FILE": str(params),
            "LOG_LEVEL": "DEBUG",
        }
    )
    assert config.endpoint == "https://user:secret@[::1]:8443/v1/pcs/submit?x=secret"
    assert config.endpoint_label == "https://[::1]:8443"
    assert (config.outbox_dir, config.retention_days, config.deadline_s) == ("/x", 0.5, 60.0)
    assert (config.batch_records, config.batch_gzip) == (1, True)
    assert (config.log_level, config.params.version, config.params.base) == ("debug", "9", 0.5)
    assert config.signer is not None
    assert config.signer.key_id.startswith("ed25519-")


def test_nothing_secret_shows_when_settings_are_printed() -> None:
    config = load_config(
        {"ENDPOINT": "http://u:geheim@h/", "PCS_SIGN_ALG": "hmac", "PCS_HMAC_KEY": "geheim-geheim"}
    )
    assert "geheim" not in repr(config)


def test_a_short_shared_secret_warns() -> None:
    config = load_config({"PCS_SIGN_ALG": "hmac", "PCS_HMAC_KEY": "geheim"})
    assert config.warnings == ("PCS_HMAC_KEY: found 6 bytes; 16 or more are harder to guess",)


@pytest.mark.parametrize(
    ("variable", "algorithm"), [("PCS_HMAC_KEY", "hmac"), ("PCS_ED25519_SECRET_B64", "ed25519")]
)
def test_a_key_that_is_not_used_warns_unless_signing_is_off_on_purpose(variable: str, algorithm: str) -> None:
    (warning,) = load_config({variable: SEED}).warnings
    assert warning.startswith(f"{variable} is set and PCS_SIGN_ALG is not: records are not signed")
    assert f"set PCS_SIGN_ALG={algorithm}, or none" in warning
    assert load_config({variable: SEED, "PCS_SIGN_ALG": "none"}).warnings == ()
    assert load_config({variable: SEED, "PCS_SIGN_ALG": algorithm}).warnings == ()


@pytest.mark.parametrize("algorithm", ["hmac", "ed25519"])
@pytest.mark.parametrize(("mode", "warns"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_key_file_that_others_can_read_warns(
    tmp_path: Path, algorithm: str, mode: int, warns: bool
) -> None:
    path = tmp_path / "anna@example.org.key"
    path.write_text(SEED, encoding="utf-8")
    path.chmod(mode)
    warnings = load_config({"PCS_SIGN_ALG": algorithm}, str(path)).warnings
    assert [f"mode {mode:04o}" in warning and "0600" in warning for warning in warnings] == [True] * warns
    assert not any("anna" in warning for warning in warnings)


def test_a_public_key_and_a_pipe_are_nobodys_secret_file(tmp_path: Path) -> None:
    path = tmp_path / "public.pem"
    public = Ed25519SecretKey(bytes(range(32))).public_bytes
    path.write_bytes(encode_ed25519_public(public))
    path.chmod(0o644)
    assert load_config({}, str(path)).warnings == ()
    reading, writing = os.pipe()
    os.write(writing, SEED.encode())
    os.close(writing)
    config = load_config({}, f"/dev/fd/{reading}")
    os.close(reading)
    assert config.warnings == ()
    assert config.signer is not None


def test_a_key_file_takes_the_place_of_the_variables(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(SEED + "\n", encoding="utf-8")
    by_file = load_config({"PCS_SIGN_ALG": "ed25519", "PCS_ED25519_SECRET_B64": "not used"}, str(path))
    by_variable = load_config({"PCS_SIGN_ALG": "ed25519", "PCS_ED25519_SECRET_B64": SEED})
    unset = load_config({}, str(path))
    keys = [config.signer.key_id for config in (by_file, by_variable, unset) if config.signer is not None]
    assert keys == [keys[0]] * 3
    path.write_text("shared\n", encoding="utf-8")
    shared = load_config({"PCS_SIGN_ALG": "hmac"}, str(path)).signer
    variable = load_config({"PCS_SIGN_ALG": "hmac", "PCS_HMAC_KEY": "shared"}).signer
    assert shared is not None
    assert variable is not None
    assert shared.key_id == variable.key_id
