"""All signals of a window: leaves, compressibility, and the safe defaults."""

from __future__ import annotations

import hashlib
import struct
import zlib

import numpy as np
import pytest

from pcs_agent.fallbacks import Fallback, is_degraded
from pcs_agent.signals import SignalSettings, compute_signals
from pcs_agent.signals.shift import shift_ratio

SETTINGS = SignalSettings()
EMPTY_ROOT = hashlib.sha256().hexdigest()


def test_leaves_are_the_columns_in_order_as_little_endian_doubles() -> None:
    first, second = struct.pack("<2d", 1.5, -2.0), struct.pack("<2d", 3.0, 0.25)
    leaves = [hashlib.sha256(b"\0" + leaf).digest() for leaf in (first, second)]
    signals = compute_signals(np.array([[1.5, -2.0], [3.0, 0.25]]), SETTINGS)
    assert signals.merkle_root == hashlib.sha256(b"\1" + b"".join(leaves)).hexdigest()


def test_leaves_do_not_depend_on_the_memory_layout() -> None:
    events = np.random.default_rng(0).random((50, 3))
    assert compute_signals(np.asfortranarray(events), SETTINGS) == compute_signals(events, SETTINGS)


def test_compressibility_by_zlib_is_the_ratio_of_level_6() -> None:
    events = np.tile(np.arange(4.0), (500, 1))
    raw = events.astype("<f8").tobytes()
    signals = compute_signals(events, SignalSettings(r_method="zlib"))
    assert signals.r == len(zlib.compress(raw, 6)) / len(raw)
    assert signals.fallbacks == (Fallback.COUNTS_AT_ONE,)
    assert not is_degraded(signals.fallbacks)
    assert signals.methods == {}


def test_leaves_that_grow_are_clamped_and_not_degraded() -> None:
    signals = compute_signals(np.random.default_rng(1).random((2, 1)), SETTINGS)
    assert (signals.r, signals.fallbacks) == (1.0, (Fallback.R_CLAMPED, Fallback.COUNTS_SATURATED))
    assert not is_degraded(signals.fallbacks)


def test_one_event_gets_the_safe_defaults_and_says_so() -> None:
    signals = compute_signals(np.array([[1.0] * 40]), SETTINGS)
    assert signals.n_j == {2: 1, 4: 1, 8: 1, 16: 1, 32: 1}
    assert (signals.coh_star, signals.v_star) == (0.0, [])
    assert signals.fallbacks == (Fallback.TOO_FEW_EVENTS,)
    assert is_degraded(signals.fallbacks)
    assert signals.r < 1


def test_no_event_gets_the_root_of_the_empty_tree() -> None:
    signals = compute_signals(np.empty((0, 1)), SETTINGS)
    assert (signals.merkle_root, signals.r, signals.coh_star, signals.v_star) == (EMPTY_ROOT, 1.0, 0.0, [])


def test_compression_in_chunks_equals_compression_at_once() -> None:
    events = np.random.default_rng(2).integers(0, 9, (200_000, 2)).astype(np.float64)
    raw = events.astype("<f8").tobytes()
    assert len(raw) > 1 << 20
    found = compute_signals(events, SignalSettings(directions=1, r_method="zlib")).r
    assert abs(found - len(zlib.compress(raw, 6)) / len(raw)) < 1e-4


def test_leaves_that_are_given_make_the_root_and_symbols_r() -> None:
    rows = np.random.default_rng(3).random((3, 2))
    leaves = [b"one ", b"two ", b"three"]
    hashed = [hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves]
    root = hashlib.sha256(
        b"\1" + hashlib.sha256(b"\1" + hashed[0] + hashed[1]).digest() + hashed[2]
    ).hexdigest()
    text = b"one two three" * 50
    signals = compute_signals(rows, SignalSettings(r_method="zlib"), leaves=leaves, symbols=text)
    plain = compute_signals(rows, SETTINGS)
    assert (signals.merkle_root, signals.r) == (root, len(zlib.compress(text, 6)) / len(text))
    assert (signals.n_j, signals.coh_star, signals.v_star) == (plain.n_j, plain.coh_star, plain.v_star)


def test_text_of_which_one_half_is_foreign_to_the_other_has_the_greater_shift() -> None:
    """It is in the methods of text, of 64 bytes or more, and of nothing else."""
    rows = np.random.default_rng(3).random((8, 2))
    lines = [b"the quick brown fox jumps ", b"over the lazy dog and back ", b"to where it was before; "] * 4

    def methods(text: bytes, settings: SignalSettings = SETTINGS) -> dict[str, object]:
        return dict(compute_signals(rows, settings, leaves=[b"x"] * 8, symbols=text).methods)

    alike, foreign = b"".join(lines), b"".join(lines[:6]) + bytes(range(128, 256))
    assert methods(alike)["shift"] == {"name": "deflate-cuts-1", "ratio": round(shift_ratio(alike), 9)}
    assert shift_ratio(alike) < 0.5
    assert shift_ratio(foreign) > 0.9
    assert "shift" in methods(alike[:64])
    assert "shift" not in methods(alike[:63])
    assert "shift" not in methods(alike, SignalSettings(r_method="zlib"))
    assert "shift" not in compute_signals(np.tile(rows, (3, 1)), SETTINGS).methods


def test_without_symbols_r_is_of_the_leaves() -> None:
    leaves = [b"again "] * 100
    settings = SignalSettings(r_method="zlib")
    signals = compute_signals(np.random.default_rng(4).random((100, 2)), settings, leaves=leaves)
    assert signals.r == len(zlib.compress(b"again " * 100, 6)) / 600


def test_not_as_many_leaves_as_events_is_an_error() -> None:
    with pytest.raises(ValueError, match="found 1 leaves and 2 events"):
        compute_signals(np.zeros((2, 1)), SETTINGS, leaves=[b"a"])
