"""Whom the agent trusts over TLS, and what it shows of itself."""

from __future__ import annotations

import os
import ssl

from pcs_agent.errors import ConfigError


def client_context(*, ca_file: str, certificate: str, key: str, verify: bool) -> ssl.SSLContext:
    """Return the context of connections to the backend. TLS 1.2 and later; certificates are verified.

    Args:
        ca_file: Authorities to trust instead of the system's, PEM; empty for the system's.
        certificate: The agent's own certificate chain, PEM; empty if it has none.
        key: Its private key, PEM.
        verify: `False` takes any certificate, from anybody.

    Raises:
        ConfigError: A file cannot be used; the message names its variable.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"TLS_CA_FILE: found a file that cannot be used ({_reason(error)}); allowed: certificates, PEM"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate:
        try:
            # Without a password OpenSSL would ask the terminal for that of an encrypted key.
            context.load_cert_chain(certificate, key, password="")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"TLS_CLIENT_CERT and TLS_CLIENT_KEY: found files that cannot be used ({_reason(error)}); allowed: a "
                "certificate chain and its unencrypted private key, PEM"
            ) from None
    return context


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not PEM").replace("_", " ").lower()
    return os.strerror(error.errno or 0) if isinstance(error, OSError) else "a key that is encrypted"
