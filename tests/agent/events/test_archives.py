"""Arrays side by side in an `.npz`, lists as coordinates in Arrow and Parquet, and what is wrong with such files."""

from __future__ import annotations

import contextlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from pcs_agent.errors import InputError
from pcs_agent.events import iter_windows, npz_rows, open_sources
from pcs_agent.events.numpy_rows import FORTRAN_STREAM_BYTES_MAX


def read(data: bytes, kind: str, **changes: Any) -> np.ndarray:
    with contextlib.ExitStack() as files:
        sources, _ = open_sources(
            ["-"], stdin=lambda: io.BytesIO(data), files=files, format_name=kind, **changes
        )
        return np.concatenate([found.events for found in iter_windows(sources, None)])


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def arrow(columns: dict[str, Any], *, stream: bool = False) -> bytes:
    table = pa.table(columns)
    file = io.BytesIO()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


def test_arrays_of_an_archive_stand_side_by_side() -> None:
    data = npz(
        t=np.arange(3, dtype=np.int16),
        at=np.asfortranarray([[1.5, 2], [3, 4], [5, 6]]),
        label=np.array(["a", "b", "c"]),
    )
    told: list[str] = []
    assert read(data, "npz", warn=told.append).tolist() == [[0, 1.5, 2], [1, 3, 4], [2, 5, 6]]
    assert told == ["standard input: columns left out: 'label' (not numeric, or of other than 1 or 2 axes)"]
    assert read(data, "npz", columns=("at",)).tolist() == [[1.5, 2], [3, 4], [5, 6]]


def test_an_archive_of_many_rows_is_read_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pcs_agent.events.source.BATCH_VALUES_MAX", 7)
    x, y = np.arange(100.0), np.random.default_rng(0).random((100, 2))
    np.savez(tmp_path / "a.npz", x=x, y=y)
    with contextlib.ExitStack() as files:
        sources, _ = open_sources([str(tmp_path / "a.npz")], stdin=io.BytesIO, files=files)
        assert sources[0].count() == 100
        batches = list(sources[0].batches(50))
    assert {len(batch) for batch in batches} == {2}
    np.testing.assert_array_equal(np.concatenate(batches), np.column_stack([x, y]))


def truncated(data: bytes) -> bytes:
    """Return the archive with the bytes of its member overwritten, its directory whole."""
    start = data.index(b".npy") + 200
    return data[:start] + b"\0" * 200 + data[start + 200 :]


NOISE = np.random.default_rng(1).random(1000)
NPZ_FAULTS: list[tuple[bytes, str]] = [
    (b"PK and nothing else", r"standard input: found no \.npz archive"),
    (npz(a=np.zeros(2), b=np.zeros(3)), r"found arrays of 2 and of 3 rows; allowed: the same number"),
    (npz(a=np.array(["secret"])), r"found 0 numeric columns"),
    (npz(a=np.array([1.0, np.nan])), r"member 'a': row 2, column '0': found NaN"),
    (npz(a=np.zeros((1, 4000)), b=np.zeros((1, 97))), r"found 4097 numeric columns; allowed: 1 to 4096"),
    (truncated(npz(a=NOISE)), r"member 'a': found damaged or encrypted bytes"),
]


@pytest.mark.parametrize(("data", "message"), NPZ_FAULTS, ids=[message for _, message in NPZ_FAULTS])
def test_faults_of_archives(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(data, "npz")
    assert "secret" not in str(caught.value)


def test_a_pickled_array_is_left_out_and_nothing_of_it_runs(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "sprung",)

    data = npz(a=np.array([Trap()], dtype=object), b=np.zeros(1))
    assert read(data, "npz").tolist() == [[0.0]]
    assert not (tmp_path / "sprung").exists()


def test_bounds_of_archives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz_rows, "MEMBERS_MAX", 2)
    with pytest.raises(InputError, match=r"found 3 members; allowed: up to 2"):
        read(npz(a=[1], b=[1], c=[1]), "npz")
    monkeypatch.setattr(npz_rows, "UNPACKED_BYTES_MAX", 100)
    assert len(read(npz(a=np.zeros(12)), "npz")) == 12
    with pytest.raises(InputError, match=r"found 104 bytes unpacked; allowed: up to 100"):
        read(npz(a=np.zeros(13)), "npz")


def test_a_header_that_tells_more_than_there_is_makes_nothing_of_that_size() -> None:
    rows = FORTRAN_STREAM_BYTES_MAX // 8
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": True, "shape": (rows, 2)})
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", header.getvalue())
    with pytest.raises(InputError, match=rf"found {16 * rows} bytes stored by columns"):
        read(file.getvalue(), "npz")


EMBEDDINGS = pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], type=pa.list_(pa.float32(), 2))


@pytest.mark.parametrize("kind", ["file", "stream", "parquet"])
def test_lists_of_one_length_are_coordinates(kind: str) -> None:
    columns = {"id": ["a", "b", "c"], "embedding": EMBEDDINGS, "t": [7, 8, 9]}
    if kind == "parquet":
        file = io.BytesIO()
        parquet.write_table(pa.table(columns), file)
        data = file.getvalue()
    else:
        data = arrow(columns, stream=kind == "stream")
    read_as = "parquet" if kind == "parquet" else "arrow"
    assert read(data, read_as).tolist() == [[1, 2, 7], [3, 4, 8], [5, 6, 9]]
    assert read(data, read_as, columns=("embedding",)).tolist() == [[1, 2], [3, 4], [5, 6]]


def test_batches_of_arrow_are_cut_to_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pcs_agent.events.source.BATCH_VALUES_MAX", 4)
    assert read(arrow({"e": EMBEDDINGS}), "arrow").tolist() == [[1, 2], [3, 4], [5, 6]]


def fixed(values: list[Any]) -> pa.Array:
    return pa.array(values, type=pa.list_(pa.float64(), 2))


GOOD = arrow({"x": np.arange(1000.0)})
ARROW_FAULTS: list[tuple[bytes, str]] = [
    (b"", r"standard input: found no Arrow IPC file or stream"),
    (b"ARROW1 and nothing else", r"found no Arrow IPC file or stream"),
    (b"not arrow", r"found no Arrow IPC file or stream"),
    (arrow({"x": ["secret"]}), r"found 0 numeric columns"),
    (arrow({"x": [1.0, None]}), r"row 2, column 'x': found null"),
    (arrow({"x": [1.0, float("nan")]}), r"row 2, column 'x': found NaN"),
    (arrow({"e": fixed([[1, 2], None])}), r"row 2, column 'e\[0\]': found null"),
    (arrow({"e": fixed([[1, 2], [3, None]])}), r"row 2, column 'e\[1\]': found null"),
    (arrow({"e": fixed([[1, 2], [3, float("inf")]])}), r"row 2, column 'e\[1\]': found an infinity"),
    (arrow({"x": np.arange(1000.0)}, stream=True)[:2000], r"row 1 and after: found a damaged Arrow document"),
]


@pytest.mark.parametrize(("data", "message"), ARROW_FAULTS, ids=[message for _, message in ARROW_FAULTS])
def test_faults_of_arrow(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(data, "arrow")
    assert "secret" not in str(caught.value)
