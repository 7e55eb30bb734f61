"""Where a cut can fall: in which place of the product, at which system call, at which moment of it."""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass, field


class Place(enum.StrEnum):
    """What the product was doing when the cut came."""

    APPEND = "append"
    ROTATION = "rotation"
    SNAPSHOT = "snapshot"
    COMPACTION = "compaction"
    REPLAY = "replay"
    OUTBOX_APPEND = "outbox append"
    OUTBOX_ROTATION = "outbox rotation"
    OUTBOX_COMPACTION = "outbox compaction"
    OUTBOX_REPLAY = "outbox replay"

    @property
    def in_agent(self) -> bool:
        """Whether it is the agent that is in this place."""
        return self.value.startswith("outbox")


class Moment(enum.StrEnum):
    """When the cut comes, seen from one system call."""

    BEFORE = "before"
    DURING = "during"
    AFTER = "after"


MEMORY_PLACES = tuple(Place)
STORE_PLACES = (Place.APPEND, Place.ROTATION, Place.COMPACTION, Place.REPLAY)
"""Where the backend can be when a database keeps the outcomes: it writes no snapshot then."""

# The calls of each place, and up to which occurrence of it in that place the cut may wait.
_CALLS: dict[Place, dict[str, int]] = {
    Place.APPEND: {"writev": 8, "fdatasync": 8},
    Place.ROTATION: {"writev": 4, "fdatasync": 4, "open": 2, "ftruncate": 2, "fsync": 2},
    Place.SNAPSHOT: {"open": 1, "writev": 200, "fsync": 2, "rename": 1},
    Place.COMPACTION: {"unlink": 3, "fsync": 3},
    Place.REPLAY: {"read": 2, "open": 2, "fdatasync": 1, "fsync": 1},
    Place.OUTBOX_APPEND: {"writev": 20, "fdatasync": 20},
    Place.OUTBOX_ROTATION: {"writev": 4, "fdatasync": 4, "open": 2, "ftruncate": 2, "fsync": 2},
    Place.OUTBOX_COMPACTION: {"writev": 2, "fdatasync": 2, "unlink": 2, "fsync": 2},
    Place.OUTBOX_REPLAY: {"read": 2, "open": 2, "fdatasync": 1, "fsync": 1},
}
_CALLS_WITH_BACKLOG = {**_CALLS[Place.REPLAY], "fdatasync": 2, "writev": 1}
"""Of a replay that ends with outcomes being written."""

_DELAY_S_MAX = 0.002


@dataclass(frozen=True)
class Plan:
    """One cut.

    Attributes:
        place: Where.
        call: Name of the system call.
        nth: Which call of that name in that place, counted from the arming; from 1.
        moment: Before, during or after it.
        delay_s: For `DURING`, how long after its start. It may be over by then.
    """

    place: Place
    call: str
    nth: int
    moment: Moment
    delay_s: float


@dataclass(frozen=True)
class Orders:
    """What one process is to do.

    Attributes:
        program: `backend` or `agent`.
        arguments: Its command line.
        variables: Its environment.
        cut_folder: A folder of the file system that a cut shuts down; `None` if a cut is a kill and no more.
        segment_bytes: Size of a log's segments.
        interval_s: The backend's interval of housekeeping.
        compact_every: The agent's windows from compaction to compaction.
        gated: Whether the log is opened only when the process is armed.
        mutant: Name of what to break on purpose; empty for nothing.
    """

    program: str
    arguments: tuple[str, ...]
    variables: dict[str, str]
    cut_folder: str | None
    segment_bytes: int
    interval_s: float = 60.0
    compact_every: int = 1_000
    gated: bool = False
    mutant: str = ""


@dataclass
class Deck:
    """Deals places evenly and in random order, and plans cuts in them."""

    random: random.Random
    _left: dict[tuple[Place, ...], list[Place]] = field(default_factory=dict)

    def next_place(self, places: tuple[Place, ...]) -> Place:
        """Return a place; each of `places` comes once before any comes again."""
        left = self._left.setdefault(places, [])
        if not left:
            left += self.random.sample(places, len(places))
        return left.pop()

    def plan(self, place: Place, *, with_backlog: bool = False) -> Plan:
        """Return a random cut in that place; a replay may have a backlog whose outcomes go into the log."""
        calls = _CALLS_WITH_BACKLOG if with_backlog and place is Place.REPLAY else _CALLS[place]
        call, nth_max = self.random.choice(list(calls.items()))
        return Plan(
            place,
            call,
            self.random.randint(1, nth_max),
            self.random.choice(list(Moment)),
            self.random.uniform(0, _DELAY_S_MAX),
        )
