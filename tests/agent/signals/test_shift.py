"""Shift: what neither part of a text tells of the other."""

from __future__ import annotations

import numpy as np

from pcs_agent.signals.shift import REACH_BYTES, shift_ratio


def letters(seed: int, first: int, count: int) -> bytes:
    return bytes(np.random.default_rng(seed).integers(first, first + 26, count, dtype=np.uint8))


def test_parts_that_share_nothing_have_a_shift_of_one_and_equal_ones_far_less() -> None:
    lower, upper = letters(1, 97, 600), letters(2, 65, 600)
    assert shift_ratio(lower + upper) > 0.99
    assert shift_ratio(lower * 2) < 0.6


def test_a_change_anywhere_between_the_cuts_is_seen() -> None:
    words = [letters(number, 97, 5) for number in range(40)]
    others = [letters(number, 65, 5) for number in range(40)]
    rng = np.random.default_rng(3)
    first, second = (
        b" ".join(each[place] for place in rng.integers(40, size=400)) for each in (words, others)
    )
    healthy = shift_ratio(first)
    for share in (0.35, 0.5, 0.65):
        cut = round(len(first) * share)
        assert shift_ratio(first[:cut] + second[cut:]) > healthy + 0.03


def test_order_of_the_parts_does_not_matter_at_equal_cuts() -> None:
    lower, upper = letters(4, 97, 500), letters(5, 65, 500)
    assert abs(shift_ratio(lower + upper) - shift_ratio(upper + lower)) < 0.01


def test_three_bytes_are_enough() -> None:
    assert 0 < shift_ratio(b"abc") <= 1.5


def test_bytes_out_of_reach_of_every_cut_are_not_looked_at() -> None:
    size = 12 * REACH_BYTES  # 35 % and 65 % of it are farther than the reach from either end
    text = letters(6, 97, size)
    near = 2 * REACH_BYTES
    other = letters(7, 65, near) + text[near:-near] + letters(8, 65, near)
    assert shift_ratio(other) == shift_ratio(text)
    assert shift_ratio(text[:-near] + text[:near]) == shift_ratio(text)
