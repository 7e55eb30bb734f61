"""A share of `make damage`, and that it would notice a log that finds or recovers less."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import damaged_segments
from damaged_segments import KINDS, run
from pcs_core.wal import scan
from pcs_core.wal.scan import SegmentScan

SEED = 20_261_121
DAMAGES, FILES = 4_000, 120


def test_every_damage_is_detected_and_everything_good_around_it_recovered() -> None:
    """Each kind hundreds of times; a failure names seed and number, and is drawn again by them."""
    tally = run(SEED, DAMAGES, FILES, processes=1)
    assert tally.problems == []
    assert tally.damages.total() == DAMAGES
    assert min(tally.damages[kind] for kind in KINDS) >= DAMAGES // len(KINDS)
    assert sum(tally.lost.values()) > DAMAGES, "most damages hit frames"


def ignore_seal(self: SegmentScan) -> None:
    if self._next_first is not None and self.tail_bytes:
        self._note(self.valid_bytes, self.tail_bytes, "frames")


def stop_at_damage(self: SegmentScan, offset: int) -> list[Any]:
    self._note(offset, len(self._data) - offset, "frames")
    self.valid_bytes = len(self._data)
    return []


MUTANTS: dict[str, tuple[object, str, Callable[..., Any] | property, str]] = {
    "the seal is not checked": (SegmentScan, "_conclude", ignore_seal, "not detected"),
    "reading ends at damage": (SegmentScan, "_sort_out", stop_at_damage, "frames ["),
    "frames of other segments are taken": (
        SegmentScan,
        "_ceiling",
        property(lambda self: float("inf")),
        "frames [",
    ),
    "any seal will do": (scan, "seal_matches", lambda *_: True, "not detected"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_run_notices_a_log_that_is_worse(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    target, attribute, replacement, found = MUTANTS[name]
    monkeypatch.setattr(target, attribute, replacement)
    problems = run(SEED, 600, 0, processes=1).problems
    assert [problem for problem in problems if found in problem] != []


def test_the_run_notices_an_opening_that_is_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise OSError(5, "refused")

    monkeypatch.setattr(damaged_segments, "opened", refuse)
    problems = run(SEED, 5, 5, processes=1).problems
    assert len(problems) == 5
    assert "start blocked: OSError" in problems[0]
