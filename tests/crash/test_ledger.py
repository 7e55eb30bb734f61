"""What counts as lost and what as doubled; and that cuts are dealt evenly over the places."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from crash.ledger import Ledger, Tally
from crash.plan import MEMORY_PLACES, Deck
from processes import Answer

FIRST = Answer(202, {}, b"first")
AGAIN = Answer(202, {"Idempotent-Replayed": "true"}, b"first")


@pytest.fixture(name="ledger")
def _ledger() -> Ledger:
    """A ledger with one acknowledged, escalated record, checked and taken off the queue."""
    ledger = Ledger(Tally())
    ledger.send("a", b"body")
    assert ledger.note_answer("a", FIRST) is True
    ledger.checked()
    return ledger


def counts(ledger: Ledger) -> tuple[int, int, int]:
    return ledger.tally.acknowledged, ledger.tally.lost, ledger.tally.doubled


@pytest.mark.parametrize(
    ("answer", "lost"),
    [
        (AGAIN, 0),
        (None, 1),
        (FIRST, 1),
        (AGAIN._replace(body=b"other"), 1),
        (AGAIN._replace(status=200), 1),
        (AGAIN._replace(status=503), 1),
    ],
)
def test_an_acknowledged_record_must_be_answered_with_the_same_bytes_as_a_replay(
    ledger: Ledger, answer: Answer | None, lost: int
) -> None:
    ledger.check_answer("a", answer)
    assert counts(ledger) == (1, lost, 0)


@pytest.mark.parametrize(
    ("answers", "doubled"),
    [
        ([FIRST, AGAIN], 0),
        ([AGAIN, FIRST], 0),  # sent twice at once, the answers overtaking one another
        ([FIRST, FIRST], 1),
        ([FIRST, AGAIN._replace(body=b"other")], 1),
    ],
)
def test_in_one_life_a_record_has_one_first_outcome(answers: list[Answer], doubled: int) -> None:
    ledger = Ledger(Tally())
    ledger.send("a", b"body")
    for answer in answers:
        ledger.note_answer("a", answer)
    assert counts(ledger) == (1, 0, doubled)


@pytest.mark.parametrize(
    ("listed", "lost", "doubled"), [(["a"], 0, 0), ([], 1, 0), (["a", "a"], 0, 1), (["a", "b"], 0, 1)]
)
def test_the_queue_holds_what_was_escalated_once(
    ledger: Ledger, listed: list[str], lost: int, doubled: int
) -> None:
    ledger.check_queue(listed)
    assert counts(ledger) == (1, lost, doubled)


def test_what_was_taken_off_the_queue_stays_off(ledger: Ledger) -> None:
    ledger.dequeued.add("a")
    ledger.check_queue([])
    assert counts(ledger) == (1, 0, 0)
    ledger.check_queue(["a"])
    assert counts(ledger) == (1, 0, 1)


def test_places_are_dealt_evenly_and_plans_fall_in_them() -> None:
    deck = Deck(random.Random(1))
    dealt = Counter(deck.next_place(MEMORY_PLACES) for _ in range(5 * len(MEMORY_PLACES)))
    assert dealt == dict.fromkeys(MEMORY_PLACES, 5)
    assert [deck.plan(place).place for place in MEMORY_PLACES] == list(MEMORY_PLACES)
