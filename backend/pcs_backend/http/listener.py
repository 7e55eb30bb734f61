"""The public listening sockets: bound once, with TLS if there is a certificate, which is renewed without a connection lost.

A renewed certificate takes new sites on the same sockets before the old ones stop; connections that are open stay as they
are. A new certificate that cannot be used changes nothing, and the log says so.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from aiohttp import web

from pcs_backend.errors import ConfigError
from pcs_backend.http.tls import TLS_CHECK_INTERVAL_S, Stamp, TlsFiles
from pcs_core.ports import Sleep

BACKLOG_CONNECTIONS_MAX = 1_024
"""Connections the kernel holds that are not accepted yet."""

_log = structlog.get_logger(__name__)


class Listener:
    """Sites of one runner."""

    def __init__(self, runner: web.ServerRunner, tls: TlsFiles | None) -> None:
        """Take the runner, set up.

        Args:
            runner: Serves the connections.
            tls: Certificate files; `None` for plain HTTP.
        """
        self._runner = runner
        self._tls = tls
        self._sites: list[web.BaseSite] = []
        self._stamp: Stamp = ()

    async def open(self, host: str, port: int, allowed: Callable[[str], str]) -> str:
        """Bind and listen.

        Args:
            host: Address or name.
            port: TCP port; 0 picks one.
            allowed: Says what a variable allows.

        Returns:
            The URL.

        Raises:
            ConfigError: Nothing can listen there, or the certificate cannot be used.
        """
        if self._tls is not None:
            self._stamp = self._tls.stamp()  # before the files are read: one replaced after this is a renewal
        context = None if self._tls is None else self._tls.context()
        site = web.TCPSite(self._runner, host, port, backlog=BACKLOG_CONNECTIONS_MAX, ssl_context=context)
        try:
            await site.start()
        except OSError as error:
            raise cannot_listen(port, error, allowed) from None
        self._sites = [site]
        return url_of(self._runner.addresses[0], tls=self._tls is not None)

    async def adopt(self, listening: Iterable[socket.socket]) -> None:
        """Take connections from sockets that listen already.

        Args:
            listening: Given up to the listener.

        Raises:
            ConfigError: The certificate cannot be used.
        """
        context = None
        if self._tls is not None:
            self._stamp = self._tls.stamp()
            context = self._tls.context()
        for each in listening:
            await self._take(each, context)

    async def watch(self, sleep: Sleep) -> None:
        """Renew whenever a certificate file has changed, for ever."""
        if self._tls is None:
            return
        in_force = last = self._stamp
        while True:
            await sleep(TLS_CHECK_INTERVAL_S)
            stamp = self._tls.stamp()
            if stamp == last != in_force:  # changed, and not being written any more
                in_force = stamp
                await self._renew(self._tls)
            last = stamp

    async def _renew(self, tls: TlsFiles) -> None:
        try:
            context = tls.context()
        except ConfigError as error:
            _log.error("the certificate was not renewed, the old one stays in force", error=str(error))
            return
        old, self._sites = self._sites, []
        for listening in [sock for site in old for sock in _sockets(site)]:
            await self._take(listening, context)
        for site in old:
            await site.stop()
        _log.info("the certificate was renewed")

    async def _take(self, listening: socket.socket, context: ssl.SSLContext | None) -> None:
        site = web.SockSite(self._runner, listening, backlog=BACKLOG_CONNECTIONS_MAX, ssl_context=context)
        await site.start()
        self._sites.append(site)


def url_of(address: tuple[Any, ...], *, tls: bool) -> str:  # Any: an address is made of what its family has
    """Return the URL of a bound address."""
    bound, number = address[:2]
    scheme = "https" if tls else "http"
    return f"{scheme}://[{bound}]:{number}" if ":" in bound else f"{scheme}://{bound}:{number}"


def cannot_listen(port: int, error: OSError, allowed: Callable[[str], str]) -> ConfigError:
    """Return what to say where nothing can listen.

    Args:
        port: As the settings have it.
        error: What the system said.
        allowed: Says what a variable allows.
    """
    if isinstance(error, socket.gaierror):
        return ConfigError(f"HOST: found a name without an address; allowed: {allowed('HOST')}")
    reason = os.strerror(error.errno or 0)
    return ConfigError(
        f"PORT: found {port}, where nothing can listen ({reason}); allowed: a free port, on a HOST that is an "
        "address of this machine"
    )


def _sockets(site: web.BaseSite) -> list[socket.socket]:
    """Return copies of a site's listening sockets. aiohttp has no public way to them."""
    server = site._server  # noqa: SLF001
    assert server is not None
    return [socket.socket(fileno=os.dup(each.fileno())) for each in getattr(server, "sockets", ())]
