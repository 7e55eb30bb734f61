"""Windows that are read in chunks give what the same windows in memory give, bit for bit."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pcs_agent.errors import InputError
from pcs_agent.events import chunks, iter_chunked_windows, iter_windows, open_sources
from pcs_agent.events.chunks import Spool
from pcs_agent.signals import Signals, SignalSettings, compute_signals

SETTINGS = SignalSettings(directions=12)


def rows_of(count: int, columns: int) -> np.ndarray:
    return np.random.default_rng(count + columns).normal(size=(count, columns))


def signals_of(
    paths: Sequence[Path | str], window: int | None, chunk: int | None, stdin: bytes = b"", **options: object
) -> list[Signals]:
    with contextlib.ExitStack() as files:
        sources, _ = open_sources(
            [str(path) for path in paths],
            stdin=lambda: io.BytesIO(stdin),
            files=files,
            **options,  # type: ignore[arg-type]
        )
        windows = (
            iter_windows(sources, window) if chunk is None else iter_chunked_windows(sources, window, chunk)
        )
        found = [(window.number, compute_signals(window.events, SETTINGS)) for window in windows]
    assert [number for number, _ in found] == list(range(len(found)))
    return [signals for _, signals in found]


@pytest.mark.parametrize("window", [None, 700, 1024])
@pytest.mark.parametrize("chunk", [1, 333, 5000])
@pytest.mark.parametrize(
    "kind", ["rows", "columns", "float32", "big-endian", "one axis", "two files", "csv", "stdin"]
)
def test_chunked_windows_equal_windows_in_memory(
    tmp_path: Path, kind: str, window: int | None, chunk: int
) -> None:
    """Each kind of file: read where it is, or through a temporary file; 2,500 rows are three blocks."""
    if chunk == 1 and kind in {"csv", "stdin"}:
        chunk = 2  # parsing by single rows is slow
    path, stdin, options = tmp_path / "rows.npy", b"", {}
    rows = rows_of(2_500, 12)
    paths: list[Path | str] = [path]
    match kind:
        case "columns":
            np.save(path, np.asfortranarray(rows))
        case "float32":
            np.save(path, rows.astype(np.float32))
        case "big-endian":
            np.save(path, rows.astype(">f8"))
        case "one axis":
            np.save(path, rows[:, 0])
        case "two files":
            paths = [tmp_path / "a.npy", path]
            np.save(paths[0], rows[:900])
            np.save(path, rows[900:].astype(np.float32))
        case "csv":
            paths = [tmp_path / "rows.csv"]
            np.savetxt(paths[0], rows[:, :3], delimiter=",", header="a,b,c", comments="")
        case "stdin":
            buffer = io.BytesIO()
            np.save(buffer, rows)
            paths, stdin, options = ["-"], buffer.getvalue(), {"format_name": "npy"}
        case _:
            np.save(path, rows)
    expected = signals_of(paths, window, None, stdin, **options)
    assert len(expected) == (1 if window is None else -(-2_500 // window))
    assert signals_of(paths, window, chunk, stdin, **options) == expected


def test_chosen_columns_are_those_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    np.save(path, rows_of(50, 5))
    expected = signals_of([path], None, None, columns=["4", "0"])
    assert signals_of([path], None, 7, columns=["4", "0"]) == expected
    assert expected != signals_of([path], None, 7)


def test_a_file_that_changes_between_two_passes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    np.save(path, rows_of(50, 2))
    with contextlib.ExitStack() as files:
        sources, _ = open_sources([str(path)], stdin=io.BytesIO, files=files)
        (window,) = iter_chunked_windows(sources, None, 20)
        assert sum(len(block) for block in window.events) == 50
        os.utime(path, ns=(1, 1))
        with pytest.raises(InputError, match="changed while it was read"):
            list(window.events)


def test_a_number_that_is_not_finite_is_told_with_its_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    rows = rows_of(50, 2)
    rows[41, 1] = np.nan
    np.save(path, rows)
    with pytest.raises(InputError, match=r"row 42, column '1': found NaN"):
        signals_of([path], None, 20)


def test_a_file_shorter_than_its_header_tells_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    np.save(path, rows_of(50, 2))
    os.truncate(path, path.stat().st_size - 8)
    with pytest.raises(InputError, match="changed while it was read"):
        signals_of([path], None, 20)


def test_other_columns_in_the_next_file_are_refused(tmp_path: Path) -> None:
    paths = [tmp_path / "a.npy", tmp_path / "b.npy"]
    np.save(paths[0], rows_of(5, 2))
    np.save(paths[1], rows_of(5, 3))
    with pytest.raises(InputError, match=r"b\.npy: found 3 numeric columns; allowed: 2"):
        signals_of(paths, None, 20)


def test_a_window_of_too_many_events_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNKED_EVENTS_MAX", 40)
    for name, path in (("rows.npy", tmp_path / "rows.npy"), ("columns.npy", tmp_path / "columns.npy")):
        np.save(path, rows_of(41, 2) if name == "rows.npy" else np.asfortranarray(rows_of(41, 2)))
        with pytest.raises(InputError, match="window: found over 40 events"):
            signals_of([path], None, 20)
        assert len(signals_of([path], 40, 20)) == 2


def test_the_temporary_file_has_no_name_and_goes_with_its_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    opened = len(os.listdir("/proc/self/fd"))
    spool = Spool()
    spool.append(rows_of(10, 3))
    assert len(os.listdir("/proc/self/fd")) == opened + 1
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_array_equal(np.concatenate(list(spool.read(3, 4))), rows_of(10, 3))
    del spool
    assert len(os.listdir("/proc/self/fd")) == opened


def test_a_full_temporary_folder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(InputError, match="temporary folder: cannot be used: File too large"):
            spool.append(rows_of(1000, 3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_text_cannot_be_read_in_chunks() -> None:
    from pcs_agent.embed import TokenHashing
    from pcs_agent.events.source import Pieces

    class Source:
        name = "a source of text"

        def count(self) -> int | None:
            return None

        def batches(self, rows_max: int):
            yield Pieces([b"a", b"b"], TokenHashing())

    with pytest.raises(InputError, match="--chunk: found text or tokens"):
        list(iter_chunked_windows([Source()], None, 10))
