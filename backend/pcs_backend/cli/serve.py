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
from pcs_backend.config import WORKERS_MAX, Config, load_config
from pcs_backend.effects.logs import configure_logs
from pcs_backend.engine import build_store
from pcs_backend.errors import BackendError, ConfigError, StoreUnavailableError
from pcs_backend.workers.supervisor import Supervisor

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
  DEDUP_BACKEND=redis REDIS_ADDR=127.0.0.1:6379 pcs-backend serve --workers 4
\b
SIGTERM or Ctrl-C stops intake, answers what is being judged, and exits 0.
"""
)
@click.option(
    "--workers",
    type=click.IntRange(1, WORKERS_MAX),
    metavar="N",
    help="Processes on the one port, over a store that they share; instead of WORKERS.",
)
def serve(workers: int | None) -> None:
    """Serve until SIGTERM."""
    config = load_config(os.environ if workers is None else os.environ | {"WORKERS": str(workers)})
    configure_logs(config.settings.log_level)
    if config.settings.workers == 1:
        uvloop.run(_serve(config))
    else:
        asyncio.run(_supervise(config))


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
    stop = asyncio.Event()
    prepare_loop(stop, config)
    try:
        await Service(config, real_ports()).run(stop, _announce)
    except OSError as error:
        raise BackendError(f"cannot serve: {os.strerror(error.errno or 0)}") from None


async def _supervise(config: Config) -> None:
    try:
        await Supervisor(config, real_ports().files).run(_announce)
    except OSError as error:
        raise BackendError(f"cannot serve: {os.strerror(error.errno or 0)}") from None


def prepare_loop(stop: asyncio.Event, config: Config) -> None:
    """Set up a serving process. Call it in the event loop, before anything is built.

    Args:
        stop: Set by SIGTERM and SIGINT.
        config: Its keys are read anew at SIGHUP.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it untyped; a series of start times beside each counter tells nobody anything
    gc.freeze()  # what the imports made stays, and need not be looked at
    gc.set_threshold(*GC_THRESHOLDS)
    handle_signals(stop, config.trust.reload)
    asyncio.get_running_loop().set_exception_handler(_ignore_unowned)


def _announce(url: str) -> None:
    click.echo(f"listening on {url}", err=True)


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
