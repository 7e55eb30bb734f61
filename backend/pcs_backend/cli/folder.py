"""How commands that look reach what `serve` has.

The store of a server is asked directly; the rest through the administration socket of the process that serves the data
folder, or by opening the folder while nothing serves it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator

import aiohttp

from pcs_backend.app import real_ports
from pcs_backend.config import Config, Settings, load_config, load_settings
from pcs_backend.dedup.store import DedupStore
from pcs_backend.effects.logs import configure_logs
from pcs_backend.engine import Engine, build_store, offline
from pcs_backend.errors import ConfigError, StoreUnavailableError
from pcs_backend.http.admin import SOCKET_NAME
from pcs_core.errors import WalLockedError


def prepare() -> Config:
    """Read the settings, and keep the logs of a command that looks quiet."""
    config = load_config(os.environ)
    configure_logs("ERROR")
    return config


def prepare_settings() -> Settings:
    """Read the settings alone, for what is asked of a serving process: files that are broken now do not matter."""
    settings = load_settings(os.environ)
    configure_logs("ERROR")
    return settings


@contextlib.asynccontextmanager
async def direct_store(config: Config) -> AsyncIterator[DedupStore | None]:
    """Open the store here; `None` if it is the memory of a process that serves now."""
    ports = real_ports()
    store = build_store(config, ports)
    if store is not None:
        try:
            await store.open()
            yield store
        finally:
            await store.close()
        return
    engine = Engine(config, ports)
    async with contextlib.AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(offline(engine))
        except WalLockedError:
            yield None
        else:
            yield engine.store


@contextlib.asynccontextmanager
async def serving_process(data_dir: str) -> AsyncIterator[aiohttp.ClientSession]:
    """Talk to the process that serves a data folder.

    Args:
        data_dir: The folder.

    Raises:
        ConfigError: There is no such folder.
        StoreUnavailableError: Nothing serves it, or the process has gone.
    """
    try:
        folder = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise ConfigError(
            f"DATA_DIR: found a path that cannot be used ({reason}); allowed: the folder that `serve` uses"
        ) from None
    try:  # by way of the folder, because a socket's own path may be too long for its address
        connector = aiohttp.UnixConnector(f"/proc/self/fd/{folder}/{SOCKET_NAME}")
        async with aiohttp.ClientSession("http://admin", connector=connector) as session:
            yield session
    except aiohttp.ClientConnectionError:
        pass
    else:
        return
    finally:
        os.close(folder)
    raise StoreUnavailableError("the serving process does not answer on its administration socket")


async def ok_body(response: aiohttp.ClientResponse) -> bytes:
    """Return the body of a good answer.

    Raises:
        StoreUnavailableError: It is none.
    """
    if response.status != 200:
        raise StoreUnavailableError("the serving process could not answer")
    return await response.read()
