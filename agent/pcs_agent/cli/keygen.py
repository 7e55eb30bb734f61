"""`pcs-agent keygen`: make a key. The secret goes into a file and nowhere else."""

from __future__ import annotations

import base64
import os
import secrets
import shlex

import click

from pcs_agent.errors import ConfigError
from pcs_agent.streams import print_text
from pcs_agent.wording import display_name
from pcs_core.keyfile import encode_ed25519_secret
from pcs_core.keyring import message_ed25519_key
from pcs_core.signing import ED25519_KEY_BYTES, Ed25519SecretKey, HmacKey
from pcs_core.vrf import SEED_BYTES, VrfSecretKey

_SECRET_MODE = 0o600
_HMAC_SECRET_BYTES = 32


@click.command()
@click.option(
    "--alg",
    type=click.Choice(["ed25519", "hmac", "vrf"]),
    default="ed25519",
    show_default=True,
    help="Kind of key: two that sign, and one that proves directions.",
)
@click.option(
    "--out", metavar="FILE", help="Where the secret goes; pcs-ALG.key by default. Never overwritten."
)
@click.option("--pem", is_flag=True, help="Write an Ed25519 secret as PEM instead of base64.")
def keygen(*, alg: str, out: str | None, pem: bool) -> None:
    """Make a key: the secret into a new file with mode 0600, the settings of both sides on standard output.

    \b
    Exit codes:
      0  written
      2  usage, or the file exists or cannot be written

    \b
    Examples:
      pcs-agent keygen --out agent.key
      pcs-agent keygen --alg hmac --out shared.key
      pcs-agent keygen --alg vrf --out directions.key
    """  # noqa: D301  # \b is click's
    path = out or f"pcs-{alg}.key"
    name = display_name(path)
    quoted = shlex.quote(name)
    if alg == "hmac":
        if pem:
            raise click.UsageError("--pem: an HMAC secret has no PEM form")
        text = base64.urlsafe_b64encode(secrets.token_bytes(_HMAC_SECRET_BYTES)).rstrip(b"=")
        _write_new(path, text + b"\n")
        print_text(f"# {HmacKey(text).key_id}; the secret is in {name}")
        print_text("# agent and backend, which share it:")
        print_text(f'PCS_SIGN_ALG=hmac\nPCS_HMAC_KEY="$(cat {quoted})"')
        return
    if alg == "vrf":
        if pem:
            raise click.UsageError("--pem: a VRF secret has no PEM form")
        vrf_key = VrfSecretKey(secrets.token_bytes(SEED_BYTES))
        _write_new(path, base64.b64encode(vrf_key.seed) + b"\n")
        print_text(f"# {vrf_key.key_id}; the secret is in {name}")
        print_text(f'# agent, with --vrf-key-file {quoted}, or PCS_VRF_SECRET_B64="$(cat {quoted})"')
        print_text("# backend:")
        print_text(f"PCS_VRF_PUB_B64={base64.b64encode(vrf_key.public.public_bytes).decode('ascii')}")
        return
    key = Ed25519SecretKey(secrets.token_bytes(ED25519_KEY_BYTES))
    _write_new(path, encode_ed25519_secret(key) if pem else base64.b64encode(key.seed) + b"\n")
    instead = "" if pem else f', or PCS_ED25519_SECRET_B64="$(cat {quoted})"'
    print_text(f"# {key.key_id}; the secret is in {name}")
    print_text(f"# agent, with --key-file {quoted}{instead}:")
    print_text("PCS_SIGN_ALG=ed25519")
    public = base64.b64encode(key.public_bytes).decode("ascii")
    message_public = base64.b64encode(message_ed25519_key(key.seed).public_bytes).decode("ascii")
    print_text("# backend, with PCS_SIGN_ALG=ed25519 too:")
    print_text(f"PCS_ED25519_PUB_B64={public}")
    print_text("# or in its PCS_KEYS_FILE, where signatures of whole requests are checked as well:")
    print_text(f'# public_key = "{public}"\n# message_public_key = "{message_public}"')


def _write_new(path: str, data: bytes) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _SECRET_MODE)
        with open(handle, "wb") as file:
            file.write(data)
    except FileExistsError:
        problem = "found an existing file; allowed: a new one"
    except (OSError, ValueError) as error:
        problem = f"cannot be written: {getattr(error, 'strerror', None) or 'not a file name'}"
    else:
        return
    raise ConfigError(f"--out: {display_name(path)}: {problem}")
