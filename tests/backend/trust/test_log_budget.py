"""What strangers can provoke fills no log."""

from __future__ import annotations

from pcs_backend.effects.logs import STRANGERS_LINES_PER_S_MAX, LogBudget


class Clock:
    now_s = 1_000.5

    def __call__(self) -> float:
        return self.now_s


def test_so_many_lines_a_second_and_no_more() -> None:
    clock = Clock()
    budget = LogBudget(clock)
    assert [budget.take() for _ in range(STRANGERS_LINES_PER_S_MAX + 2)] == [
        True
    ] * STRANGERS_LINES_PER_S_MAX + [False] * 2
    clock.now_s += 0.4
    assert not budget.take()
    clock.now_s += 0.2
    assert budget.take()
