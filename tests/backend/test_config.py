"""Settings: what each variable allows, what the whole must fulfil, and that no message holds a value."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

import pcs_records
from pcs_backend.config import ALLOWED, Config, Settings, load_config
from pcs_backend.errors import ConfigError
from pcs_core.record import decode_record
from pcs_core.signing import Ed25519PublicKey, HmacKey
from processes import run
from servers import PostgresServer, RedisServer

CANARY = "canary-1f83d9ab"
LONG_KEY = "a key of more than sixteen bytes"
PUBLIC_KEY = base64.b64encode(pcs_records.ed25519_public(bytes(range(32)))).decode()
OFF_LOOPBACK = {
    "HOST": "192.0.2.7",
    "PCS_SIGN_ALG": "hmac",
    "PCS_HMAC_KEY": LONG_KEY,
    "METRICS_PUBLIC": "true",
}

DAYS = "a number of days above 0, up to 3650"
SECONDS = "a number of seconds above 0, up to 600"

MALFORMED = {
    "HOST": ["h" * 256],
    "WORKERS": [CANARY, "0", "-1", "65", "1.0", " 2"],
    "PORT": [CANARY, "-1", "65536", "80.5", " 80", "8_0", "0x50", "1e3"],
    "DEDUP_BACKEND": [CANARY, "Redis", "memory "],
    "TOKEN_RATE": [CANARY, "-1", "nan", "inf", "1000001"],
    "METRICS_USER": [f"{CANARY}:"],
    "METRICS_PUBLIC": [CANARY, "yes", "1"],
    "CALIBRATION_USER": [f"{CANARY}:"],
    "CALIBRATION_ALPHA": [CANARY, "0", "1", "-0.1", "nan"],
    "CALIBRATION_DELTA": [CANARY, "0.00001", "0.6", "inf"],
    "CALIBRATION_SCORE": [CANARY, "Weighted"],
    "CALIBRATION_METHOD": [CANARY, "linear"],
    "CALIBRATION_SET_SCORES_MAX": [CANARY, "99", "10001", "1e3"],
    "CALIBRATION_WINDOW_H": [CANARY, "0", "-1", "87601"],
    "CALIBRATION_RECALIBRATE": [CANARY, "Auto"],
    "CALIBRATION_RECALIBRATE_DAYS": [CANARY, "0", "-1", "3651", "nan"],
    "CALIBRATION_RECALIBRATE_DECISIONS": [CANARY, "99", "1000000001", "1e3"],
    "CALIBRATION_OFF_TARGET_SHARE": [CANARY, "0", "-1", "10.1", "nan"],
    "CALIBRATION_DRIFT_SCORES": [CANARY, "9", "10001", "1e2"],
    "CALIBRATION_DRIFT_DISTANCE": [CANARY, "-0.1", "1.1", "nan"],
    "CALIBRATION_DRIFT_P": [CANARY, "-0.1", "1.1", "nan"],
    "PCS_SIGN_ALG": [CANARY, "HMAC", "null", "hmac,ed25519"],
    "ALLOW_UNSIGNED": [CANARY, "no thanks"],
    "DEDUP_TTL_DAYS": [CANARY, "0", "-1", "nan", "inf", "3651"],
    "WAL_RETENTION_DAYS": [CANARY, "0", "nan", "3651"],
    "MAX_BODY_BYTES": [CANARY, "1023", "16777217", "1e99"],
    "BODY_TIMEOUT_S": [CANARY, "0", "nan", "601"],
    "BODIES_MAX_BYTES": [CANARY, "1023", str(2**40 + 1)],
    "CONNECTIONS_MAX": [CANARY, "0", "1.5", "1000001"],
    "REQUESTS_MAX": [CANARY, "63", "1000001"],
    "MEMORY_STORE_MAX_RECORDS": [CANARY, "0", "1.5"],
    "DISK_FREE_MIN_BYTES": [CANARY, "-1", str(2**50 + 1)],
    "DRAIN_TIMEOUT_S": [CANARY, "0", "601"],
    "LOG_LEVEL": [CANARY, "TRACE"],
    "TLS_PROXY_NAME": ["n" * 256],
}


def key_ids(config: Config) -> tuple[str, ...]:
    return tuple(entry.key_id for entry in config.trust.current.keyring.entries)


def refusal(**variables: str) -> str:
    """Return why the settings are refused."""
    with pytest.raises(ConfigError) as caught:
        load_config(variables)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


class TestOneVariable:
    @pytest.mark.parametrize(
        ("name", "value"), [(name, value) for name, values in MALFORMED.items() for value in values]
    )
    def test_malformed_value_is_named_and_never_shown(self, name: str, value: str) -> None:
        message = refusal(**{name: value})
        assert message == f"{name}: found a string of length {len(value)}; allowed: {ALLOWED[name]}"
        assert CANARY not in message

    @pytest.mark.parametrize("name", sorted(ALLOWED))
    def test_bytes_that_are_not_utf8_are_named_and_not_a_traceback(self, name: str) -> None:
        """Python reads them as lone surrogates; encoding a key of them would raise, with the key in the message."""
        message = refusal(**{name: f"{CANARY}\udcff"})
        assert message == f"{name}: found bytes that are not UTF-8; allowed: {ALLOWED[name]}"

    def test_every_variable_has_a_rule_for_messages(self) -> None:
        assert set(ALLOWED) == set(Settings.__struct_encode_fields__)

    def test_empty_means_unset(self) -> None:
        empty = load_config(dict.fromkeys(ALLOWED, ""))
        assert empty.settings == load_config({}).settings

    def test_variables_of_others_are_ignored(self) -> None:
        assert load_config({"PATH": CANARY, "host": CANARY, "PCS_UNKNOWN": CANARY}).settings == Settings()

    def test_defaults_are_the_contracts(self) -> None:
        settings = load_config({}).settings
        named = {name: getattr(settings, name.lower()) for name in ALLOWED}
        assert named == {
            "HOST": "127.0.0.1",
            "PORT": 8080,
            "WORKERS": 1,
            "DATA_DIR": "./data",
            "DEDUP_BACKEND": "memory",
            "REDIS_ADDR": "",
            "POSTGRES_DSN": "",
            "TOKEN_RATE": 0.0,
            "METRICS_USER": "",
            "METRICS_PASS": "",
            "METRICS_PUBLIC": False,
            "ENABLE_CONFORMAL_GATE": False,
            "ENABLE_CALIBRATION_LOGGING": False,
            "CALIBRATION_USER": "",
            "CALIBRATION_PASS": "",
            "CALIBRATION_ALPHA": 0.05,
            "CALIBRATION_DELTA": 0.05,
            "CALIBRATION_SCORE": "mahalanobis",
            "CALIBRATION_METHOD": "order_statistic",
            "CALIBRATION_SET_SCORES_MAX": 1_000,
            "CALIBRATION_WINDOW_H": 24.0,
            "CALIBRATION_RECALIBRATE": "auto",
            "CALIBRATION_RECALIBRATE_DAYS": 7.0,
            "CALIBRATION_RECALIBRATE_DECISIONS": 10_000,
            "CALIBRATION_OFF_TARGET_SHARE": 0.5,
            "CALIBRATION_DRIFT_SCORES": 100,
            "CALIBRATION_DRIFT_DISTANCE": 0.1,
            "CALIBRATION_DRIFT_P": 0.05,
            "PCS_SIGN_ALG": "none",
            "ALLOW_UNSIGNED": False,
            "PCS_HMAC_KEY": "",
            "PCS_HMAC_KEYS": "",
            "PCS_ED25519_PUB_B64": "",
            "PCS_KEYS_FILE": "",
            "PCS_VRF_PUB_B64": "",
            "REQUIRE_DIRECTION_PROOF": False,
            "MULTI_TENANT": False,
            "REQUIRE_MESSAGE_SIGNATURE": False,
            "MESSAGE_SIGNATURE_MAX_AGE_S": 300.0,
            "TLS_CERT": "",
            "TLS_KEY": "",
            "TLS_CLIENT_CA": "",
            "TLS_PROXY_NAME": "",
            "PCS_PARAMS_FILE": "",
            "DEDUP_TTL_DAYS": 14.0,
            "WAL_RETENTION_DAYS": 14.0,
            "MAX_BODY_BYTES": 262_144,
            "MAX_BATCH_BYTES": 16_777_216,
            "BODY_TIMEOUT_S": 10.0,
            "BODIES_MAX_BYTES": 134_217_728,
            "CONNECTIONS_MAX": 16_384,
            "REQUESTS_MAX": 4_096,
            "MEMORY_STORE_MAX_RECORDS": 1_000_000,
            "DISK_FREE_MIN_BYTES": 67_108_864,
            "DRAIN_TIMEOUT_S": 10.0,
            "LOG_LEVEL": "INFO",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "",
        }

    def test_days_become_seconds(self) -> None:
        config = load_config({"DEDUP_TTL_DAYS": "2", "WAL_RETENTION_DAYS": "0.5"})
        assert (config.dedup_ttl_s, config.wal_retention_s) == (172_800.0, 43_200.0)

    def test_settings_do_not_print_their_secrets(self) -> None:
        config = load_config({"PCS_SIGN_ALG": "hmac", "PCS_HMAC_KEY": CANARY, "POSTGRES_DSN": CANARY})
        assert CANARY not in repr(config)
        assert CANARY not in repr(config.settings)
        assert CANARY not in str(config)


class TestTogether:
    def test_workers_with_the_memory_store(self) -> None:
        assert refusal(WORKERS="2") == (
            "WORKERS: found 2 with the memory store, which lives in one process; allowed: 1, or DEDUP_BACKEND redis or "
            "postgres, which workers share"
        )

    def test_workers_with_a_store_they_share(self) -> None:
        store = {"DEDUP_BACKEND": "redis", "REDIS_ADDR": "localhost:6379"}
        assert load_config({"WORKERS": "64", **store}).settings.workers == 64
        assert load_config({"WORKERS": "1"}).settings.workers == 1

    def test_metrics_user_without_password(self) -> None:
        assert refusal(METRICS_USER=CANARY) == (
            "METRICS_PASS: found nothing; allowed: both METRICS_USER and METRICS_PASS, or neither"
        )

    def test_metrics_password_without_user(self) -> None:
        message = refusal(METRICS_PASS=CANARY)
        assert message.startswith("METRICS_USER: found nothing; ")
        assert CANARY not in message

    @pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "example.org", "127.1"])
    @pytest.mark.parametrize("signing", [{}, {"PCS_SIGN_ALG": "none"}, {"PCS_SIGN_ALG": ""}])
    def test_no_signing_off_loopback(self, host: str, signing: dict[str, str]) -> None:
        message = refusal(HOST=host, METRICS_PUBLIC="true", **signing)
        assert message.startswith("PCS_SIGN_ALG: found none while HOST is not loopback; ")
        assert "ALLOW_UNSIGNED=true" in message

    def test_no_signing_off_loopback_where_it_is_allowed(self) -> None:
        config = load_config({"HOST": "0.0.0.0", "METRICS_PUBLIC": "true", "ALLOW_UNSIGNED": "true"})
        assert key_ids(config) == ()
        assert config.warnings == ("PCS_SIGN_ALG is none: any record is believed to be from whom it says",)

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
    def test_no_signing_and_open_metrics_on_loopback(self, host: str) -> None:
        assert load_config({"HOST": host}).settings.host == host

    def test_open_metrics_off_loopback(self) -> None:
        message = refusal(**OFF_LOOPBACK | {"METRICS_PUBLIC": "false"})
        assert message.startswith("METRICS_USER: found nothing while HOST is not loopback; ")
        assert "METRICS_PUBLIC=true" in message

    @pytest.mark.parametrize(
        "login",
        [{"METRICS_PUBLIC": "true"}, {"METRICS_PUBLIC": "", "METRICS_USER": "u", "METRICS_PASS": "p"}],
    )
    def test_metrics_off_loopback_with_a_login_or_public(self, login: dict[str, str]) -> None:
        assert load_config(OFF_LOOPBACK | login).settings.host == "192.0.2.7"

    def test_wal_kept_longer_than_outcomes(self) -> None:
        assert refusal(WAL_RETENTION_DAYS="14.5").startswith(
            "WAL_RETENTION_DAYS: found more than DEDUP_TTL_DAYS; "
        )
        assert refusal(DEDUP_TTL_DAYS="13").startswith("WAL_RETENTION_DAYS: ")

    def test_budget_of_bodies_that_no_body_of_the_largest_size_fits(self) -> None:
        assert refusal(BODIES_MAX_BYTES="262143").startswith(
            "BODIES_MAX_BYTES: found less than MAX_BODY_BYTES; "
        )
        assert load_config({"BODIES_MAX_BYTES": "262144"}).settings.bodies_max_bytes == 262_144

    @pytest.mark.parametrize(
        ("store", "name", "bad"),
        [
            (
                "redis",
                "REDIS_ADDR",
                ["", CANARY, f"u:{CANARY}@h:1", f"http://{CANARY}", "h:", ":1", "h:123456"],
            ),
            ("postgres", "POSTGRES_DSN", ["", CANARY, f"mysql://u:{CANARY}@h/d", "host=h dbname=d"]),
        ],
    )
    def test_store_without_an_address_of_its_kind(self, store: str, name: str, bad: list[str]) -> None:
        for value in bad:
            found = f"a string of length {len(value)}" if value else "nothing"
            message = refusal(**{"DEDUP_BACKEND": store, name: value})
            assert message == f"{name}: found {found}; allowed: {ALLOWED[name]}"

    @pytest.mark.parametrize(
        "address", ["h:1", "[::1]:6379", "redis://h", "redis://u:p@h:1/2", "rediss://h:6379"]
    )
    def test_redis_addresses_that_are_taken(self, address: str) -> None:
        config = load_config({"DEDUP_BACKEND": "redis", "REDIS_ADDR": address})
        assert config.settings.redis_addr == address

    @pytest.mark.parametrize("dsn", ["postgresql://u:p@h:1/d", "postgres://h/d?sslmode=require"])
    def test_postgres_addresses_that_are_taken(self, dsn: str) -> None:
        assert load_config({"DEDUP_BACKEND": "postgres", "POSTGRES_DSN": dsn}).settings.postgres_dsn == dsn


class TestKeys:
    @pytest.mark.parametrize(
        ("algorithm", "name"), [("hmac", "PCS_HMAC_KEY"), ("ed25519", "PCS_ED25519_PUB_B64")]
    )
    def test_algorithm_without_its_key(self, algorithm: str, name: str) -> None:
        message = refusal(PCS_SIGN_ALG=algorithm)
        assert message == f"{name}: found nothing while PCS_SIGN_ALG is {algorithm}; allowed: a key"

    def test_key_lists_of_commas_alone_hold_no_key(self) -> None:
        assert refusal(PCS_SIGN_ALG="hmac", PCS_HMAC_KEYS=",,").startswith("PCS_HMAC_KEY: found nothing")
        assert refusal(PCS_SIGN_ALG="ed25519", PCS_ED25519_PUB_B64=",").startswith("PCS_ED25519_PUB_B64: ")

    def test_a_key_of_the_other_algorithm_is_none(self) -> None:
        assert refusal(PCS_SIGN_ALG="hmac", PCS_ED25519_PUB_B64=PUBLIC_KEY).startswith("PCS_HMAC_KEY: ")
        assert refusal(PCS_SIGN_ALG="ed25519", PCS_HMAC_KEY=CANARY).startswith("PCS_ED25519_PUB_B64: ")

    @pytest.mark.parametrize("size", [0, 31, 33, 64])
    def test_ed25519_key_of_the_wrong_length(self, size: int) -> None:
        key = base64.b64encode(b"\x01" * size).decode() or "===="
        message = refusal(PCS_SIGN_ALG="ed25519", PCS_ED25519_PUB_B64=key)
        assert message.startswith("PCS_ED25519_PUB_B64: found ")
        assert key not in message

    def test_one_bad_ed25519_key_among_good_ones_stops_the_start(self) -> None:
        message = refusal(PCS_SIGN_ALG="ed25519", PCS_ED25519_PUB_B64=f"{PUBLIC_KEY},{CANARY}")
        assert message == (
            f"PCS_ED25519_PUB_B64: found a string of length {len(CANARY)} that is not base64; "
            "allowed: standard base64 of 32 bytes"
        )

    def test_hmac_key_and_key_list_unite_without_repeats(self) -> None:
        """L28: the documented key list exists, and every key of it verifies."""
        keys = ["one of the keys with sixteen bytes", "and another one as long as that"]
        config = load_config(
            {"PCS_SIGN_ALG": "hmac", "PCS_HMAC_KEY": keys[0], "PCS_HMAC_KEYS": f"{keys[1]},{keys[0]},"}
        )
        assert key_ids(config) == tuple(HmacKey(key.encode()).key_id for key in keys)
        assert config.warnings == ()
        for key in keys:
            record = decode_record(
                pcs_records.body(pcs_records.sign(pcs_records.document(), hmac_key=key.encode()))
            )
            entry = config.trust.current.keyring.verify(record, 0.0)
            assert entry is not None
            assert entry.key_id == HmacKey(key.encode()).key_id

    def test_the_single_hmac_key_may_hold_commas_and_any_letter(self) -> None:
        key = "ключ, with a comma; and more"
        config = load_config({"PCS_SIGN_ALG": "hmac", "PCS_HMAC_KEY": key})
        assert key_ids(config) == (HmacKey(key.encode()).key_id,)

    def test_several_ed25519_keys(self) -> None:
        other = pcs_records.ed25519_public(b"\x07" * 32)
        keys = f"{PUBLIC_KEY},{base64.b64encode(other).decode()}"
        config = load_config({"PCS_SIGN_ALG": "ed25519", "PCS_ED25519_PUB_B64": keys})
        assert key_ids(config) == (
            Ed25519PublicKey(base64.b64decode(PUBLIC_KEY)).key_id,
            Ed25519PublicKey(other).key_id,
        )

    def test_short_hmac_key_warns_without_showing_it(self) -> None:
        config = load_config({"PCS_SIGN_ALG": "hmac", "PCS_HMAC_KEY": "s", "PCS_HMAC_KEYS": f"x,{LONG_KEY}"})
        assert config.warnings == ("2 HMAC key(s) of less than 16 bytes: easy to guess",)
        assert len(key_ids(config)) == 3


class TestParams:
    def test_file_replaces_what_it_names(self, tmp_path: Path) -> None:
        file = tmp_path / "params.toml"
        file.write_text('version = "2026-11"\ntol_d = 0.2\n')
        params = load_config({"PCS_PARAMS_FILE": str(file)}).params
        assert (params.version, params.tol_d, params.tol_coh) == ("2026-11", 0.2, 0.05)

    def test_missing_file_is_named_by_its_variable_and_not_its_path(self, tmp_path: Path) -> None:
        assert refusal(PCS_PARAMS_FILE=str(tmp_path / CANARY)) == (
            "PCS_PARAMS_FILE: found a file that cannot be used (No such file or directory); "
            "allowed: a TOML file of parameters"
        )

    def test_folder_instead_of_a_file(self, tmp_path: Path) -> None:
        assert "(Is a directory)" in refusal(PCS_PARAMS_FILE=str(tmp_path))

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"\xff\xfe", "not UTF-8"),
            (b"version = ", "not valid TOML"),
            (b"[[[", "not valid TOML"),
            (b"tol_d = 0.1", "$.version: found nothing"),
            (b'version = "1"\nunknown = 1', "an unknown member"),
            (b'version = "1"\nalpha = 1.5', "$.alpha"),
            (b'version = "1"\nbase = -0.1', "$.base"),
            (b'version = "1"\ntol_d = -1', "$.tol_d"),
            (b'version = "1"\ntol_d = nan', "$.tol_d"),
            (b'version = "1"\ntol_coh = inf', "$.tol_coh"),
            (b'version = "1"\ntol_d = "0.1"', "$.tol_d"),
        ],
    )
    def test_file_that_is_malformed_or_out_of_bounds(
        self, tmp_path: Path, content: bytes, reason: str
    ) -> None:
        file = tmp_path / "params.toml"
        file.write_bytes(content)
        message = refusal(PCS_PARAMS_FILE=str(file))
        assert message.startswith("PCS_PARAMS_FILE: found a file that cannot be used (")
        assert reason in message


@pytest.mark.slow
class TestCommandLine:
    @pytest.mark.parametrize(
        ("name", "variables"),
        [
            ("PORT", {"PORT": CANARY}),
            ("WORKERS", {"WORKERS": "2"}),
            ("PCS_SIGN_ALG", {"PCS_SIGN_ALG": CANARY}),
            ("PCS_SIGN_ALG", {"HOST": "0.0.0.0"}),
            ("METRICS_PASS", {"METRICS_USER": CANARY}),
            ("CALIBRATION_PASS", {"CALIBRATION_USER": CANARY}),
            ("CALIBRATION_USER", {"CALIBRATION_PASS": CANARY}),
            ("PCS_ED25519_PUB_B64", {"PCS_SIGN_ALG": "ed25519", "PCS_ED25519_PUB_B64": CANARY}),
            ("PCS_HMAC_KEY", {"PCS_SIGN_ALG": "hmac", "PCS_HMAC_KEY": f"{CANARY}\udcff"}),
            ("REDIS_ADDR", {"DEDUP_BACKEND": "redis", "REDIS_ADDR": f"redis://u:{CANARY}@h:port"}),
            (
                "POSTGRES_DSN",
                {"DEDUP_BACKEND": "postgres", "POSTGRES_DSN": f"postgresql://u:{CANARY}@h:port/d"},
            ),
            ("PCS_PARAMS_FILE", {"PCS_PARAMS_FILE": f"/{CANARY}"}),
            ("DATA_DIR", {"DATA_DIR": f"/dev/null/{CANARY}"}),
            ("HOST", {"HOST": f"{CANARY}.invalid", "ALLOW_UNSIGNED": "true", "METRICS_PUBLIC": "true"}),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_serve_with_a_bad_setting_exits_2_and_names_it(
        self, tmp_path: Path, name: str, variables: dict[str, str]
    ) -> None:
        ended = run("pcs-backend", "serve", **{"DATA_DIR": str(tmp_path / "data"), "PORT": "0", **variables})
        assert ended.returncode == 2
        assert ended.stderr.decode().splitlines()[-1].startswith(f"pcs-backend: {name}")
        assert b"Traceback" not in ended.stderr
        assert CANARY.encode() not in ended.stderr + ended.stdout

    def test_port_that_is_taken_exits_2_with_a_reason(self, tmp_path: Path) -> None:
        import socket

        with socket.create_server(("127.0.0.1", 0)) as other:
            port = str(other.getsockname()[1])
            ended = run("pcs-backend", "serve", DATA_DIR=str(tmp_path), PORT=port)
        assert ended.returncode == 2
        assert ended.stderr.decode().splitlines()[-1] == (
            f"pcs-backend: PORT: found {port}, where nothing can listen (Address already in use); allowed: a free port, "
            "on a HOST that is an address of this machine"
        )

    def test_reading_commands_refuse_a_folder_that_is_not_there_and_do_not_make_it(
        self, tmp_path: Path
    ) -> None:
        folder = tmp_path / "mistyped"
        for arguments in (
            ("escalations", "list"),
            ("escalations", "ack", "0" * 64),
            ("conflicts",),
            ("replay",),
        ):
            ended = run("pcs-backend", *arguments, DATA_DIR=str(folder))
            assert (ended.returncode, ended.stdout) == (2, b"")
            assert ended.stderr == (
                b"pcs-backend: DATA_DIR: found no folder with a WAL; allowed: the folder that `serve` uses\n"
            )
        assert not folder.exists()

    @pytest.mark.parametrize(
        "arguments", [(), ("serve",), ("check-config",), ("replay",), ("escalations",), ("conflicts",)]
    )
    def test_help_has_examples(self, arguments: tuple[str, ...]) -> None:
        shown = run("pcs-backend", *arguments, "--help")
        assert shown.returncode == 0
        assert shown.stdout.startswith(b"Usage: pcs-backend")
        if arguments != ("escalations",):
            assert b"Examples:" in shown.stdout

    def test_version(self) -> None:
        shown = run("pcs-backend", "--version")
        assert (shown.returncode, shown.stdout) == (0, b"pcs-backend, version 0.1.0\n")

    def test_unknown_command_or_option_exits_2(self) -> None:
        for arguments in (
            ("serve", "--nonsense"),
            ("nonsense",),
            ("escalations", "ack"),
            ("escalations", "ack", "x"),
        ):
            ended = run("pcs-backend", *arguments)
            assert (ended.returncode, ended.stdout) == (2, b"")
            assert b"Traceback" not in ended.stderr


@pytest.mark.slow
class TestCheckConfig:
    @pytest.mark.parametrize("folder", ["/proc/x", "/dev/null", "/dev/null/x"])
    def test_data_folder_that_serve_could_not_use(self, folder: str) -> None:
        ended = run("pcs-backend", "check-config", DATA_DIR=folder)
        assert (ended.returncode, ended.stdout) == (2, b"")
        assert ended.stderr.startswith(b"pcs-backend: DATA_DIR: found a path that cannot be used (")

    def test_data_folder_that_is_not_there_yet_is_good_and_not_made(self, tmp_path: Path) -> None:
        ended = run("pcs-backend", "check-config", DATA_DIR=str(tmp_path / "a" / "b"))
        assert ended.returncode == 0
        assert list(tmp_path.iterdir()) == []

    def test_good_settings_without_a_word_more(self) -> None:
        ended = run("pcs-backend", "check-config", PCS_SIGN_ALG="hmac", PCS_HMAC_KEY=LONG_KEY)
        assert (ended.returncode, ended.stdout, ended.stderr) == (
            0,
            b"configuration is valid; 0 warning(s)\n",
            b"",
        )

    def test_settings_that_are_allowed_and_weak_are_warned_of(self) -> None:
        ended = run("pcs-backend", "check-config", PCS_SIGN_ALG="hmac", PCS_HMAC_KEY="s3")
        assert (ended.returncode, ended.stdout) == (0, b"configuration is valid; 1 warning(s)\n")
        assert ended.stderr == b"warning: 1 HMAC key(s) of less than 16 bytes: easy to guess\n"

    def test_redis_that_forgets_is_warned_of(self) -> None:
        with RedisServer(appendonly="no") as server:
            ended = run(
                "pcs-backend",
                "check-config",
                DEDUP_BACKEND="redis",
                REDIS_ADDR=server.address,
                PCS_SIGN_ALG="hmac",
                PCS_HMAC_KEY=LONG_KEY,
            )
        assert ended.returncode == 0
        assert ended.stderr == (
            b"warning: Redis has appendonly off: a restart forgets acknowledged outcomes.\n"
        )

    def test_postgres_that_does_not_wait_for_its_disk_is_warned_of(
        self, postgres_server: PostgresServer, postgres_dsn: str
    ) -> None:
        database = postgres_dsn.rpartition("/")[2]
        postgres_server.execute(f"ALTER DATABASE {database} SET synchronous_commit = off")
        ended = run(
            "pcs-backend",
            "check-config",
            DEDUP_BACKEND="postgres",
            POSTGRES_DSN=postgres_dsn,
            PCS_SIGN_ALG="hmac",
            PCS_HMAC_KEY=LONG_KEY,
        )
        assert ended.returncode == 0
        assert ended.stderr == (
            b"warning: PostgreSQL has synchronous_commit off: a crash may lose acknowledged outcomes.\n"
        )

    @pytest.mark.parametrize(
        "variables",
        [
            {"DEDUP_BACKEND": "redis", "REDIS_ADDR": f"redis://user:{CANARY}@127.0.0.1:1/0"},
            {"DEDUP_BACKEND": "postgres", "POSTGRES_DSN": f"postgresql://user:{CANARY}@127.0.0.1:1/d"},
        ],
        ids=["redis", "postgres"],
    )
    def test_store_that_does_not_answer_exits_1(self, variables: dict[str, str]) -> None:
        ended = run("pcs-backend", "check-config", **variables)
        assert (ended.returncode, ended.stdout) == (1, b"")
        assert ended.stderr.startswith(b"pcs-backend: the dedup store cannot be asked: ")
        assert b"Traceback" not in ended.stderr
        assert CANARY.encode() not in ended.stderr

    def test_bad_setting_exits_2(self) -> None:
        ended = run("pcs-backend", "check-config", TOKEN_RATE=CANARY)
        assert (ended.returncode, ended.stdout) == (2, b"")
        assert ended.stderr.startswith(b"pcs-backend: TOKEN_RATE: ")
