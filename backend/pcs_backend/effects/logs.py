"""Logs: JSON lines on standard error, from the start.

No line holds a payload, a key or a signature: our own lines name `pcs_id`, status and counts, and every string in them
is redacted. Libraries' lines are reduced to who spoke, how loudly and the kind of exception, because their messages
quote what they were given.
"""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import EventDict

from pcs_core.ports import WallClock
from pcs_core.redact import redact_event

STRANGERS_LINES_PER_S_MAX = 10
"""Lines a second about requests that are refused."""


def configure_logs(level: str, *, worker: int | None = None) -> None:
    """Set up structlog and the standard library's root logger.

    Args:
        level: `DEBUG`, `INFO`, `WARNING` or `ERROR`.
        worker: Named in every line, where there are several.
    """

    def name_worker(_logger: object, _name: str, event: EventDict) -> EventDict:
        if worker is not None:
            event["worker"] = worker
        return event

    structlog.configure(
        processors=[
            name_worker,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact_event,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_LibraryHandler()]
    root.setLevel(max(logging.getLevelName(level), logging.WARNING))


class LogBudget:
    """Keeps what strangers can provoke from filling the log: so many lines a second, the rest is only counted."""

    def __init__(self, now: WallClock, lines_per_s: int = STRANGERS_LINES_PER_S_MAX) -> None:
        """Start with a whole second's worth.

        Args:
            now: Seconds.
            lines_per_s: Lines a second.
        """
        self._now = now
        self._lines_per_s = lines_per_s
        self._second = 0
        self._left = lines_per_s

    def take(self) -> bool:
        """Whether one more line may be written."""
        if (second := int(self._now())) != self._second:
            self._second, self._left = second, self._lines_per_s
        self._left -= 1
        return self._left >= 0


class _LibraryHandler(logging.Handler):
    """Passes on that a library spoke, not what it said."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
        structlog.get_logger("library").log(
            record.levelno,
            "library message",
            logger=record.name,
            place=f"{record.module}:{record.lineno}",
            error=kind,
        )
