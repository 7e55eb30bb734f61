"""How many requests may be under way, from how busy the loop is."""

from __future__ import annotations

import contextlib
import time

import pytest

from pcs_backend.http import overload
from pcs_backend.http.overload import (
    BURST_S,
    BUSY_SHARE,
    REQUESTS_MIN,
    REQUESTS_STANDING_MAX,
    TICK_INTERVAL_S,
    BusyClock,
    Overload,
)

REQUESTS_MAX = 4_096


class Service:
    """A service whose loop is looked at while requests are under way."""

    def __init__(self, requests: int) -> None:
        self.overload = Overload(REQUESTS_MAX)
        self.now_s = 100.0
        for _ in range(requests):
            self.overload.enter()

    def look(self, times: int, busy_share: float) -> None:
        for _ in range(times):
            self.now_s += TICK_INTERVAL_S
            self.overload.tick(self.now_s, busy_share)


def test_hundreds_may_wait_for_disk_or_store_while_the_loop_rests() -> None:
    service = Service(requests=REQUESTS_STANDING_MAX)
    service.look(1_000, busy_share=BUSY_SHARE * 0.99)
    assert service.overload.limit == REQUESTS_MAX


def test_more_than_hundreds_may_for_a_burst_and_then_no_more_come() -> None:
    service = Service(requests=1_000)
    service.look(int(BURST_S / TICK_INTERVAL_S), busy_share=0.1)
    assert service.overload.limit == REQUESTS_MAX
    service.look(100, busy_share=0.1)
    assert service.overload.is_full
    assert service.overload.limit == REQUESTS_STANDING_MAX


def test_only_the_bound_counts_for_a_moment() -> None:
    service = Service(requests=REQUESTS_MAX - 1)
    service.look(1, busy_share=1.0)
    assert not service.overload.is_full
    service.overload.enter()
    assert service.overload.is_full
    service.overload.leave()
    assert not service.overload.is_full


def test_a_burst_is_served() -> None:
    service = Service(requests=1_000)
    service.look(int(BURST_S / TICK_INTERVAL_S), busy_share=0.95)
    assert service.overload.limit == REQUESTS_MAX
    for _ in range(1_000):
        service.overload.leave()
    service.look(1, busy_share=0.1)
    for _ in range(1_000):
        service.overload.enter()
    service.look(int(BURST_S / TICK_INTERVAL_S), busy_share=0.95)
    assert service.overload.limit == REQUESTS_MAX


def test_a_queue_that_stands_is_not() -> None:
    service = Service(requests=1_000)
    service.look(int(BURST_S / TICK_INTERVAL_S) + 2, busy_share=0.95)
    assert service.overload.limit < 1_000
    assert service.overload.is_full
    service.look(100, busy_share=0.95)
    assert service.overload.limit == REQUESTS_MIN, "so many are taken however busy the loop is"


def test_sixty_four_are_always_taken() -> None:
    service = Service(requests=REQUESTS_MIN - 1)
    service.look(1_000, busy_share=1.0)
    assert not service.overload.is_full


def test_what_was_refused_lately_has_had_its_burst() -> None:
    service = Service(requests=1_000)
    service.look(100, busy_share=0.95)
    service.look(10, busy_share=0.1)
    recovered = service.overload.limit
    assert recovered > REQUESTS_MIN
    service.look(1, busy_share=0.95)
    assert service.overload.limit < recovered


def test_a_loop_that_rests_again_lifts_the_limit_and_is_then_left_alone() -> None:
    service = Service(requests=1_000)
    service.look(100, busy_share=0.95)
    for _ in range(1_000):
        service.overload.leave()
    assert service.overload.needs_ticks
    looks = 0
    while service.overload.needs_ticks:
        service.look(1, busy_share=0.1)
        looks += 1
    assert service.overload.limit == REQUESTS_MAX
    assert looks * TICK_INTERVAL_S < 1.0


def test_an_idle_service_is_not_looked_at() -> None:
    assert not Service(requests=REQUESTS_MIN - 1).overload.needs_ticks
    assert Service(requests=REQUESTS_MIN).overload.needs_ticks


@pytest.mark.parametrize("path", [overload._SCHEDSTAT, "/nowhere"])
def test_a_thread_that_works_is_busy(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overload, "_SCHEDSTAT", path)
    with contextlib.closing(BusyClock()) as busy_s:
        began_s = busy_s()
        used_s = time.thread_time()
        while time.thread_time() - used_s < 0.05:
            pass
        assert busy_s() - began_s >= 0.045
