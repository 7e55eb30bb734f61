"""What happened in a run, in order: a hash that two runs of one seed must share, and the last lines for whoever looks."""

from __future__ import annotations

import hashlib
import random
from collections import Counter, deque
from collections.abc import Callable

TAIL_LINES_MAX = 60


class Trace:
    """Events of one run.

    Attributes:
        events: How many there were.
        faults: Injected faults by kind.
        tail: The last lines.
    """

    def __init__(self, now: Callable[[], float], *, echo: bool = False) -> None:
        self._now = now
        self._echo = echo
        self._hash = hashlib.sha256()
        self.events = 0
        self.faults: Counter[str] = Counter()
        self.tail: deque[str] = deque(maxlen=TAIL_LINES_MAX)

    def note(self, what: str, *more: object) -> None:
        """Add an event. Nothing in it may depend on addresses, hashes of strings or the real time."""
        line = f"{self._now():.6f} {what}"
        for each in more:
            line += f" {each}"
        self._hash.update(line.encode())
        self.events += 1
        self.tail.append(line)
        if self._echo:
            print(line)

    def fault(self, kind: str, *more: object) -> None:
        """Add an event that is an injected fault."""
        self.faults[kind] += 1
        self.note(f"fault {kind}", *more)

    @property
    def digest(self) -> str:
        """Hash of all events so far."""
        return self._hash.hexdigest()


class Dice:
    """Random numbers of one seed, in streams by name: what one part draws moves no other part."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._streams: dict[str, random.Random] = {}

    def __call__(self, name: str) -> random.Random:
        """Return the stream of that name."""
        if name not in self._streams:
            self._streams[name] = random.Random(f"{self._seed}/{name}")
        return self._streams[name]
