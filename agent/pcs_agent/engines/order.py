"""Results in the order of their tasks, with few of them under way or held, and a second try for what was lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TypeVar

from pcs_agent.engines.port import Engine, Lost

T = TypeVar("T")
R = TypeVar("R")

ATTEMPTS_MAX = 2
"""A task whose process died so often is given up: memory that ran out once does so again."""

AHEAD_PER_SLOT_MAX = 8
"""Tasks begun beyond the one whose result is due next, a slot: what a long one may hold up, and what is held meanwhile."""


def in_order(engine: Engine[T, R], tasks: Iterable[T]) -> Iterator[R | Lost]:
    """Yield the result of each task, in order; `Lost` of one whose process died `ATTEMPTS_MAX` times.

    Tasks are taken from the iterable as there is room for them.

    Args:
        engine: Open; closed by whoever opened it.
        tasks: Any number.

    Raises:
        EngineClosedError: The engine was closed meanwhile.
    """
    coming = enumerate(tasks)
    running: dict[int, T] = {}
    held: dict[int, R | Lost] = {}
    deaths: Counter[int] = Counter()
    due, is_more = 0, True
    while True:
        while is_more and len(running) < engine.slots and len(running) + len(held) < _ahead_max(engine):
            following = next(coming, None)
            if following is None:
                is_more = False
                break
            running[following[0]] = following[1]
            engine.submit(*following)
        if due in held:
            yield held.pop(due)
            due += 1
            continue
        if not running:
            return
        number, result = engine.wait()
        if isinstance(result, Lost):
            deaths[number] += result.blamed
            if deaths[number] < ATTEMPTS_MAX:
                engine.submit(number, running[number])
                continue
        del running[number]
        held[number] = result


def _ahead_max(engine: Engine[T, R]) -> int:
    return engine.slots * AHEAD_PER_SLOT_MAX
