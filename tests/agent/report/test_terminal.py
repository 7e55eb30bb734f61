"""The report as text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from rich.cells import cell_len

from pcs_agent.report.portrait import compare_events, count_along
from pcs_agent.report.streams import Streams
from pcs_agent.report.terminal import TERMINAL_WINDOWS_MAX, draw_bars, draw_map, print_streams
from window_views import view


def test_a_loop_is_diagonals_in_the_map() -> None:
    rows = np.tile(np.array([0.0, 1.0, 5.0, 9.0]), 2)[:, None]
    lines = draw_map(compare_events(rows, first=0, step=1))
    assert lines == ["▀▄  ▀▄  ", "  ▀▄  ▀▄", "▀▄  ▀▄  ", "  ▀▄  ▀▄"]


def test_a_map_stays_in_its_bounds_and_a_long_loop_stays_visible() -> None:
    rows = np.tile(np.random.default_rng(2).random((40, 3)), (6, 1))
    lines = draw_map(compare_events(rows, first=0, step=1))
    assert {len(line) for line in lines} == {48}
    assert len(lines) == 24
    # 240 events on 48 dots: a loop of 40 is 8 dots, and each line of two dots has two in each of six rounds.
    assert {line.count("▀") + line.count("▄") for line in lines} == {12}
    assert all(line[8:] == line[:-8] for line in lines)


def test_an_odd_number_of_rows_leaves_the_last_half_blank() -> None:
    assert draw_map(compare_events(np.array([[0.0], [1.0], [5.0]]), first=0, step=1)) == ["▀▄ ", "  ▀"]


def test_a_bar_with_one_event_is_not_blank() -> None:
    assert draw_bars(count_along(np.array([0.0] * 800 + [1.0]), 4)) == "█  ▁"


def test_the_text_has_the_numbers_and_no_colour_where_there_is_no_terminal(
    kinds: dict[str, str], gather_files: Callable[..., Streams], capsys: pytest.CaptureFixture[str]
) -> None:
    streams = gather_files(kinds["looping"], kinds["truncated"])
    counts = list(streams)[1].windows()[0].counts
    print_streams(streams)
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert max(map(cell_len, text.splitlines())) <= 110
    assert "regimes  mmmm" in text
    assert "r        ██▁▁" in text
    assert "100 % of events are the same as the one 40 events on" in " ".join(text.replace("│", " ").split())
    assert "! fallback r_clamped in 1 window" in text
    assert (
        "  ".join(f"{scale}:{count}" for scale, count in zip((2, 4, 8, 16, 32), counts, strict=True)) in text
    )
    assert text.count("A healthy stream") == 5


def test_hostile_names_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    streams = Streams()
    for key in ("a", "b"):
        streams.add(key, "[bold]x[/bold] [link=http://example.org]", [view(1, pcs_id=key)])
    print_streams(streams)
    shown = capsys.readouterr().out
    assert shown.count("[bold]x[/bold] [link=http://example.org]") == 4


def test_long_streams_show_their_newest_windows(capsys: pytest.CaptureFixture[str]) -> None:
    streams = Streams()
    streams.add("a", "a", [view(epoch) for epoch in range(50)])
    print_streams(streams)
    text = capsys.readouterr().out
    rows = [
        line.split()[1]
        for line in text.splitlines()
        if "checks hold" in line and line[2:].lstrip()[0].isdigit()
    ]
    assert [row for row in rows if row.isdigit()][-TERMINAL_WINDOWS_MAX:] == [
        str(epoch) for epoch in range(30, 50)
    ]
    assert f"… the last {TERMINAL_WINDOWS_MAX} of 50 windows" in text
