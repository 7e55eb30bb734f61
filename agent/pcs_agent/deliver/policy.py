"""What an answer means and how long to wait: pure rules, no clock, no network."""

from __future__ import annotations

import enum
import re
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import msgspec

from pcs_agent.deliver.transport import Answer
from pcs_agent.outbox.entry import Verdict

BACKOFF_BASE_S = 0.5
"""Upper bound of the first wait; it doubles with every attempt."""

BACKOFF_S_MAX = 30.0
"""No wait of our own choosing is longer."""

RETRY_AFTER_S_MAX = 300.0
"""A backend that asks for a longer wait gets this one."""

WARNING_INTERVAL_S = 60.0
"""Failures that are retried are told of at most so often."""

REFUSALS_MAX = 3
"""So many refusals of one kind pause delivery, or, where others were taken meanwhile, make a dead letter."""

_RECORD_FAULTS = frozenset({400, 413, 422})
_TRANSIENT = frozenset({408, 425, 429})
_DOUBLINGS_MAX = 32
REASONS_MAX = 16
_CODE = re.compile(r"[a-z0-9_]{1,64}")


class Meaning(enum.Enum):
    """What an answer tells the courier to do.

    Attributes:
        TAKEN: The backend has the record: acknowledge.
        REJECTED: The record itself is at fault and will never pass: dead letter at once.
        REFUSED: 401: key or signature are at fault; usually not this record's alone.
        MISDIRECTED: Something that is no PCS backend answered, or not under this path: so is the endpoint at fault.
        RETRY: Try again later.
    """

    TAKEN = "taken"
    REJECTED = "rejected"
    REFUSED = "refused"
    MISDIRECTED = "misdirected"
    RETRY = "retry"


class Receipt(msgspec.Struct, frozen=True):
    """The part of a 200 or 202 body the agent reads (contract §4). Other fields are ignored."""

    pcs_id: str
    accepted: bool
    escalated: bool
    reasons: list[str] = []


def read_receipt(answer: Answer, pcs_id: str) -> Receipt | None:
    """Return the receipt if the answer really is the backend's about this record, else `None`."""
    if answer.status not in {200, 202} or answer.truncated:
        return None
    try:
        receipt = msgspec.json.decode(answer.body, type=Receipt)
    except (ValueError, RecursionError):  # not JSON, not a receipt, not UTF-8, or nested without end
        return None
    return receipt if receipt.pcs_id == pcs_id else None


def reasons_of(receipt: Receipt) -> str:
    """Return the backend's reason codes, comma-separated, bounded, and fit for a terminal whatever was sent."""
    codes = receipt.reasons[:REASONS_MAX]
    return ", ".join(code if _CODE.fullmatch(code) else "unreadable" for code in codes)


def verdict_of(receipt: Receipt) -> Verdict:
    """Return how the backend judged."""
    return Verdict.ACCEPTED if receipt.accepted else Verdict.ESCALATED


def classify(status: int) -> Meaning:
    """Return what a status means, the body of a 200 or 202 aside.

    >>> classify(503), classify(400), classify(301)
    (<Meaning.RETRY: 'retry'>, <Meaning.REJECTED: 'rejected'>, <Meaning.MISDIRECTED: 'misdirected'>)
    """
    if status in {200, 202}:
        return Meaning.TAKEN
    if status in _RECORD_FAULTS:
        return Meaning.REJECTED
    if status == 401:
        return Meaning.REFUSED
    if status in _TRANSIENT or status >= 500 or status < 300:  # another 2xx is some proxy's
        return Meaning.RETRY
    return Meaning.MISDIRECTED


class Taken(NamedTuple):
    """The backend has the record: acknowledge.

    Attributes:
        verdict: Accepted or escalated.
        reasons: The backend's reason codes, comma-separated.
        conflict: Whether it holds another record under this pcs_id.
    """

    verdict: Verdict
    reasons: str = ""
    conflict: bool = False


class Rejected(NamedTuple):
    """The record will never pass: dead letter, and why."""

    reason: str


class Refused(NamedTuple):
    """Key, signature or endpoint are at fault; usually not this record's alone."""

    status: int


class Again(NamedTuple):
    """Nothing is decided: send it again.

    Attributes:
        why: For people.
        retry_after_s: What the backend asked to wait, if it did.
        at_once: Whether there is nothing to wait for: what was wrong is the form of the request, which will be another.
    """

    why: str
    retry_after_s: float | None = None
    at_once: bool = False


Decision = Taken | Rejected | Refused | Again


def decide(answer: Answer, pcs_id: str, now_s: float) -> Decision:
    """Return what an answer to one record means for it.

    Args:
        answer: To a single submit, or one of a batch's.
        pcs_id: The record's.
        now_s: Seconds since 1970, by the backend's clock if that is known.
    """
    meaning = classify(answer.status)
    if meaning is Meaning.TAKEN:
        receipt = read_receipt(answer, pcs_id)
        if receipt is None:
            return Again(f"status {answer.status} without this record's receipt")
        return Taken(verdict_of(receipt), reasons_of(receipt), answer.conflict)
    if meaning is Meaning.RETRY:
        return Again(f"status {answer.status}", parse_retry_after(answer.retry_after, now_s))
    if meaning is Meaning.REJECTED:
        return Rejected(f"rejected: status {answer.status}")
    if answer.mistimed:  # says nothing of the key; by now the clock is known
        return Again(f"status {answer.status}, signed by a clock that was off")
    return Refused(answer.status)


def advise(status: int) -> str:
    """Return what to look at when answers with this status pause delivery.

    >>> advise(404).partition(":")[0]
    'check ENDPOINT'
    """
    if classify(status) is Meaning.REFUSED:
        return (
            "check the key: the backend takes none that signed these records. After a change of PCS_SIGN_ALG or its "
            "key here: pcs-agent outbox flush --resign"
        )
    return "check ENDPOINT: no PCS backend takes records there. After a change: pcs-agent outbox flush"


def next_delay(attempt: int, random: float) -> float:
    """Return the wait after an attempt, in seconds: capped exponential backoff with full jitter.

    Args:
        attempt: The attempt that failed, from 1.
        random: Uniform in [0, 1).

    >>> next_delay(1, 0.5), next_delay(3, 0.5), next_delay(100, 0.5)
    (0.25, 1.0, 15.0)
    """
    ceiling_s = min(BACKOFF_S_MAX, BACKOFF_BASE_S * 2.0 ** min(attempt - 1, _DOUBLINGS_MAX))
    return random * ceiling_s


def parse_retry_after(text: str | None, now_s: float) -> float | None:
    """Return the wait a `Retry-After` asks for in seconds, 0 … `RETRY_AFTER_S_MAX`; `None` if it says nothing usable.

    Args:
        text: Whole seconds or an HTTP date.
        now_s: Seconds since 1970, by the backend's clock if that is known.

    >>> parse_retry_after("7", 0.0), parse_retry_after("Thu, 01 Jan 1970 00:00:09 GMT", 4.0), parse_retry_after("soon", 0.0)
    (7.0, 5.0, None)
    """
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        wait_s = float(text[:10])
    else:
        moment_s = parse_http_date(text)
        if moment_s is None:
            return None
        wait_s = moment_s - now_s
    return min(max(wait_s, 0.0), RETRY_AFTER_S_MAX)


def parse_http_date(text: str) -> float | None:
    """Return an HTTP date in seconds since 1970, or `None` if it is none."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
