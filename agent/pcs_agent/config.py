"""The agent's settings: the environment, read once, checked, frozen. An empty variable means unset.

=========================  ==========================================================================  ===========
variable                   meaning                                                                     default
=========================  ==========================================================================  ===========
`ENDPOINT`                 full URL records are submitted to, http or https                            none
`PCS_SIGN_ALG`             `none`, `hmac` or `ed25519`                                                 `none`
`PCS_HMAC_KEY`             the shared secret, raw UTF-8                                                none
`PCS_ED25519_SECRET_B64`   standard base64 of the 32-byte seed                                         none
`SIGN_REQUESTS`            whether requests are signed as a whole, too, where records are signed       `true`
`TLS_CA_FILE`              authorities to trust instead of the system's, PEM                           none
`TLS_CLIENT_CERT`          the agent's own certificate chain, PEM                                      none
`TLS_CLIENT_KEY`           its private key, PEM                                                        none
`TLS_VERIFY`               whether the backend's certificate is verified                               `true`
`OUTBOX_DIR`               folder of the outbox                                                        `./outbox`
`OUTBOX_RETENTION_DAYS`    how long delivered records stay in the outbox                               14
`DELIVERY_DEADLINE_S`      how long one record is retried, from its first attempt in this process      900
`BATCH_RECORDS`            records sent together where several wait; 1 sends each on its own              256
`BATCH_GZIP`               whether batches are compressed                                              `false`
`PCS_PARAMS_FILE`          TOML of thresholds and weights                                              built in
`LOG_LEVEL`                `debug`, `info`, `warning`, `error`, `critical`                             `warning`
=========================  ==========================================================================  ===========

A key file takes the place of the two key variables. With `PCS_SIGN_ALG=hmac` it holds the secret itself; with
`ed25519`, or where `PCS_SIGN_ALG` is unset, PEM or base64.
"""

from __future__ import annotations

import math
import os
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple
from urllib.parse import urlsplit

from pcs_agent.deliver.batch_size import BATCH_RECORDS_MAX
from pcs_agent.deliver.tls import client_context
from pcs_agent.errors import ConfigError
from pcs_agent.wording import display_name
from pcs_core.errors import KeyMaterialError, ParamsError
from pcs_core.keyfile import KEY_FILE_BYTES_MAX, parse_ed25519_public, parse_ed25519_secret
from pcs_core.keyring import message_ed25519_key, message_hmac_key
from pcs_core.params import Params, parse_params
from pcs_core.signing import (
    HMAC_KEY_SHORT_BYTES,
    Ed25519SecretKey,
    HmacKey,
    Signer,
    SigningAlgorithm,
    VerificationKey,
    decode_key_base64,
)
from pcs_core.vrf import VrfPublicKey, VrfSecretKey

ENDPOINT = "ENDPOINT"
PCS_SIGN_ALG = "PCS_SIGN_ALG"
PCS_HMAC_KEY = "PCS_HMAC_KEY"
PCS_ED25519_SECRET_B64 = "PCS_ED25519_SECRET_B64"  # noqa: S105  # the variable's name
PCS_VRF_SECRET_B64 = "PCS_VRF_SECRET_B64"  # noqa: S105  # the variable's name
PCS_VRF_PUB_B64 = "PCS_VRF_PUB_B64"
SIGN_REQUESTS = "SIGN_REQUESTS"
TLS_CA_FILE = "TLS_CA_FILE"
TLS_CLIENT_CERT = "TLS_CLIENT_CERT"
TLS_CLIENT_KEY = "TLS_CLIENT_KEY"
TLS_VERIFY = "TLS_VERIFY"
OUTBOX_DIR = "OUTBOX_DIR"
OUTBOX_RETENTION_DAYS = "OUTBOX_RETENTION_DAYS"
DELIVERY_DEADLINE_S = "DELIVERY_DEADLINE_S"
BATCH_RECORDS = "BATCH_RECORDS"
BATCH_GZIP = "BATCH_GZIP"
PCS_PARAMS_FILE = "PCS_PARAMS_FILE"
LOG_LEVEL = "LOG_LEVEL"
KEY_FILE_OPTION = "--key-file"
VRF_KEY_FILE_OPTION = "--vrf-key-file"

OUTBOX_DIR_DEFAULT = "./outbox"
RETENTION_DAYS_DEFAULT, RETENTION_DAYS_MAX = 14.0, 36_500.0
DEADLINE_S_DEFAULT, DEADLINE_S_MAX = 900.0, 604_800.0
BATCH_RECORDS_DEFAULT = 256
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
PARAMS_FILE_BYTES_MAX = 65_536

_VARIABLES = {PCS_HMAC_KEY: SigningAlgorithm.HMAC, PCS_ED25519_SECRET_B64: SigningAlgorithm.ED25519}
_OTHERS_MASK = 0o077


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Checked settings.

    Attributes:
        endpoint: Submit URL, `None` if unset; may hold credentials, so it never prints.
        endpoint_label: Scheme, host and port of it: what messages say.
        algorithm: How records are signed.
        signer: The key, `None` where signing is off.
        signer_secret: The bytes it was made of, for `for_workers`.
        message_signer: Signs whole requests; `None` where that, or signing, is off.
        direction_key: Proves directions; `None` where seeds are chosen.
        direction_keys: What `verify` checks proofs with; `None` where it does not.
        tls: Whom the agent trusts and what it shows; `None` for plain HTTP.
        verification_keys: What `verify` checks signatures with; empty where signing is off.
        outbox_dir: Folder of the outbox.
        retention_days: How long delivered records stay in it, ≥ 0.
        deadline_s: How long one record is retried, > 0.
        batch_records: Records sent together, 1 … `BATCH_RECORDS_MAX`.
        batch_gzip: Whether batches are compressed.
        log_level: One of `LOG_LEVELS`.
        params: Thresholds and weights.
        warnings: What works and deserves a word; names variables, never a secret.
    """

    endpoint: str | None = field(repr=False)
    endpoint_label: str
    algorithm: SigningAlgorithm
    signer: Signer | None
    signer_secret: bytes | None = field(repr=False)
    message_signer: Signer | None
    direction_key: VrfSecretKey | None
    direction_keys: tuple[VrfPublicKey, ...] | None
    tls: ssl.SSLContext | None = field(repr=False)
    verification_keys: tuple[VerificationKey, ...]
    outbox_dir: str
    retention_days: float
    deadline_s: float
    batch_records: int
    batch_gzip: bool
    log_level: str
    params: Params
    warnings: tuple[str, ...] = ()

    def with_deadline(self, deadline_s: float) -> Config:
        """Return the same settings with another deadline, in seconds."""
        return replace(self, deadline_s=deadline_s)

    def for_workers(self) -> Config:
        """Return what a process that computes and signs needs of them, and nothing of where and how records are sent.

        A shared key cannot be pickled, so that none slips into a log or a queue. This is the one way to hand one on: the
        keys' bytes are in what is returned, which goes to this run's own workers alone.
        """
        return replace(
            self,
            signer=None,
            endpoint=None,
            endpoint_label="",
            message_signer=None,
            tls=None,
            verification_keys=(),
            warnings=(),
        )

    def with_signer(self) -> Config:
        """Return what `for_workers` gave, with the key made again."""
        if self.signer_secret is None:
            return self
        make = HmacKey if self.algorithm is SigningAlgorithm.HMAC else Ed25519SecretKey
        return replace(self, signer=make(self.signer_secret), signer_secret=None)

    def require_endpoint(self) -> str:
        """Return the submit URL.

        Raises:
            ConfigError: It is not set.
        """
        if self.endpoint is None:
            raise ConfigError(f"{ENDPOINT}: found nothing; allowed: the full http or https URL to submit to")
        return self.endpoint

    def require_signer(self) -> Signer | None:
        """Return the signing key, `None` where signing is off.

        Raises:
            ConfigError: Only a public key is configured.
        """
        if self.algorithm is not SigningAlgorithm.NONE and self.signer is None:
            raise ConfigError(f"{KEY_FILE_OPTION}: found a public key; allowed: a secret key, to sign with")
        return self.signer


def read_environment(
    key_file: str | None = None, ca_file: str | None = None, vrf_key_file: str | None = None
) -> Config:
    """Check the process's environment, as `load_config` does; the only place that reads it."""
    return load_config(os.environ, key_file, ca_file, vrf_key_file)


def load_config(
    environ: Mapping[str, str],
    key_file: str | None = None,
    ca_file: str | None = None,
    vrf_key_file: str | None = None,
) -> Config:
    """Check every variable.

    Args:
        environ: The environment.
        key_file: Path given with `--key-file`.
        ca_file: Path given with `--ca-file`.
        vrf_key_file: Path given with `--vrf-key-file`.

    Raises:
        ConfigError: A value that cannot be used; names the variable, never a secret's value.
    """
    values = {name: value for name, value in environ.items() if value}
    if ca_file is not None:
        values[TLS_CA_FILE] = ca_file
    endpoint = values.get(ENDPOINT)
    algorithm = _read_algorithm(values, key_file)
    keys = _read_keys(values, algorithm, key_file)
    direction_key, vrf_warnings = _read_vrf_secret(values, vrf_key_file)
    if direction_key is not None and direction_key.seed == getattr(keys.signer, "seed", None):
        raise ConfigError(
            f"{PCS_VRF_SECRET_B64}: found the key that signs records; allowed: a key of its own"
        )
    level = values.get(LOG_LEVEL, "warning").lower()
    if level not in LOG_LEVELS:
        raise ConfigError(f"{LOG_LEVEL}: found an unknown level; allowed: {', '.join(LOG_LEVELS)}")
    outbox_dir = values.get(OUTBOX_DIR, OUTBOX_DIR_DEFAULT)
    if "\0" in outbox_dir:
        raise ConfigError(f"{OUTBOX_DIR}: found a NUL character; allowed: a folder's path")
    label = "" if endpoint is None else _check_endpoint(endpoint)
    tls, tls_warnings = _read_tls(values, label)
    sign_requests = _read_flag(values, SIGN_REQUESTS, default=True)
    return Config(
        endpoint=endpoint,
        endpoint_label=label,
        algorithm=algorithm,
        signer=keys.signer,
        signer_secret=keys.secret,
        message_signer=keys.message_signer if sign_requests else None,
        direction_key=direction_key,
        direction_keys=_read_vrf_public_keys(values, direction_key),
        tls=tls,
        verification_keys=keys.verification,
        outbox_dir=outbox_dir,
        retention_days=_read_number(
            values, OUTBOX_RETENTION_DAYS, RETENTION_DAYS_DEFAULT, 0, RETENTION_DAYS_MAX
        ),
        deadline_s=_read_number(values, DELIVERY_DEADLINE_S, DEADLINE_S_DEFAULT, 0.001, DEADLINE_S_MAX),
        batch_records=_read_count(values, BATCH_RECORDS, BATCH_RECORDS_DEFAULT, 1, BATCH_RECORDS_MAX),
        batch_gzip=_read_flag(values, BATCH_GZIP, default=False),
        log_level=level,
        params=_read_params(values),
        warnings=(*keys.warnings, *vrf_warnings, *tls_warnings),
    )


def _check_endpoint(url: str) -> str:
    """Return scheme, host and port, for messages."""
    label = None
    if url.isascii() and url.isprintable() and " " not in url:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme in {"http", "https"} and parts.hostname and parts.path and port != 0:
            host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
            label = f"{parts.scheme}://{host}" + (f":{port}" if port else "")
    if label is None:
        raise ConfigError(
            f"{ENDPOINT}: found a string of length {len(url)} that is not a URL to submit to; allowed: "
            "http or https, a host, and a path, such as http://127.0.0.1:8080/v1/pcs/submit"
        )
    return label


def _read_number(
    values: Mapping[str, str], name: str, default: float, least: float, greatest: float
) -> float:
    if name not in values:
        return default
    try:
        number = float(values[name])
    except ValueError:
        number = math.nan
    if not least <= number <= greatest:
        raise ConfigError(
            f"{name}: found a string of length {len(values[name])} that is not in range; allowed: "
            f"a number from {least:g} to {greatest:g}"
        )
    return number


def _read_count(values: Mapping[str, str], name: str, default: int, least: int, greatest: int) -> int:
    text = values.get(name, str(default))
    count = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(greatest)) else -1
    if not least <= count <= greatest:
        raise ConfigError(
            f"{name}: found a string of length {len(text)} that is not in range; allowed: an integer from {least} to "
            f"{greatest}"
        )
    return count


def _read_algorithm(values: Mapping[str, str], key_file: str | None) -> SigningAlgorithm:
    text = values.get(PCS_SIGN_ALG)
    if text is None:
        return SigningAlgorithm.NONE if key_file is None else SigningAlgorithm.ED25519
    try:
        algorithm = SigningAlgorithm(text)
    except ValueError:
        algorithm = None
    if algorithm is None:
        raise ConfigError(
            f"{PCS_SIGN_ALG}: found an unknown algorithm; allowed: {', '.join(SigningAlgorithm)}"
        )
    if algorithm is SigningAlgorithm.NONE and key_file is not None:
        raise ConfigError(
            f"{PCS_SIGN_ALG}: found none, and {KEY_FILE_OPTION} beside it; allowed: hmac or ed25519 with a key file"
        )
    return algorithm


def _read_flag(values: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = values.get(name, str(default)).lower()
    if text not in {"true", "false"}:
        raise ConfigError(f"{name}: found a string of length {len(text)}; allowed: true or false")
    return text == "true"


def _read_tls(values: Mapping[str, str], label: str) -> tuple[ssl.SSLContext | None, tuple[str, ...]]:
    certificate, key = values.get(TLS_CLIENT_CERT, ""), values.get(TLS_CLIENT_KEY, "")
    if bool(certificate) != bool(key):
        missing = TLS_CLIENT_KEY if certificate else TLS_CLIENT_CERT
        raise ConfigError(
            f"{missing}: found nothing; allowed: both {TLS_CLIENT_CERT} and {TLS_CLIENT_KEY}, or neither"
        )
    verify = _read_flag(values, TLS_VERIFY, default=True)
    if not label.startswith("https:"):
        return None, ()
    context = client_context(
        ca_file=values.get(TLS_CA_FILE, ""), certificate=certificate, key=key, verify=verify
    )
    if verify:
        return context, ()
    warning = (
        f"{TLS_VERIFY}=false: the backend's certificate is NOT verified; anybody between here and there can read and "
        "change what is sent"
    )
    return context, (warning,)


class _Keys(NamedTuple):
    signer: Signer | None
    message_signer: Signer | None
    verification: tuple[VerificationKey, ...]
    warnings: tuple[str, ...] = ()
    secret: bytes | None = None


def _read_keys(values: Mapping[str, str], algorithm: SigningAlgorithm, key_file: str | None) -> _Keys:
    if algorithm is SigningAlgorithm.NONE:
        return _Keys(None, None, (), _warn_of_unused_keys(values))
    if key_file is not None:
        return _read_key_file(key_file, algorithm)
    variable = next(variable for variable, wanted in _VARIABLES.items() if wanted is algorithm)
    text = values.get(variable)
    if text is None:
        raise ConfigError(
            f"{variable}: found nothing; allowed: the key of {PCS_SIGN_ALG}={algorithm}, or {KEY_FILE_OPTION}"
        )
    try:
        if algorithm is SigningAlgorithm.HMAC:
            secret_bytes = _encode_utf8(variable, text)
            return _hmac_keys(secret_bytes, _warn_of_short_key(secret_bytes))
        secret = Ed25519SecretKey(decode_key_base64(text))
    except KeyMaterialError as error:
        problem = str(error)
    else:
        return _ed25519_keys(secret)
    raise ConfigError(f"{variable}: {problem}")


def _hmac_keys(secret: bytes, warnings: tuple[str, ...]) -> _Keys:
    key = HmacKey(secret)
    return _Keys(key, message_hmac_key(secret), (key,), warnings, secret)


def _ed25519_keys(secret: Ed25519SecretKey, warnings: tuple[str, ...] = ()) -> _Keys:
    return _Keys(secret, message_ed25519_key(secret.seed), (secret.public,), warnings, secret.seed)


def _warn_of_unused_keys(values: Mapping[str, str]) -> tuple[str, ...]:
    if PCS_SIGN_ALG in values:
        return ()
    return tuple(
        f"{variable} is set and {PCS_SIGN_ALG} is not: records are not signed, and signatures not checked; set "
        f"{PCS_SIGN_ALG}={algorithm}, or none to say so"
        for variable, algorithm in _VARIABLES.items()
        if variable in values
    )


def _warn_of_short_key(secret: bytes) -> tuple[str, ...]:
    if len(secret) >= HMAC_KEY_SHORT_BYTES:
        return ()
    return (f"{PCS_HMAC_KEY}: found {len(secret)} bytes; {HMAC_KEY_SHORT_BYTES} or more are harder to guess",)


def _warn_of_mode(option: str, path: str, mode: int) -> tuple[str, ...]:
    """Warn of a file with a secret that others than its owner can read or replace."""
    if not (stat.S_ISREG(mode) and mode & _OTHERS_MASK):
        return ()
    warning = (
        f"{option}: {display_name(path)}: found mode {stat.S_IMODE(mode):04o}, which lets others than the owner "
        "at the secret; 0600 does not (chmod 600)"
    )
    return (warning,)


def _encode_utf8(variable: str, text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        pass
    raise ConfigError(f"{variable}: found bytes that are not UTF-8; allowed: text in UTF-8")


def _read_key_file(path: str, algorithm: SigningAlgorithm) -> _Keys:
    data, mode = _read_file(KEY_FILE_OPTION, path, KEY_FILE_BYTES_MAX)
    try:
        if algorithm is SigningAlgorithm.HMAC:
            return _hmac_keys(
                data.removesuffix(b"\n").removesuffix(b"\r"), _warn_of_mode(KEY_FILE_OPTION, path, mode)
            )
        if b"PUBLIC KEY" in data:
            return _Keys(None, None, (parse_ed25519_public(data),))
        secret = parse_ed25519_secret(data)
    except KeyMaterialError as error:
        problem = str(error)
    else:
        return _ed25519_keys(secret, _warn_of_mode(KEY_FILE_OPTION, path, mode))
    raise ConfigError(f"{KEY_FILE_OPTION}: {display_name(path)}: {problem}")


def _read_vrf_secret(
    values: Mapping[str, str], key_file: str | None
) -> tuple[VrfSecretKey | None, tuple[str, ...]]:
    warnings: tuple[str, ...] = ()
    name, text = PCS_VRF_SECRET_B64, values.get(PCS_VRF_SECRET_B64)
    if key_file is not None:
        data, mode = _read_file(VRF_KEY_FILE_OPTION, key_file, KEY_FILE_BYTES_MAX)
        name, text = (
            f"{VRF_KEY_FILE_OPTION}: {display_name(key_file)}",
            data.strip().decode("ascii", "replace"),
        )
        warnings = _warn_of_mode(VRF_KEY_FILE_OPTION, key_file, mode)
    if text is None:
        return None, ()
    try:
        return VrfSecretKey(decode_key_base64(text)), warnings
    except KeyMaterialError as error:
        problem = str(error)
    raise ConfigError(f"{name}: {problem}")


def _read_vrf_public_keys(
    values: Mapping[str, str], secret: VrfSecretKey | None
) -> tuple[VrfPublicKey, ...] | None:
    """Return the public keys that are configured, the secret key's own among them; `None` without any."""
    try:
        keys = [
            VrfPublicKey(decode_key_base64(text))
            for text in values.get(PCS_VRF_PUB_B64, "").split(",")
            if text
        ]
    except KeyMaterialError as error:
        problem = str(error)
    else:
        return (*keys, *([secret.public] if secret else [])) or None
    raise ConfigError(f"{PCS_VRF_PUB_B64}: {problem}")


def _read_params(values: Mapping[str, str]) -> Params:
    if PCS_PARAMS_FILE not in values:
        return Params()
    data, _ = _read_file(PCS_PARAMS_FILE, values[PCS_PARAMS_FILE], PARAMS_FILE_BYTES_MAX)
    try:
        return parse_params(data.decode("utf-8"))
    except UnicodeDecodeError:
        problem = "found bytes that are not UTF-8; allowed: TOML"
    except ParamsError as error:
        problem = str(error)
    raise ConfigError(f"{PCS_PARAMS_FILE}: {display_name(values[PCS_PARAMS_FILE])}: {problem}")


def _read_file(name: str, path: str, bytes_max: int) -> tuple[bytes, int]:
    """Return what is in a file, read once because it may be a pipe, and its mode as `os.stat` has it."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(bytes_max + 1)
    except OSError as error:
        problem = f"{display_name(path)}: {os.strerror(error.errno) if error.errno else 'cannot be read'}"
    except ValueError:
        problem = "found a NUL character; allowed: a file's path"
    else:
        if len(data) <= bytes_max:
            return data, mode
        problem = f"{display_name(path)}: found over {bytes_max} bytes; allowed: up to that"
    raise ConfigError(f"{name}: {problem}")
