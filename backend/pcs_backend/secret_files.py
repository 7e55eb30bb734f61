"""Settings that are secrets, read from files: `NAME_FILE` names a file that holds the value of `NAME`.

So that no secret need stand in an environment, which child processes inherit and container engines show.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from pcs_backend.errors import ConfigError

SECRETS = ("REDIS_ADDR", "POSTGRES_DSN", "METRICS_PASS", "CALIBRATION_PASS", "PCS_HMAC_KEY", "PCS_HMAC_KEYS")
"""Settings that may be given so."""

SUFFIX = "_FILE"

SECRET_FILE_BYTES_MAX = 65_536


def read_secret_files(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the secrets that files hold, by the names of their settings. One line end at a file's end is not part of it.

    Raises:
        ConfigError: A file cannot be used, or the setting is given beside it; neither path nor contents are named.
    """
    found = {}
    for name in SECRETS:
        variable = name + SUFFIX
        if not (path := environ.get(variable)):
            continue
        if environ.get(name):
            raise ConfigError(f"{variable}: found one beside {name}; allowed: one of the two")
        found[name] = _read(variable, path)
    return found


def _read(variable: str, path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(SECRET_FILE_BYTES_MAX + 1)
        value = data.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        reason = os.strerror(error.errno or 0)
    except UnicodeDecodeError:
        reason = "not UTF-8"
    except ValueError:  # a NUL in it
        reason = "no name of a file"
    else:
        if value and len(data) <= SECRET_FILE_BYTES_MAX:
            return value
        reason = "too large" if value else "empty"
    raise ConfigError(
        f"{variable}: found a file that cannot be used ({reason}); allowed: a file of up to {SECRET_FILE_BYTES_MAX} bytes "
        "that holds the value alone"
    )
