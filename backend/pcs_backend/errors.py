"""The backend's errors. "Refused" is a fact about a request; "unavailable" is a fact about us, and is retried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pcs_backend.dedup.store import Placed


def place_of(error: BaseException) -> str:
    """Return file and line where an exception was raised, without its message: that may quote a payload."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return (
        "" if trace is None else f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
    )


class BackendError(Exception):
    """Base of every error that `pcs_backend` raises on purpose."""


class ConfigError(BackendError):
    """A setting that stops the start. The message names the variable and never holds a secret."""


class UnavailableError(BackendError):
    """Something this request needs cannot be had now (503): nothing was accepted, the client retries."""


class StoreUnavailableError(UnavailableError):
    """The dedup store does not answer, refuses, or is full. The request frame stays in the WAL."""


class PartlyUnavailableError(StoreUnavailableError):
    """The store is up, and cannot do all of what it was asked.

    Attributes:
        placed: Of outcomes that were put, what became of each; `None` for those of which nothing did.
    """

    def __init__(self, message: str, placed: Sequence[Placed | None] = ()) -> None:
        super().__init__(message)
        self.placed = placed


class OutcomeUnreadableError(PartlyUnavailableError):
    """An outcome in the store is none that this version can read."""


class StoreFullError(PartlyUnavailableError):
    """The store has no room for more outcomes. Those it has are answered."""


class InboxUnavailableError(UnavailableError):
    """The WAL cannot take the request, or its queue is full.

    Attributes:
        may_be_written: Whether some of the bytes may be on disk all the same, as after a failed sync.
    """

    def __init__(self, message: str, *, may_be_written: bool = False) -> None:
        super().__init__(message)
        self.may_be_written = may_be_written


class ScoreError(BackendError):
    """A score that cannot be made: its name, its parameters, or too few signals to fit it to."""


class TooLargeError(BackendError):
    """A body that would be larger than is allowed once it is inflated (413)."""


class DataError(BackendError):
    """Data at rest that must not be ignored: the start is refused rather than made as if it were empty."""


class AbandonedError(BackendError):
    """Long work over the data folder was given up, because the process is to stop."""
