"""Nothing that is computed by blocks depends on how rows are kept, read or multiplied."""

from __future__ import annotations

import json
import subprocess
import sys

import msgspec
import numpy as np
import pytest

from pcs_agent.signals import ArrayBlocks, SignalSettings, coherence, compute_signals, derived
from pcs_agent.signals.blocks import block_rows, cut_blocks
from processes import clean_environment

SETTINGS = SignalSettings(directions=60)


@pytest.mark.parametrize("columns", [3, 100])
def test_what_is_computed_again_equals_what_was_kept(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(columns).normal(size=(3_000, columns))
    kept = compute_signals(rows, SETTINGS)
    monkeypatch.setattr(derived, "HELD_VALUES_MAX", 0)
    monkeypatch.setattr(coherence, "PROJECTION_VALUES_MAX", 0)
    assert compute_signals(rows, SETTINGS) == kept


@pytest.mark.parametrize("columns", [1, 7, 2_000])
def test_blocks_have_one_size_however_rows_come(columns: int) -> None:
    rows = np.random.default_rng(0).random((2_500, columns))
    expected = list(ArrayBlocks(rows))
    assert [len(block) for block in expected[:-1]] == [block_rows(columns)] * (len(expected) - 1)
    for part in (1, 999, 2_500):
        parts = (rows[first : first + part] for first in range(0, len(rows), part))
        for found, block in zip(cut_blocks(parts, columns), expected, strict=True):
            np.testing.assert_array_equal(found, block)
            assert found.flags.c_contiguous


PROGRAM = """
import json, msgspec, numpy
from pcs_agent.signals import SignalSettings, compute_signals
rows = numpy.random.Generator(numpy.random.PCG64(1)).normal(size=(5_000, 300))
print(msgspec.json.encode(compute_signals(rows, SignalSettings())).decode())
"""


@pytest.mark.slow
def test_the_threads_of_blas_change_nothing() -> None:
    """Each element of a product is summed by one thread, in one order; what is not a product is not left to BLAS."""
    found = set()
    for threads in ("1", "2", "3"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=clean_environment(OPENBLAS_NUM_THREADS=threads),
            capture_output=True,
            check=True,
            timeout=120,
        )
        found.add(done.stdout)
    assert len(found) == 1
    signals = json.loads(found.pop())
    rows = np.random.Generator(np.random.PCG64(1)).normal(size=(5_000, 300))
    assert signals == json.loads(msgspec.json.encode(compute_signals(rows, SignalSettings())))
