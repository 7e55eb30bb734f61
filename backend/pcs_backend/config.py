"""Settings: the environment, read once into a frozen object (contract §5). Errors name the variable, never a secret."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from pcs_backend.conformal.build import BuildSettings
from pcs_backend.conformal.calibration import CLASS_SCORES_MIN, SET_SCORES_MAX, ThresholdMethod
from pcs_backend.conformal.coverage import OFF_TARGET_SHARE
from pcs_backend.conformal.drift import DISTANCE_MIN, P_VALUE_MAX, RECENT_SCORES
from pcs_backend.conformal.scores import DEFAULT_SCORE, SCORES
from pcs_backend.conformal.store import LABELS_MAX
from pcs_backend.errors import ConfigError
from pcs_backend.http.tls import TlsFiles
from pcs_backend.secret_files import read_secret_files
from pcs_backend.trust.load import load_trust, trust_warnings
from pcs_backend.trust.source import TrustSource
from pcs_core.errors import MalformedError, ParamsError
from pcs_core.params import Params, parse_params
from pcs_core.typed import convert

DAY_S = 86_400.0
TOKEN_RATE_MIN = 0.001
"""Records a second; a lower rate could make a client wait for years."""

WORKERS_MAX = 64
"""Processes of one service."""

_WINDOW_H_MAX = 24 * 3_650

_Level = Annotated[float, Meta(ge=0.0001, le=0.5)]
_Days = Annotated[float, Meta(gt=0, le=3_650)]
_REDIS_ADDR = re.compile(
    r"\A(?:rediss?://[^\s/?]+(?:/\d*)?(?:\?\S*)?|[^\s:/@]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5})\Z"
)
_HTTP_URL = re.compile(r"\Ahttps?://[^\s/?#]+(?:/\S*)?\Z")
_POSTGRES_DSN = re.compile(r"\Apostgres(?:ql)?://\S+\Z")


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename="upper"):
    """The environment variables of the backend; each attribute's variable is its name in capitals.

    Attributes:
        host: Address to listen on.
        port: TCP port; 0 picks one.
        workers: Processes on the port.
        data_dir: Where the WAL and the memory store's snapshot lie.
        dedup_backend: Which store.
        redis_addr: `host:port` or a redis:// URL.
        postgres_dsn: postgresql:// URL.
        token_rate: Records a second; 0 means no limit.
        metrics_user: With `metrics_pass`, Basic Auth of `/metrics`.
        metrics_pass: See `metrics_user`.
        metrics_public: Whether `/metrics` may be open off loopback.
        calibration_user: With `calibration_pass`, Basic Auth of those who send labels without a key.
        calibration_pass: See `calibration_user`.
        calibration_alpha: Share of benign records that a set lets the gate refuse.
        calibration_delta: Share of bad records that a set lets the gate accept.
        calibration_score: Score that sets are made with.
        calibration_method: How thresholds are taken.
        calibration_set_scores_max: Scores of a class in a set.
        calibration_window_h: Hours for which a label counts.
        calibration_recalibrate: Whether sets that are due are replaced by the service itself.
        calibration_recalibrate_days: Age from which on a set is due.
        calibration_recalibrate_decisions: Decisions after which a set is due.
        calibration_off_target_share: Part of the promised share by which an observed one may miss it.
        calibration_drift_scores: Last scores of a tenant that are compared with its set's.
        calibration_drift_distance: Distance of the two from which on it is drift.
        calibration_drift_p: Chance below which such a distance is drift.
        pcs_sign_alg: How records are signed; `none` on loopback only.
        allow_unsigned: Whether `none` may be used off loopback.
        pcs_hmac_key: An HMAC key.
        pcs_hmac_keys: More of them, comma-separated.
        pcs_ed25519_pub_b64: Public keys, comma-separated.
        pcs_keys_file: TOML file of keys and tenants.
        pcs_vrf_pub_b64: Public keys that proofs of directions are checked with, comma-separated.
        require_direction_proof: Whether a record without such a proof is escalated.
        multi_tenant: Whether tenants are kept apart; otherwise all are `default`.
        require_message_signature: Whether every request must be signed as a whole.
        message_signature_max_age_s: How far such a signature may lie from its arrival.
        tls_cert: Certificate chain of the server.
        tls_key: Its private key.
        tls_client_ca: Authorities of client certificates, which are demanded then.
        tls_proxy_name: Name in the certificate of a proxy that is believed whose certificate it passes on.
        pcs_params_file: TOML file of parameters.
        dedup_ttl_days: Lifetime of an outcome.
        wal_retention_days: Age from which settled requests may leave the WAL.
        max_body_bytes: Largest record.
        max_batch_bytes: Largest body of a batch, as sent and inflated.
        body_timeout_s: Longest time a body may take.
        bodies_max_bytes: Bytes of large bodies that may be held at once.
        connections_max: Connections that may be open at once.
        requests_max: Submits that may be under way at once.
        memory_store_max_records: Outcomes the memory store holds at most.
        disk_free_min_bytes: Free space below which intake stops.
        drain_timeout_s: Longest time a stop waits for requests being judged.
        log_level: Least level that is logged.
        enable_conformal_gate: Whether calibrated thresholds decide with the fixed checks.
        enable_calibration_logging: Whether outcomes keep what a later label needs; the gate implies it.
        otel_exporter_otlp_endpoint: Where spans are exported to, by OTLP/HTTP.
        otel_exporter_otlp_traces_endpoint: The same, as a full URL.
    """

    host: Annotated[str, Meta(min_length=1, max_length=255)] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8080
    workers: Annotated[int, Meta(ge=1, le=WORKERS_MAX)] = 1
    data_dir: str = "./data"
    dedup_backend: Literal["memory", "redis", "postgres"] = "memory"
    redis_addr: str = ""
    postgres_dsn: str = ""
    token_rate: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.0
    metrics_user: Annotated[str, Meta(pattern=r"\A[^:]*\Z")] = ""
    metrics_pass: str = ""
    metrics_public: bool = False
    calibration_user: Annotated[str, Meta(pattern=r"\A[^:]*\Z")] = ""
    calibration_pass: str = ""
    calibration_alpha: _Level = 0.05
    calibration_delta: _Level = 0.05
    calibration_score: str = DEFAULT_SCORE
    calibration_method: ThresholdMethod = "order_statistic"
    calibration_set_scores_max: Annotated[int, Meta(ge=CLASS_SCORES_MIN, le=LABELS_MAX)] = SET_SCORES_MAX
    calibration_window_h: Annotated[float, Meta(gt=0, le=_WINDOW_H_MAX)] = 24.0
    calibration_recalibrate: Literal["auto", "manual"] = "auto"
    calibration_recalibrate_days: _Days = 7.0
    calibration_recalibrate_decisions: Annotated[int, Meta(ge=100, le=1_000_000_000)] = 10_000
    calibration_off_target_share: Annotated[float, Meta(gt=0, le=10)] = OFF_TARGET_SHARE
    calibration_drift_scores: Annotated[int, Meta(ge=10, le=10_000)] = RECENT_SCORES
    calibration_drift_distance: Annotated[float, Meta(ge=0, le=1)] = DISTANCE_MIN
    calibration_drift_p: Annotated[float, Meta(ge=0, le=1)] = P_VALUE_MAX
    pcs_sign_alg: Literal["none", "hmac", "ed25519"] = "none"
    allow_unsigned: bool = False
    pcs_hmac_key: str = ""
    pcs_hmac_keys: str = ""
    pcs_ed25519_pub_b64: str = ""
    pcs_keys_file: str = ""
    pcs_vrf_pub_b64: str = ""
    require_direction_proof: bool = False
    multi_tenant: bool = False
    require_message_signature: bool = False
    message_signature_max_age_s: Annotated[float, Meta(gt=0, le=86_400)] = 300.0
    tls_cert: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    tls_proxy_name: Annotated[str, Meta(max_length=255)] = ""
    pcs_params_file: str = ""
    dedup_ttl_days: _Days = 14.0
    wal_retention_days: _Days = 14.0
    max_body_bytes: Annotated[int, Meta(ge=1_024, le=16_777_216)] = 262_144
    max_batch_bytes: Annotated[int, Meta(ge=1_024, le=33_554_432)] = 16_777_216
    body_timeout_s: Annotated[float, Meta(gt=0, le=600)] = 10.0
    bodies_max_bytes: Annotated[int, Meta(ge=1_024, le=2**40)] = 128 * 1024 * 1024
    connections_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 16_384
    requests_max: Annotated[int, Meta(ge=64, le=1_000_000)] = 4_096
    memory_store_max_records: Annotated[int, Meta(ge=1, le=100_000_000)] = 1_000_000
    disk_free_min_bytes: Annotated[int, Meta(ge=0, le=2**50)] = 64 * 1024 * 1024
    drain_timeout_s: Annotated[float, Meta(gt=0, le=600)] = 10.0
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    enable_conformal_gate: bool = False
    enable_calibration_logging: bool = False
    otel_exporter_otlp_endpoint: str = ""
    otel_exporter_otlp_traces_endpoint: str = ""

    def __repr__(self) -> str:
        return "Settings(…)"  # several of them are secrets


def _one_of(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


_LEVEL_RULE = "a share from 0.0001 to 0.5"
_DAYS_RULE = "a number of days above 0, up to 3650"
ALLOWED = {
    "HOST": "an address or host name of up to 255 characters",
    "PORT": "an integer from 0 to 65535",
    "WORKERS": "an integer from 1 to 64, 1 with the memory store",
    "DATA_DIR": "a path",
    "DEDUP_BACKEND": "memory, redis or postgres",
    "REDIS_ADDR": "host:port or a redis:// URL whose path is a database number",
    "POSTGRES_DSN": "a postgresql:// URL",
    "TOKEN_RATE": "0 (no limit) or 0.001 to 1000000 (records a second)",
    "METRICS_USER": "a user name without a colon, with METRICS_PASS",
    "METRICS_PASS": "a password, with METRICS_USER",
    "METRICS_PUBLIC": "true or false",
    "CALIBRATION_USER": "a user name without a colon, with CALIBRATION_PASS",
    "CALIBRATION_PASS": "a password, with CALIBRATION_USER",
    "CALIBRATION_ALPHA": _LEVEL_RULE,
    "CALIBRATION_DELTA": _LEVEL_RULE,
    "CALIBRATION_SCORE": _one_of(SCORES),
    "CALIBRATION_METHOD": _one_of(get_args(ThresholdMethod)),
    "CALIBRATION_SET_SCORES_MAX": f"an integer from {CLASS_SCORES_MIN} to {LABELS_MAX}",
    "CALIBRATION_WINDOW_H": f"a number of hours above 0, up to {_WINDOW_H_MAX:g}",
    "CALIBRATION_RECALIBRATE": "auto or manual",
    "CALIBRATION_RECALIBRATE_DAYS": _DAYS_RULE,
    "CALIBRATION_RECALIBRATE_DECISIONS": "an integer from 100 to 1000000000",
    "CALIBRATION_OFF_TARGET_SHARE": "a number above 0, up to 10",
    "CALIBRATION_DRIFT_SCORES": "an integer from 10 to 10000",
    "CALIBRATION_DRIFT_DISTANCE": "a number from 0 to 1",
    "CALIBRATION_DRIFT_P": "a number from 0 to 1",
    "PCS_SIGN_ALG": "none, hmac or ed25519",
    "ALLOW_UNSIGNED": "true or false",
    "PCS_HMAC_KEY": "a key of one byte or more",
    "PCS_HMAC_KEYS": "keys, comma-separated",
    "PCS_ED25519_PUB_B64": "standard base64 of 32-byte public keys, comma-separated",
    "PCS_KEYS_FILE": "a TOML file of keys",
    "PCS_VRF_PUB_B64": "standard base64 of 32-byte VRF public keys, comma-separated",
    "REQUIRE_DIRECTION_PROOF": "true or false, true with a key of proofs",
    "MULTI_TENANT": "true or false",
    "REQUIRE_MESSAGE_SIGNATURE": "true or false",
    "MESSAGE_SIGNATURE_MAX_AGE_S": "a number of seconds above 0, up to 86400",
    "TLS_CERT": "a PEM file, with TLS_KEY",
    "TLS_KEY": "a PEM file, with TLS_CERT",
    "TLS_CLIENT_CA": "a PEM file, with TLS_CERT",
    "TLS_PROXY_NAME": "a name of up to 255 characters, with TLS_CLIENT_CA",
    "PCS_PARAMS_FILE": "a TOML file of parameters",
    "DEDUP_TTL_DAYS": _DAYS_RULE,
    "WAL_RETENTION_DAYS": _DAYS_RULE,
    "MAX_BODY_BYTES": "an integer from 1024 to 16777216",
    "MAX_BATCH_BYTES": "an integer from 1024 to 33554432",
    "BODY_TIMEOUT_S": "a number of seconds above 0, up to 600",
    "BODIES_MAX_BYTES": "an integer from 1024, not below MAX_BODY_BYTES",
    "CONNECTIONS_MAX": "an integer from 1 to 1000000",
    "REQUESTS_MAX": "an integer from 64 to 1000000",
    "MEMORY_STORE_MAX_RECORDS": "an integer from 1 to 100000000",
    "DISK_FREE_MIN_BYTES": "an integer from 0",
    "DRAIN_TIMEOUT_S": "a number of seconds above 0, up to 600",
    "LOG_LEVEL": "debug, info, warning, error or critical, in any case",
    "ENABLE_CONFORMAL_GATE": "true or false",
    "ENABLE_CALIBRATION_LOGGING": "true or false",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "an http or https URL of an OTLP/HTTP collector",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "an http or https URL of an OTLP/HTTP collector, its path included",
}
"""What each variable allows, as error messages and the configuration table say it."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Settings with what follows from them.

    Attributes:
        settings: As given.
        trust: Keys, tenants and what they may do, and how to read them anew.
        tls: Certificate files; `None` for plain HTTP.
        params: The parameters.
        exports_spans: Whether submits are traced.
        warnings: What is allowed and still worth a word.
    """

    settings: Settings
    trust: TrustSource
    tls: TlsFiles | None
    params: Params
    exports_spans: bool
    warnings: tuple[str, ...]

    @property
    def build_settings(self) -> BuildSettings:
        """How calibration sets are made."""
        settings = self.settings
        return BuildSettings(
            alpha=settings.calibration_alpha,
            delta=settings.calibration_delta,
            score=settings.calibration_score,
            method=settings.calibration_method,
            set_scores_max=settings.calibration_set_scores_max,
            window_h=settings.calibration_window_h,
        )

    @property
    def batch_bytes_max(self) -> int:
        """Largest body of a batch, as sent and inflated."""
        return min(self.settings.max_batch_bytes, self.settings.bodies_max_bytes)

    @property
    def dedup_ttl_s(self) -> float:
        """Lifetime of an outcome in seconds."""
        return self.settings.dedup_ttl_days * DAY_S

    @property
    def wal_retention_s(self) -> float:
        """Age in seconds from which settled requests may leave the WAL."""
        return self.settings.wal_retention_days * DAY_S


def load_config(environ: Mapping[str, str]) -> Config:
    """Read and check the environment, and the files it names. An empty variable means unset.

    Raises:
        ConfigError: A variable or a file is malformed, or the settings together are not safe.
    """
    settings = load_settings(environ)
    exports_spans, tracing_warnings = _check_tracing(settings)
    warnings = [*trust_warnings(settings), *tracing_warnings]
    return Config(
        settings=settings,
        trust=TrustSource(lambda: load_trust(settings, environ), settings.pcs_keys_file),
        tls=_load_tls(settings),
        params=_load_params(settings.pcs_params_file),
        exports_spans=exports_spans,
        warnings=tuple(warnings),
    )


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Read and check the environment alone: keys, parameters and certificates may be unusable.

    Raises:
        ConfigError: A variable is malformed, or the settings together are not safe.
    """
    given = {name: environ[name] for name in Settings.__struct_encode_fields__ if environ.get(name)}
    given |= read_secret_files(environ)
    for name, value in given.items():
        if not _is_utf8(value):
            raise ConfigError(f"{name}: found bytes that are not UTF-8; allowed: {ALLOWED[name]}")
    if "LOG_LEVEL" in given:
        given["LOG_LEVEL"] = given["LOG_LEVEL"].upper()
    try:
        settings = convert(given, Settings, ALLOWED, strict=False)
    except MalformedError as error:
        raise ConfigError(str(error).removeprefix("$.")) from None
    _check_spelling(given, settings)
    _check_together(settings)
    return settings


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_utf8(value: str) -> bool:
    """Whether a variable was UTF-8: of other bytes Python makes lone surrogates, which nothing can encode."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _check_spelling(given: Mapping[str, str], settings: Settings) -> None:
    """Refuse what the conversion takes and the table does not allow: `1e3` for an integer, `1` for true."""
    for name, value in given.items():
        taken = getattr(settings, name.lower())
        is_boolean = isinstance(taken, bool)
        if (is_boolean and value.lower() not in {"true", "false"}) or (
            isinstance(taken, int) and not is_boolean and not value.isdecimal()
        ):
            raise ConfigError(_unfit(name, value))


def _check_together(settings: Settings) -> None:
    if 0 < settings.token_rate < TOKEN_RATE_MIN:
        raise ConfigError(
            f"TOKEN_RATE: found a rate of less than {TOKEN_RATE_MIN:g}; allowed: {ALLOWED['TOKEN_RATE']}"
        )
    _check_login("METRICS", settings.metrics_user, settings.metrics_pass)
    _check_login("CALIBRATION", settings.calibration_user, settings.calibration_pass)
    if settings.calibration_score not in SCORES:
        raise ConfigError(_unfit("CALIBRATION_SCORE", settings.calibration_score))
    if not is_loopback(settings.host):
        if settings.pcs_sign_alg == "none" and not settings.pcs_keys_file and not settings.allow_unsigned:
            raise ConfigError(
                "PCS_SIGN_ALG: found none while HOST is not loopback; allowed: hmac or ed25519, PCS_KEYS_FILE, or "
                "ALLOW_UNSIGNED=true"
            )
        if not settings.metrics_user and not settings.metrics_public:
            raise ConfigError(
                "METRICS_USER: found nothing while HOST is not loopback; allowed: METRICS_USER and METRICS_PASS, or "
                "METRICS_PUBLIC=true"
            )
    if settings.wal_retention_days > settings.dedup_ttl_days:
        raise ConfigError(
            "WAL_RETENTION_DAYS: found more than DEDUP_TTL_DAYS; allowed: up to DEDUP_TTL_DAYS, because a request "
            "replayed after its outcome was forgotten would count twice"
        )
    if settings.bodies_max_bytes < settings.max_body_bytes:
        raise ConfigError(
            f"BODIES_MAX_BYTES: found less than MAX_BODY_BYTES; allowed: {ALLOWED['BODIES_MAX_BYTES']}"
        )
    if settings.workers > 1 and settings.dedup_backend == "memory":
        raise ConfigError(
            f"WORKERS: found {settings.workers} with the memory store, which lives in one process; allowed: 1, or "
            "DEDUP_BACKEND redis or postgres, which workers share"
        )
    if settings.dedup_backend == "redis" and not _REDIS_ADDR.match(settings.redis_addr):
        raise ConfigError(_unfit("REDIS_ADDR", settings.redis_addr))
    if settings.dedup_backend == "postgres" and not _POSTGRES_DSN.match(settings.postgres_dsn):
        raise ConfigError(_unfit("POSTGRES_DSN", settings.postgres_dsn))


def _check_login(of: str, user: str, password: str) -> None:
    if bool(user) != bool(password):
        missing = f"{of}_PASS" if user else f"{of}_USER"
        raise ConfigError(f"{missing}: found nothing; allowed: both {of}_USER and {of}_PASS, or neither")


def _unfit(name: str, value: str) -> str:
    found = f"a string of length {len(value)}" if value else "nothing"
    return f"{name}: found {found}; allowed: {ALLOWED[name]}"


def _load_tls(settings: Settings) -> TlsFiles | None:
    if bool(settings.tls_cert) != bool(settings.tls_key):
        missing = "TLS_KEY" if settings.tls_cert else "TLS_CERT"
        raise ConfigError(f"{missing}: found nothing; allowed: both TLS_CERT and TLS_KEY, or neither")
    if settings.tls_client_ca and not settings.tls_cert:
        raise ConfigError(
            "TLS_CLIENT_CA: found one without TLS_CERT; allowed: one beside TLS_CERT and TLS_KEY"
        )
    if settings.tls_proxy_name and not settings.tls_client_ca:
        raise ConfigError(
            "TLS_PROXY_NAME: found one without TLS_CLIENT_CA; allowed: one beside TLS_CLIENT_CA, which says whose "
            "certificates are looked at"
        )
    if not settings.tls_cert:
        return None
    files = TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    files.context()  # so that what cannot be used stops the start
    return files


def _check_tracing(settings: Settings) -> tuple[bool, list[str]]:
    """Return whether spans are exported, and a warning where they should be and cannot: no reason not to serve."""
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    given = [(name, url) for name in names if (url := getattr(settings, name.lower()))]
    for name, url in given:
        if not _HTTP_URL.match(url):
            raise ConfigError(_unfit(name, url))
    if not given:
        return False, []
    try:
        installed = importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        installed = False
    if installed:
        return True, []
    return False, [f"{given[0][0]} is set and nothing is traced: the extra `otel` is not installed"]


def _load_params(path: str) -> Params:
    if not path:
        return Params()
    try:
        with open(path, encoding="utf-8") as file:
            return parse_params(file.read())
    except OSError as error:
        reason = os.strerror(error.errno or 0)
    except UnicodeDecodeError:
        reason = "not UTF-8"
    except ParamsError as error:
        reason = str(error)
    raise ConfigError(
        f"PCS_PARAMS_FILE: found a file that cannot be used ({reason}); allowed: a TOML file of parameters"
    )
