"""The backend's errors. "Refused" is a fact about a request; "unavailable" is a fact about us, and is retried."""

from __future__ import annotations


class BackendError(Exception):
    """Base of every error that `pcs_backend` raises on purpose."""


class ConfigError(BackendError):
    """A setting that stops the start. The message names the variable and never holds a secret."""


class UnavailableError(BackendError):
    """Something this request needs cannot be had now (503): nothing was accepted, the client retries."""


class StoreUnavailableError(UnavailableError):
    """The dedup store does not answer, refuses, or is full. The request frame stays in the WAL."""


class InboxUnavailableError(UnavailableError):
    """The WAL cannot take the request, or its queue is full."""


class DataError(BackendError):
    """Data at rest that must not be ignored: the start is refused rather than made as if it were empty."""
