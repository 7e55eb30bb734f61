"""Redaction of personal data in strings that users choose: shard names, fallback codes, file names.

Applied wherever such a string reaches a log, a metric, a terminal or a report. It errs on the side of redacting: a long
run of digits that might be a telephone number is one.
"""

from __future__ import annotations

import re

EMAIL_MARK = "[email]"
TELEPHONE_MARK = "[phone]"

_EMAIL = re.compile(r"[^\s@<>,;:\"'()\[\]|/]+@[^\s@<>,;:\"'()\[\]|/]+\.[^\s@<>,;:\"'()\[\]|/.]{2,}")
# 7 to 15 digits (E.164), at most two separators between two of them, not inside a longer word or number: an epoch
# time or a hex digest is no telephone number.
_TELEPHONE = re.compile(r"(?<![\w.])(?:\+|00)?\(?\d(?:[ ./()-]{0,2}\d){6,14}(?![\w])", re.ASCII)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def redact(text: str) -> str:
    """Replace e-mail addresses and telephone numbers.

    >>> redact("runs/anna.smith@example.org/+1 (555) 010-9999")
    'runs/[email]/[phone]'
    >>> redact("shard-a 2026-11-21")
    'shard-a 2026-11-21'
    """
    text = _EMAIL.sub(EMAIL_MARK, text)
    return _TELEPHONE.sub(lambda match: match[0] if _DATE.fullmatch(match[0]) else TELEPHONE_MARK, text)
