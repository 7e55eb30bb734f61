"""TLS: the server's certificate, the authority of its clients, and the names a client proved.

TLS 1.2 and later, OpenSSL's own choice of ciphers. With a client authority, a client without a certificate of it does not
get past the handshake.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Sequence
from typing import NamedTuple

from pcs_backend.errors import ConfigError

TLS_CHECK_INTERVAL_S = 2.0
"""How often certificate files are looked at."""

Stamp = tuple[tuple[int, int] | None, ...]
"""Of each file, what changes when it does."""


class TlsFiles(NamedTuple):
    """Where the server's certificate lies.

    Attributes:
        certificate: Path of the certificate chain, PEM.
        key: Path of its private key, PEM, not encrypted.
        client_authority: Path of the authorities of client certificates, PEM; empty if clients need none.
    """

    certificate: str
    key: str
    client_authority: str

    def context(self) -> ssl.SSLContext:
        """Read the files into the context of a listening socket.

        Raises:
            ConfigError: One cannot be used; the message names its variable.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            # Without a password OpenSSL would ask the terminal for that of an encrypted key.
            context.load_cert_chain(self.certificate, self.key, password="")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"TLS_CERT and TLS_KEY: found files that cannot be used ({_reason(error)}); allowed: a certificate chain "
                "and its unencrypted private key, PEM"
            ) from None
        if self.client_authority:
            try:
                context.load_verify_locations(self.client_authority)
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"TLS_CLIENT_CA: found a file that cannot be used ({_reason(error)}); allowed: certificates, PEM"
                ) from None
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def stamp(self) -> Stamp:
        """Return what changes when one of the files does."""
        stamps: list[tuple[int, int] | None] = []
        for path in filter(None, self):
            try:
                found = os.stat(path)
            except OSError:
                stamps.append(None)
            else:
                stamps.append((found.st_mtime_ns, found.st_ino))
        return tuple(stamps)


def certificate_names(transport: asyncio.BaseTransport | None) -> Sequence[str]:
    """Return the names in the client's certificate, which the handshake has checked; none without one."""
    certificate = None if transport is None else transport.get_extra_info("peercert")
    if not certificate:
        return ()
    names = [value for kind, value in certificate.get("subjectAltName", ()) if kind in {"DNS", "URI"}]
    if not names:  # an old certificate: only a common name
        names = [
            value for parts in certificate.get("subject", ()) for kind, value in parts if kind == "commonName"
        ]
    return names


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not PEM").replace("_", " ").lower()
    return os.strerror(error.errno or 0) if isinstance(error, OSError) else "a key that is encrypted"
