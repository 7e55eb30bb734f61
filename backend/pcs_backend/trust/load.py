"""Reading keys and tenants from the environment and the key file into a `Trust`."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pcs_backend.errors import ConfigError
from pcs_backend.trust.policy import Trust
from pcs_core.direction_proof import DIRECTION_KEYS_MAX, DirectionKey
from pcs_core.errors import KeyMaterialError, KeyringError
from pcs_core.keyfile import KEY_FILE_BYTES_MAX
from pcs_core.keyring import (
    DEFAULT_TENANT,
    KEYS_MAX,
    KeyEntry,
    Keyring,
    KeyTerms,
    entry_of_public_key,
    entry_of_secret,
)
from pcs_core.keyring_file import KeyFile, parse_key_file
from pcs_core.signing import HMAC_KEY_SHORT_BYTES, SigningAlgorithm, decode_key_base64
from pcs_core.vrf import VrfPublicKey

if TYPE_CHECKING:
    from pcs_backend.config import Settings

KEYS_FILE_BYTES_MAX = 4 * 1024 * 1024

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_NO_FILE = KeyFile(entries=(), direction_keys=(), peers={}, limits={})


def load_trust(settings: Settings, environ: Mapping[str, str]) -> Trust:
    """Read every key.

    Args:
        settings: The backend's settings.
        environ: For `env:` references of the key file.

    Raises:
        ConfigError: A key or the file cannot be used, or they do not fit the settings.
    """
    file = _read_key_file(settings.pcs_keys_file, environ) if settings.pcs_keys_file else _NO_FILE
    entries = [*file.entries, *_environment_entries(settings)]
    direction_keys = (*file.direction_keys, *_environment_direction_keys(settings))
    if settings.pcs_keys_file and not file.entries:
        raise ConfigError("PCS_KEYS_FILE: found a file without keys; allowed: one key or more")
    if not settings.multi_tenant:
        _check_tenants("keys", file.entries)
        _check_tenants("direction_keys", file.direction_keys)
    if len(direction_keys) > DIRECTION_KEYS_MAX:
        raise ConfigError(
            f"PCS_VRF_PUB_B64: found {len(direction_keys)} keys with those of PCS_KEYS_FILE; allowed: up to {DIRECTION_KEYS_MAX}"
        )
    if settings.require_direction_proof and not direction_keys:
        raise ConfigError("REQUIRE_DIRECTION_PROOF: found true without any key; allowed: true with a key")
    if settings.require_message_signature and not entries:
        raise ConfigError("REQUIRE_MESSAGE_SIGNATURE: found true without any key; allowed: true with a key")
    try:
        keyring = Keyring(entries)
    except ValueError:
        raise ConfigError(
            f"PCS_KEYS_FILE: found more than {KEYS_MAX} keys, or a key of the environment under an id of its own; "
            f"allowed: up to {KEYS_MAX}, each once"
        ) from None
    return Trust(
        keyring=keyring,
        direction_keys=direction_keys,
        require_direction_proof=settings.require_direction_proof,
        peers=file.peers,
        limits=file.limits,
        multi_tenant=settings.multi_tenant,
        require_message_signature=settings.require_message_signature,
        message_age_s=settings.message_signature_max_age_s,
    )


def _check_tenants(name: str, keys: Sequence[KeyTerms]) -> None:
    for number, key in enumerate(keys):
        if key.tenant != DEFAULT_TENANT:
            raise ConfigError(
                f"PCS_KEYS_FILE: $.{name}[{number}].tenant: found a tenant while MULTI_TENANT is false; allowed: none, "
                "or MULTI_TENANT=true"
            )


def trust_warnings(settings: Settings) -> list[str]:
    """Return what is allowed and still worth a word."""
    warnings = []
    algorithm = SigningAlgorithm(settings.pcs_sign_alg)
    if algorithm is SigningAlgorithm.NONE and not settings.pcs_keys_file:
        warnings.append("PCS_SIGN_ALG is none: any record is believed to be from whom it says")
        if settings.pcs_hmac_key or settings.pcs_hmac_keys or settings.pcs_ed25519_pub_b64:
            warnings.append("a key is set and PCS_SIGN_ALG is none: the key is not used")
    if algorithm is SigningAlgorithm.HMAC:
        short = sum(len(secret.encode()) < HMAC_KEY_SHORT_BYTES for secret in _secrets(settings))
        if short:
            warnings.append(f"{short} HMAC key(s) of less than {HMAC_KEY_SHORT_BYTES} bytes: easy to guess")
    if settings.pcs_keys_file and _is_open_to_others(settings.pcs_keys_file):
        warnings.append("PCS_KEYS_FILE can be read by others: its mode should be 0600")
    return warnings


def _environment_entries(settings: Settings) -> list[KeyEntry]:
    match SigningAlgorithm(settings.pcs_sign_alg):
        case SigningAlgorithm.NONE:
            return []
        case SigningAlgorithm.HMAC:
            secrets = _secrets(settings)
            if not secrets and not settings.pcs_keys_file:
                raise ConfigError("PCS_HMAC_KEY: found nothing while PCS_SIGN_ALG is hmac; allowed: a key")
            return [entry_of_secret(secret.encode()) for secret in secrets]
        case SigningAlgorithm.ED25519:
            texts = _split(settings.pcs_ed25519_pub_b64)
            if not texts and not settings.pcs_keys_file:
                raise ConfigError(
                    "PCS_ED25519_PUB_B64: found nothing while PCS_SIGN_ALG is ed25519; allowed: a key"
                )
            try:
                return [entry_of_public_key(decode_key_base64(text)) for text in dict.fromkeys(texts)]
            except KeyMaterialError as error:
                raise ConfigError(f"PCS_ED25519_PUB_B64: {error}") from None


def _environment_direction_keys(settings: Settings) -> list[DirectionKey]:
    try:
        keys = [
            VrfPublicKey(decode_key_base64(text)) for text in dict.fromkeys(_split(settings.pcs_vrf_pub_b64))
        ]
    except KeyMaterialError as error:
        raise ConfigError(f"PCS_VRF_PUB_B64: {error}") from None
    return [DirectionKey(key_id=key.key_id, public_key=key) for key in keys]


def _secrets(settings: Settings) -> list[str]:
    secrets = [settings.pcs_hmac_key, *_split(settings.pcs_hmac_keys)]
    return [secret for secret in dict.fromkeys(secrets) if secret]


def _split(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _read_key_file(path: str, environ: Mapping[str, str]) -> KeyFile:
    folder = os.path.dirname(os.path.abspath(path))
    try:
        text = _read(path, KEYS_FILE_BYTES_MAX).decode("utf-8")
        return parse_key_file(
            text, environ, lambda name: _read(os.path.join(folder, name), KEY_FILE_BYTES_MAX)
        )
    except OSError as error:
        reason = os.strerror(error.errno or 0)
    except UnicodeDecodeError:
        reason = "not UTF-8"
    except KeyringError as error:
        reason = str(error)
    raise ConfigError(f"PCS_KEYS_FILE: {reason}")


def _read(path: str, size_bytes_max: int) -> bytes:
    """Read a whole file.

    Raises:
        OSError: It cannot be read, or is too large.
    """
    with open(path, "rb") as file:
        data = file.read(size_bytes_max + 1)
    if len(data) > size_bytes_max:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return data


def _is_open_to_others(path: str) -> bool:
    try:
        return bool(os.stat(path).st_mode & _OTHERS)
    except OSError:
        return False
