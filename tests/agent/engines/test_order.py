"""Results in order, bounded, and tried again; over an engine that hands them back as a test says."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pcs_agent.engines import Done, Lost, in_order
from pcs_agent.engines.order import AHEAD_PER_SLOT_MAX, ATTEMPTS_MAX


class Scripted:
    """An engine whose next result is that of the task `choose` picks among those submitted."""

    def __init__(self, slots: int, choose: Callable[[list[int]], int]) -> None:
        self.slots = slots
        self.submitted: list[int] = []
        self.losses: dict[int, list[Lost]] = {}
        self._open: dict[int, str] = {}
        self._choose = choose

    def submit(self, number: int, task: str) -> None:
        assert number not in self._open
        self.submitted.append(number)
        self._open[number] = task

    def wait(self) -> Done[str]:
        assert len(self._open) <= self.slots
        number = self._choose(sorted(self._open))
        task = self._open.pop(number)
        losses = self.losses.get(number)
        return Done(number, losses.pop(0) if losses else task.upper())

    def close(self) -> None:
        self._open.clear()


def tasks(count: int, taken: list[int]) -> Iterator[str]:
    for number in range(count):
        taken.append(number)
        yield f"task {number}"


@pytest.mark.parametrize("choose", [min, max])
def test_results_come_in_the_order_of_the_tasks_whichever_is_through_first(
    choose: Callable[[list[int]], int],
) -> None:
    engine = Scripted(4, choose)
    assert list(in_order(engine, tasks(50, []))) == [f"TASK {number}" for number in range(50)]
    assert engine.submitted == list(range(50))


def test_no_more_are_begun_or_held_than_there_is_room_for() -> None:
    engine, taken = Scripted(2, max), []
    results = in_order(engine, tasks(1_000, taken))
    assert next(results) == "TASK 0"  # the first is through last
    assert len(taken) == 2 * AHEAD_PER_SLOT_MAX
    results.close()


def test_what_is_lost_once_is_tried_again_and_what_is_lost_again_is_given_up() -> None:
    engine = Scripted(2, min)
    engine.losses = {1: [Lost("signal 9")], 2: [Lost("signal 9")] * ATTEMPTS_MAX}
    assert list(in_order(engine, tasks(4, []))) == ["TASK 0", "TASK 1", Lost("signal 9"), "TASK 3"]


def test_what_only_waited_behind_a_death_is_tried_again_as_often_as_that_happens() -> None:
    engine = Scripted(2, min)
    engine.losses = {0: [Lost("signal 9", blamed=False)] * 5}
    assert list(in_order(engine, tasks(2, []))) == ["TASK 0", "TASK 1"]


def test_without_tasks_nothing_is_asked_of_the_engine() -> None:
    engine = Scripted(2, min)
    assert list(in_order(engine, [])) == []
    assert engine.submitted == []
