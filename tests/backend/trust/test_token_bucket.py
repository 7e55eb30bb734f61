"""The rate limit (contract §4 step 2), by an injected clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inboxes import Clock
from pcs_backend.trust.token_bucket import TokenBucket


def test_burst_is_as_large_as_one_seconds_worth() -> None:
    bucket = TokenBucket(5, Clock())
    assert [bucket.take(1) for _ in range(7)] == [0, 0, 0, 0, 0, 1, 1]


def test_tokens_come_back_at_the_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(4, clock)
    assert [bucket.take(1) for _ in range(5)] == [0, 0, 0, 0, 1]
    clock.move(0.25)
    assert [bucket.take(1), bucket.take(1)] == [0, 1]
    clock.move(0.5)
    assert [bucket.take(1) for _ in range(3)] == [0, 0, 1]


def test_a_long_rest_saves_up_no_more_than_the_burst() -> None:
    clock = Clock()
    bucket = TokenBucket(3, clock)
    clock.move(3_600)
    assert [bucket.take(1) for _ in range(4)] == [0, 0, 0, 1]


def test_what_is_refused_takes_nothing() -> None:
    clock = Clock()
    bucket = TokenBucket(2, clock)
    assert [bucket.take(1) for _ in range(50)] == [0, 0] + [1] * 48
    clock.move(0.5)
    assert bucket.take(1) == 0


def test_zero_is_no_limit() -> None:
    bucket = TokenBucket(0, Clock())
    assert {bucket.take(1_000) for _ in range(100)} == {0}


@pytest.mark.parametrize(("rate", "wait_s"), [(0.1, 10), (0.4, 3), (1, 1), (1_000, 1)])
def test_wait_is_whole_seconds_and_never_zero(rate: float, wait_s: int) -> None:
    clock = Clock()
    bucket = TokenBucket(rate, clock)
    while (found_s := bucket.take(1)) == 0:
        pass
    assert found_s == wait_s
    clock.move(wait_s)
    assert bucket.take(1) == 0


@pytest.mark.parametrize(
    ("rate", "policy"),
    [(5, "q=5;w=1"), (2.5, "q=2;w=1"), (0.4, "q=1;w=3"), (0.001, "q=1;w=1000"), (1_000_000, "q=1000000;w=1")],
)
def test_quota_is_the_burst_in_the_time_it_takes_to_come_back(rate: float, policy: str) -> None:
    headers = TokenBucket(rate, Clock()).quota.headers(7)
    assert headers["RateLimit-Policy"] == f'"records";{policy}'
    assert headers["Retry-After"] == "7"


def test_quota_says_what_is_left_and_a_debt_is_nothing_left() -> None:
    bucket = TokenBucket(5, Clock())
    left = []
    for records in (1, 2, 1, 5):
        bucket.take(records)
        left.append(bucket.quota.left)
    assert left == [4, 2, 1, 1]
    clock = Clock()
    owing = TokenBucket(5, clock)
    owing.take(50)
    assert owing.quota.headers(owing.take(1))["RateLimit"] == '"records";r=0;t=10'


@given(
    rate=st.floats(0.05, 500),
    gaps_s=st.lists(st.floats(0, 5), max_size=60),
)
def test_no_more_pass_than_burst_and_rate_allow_and_the_wait_is_long_enough(
    rate: float, gaps_s: list[float]
) -> None:
    clock = Clock()
    bucket = TokenBucket(rate, clock)
    passed, started_s = 0, clock()
    for gap_s in gaps_s:
        clock.move(gap_s)
        wait_s = bucket.take(1)
        if wait_s:
            assert isinstance(wait_s, int)
            assert wait_s >= 1
            clock.move(wait_s + 1e-6)  # the clock's own rounding
            assert bucket.take(1) == 0
        passed += 1
    assert passed <= max(1, rate) + rate * (clock() - started_s) + 1e-3
