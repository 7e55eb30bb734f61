"""The command group, and how errors end a command: a message and an exit code, never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import click

from pcs_backend import __version__
from pcs_backend.cli.calibrate import calibrate
from pcs_backend.cli.escalations import conflicts, escalations
from pcs_backend.cli.fsck import fsck
from pcs_backend.cli.keys import keys
from pcs_backend.cli.recompute import recompute_command
from pcs_backend.cli.records import records
from pcs_backend.cli.replay import replay
from pcs_backend.cli.serve import check_config, serve
from pcs_backend.cli.tap import tap
from pcs_backend.cli.top import top
from pcs_backend.errors import BackendError, ConfigError
from pcs_core.errors import WalError, WalLockedError

_EPILOG = """
\b
Examples:
  PCS_SIGN_ALG=hmac PCS_HMAC_KEY=… pcs-backend serve
  DEDUP_BACKEND=postgres POSTGRES_DSN=postgresql://… pcs-backend check-config
  pcs-backend escalations list --json

\b
Settings come from the environment; docs/configuration.md lists them.
Exit codes: 0 done; 1 something failed while running; 2 usage or configuration.
"""


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pcs-backend")
def cli() -> None:
    """Receive, verify and keep Proof-of-Computation Summaries."""


for _command in (
    serve,
    check_config,
    replay,
    fsck,
    escalations,
    conflicts,
    records,
    tap,
    top,
    keys,
    calibrate,
    recompute_command,
):
    cli.add_command(_command)


def main() -> None:
    """Run the command line."""
    sys.exit(exit_code_of(lambda: cli(standalone_mode=True)))


def exit_code_of(work: Callable[[], None]) -> int:
    """Do something and return its exit code; what stops it on purpose is said on standard error."""
    try:
        work()
    except ConfigError as error:
        return _say(str(error), 2)
    except WalLockedError as error:
        return _say(f"DATA_DIR: {error}; allowed: a folder that no other process uses", 2)
    except (BackendError, WalError) as error:
        return _say(str(error), 1)
    except OSError as error:
        return _say(os.strerror(error.errno) if error.errno else type(error).__name__, 1)
    return 0


def _say(message: str, code: int) -> int:
    click.echo(f"pcs-backend: {message}", err=True)
    return code
