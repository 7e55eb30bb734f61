"""The port of the engines: a few calls, so that each engine is a page and one test class runs over all of them."""

from __future__ import annotations

from typing import Generic, NamedTuple, Protocol, TypeVar

from pcs_agent.errors import AgentError

T_contra = TypeVar("T_contra", contravariant=True)
R = TypeVar("R")


class EngineClosedError(AgentError):
    """The engine was closed while somebody waited for it."""


class Lost(NamedTuple):
    """A task whose process ended before its result was there.

    Attributes:
        reason: How it ended, such as `signal 9`.
        blamed: Whether the task was being worked on; one that only waited behind it is not at fault.
    """

    reason: str
    blamed: bool = True


class Done(NamedTuple, Generic[R]):
    """What became of one task.

    Attributes:
        number: As given to `submit`.
        result: What the work returned, or that it was lost.
    """

    number: int
    result: R | Lost


class Engine(Protocol[T_contra, R]):
    """Works on tasks elsewhere. One thread submits and waits; any may close."""

    @property
    def slots(self) -> int:
        """How many tasks to have submitted at once, so that no process is idle while the caller is busy; ≥ 1."""

    def submit(self, number: int, task: T_contra) -> None:
        """Begin a task. It and its result can be pickled, and the work raises nothing.

        Args:
            number: Names the task; not in use by another that is under way.
            task: What is given to the work.
        """

    def wait(self) -> Done[R]:
        """Return what became of a task, the next that is through.

        Raises:
            EngineClosedError: The engine was closed.
        """

    def close(self) -> None:
        """End everything at once, what is under way included; a second call does nothing."""
