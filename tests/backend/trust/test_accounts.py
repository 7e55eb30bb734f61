"""What was spent, kept here or shared by processes: the same arithmetic, and no record more than the rate allows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from inboxes import Clock
from pcs_backend.trust import accounts
from pcs_backend.trust.accounts import Account, Accounts, OwnAccounts, SharedAccounts, new_shared_accounts
from pcs_backend.trust.limits import TenantLimiter
from pcs_backend.trust.token_bucket import TokenBucket
from pcs_core.keyring_file import TenantLimits

SPENDER = """
import sys, time
from pcs_backend.trust.accounts import SharedAccounts
from pcs_backend.trust.token_bucket import TokenBucket
bucket = TokenBucket(float(sys.argv[2]), lambda: 1.0, SharedAccounts(int(sys.argv[1])))
sys.stdin.read()
print(sum(bucket.take(3) == 0 for _ in range(int(sys.argv[3]))))
"""


@pytest.fixture
def handle() -> Iterator[int]:
    handle = new_shared_accounts()
    yield handle
    os.close(handle)


@pytest.fixture(params=["own", "shared"])
def kept(request: pytest.FixtureRequest, handle: int) -> Accounts:
    return OwnAccounts() if request.param == "own" else SharedAccounts(handle)


def test_records_are_counted_and_a_batch_passes_whole_or_not_at_all(kept: Accounts) -> None:
    clock = Clock()
    bucket = TokenBucket(10, clock, kept)
    assert [bucket.take(6), bucket.take(6), bucket.take(4), bucket.take(1)] == [0, 1, 0, 1]
    clock.move(0.5)
    assert [bucket.take(6), bucket.take(5), bucket.take(1)] == [1, 0, 1]


def test_more_than_a_burst_passes_when_full_and_is_owed(kept: Accounts) -> None:
    clock = Clock()
    bucket = TokenBucket(10, clock, kept)
    assert bucket.take(1) == 0
    assert bucket.take(100) == 1
    clock.move(0.11)
    assert [bucket.take(100), bucket.take(1)] == [0, 10]
    clock.move(9.0)
    assert bucket.take(1) == 1
    clock.move(0.11)
    assert [bucket.take(1), bucket.take(100)] == [0, 1]


def test_accounts_do_not_touch_each_other(kept: Accounts) -> None:
    clock = Clock()
    limits = {name: TenantLimits(rate=1.0, daily=2) for name in ("a", "b")}
    limiter = TenantLimiter(lambda: limits, clock, clock, kept)
    bucket = TokenBucket(1, clock, kept)
    assert [limiter.take("a"), limiter.take("a"), limiter.take("b"), bucket.take(1)] == [0, 1, 0, 0]
    clock.move(1.0)
    assert [limiter.take("a"), limiter.take("b"), bucket.take(1), bucket.take(1)] == [0, 0, 0, 1]
    clock.move(1.0)
    assert limiter.take("a") > 1


def test_processes_that_spend_at_once_spend_what_there_is_and_no_more(handle: int) -> None:
    spenders = [
        subprocess.Popen(
            [sys.executable, "-c", SPENDER, str(handle), "30000", "20000"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[handle],
        )
        for _ in range(2)
    ]
    for each in spenders:
        assert each.stdin is not None
        each.stdin.close()
        each.stdin = None
    passed = [int(each.communicate(timeout=60)[0]) for each in spenders]
    assert sum(passed) == 10_000


def test_two_processes_accounts_are_the_same_ones(handle: int) -> None:
    first, second = SharedAccounts(handle), SharedAccounts(handle)
    clock = Clock()
    assert TokenBucket(5, clock, first).take(3) == 0
    assert TokenBucket(5, clock, second).take(3) == 1


def test_where_all_places_are_taken_the_one_not_used_for_longest_makes_room(
    handle: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "ACCOUNTS_MAX", 4)
    kept, clock = SharedAccounts(handle), Clock()
    names = ["a", "b", "c", "d", "e"]
    for name in names:
        clock.move(0.001)
        assert kept.change(name, lambda account: account.draw(1.0, clock(), 1)) == 0
    spent = Counter(kept.change(name, lambda account: round(account.tokens)) for name in names[1:])
    assert spent == {0: 4}


def test_a_clock_that_stands_still_or_differs_a_little_gives_nothing_back() -> None:
    account = Account()
    assert account.draw(2.0, 10.0, 2) == 0
    assert account.draw(2.0, 9.5, 1) == 1
    assert account.draw(2.0, 10.0, 1) == 1
    assert account.tokens == 0.0
