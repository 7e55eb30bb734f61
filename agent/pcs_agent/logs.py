"""Structured logs on standard error: one JSON object a line, or lines for people where that is a terminal.

They hold pcs_id, status, counts; never a payload or a key. Every string in them is redacted.
"""

from __future__ import annotations

import sys

import orjson
import structlog
from structlog.typing import Processor

from pcs_agent.streams import print_error
from pcs_core.redact import redact_event


def configure_logs(level: str) -> None:
    """Send logs of this level and above to standard error.

    Args:
        level: One of `pcs_agent.config.LOG_LEVELS`.
    """
    timestamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    renderer: Processor = structlog.processors.JSONRenderer(
        serializer=lambda event, **_: orjson.dumps(event).decode("ascii", "replace")
    )
    if sys.stderr.isatty():
        timestamp = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)
        # Its own way with exceptions shows local variables.
        renderer = structlog.dev.ConsoleRenderer(
            pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
        )
    structlog.configure(
        processors=[structlog.processors.add_log_level, timestamp, redact_event, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _StandardError(),
        cache_logger_on_first_use=False,
    )


class _StandardError:
    """Writes lines to what standard error is at that moment."""

    def msg(self, line: str) -> None:
        print_error(line)

    # structlog calls the method of the line's level.
    debug = info = warning = error = critical = msg
