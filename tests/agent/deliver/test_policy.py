"""What answers mean, and how long waits are."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcs_agent.deliver.policy import (
    BACKOFF_S_MAX,
    RETRY_AFTER_S_MAX,
    Meaning,
    classify,
    next_delay,
    parse_retry_after,
    read_receipt,
    reasons_of,
)
from pcs_agent.deliver.transport import Answer

PCS_ID = "ab" * 32


@pytest.mark.parametrize(
    ("meaning", "statuses"),
    [
        (Meaning.TAKEN, [200, 202]),
        (Meaning.REJECTED, [400, 413, 422]),
        (Meaning.REFUSED, [401]),
        (Meaning.MISDIRECTED, [301, 302, 307, 308, 403, 404, 405, 415]),
        (Meaning.RETRY, [201, 204, 408, 425, 429, 500, 502, 503, 504, 599]),
    ],
)
def test_what_a_status_means(meaning: Meaning, statuses: list[int]) -> None:
    assert {classify(status) for status in statuses} == {meaning}


@given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True))
def test_waits_are_jittered_over_the_whole_range_and_capped(attempt: int, random: float) -> None:
    """Full jitter: any wait from nothing to a bound that doubles up to the cap."""
    bound = 0.5 * 2.0 ** min(attempt - 1, 10)
    assert next_delay(attempt, random) == pytest.approx(random * min(bound, BACKOFF_S_MAX))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0.0),
        (" 30 ", 30.0),
        ("99999999999999999999999", RETRY_AFTER_S_MAX),
        ("Tue, 14 Nov 2023 22:13:40 GMT", 20.0),
        ("Tue, 14 Nov 2023 22:13:00 GMT", 0.0),
        ("Fri, 14 Nov 2053 22:13:00 GMT", RETRY_AFTER_S_MAX),
        ("-5", None),
        ("1.5", None),
        ("", None),
        ("tomorrow", None),
        (None, None),
    ],
)
def test_retry_after(text: str | None, expected: float | None) -> None:
    assert parse_retry_after(text, 1_700_000_000.0) == expected


def receipt(**changes: object) -> bytes:
    return json.dumps(
        {"pcs_id": PCS_ID, "accepted": True, "escalated": False, "reasons": []} | changes
    ).encode()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"<html>welcome</html>"),
        Answer(200, b""),
        Answer(200, b"[]"),
        Answer(200, receipt(pcs_id="cd" * 32)),
        Answer(200, receipt(accepted="yes")),
        Answer(200, receipt(), truncated=True),
        Answer(201, receipt()),
    ],
)
def test_what_is_no_receipt(answer: Answer) -> None:
    assert read_receipt(answer, PCS_ID) is None


def test_a_receipt_with_fields_of_a_later_version_is_one() -> None:
    found = read_receipt(Answer(202, receipt(accepted=False, escalated=True, later={"x": 1})), PCS_ID)
    assert found is not None
    assert (found.accepted, found.escalated) == (False, True)


def test_reasons_that_a_terminal_would_obey_are_not_repeated() -> None:
    found = read_receipt(Answer(202, receipt(accepted=False, reasons=["degraded", "\x1b[2J"])), PCS_ID)
    assert found is not None
    assert reasons_of(found) == "degraded, unreadable"
