"""Adding up what seeds showed, and saying it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from simulation.world import Result


@dataclass
class Summary:
    """What some seeds showed.

    Attributes:
        seeds: How many were run.
        failed: Those that broke a promise.
        simulated_s: Virtual time of all.
        faults: Injected faults by kind.
        figures: What was done.
    """

    seeds: int = 0
    failed: list[Result] = field(default_factory=list)
    simulated_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    figures: Counter[str] = field(default_factory=Counter)

    def add(self, result: Result) -> None:
        """Take one seed's result in."""
        self.seeds += 1
        self.simulated_s += result.simulated_s
        self.faults += result.faults
        self.figures += result.figures
        if result.violations:
            self.failed.append(result)

    def lines(self) -> Iterator[str]:
        """Say it, the verdict last."""
        width = max(map(len, self.faults), default=0)
        yield from (f"  {kind:{width}}  {self.faults[kind]:8}" for kind in sorted(self.faults))
        done = ", ".join(f"{count} {name}" for name, count in sorted(self.figures.items()))
        yield f"{done}; everything acknowledged was asked for again"
        violations = sum(len(each.violations) for each in self.failed)
        yield (
            f"seeds {self.seeds} faults {self.faults.total()} simulated hours {self.simulated_s / 3_600:.1f} "
            f"violations {violations}"
        )


def describe_failure(result: Result) -> Iterator[str]:
    """Say what a seed broke, its last events, and how to see it again."""
    yield from (f"  {line}" for line in result.tail)
    yield from (f"seed {result.seed}: {violation}" for violation in result.violations)
    yield f"the same again, event by event: make simulate SEED={result.seed}"
