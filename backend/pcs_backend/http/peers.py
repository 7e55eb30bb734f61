"""Who sent a request, by certificate: the connection's own, or the one that a trusted proxy passes on.

A proxy ends the TLS of its clients, so the connection shows the proxy's certificate and not theirs. It says whose
certificate it checked in `Client-Cert` (RFC 9440). That header counts only on a connection whose own certificate has the
name in `TLS_PROXY_NAME`; from anybody else it is not read. The proxy must overwrite what its clients send there.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import warnings
from collections.abc import Callable, Container, Sequence

from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import NameOID
from multidict import MultiMapping

from pcs_backend.errors import UnavailableError
from pcs_backend.http.tls import certificate_names

CLIENT_CERT_HEADER = "Client-Cert"

CERTIFICATES_CACHED_MAX = 1_024
"""Certificates passed on whose names are remembered, so that not every request decodes one."""

_UNREADABLE = "Client-Cert: the proxy sent something that is not one certificate"


class Peers:
    """Names the client of a request."""

    def __init__(self, known: Callable[[], Container[str]], proxy_name: str) -> None:
        """Choose whom to believe.

        Args:
            known: Names bound to a tenant; of several names in one certificate such a one is taken before the first.
            proxy_name: Name in the certificate of the proxy that may speak for others; empty if there is none.
        """
        self._known = known
        self._proxy_name = proxy_name

    def name(self, transport: asyncio.BaseTransport | None, headers: MultiMapping[str]) -> str:
        """Return the name in the client's certificate, which handshake or proxy has checked; empty without one.

        Args:
            transport: Of the connection.
            headers: Of the request.

        Raises:
            UnavailableError: The proxy passes on what is no certificate, so nobody knows who the client is.
        """
        names = certificate_names(transport)
        if self._proxy_name and self._proxy_name in names:
            names = _passed_on(headers.getall(CLIENT_CERT_HEADER, ()))
        known = self._known()
        return next((name for name in names if name in known), names[0] if names else "")


def _passed_on(values: Sequence[str]) -> Sequence[str]:
    """Return the names in the certificate that a proxy passes on; none if its client showed none."""
    if len(values) > 1:  # one of them may be the client's own
        raise UnavailableError(_UNREADABLE)
    text = "".join(values).strip()
    return () if text in {"", "::"} else _decode(text)


@functools.lru_cache(CERTIFICATES_CACHED_MAX)
def _decode(text: str) -> tuple[str, ...]:
    """Return the names in a certificate: base64 of DER between two colons.

    Raises:
        UnavailableError: It is none.
    """
    try:
        if len(text) < 2 or not text[0] == text[-1] == ":":
            raise ValueError
        with warnings.catch_warnings():
            # Of numbers that the standard forbids, say: the proxy has let them pass, and the log is no place for prose.
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            certificate = x509.load_der_x509_certificate(base64.b64decode(text[1:-1], validate=True))
            return _names(certificate)
    except (
        binascii.Error,
        ValueError,
        x509.DuplicateExtension,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
    ):
        pass
    raise UnavailableError(_UNREADABLE)


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return what `certificate_names` returns of a certificate that a handshake checked."""
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = []
    else:
        names = [
            each.value
            for each in alternatives
            if isinstance(each, x509.DNSName | x509.UniformResourceIdentifier)
        ]
    if not names:
        subject = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        names = [each.value for each in subject if isinstance(each.value, str)]
    return tuple(names)
