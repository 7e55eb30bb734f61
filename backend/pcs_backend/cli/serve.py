"""`pcs-backend serve` and `pcs-backend check-config`."""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile

import click
import structlog
import uvloop
from prometheus_client import disable_created_metrics

from pcs_backend.app import Service, handle_signals, real_ports
from pcs_backend.config import Config, load_config
from pcs_backend.effects.logs import configure_logs
from pcs_backend.engine import build_store
from pcs_backend.errors import BackendError, ConfigError, StoreUnavailableError

GC_THRESHOLDS = (20_000, 50, 100)
"""Objects made before the garbage collector looks at the youngest, and how many such looks pass before the older ones and
all of them are looked at. With Python's own (700, 10, 10) it took a tenth of the processor under load, for next to nothing
here is in cycles."""

_log = structlog.get_logger(__name__)


@click.command(
    epilog="""
\b
Examples:
  PCS_SIGN_ALG=hmac PCS_HMAC_KEY=… pcs-backend serve
  PORT=0 DATA_DIR=/tmp/pcs pcs-backend serve      # any free port, printed to standard error
\b
SIGTERM or Ctrl-C stops intake, answers what is being judged, and exits 0.
"""
)
def serve() -> None:
    """Serve until SIGTERM."""
    config = load_config(os.environ)
    configure_logs(config.settings.log_level)
    gc.freeze()  # what the imports made stays, and need not be looked at
    gc.set_threshold(*GC_THRESHOLDS)
    uvloop.run(_serve(config))


@click.command(
    "check-config",
    epilog="""
\b
Examples:
  pcs-backend check-config && pcs-backend serve
\b
Exit codes: 0 the settings are good (warnings may be printed); 1 the store does not answer; 2 a setting is not.
""",
)
def check_config() -> None:
    """Check the settings, ask the store, and warn of what breaks durability."""
    config = load_config(os.environ)
    configure_logs("ERROR")
    _check_folder(config.settings.data_dir)
    warnings = [*config.warnings, *uvloop.run(_store_warnings(config))]
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"configuration is valid; {len(warnings)} warning(s)")


def _check_folder(path: str) -> None:
    """Try to write where `serve` would, without leaving anything."""
    folder = os.path.abspath(path)
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    try:
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        reason = os.strerror(error.errno or 0)
    raise ConfigError(f"DATA_DIR: found a path that cannot be used ({reason}); allowed: a folder")


async def _serve(config: Config) -> None:
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it untyped; a series of start times beside each counter tells nobody anything
    stop = asyncio.Event()
    handle_signals(stop, config.trust.reload)
    asyncio.get_running_loop().set_exception_handler(_ignore_unowned)
    try:
        await Service(config, real_ports()).run(stop, lambda url: click.echo(f"listening on {url}", err=True))
    except OSError as error:
        raise BackendError(f"cannot serve: {os.strerror(error.errno or 0)}") from None


async def _store_warnings(config: Config) -> list[str]:
    store = build_store(config, real_ports())
    if store is None:
        return []
    try:
        await store.open()
        return await store.durability_warnings()
    except StoreUnavailableError as error:
        raise BackendError(f"the dedup store cannot be asked: {error}") from None
    finally:
        await store.close()


def _ignore_unowned(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """Log the kind of an error no task owns, such as a connection's; asyncio's own message quotes buffers."""
    del loop
    error = context.get("exception")
    _log.warning("event loop error", error=type(error).__name__)
