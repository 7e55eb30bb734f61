"""Redaction of personal data in strings that users choose: shard names, fallback codes, file names.

Applied wherever such a string reaches a log, a metric, a terminal or a report. It errs on the side of redacting: a long
run of digits that might be a telephone number is one.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any

EMAIL_MARK = "[email]"
TELEPHONE_MARK = "[phone]"

# The lengths are SMTP's (RFC 5321 §4.5.3.1). Without them a long string costs the square of its length.
_EMAIL = re.compile(
    r"[^\s@<>,;:\"'()\[\]|/]{1,64}@[^\s@<>,;:\"'()\[\]|/]{1,255}\.[^\s@<>,;:\"'()\[\]|/.]{2,}"
)
# 7 to 15 digits (E.164), at most two separators between two of them, not inside a longer word or number: a hex digest
# is no telephone number.
_TELEPHONE = re.compile(r"(?<![\w.])(?:\+|00)?\(?\d(?:[ ./()-]{0,2}\d){6,14}(?![\w])", re.ASCII)
_DATE = re.compile(r"((?<!\d)(?:19|20)\d{2}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])(?!\d))", re.ASCII)
# Seconds or milliseconds since 1970, alone and bare. Ten digits beginning with 1 are no number one could dial in North America.
_EPOCH_TIME = re.compile(r"1\d{9}(?:\d{3})?", re.ASCII)


def redact(text: str) -> str:
    """Replace e-mail addresses and telephone numbers.

    >>> redact("runs/anna.smith@example.org/+1 (555) 010-9999")
    'runs/[email]/[phone]'
    >>> redact("shard-a 2026-11-21 1763712930")
    'shard-a 2026-11-21 1763712930'
    """
    between_dates = _DATE.split(_EMAIL.sub(EMAIL_MARK, text))
    between_dates[::2] = [_TELEPHONE.sub(_mark_unless_time, part) for part in between_dates[::2]]
    return "".join(between_dates)


def redact_event(
    logger: object, name: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:  # Any: a log line's values, as structlog types them
    """Redact every string of a log line but its time and its `pcs_id`: a processor for structlog.

    Args:
        logger: Not used.
        name: Not used.
        event: The line; changed in place.
    """
    del logger, name
    for key, value in event.items():
        if isinstance(value, str) and key not in {"timestamp", "pcs_id"}:
            event[key] = redact(value)
    return event


def _mark_unless_time(match: re.Match[str]) -> str:
    return match[0] if _EPOCH_TIME.fullmatch(match[0]) else TELEPHONE_MARK
