"""Retention with many rows, small: the whole of `make bench-rows` with 50,000."""

from __future__ import annotations

import pytest

from store_rows import EXPIRED_SHARE, measure

ROWS = 50_000


@pytest.mark.slow
async def test_rows_are_moved_and_purged_while_outcomes_are_stored() -> None:
    """Nobody waits long for a lock, what has expired goes, and nothing else does."""
    report = await measure(ROWS, seconds=1.0)
    assert report.left == report.expected
    assert [(phase.name, phase.rows) for phase in report.phases[:2]] == [
        ("nothing", 0),
        ("purge", ROWS // EXPIRED_SHARE),
    ]
    assert min(len(phase.calls_s) for phase in report.phases) >= 1
    assert max(phase.longest_lock_wait_s for phase in report.phases) < 1
    assert report.longest_purge_s < 2
