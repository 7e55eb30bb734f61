"""Every format gives the same events, and every fault names file, row and column."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import feather, parquet

from pcs_agent.errors import InputError
from pcs_agent.events import iter_windows, open_sources
from pcs_agent.events import source as source_module
from pcs_agent.events.columns import LEFT_OUT_NAMED_MAX

EVENTS = np.array([[1.0, -2.5], [0.5, 1e300], [3.0, 5e-324]])


def read(*paths: str, stdin: bytes = b"", window: int | None = None, **changes: Any) -> list[np.ndarray]:
    with contextlib.ExitStack() as files:
        sources, _ = open_sources(paths, stdin=lambda: io.BytesIO(stdin), files=files, **changes)
        return [found.events for found in iter_windows(sources, window)]


def write_csv(path: Path, events: np.ndarray) -> None:
    rows = "".join(f"e{index},{x!r},{y!r}\n" for index, (x, y) in enumerate(events.tolist()))
    path.write_text("name,x,y\n" + rows, encoding="utf-8")


def write_jsonl(path: Path, events: np.ndarray) -> None:
    rows = [{"name": "e", "ok": True, "x": x, "y": y} for x, y in events.tolist()]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")


def write_npz(path: Path, events: np.ndarray) -> None:
    np.savez_compressed(path, name=np.array(["e"] * len(events)), x=events[:, 0], y=events[:, 1])


def write_arrow(path: Path, events: np.ndarray) -> None:
    table = pa.table({"name": ["e"] * len(events), "x": events[:, 0], "y": events[:, 1]})
    opened = pa.ipc.new_stream if path.suffix == ".arrows" else pa.ipc.new_file
    with opened(str(path), table.schema) as writer:
        for batch in table.to_batches(max_chunksize=2):
            writer.write_batch(batch)


def write_parquet(path: Path, events: np.ndarray) -> None:
    table = pa.table({"name": ["e"] * len(events), "x": events[:, 0], "y": events[:, 1]})
    parquet.write_table(table, path, row_group_size=2)


WRITERS: dict[str, Any] = {
    "csv": write_csv,
    "jsonl": write_jsonl,
    "npy": np.save,
    "npz": write_npz,
    "parquet": write_parquet,
    "arrow": write_arrow,
    "arrows": write_arrow,
    "feather": lambda path, events: feather.write_feather(
        pa.table({"x": events[:, 0], "y": events[:, 1]}), str(path), compression="zstd"
    ),
}
FORMAT_OF = dict.fromkeys(("arrows", "feather"), "arrow")


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("by_stdin", [False, True])
def test_every_format_from_file_and_standard_input(kind: str, by_stdin: bool, tmp_path: Path) -> None:
    path = tmp_path / f"events.{kind}"
    WRITERS[kind](path, EVENTS)
    found = (
        read("-", stdin=path.read_bytes(), format_name=FORMAT_OF.get(kind, kind))
        if by_stdin
        else read(str(path))
    )
    np.testing.assert_array_equal(np.concatenate(found), EVENTS)


@pytest.mark.parametrize("kind", WRITERS)
def test_columns_are_chosen_by_name_or_position(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"events.{kind}"
    WRITERS[kind](path, EVENTS)
    columns = ("1", "0") if kind == "npy" else ("y", "x")
    np.testing.assert_array_equal(read(str(path), columns=columns)[0], EVENTS[:, ::-1])


@pytest.mark.parametrize("kind", WRITERS)
def test_an_unknown_column_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"events.{kind}"
    WRITERS[kind](path, EVENTS)
    with pytest.raises(InputError, match=rf"events\.{kind}: column 'nope': found no such"):
        read(str(path), columns=("nope",))


def test_csv_without_header_and_with_byte_order_mark() -> None:
    assert read("-", stdin=b"\xef\xbb\xbf1,2\r\n3,4\r\n")[0].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert read("-", stdin=b"1,2\n3,4\n", columns=("1",))[0].tolist() == [[2.0], [4.0]]


def test_arrays_as_json_lines() -> None:
    assert read("-", stdin=b"[1, 2]\n[3, 4.5]\n", format_name="jsonl")[0].tolist() == [[1.0, 2.0], [3.0, 4.5]]


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([1, 2, 3], dtype=np.int16), [[1.0], [2.0], [3.0]]),
        (np.array([[1, 2], [3, 4]], dtype=">f4"), [[1.0, 2.0], [3.0, 4.0]]),
        (np.asfortranarray([[1.0, 2.0], [3.0, 4.0]]), [[1.0, 2.0], [3.0, 4.0]]),
    ],
)
def test_arrays_of_other_layouts(array: np.ndarray, expected: list[list[float]], tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, array)
    assert read(str(path))[0].tolist() == expected
    assert read("-", stdin=path.read_bytes(), format_name="npy")[0].tolist() == expected


CSV_FAULTS: list[tuple[bytes, str]] = [
    (b"x,y\n1,2\n3\n", r"row 3: found 1 columns; allowed: 2"),
    (b"x,y\n1,2\n3,4,5\n", r"row 3: found 3 columns; allowed: 2"),
    (b"x,y\n1,2\n\n3,secret\n", r"row 4, column 'y': found text of length 6; allowed: a finite number"),
    (b"x,y\n1,2\n3,\n", r"row 3, column 'y': found an empty cell"),
    (b"x,y\n1,2\n3,nan\n", r"row 3, column 'y': found NaN"),
    (b"x,y\n1,2\n-inf,4\n", r"row 3, column 'x': found an infinity"),
    (b"x,y\n1,1e999\n", r"row 2, column 'y': found an infinity"),
    (b"1,NaN\n", r"row 1, column '1': found NaN"),
    (b"x\n1\n1_000\n", r"row 3, column 'x': found text of length 5"),
    (b"x\n1\n\xff\n", r"row 3: found bytes that are not UTF-8"),
    (b'x\n1\n"2\n', r"row 3: not CSV"),
    (b"x,y\na,b\n", r"found 0 numeric columns; allowed: 1 to 4096"),
    (b",".join([b"1"] * 4097) + b"\n", r"found 4097 numeric columns; allowed: 1 to 4096"),
    (b"x,y\n1,\n2,3\n", r"row 2, column 'y': found an empty cell in the first event.*--columns"),
    (b"x,y\n1, N/A\n2,3\n", r"row 2, column 'y': found a mark for a missing value in the first event"),
    (b"x,y\nnull,1\n2,3\n", r"row 2, column 'x': found a mark"),
    (b"x,y\n-,1\n2,3\n", r"row 2, column 'x': found a mark"),
    (b"x,y\n1,nan\n2,3\n", r"row 2, column 'y': found NaN"),
    (b"1,\n2,3\n", r"row 1: found numbers beside cells without a value"),
    (b"x;y\n1;2\n", r"found 0 numeric columns; .*is the separator a comma\? found semicolons"),
    (b"x\ty\n1\t2\n", r"found 0 numeric columns; .*found tabs"),
    (b"x;y\n1,5;2,5\n", r"row 2: found 3 columns; allowed: 1 .*found semicolons; decimal commas"),
    (b"1,5;2,5\n3,5;4,5\n", r"row 2, column '5;2': found several numbers in one cell; .*semicolons"),
    (b"x" * (source_module.LINE_BYTES_MAX + 1), r"row 1: found a line of over 1048576 bytes"),
]


@pytest.mark.parametrize(("data", "message"), CSV_FAULTS, ids=[message for _, message in CSV_FAULTS])
def test_faults_of_csv(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read("-", stdin=data)
    assert str(caught.value).startswith("standard input: ")
    assert "secret" not in str(caught.value)


JSONL_FAULTS: list[tuple[bytes, str]] = [
    (b'{"x":1}\n{"y":1}\n', r"row 2, column 'x': found nothing"),
    (b'{"x":1}\n{"x":"secret"}\n', r"row 2, column 'x': found a string of length 6"),
    (b'{"x":1}\n{"x":true}\n', r"row 2, column 'x': found a boolean"),
    (b'{"x":1}\n{"x":null}\n', r"row 2, column 'x': found null"),
    (b'{"x":1}\n{"x":NaN}\n', r"row 2, column 'x': found NaN"),
    (b'{"x":1}\n{"x":-Infinity}\n', r"row 2, column 'x': found an infinity"),
    (b'{"x":1}\n{"x":1e999}\n', r"row 2, column 'x': found an infinity"),
    (b'{"x":1}\n\n[1]\n', r"row 3: found a list of length 1; allowed: an object"),
    (b"[1,2]\n[1]\n", r"row 2: found a list of length 1; allowed: a list of length 2"),
    (b"[1,2]\n[1,[]]\n", r"row 2, column '1': found a list of length 0"),
    (b'"secret"\n', r"row 1: found a string of length 6; allowed: an object"),
    (b'{"x":1}\nsecret\n', r"row 2: found 7 bytes that are not JSON"),
    (b'{"x":"a"}\n', r"found 0 numeric columns"),
    (b'{"x":1,"y":null}\n', r"row 1, column 'y': found null in the first event.*--columns"),
    (b'{"x":1,"y":""}\n', r"row 1, column 'y': found a string without a value in the first event"),
    (b'{"x":1,"y":"n/a"}\n', r"row 1, column 'y': found a string without a value"),
    (b"[" * 200_000, r"row 1: found 200000 bytes that are not JSON"),
    (b'{"x":1}\n{"x":1' + b"0" * 400 + b"}\n", r"row 2, column 'x': found an infinity"),
]


@pytest.mark.parametrize(("data", "message"), JSONL_FAULTS, ids=[message for _, message in JSONL_FAULTS])
def test_faults_of_json_lines(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read("-", stdin=data, format_name="jsonl")
    assert "secret" not in str(caught.value)


def npy(array: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


NPY_FAULTS: list[tuple[bytes, str]] = [
    (
        npy(np.array([{}], dtype=object), allow_pickle=True),
        r"found an array of kind 'O'; allowed: integers or floats",
    ),
    (npy(np.array([True])), r"kind 'b'"),
    (npy(np.array([1j])), r"kind 'c'"),
    (npy(np.zeros((2, 2, 2))), r"found an array of 3 axes; allowed: 1 or 2"),
    (npy(np.array(1.0)), r"found an array of 0 axes"),
    (npy(np.zeros((1, 4097))), r"found 4097 numeric columns"),
    (npy(np.array([[1.0, 2.0], [3.0, np.nan]])), r"row 2, column '1': found NaN"),
    (npy(np.zeros(100))[:-8], r"fewer"),
    (b"not an array", r"found no \.npy header"),
    (b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((((", r"found no \.npy header"),
    (b"\x93NUMPY\x01\x00\x28\x23" + b"-" * 8999 + b"1", r"found no \.npy header"),
    (b"", r"found no \.npy header"),
]


@pytest.mark.parametrize(("data", "message"), NPY_FAULTS, ids=[message for _, message in NPY_FAULTS])
@pytest.mark.parametrize("by_stdin", [False, True])
def test_faults_of_npy(data: bytes, message: str, by_stdin: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message):
        read("-" if by_stdin else str(path), stdin=data, format_name="npy")


def parquet_bytes(columns: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.table(columns), file)
    return file.getvalue()


PARQUET_FAULTS: list[tuple[bytes, str]] = [
    (b"PAR1 and nothing else", r"found no Parquet document"),
    (parquet_bytes({"x": [1.0, None]}), r"row 2, column 'x': found null"),
    (parquet_bytes({"x": [1.0, float("inf")]}), r"row 2, column 'x': found an infinity"),
    (parquet_bytes({"x": ["a"]}), r"found 0 numeric columns"),
]


@pytest.mark.parametrize(("data", "message"), PARQUET_FAULTS, ids=[message for _, message in PARQUET_FAULTS])
def test_faults_of_parquet(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message):
        read(str(path))


def test_parquet_integers_and_decimals_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns = {
        "i": pa.array([1, 2**53 + 1]),
        "d": pa.array(["1.5", "2.5"]).cast(pa.decimal128(5, 2)),
        "b": [True, False],
    }
    parquet.write_table(pa.table(columns), path)
    assert read(str(path))[0].tolist() == [[1.0, 1.5], [2.0**53, 2.5]]


def test_inputs_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\[email\]: cannot be read: no such file"):
        read(str(tmp_path / "anna@example.org.csv"))
    with pytest.raises(InputError, match=r"found no known ending"):
        read(str(tmp_path / "events.dat"))
    with pytest.raises(InputError, match=r"named twice"):
        read("-", "-")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=r"folder\.csv: found a folder; allowed: a file"):
        read(str(tmp_path / "folder.csv"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"folder: found a folder; allowed: a file"):
        read(str(tmp_path / "folder"))


LEFT_OUT = {
    "csv": b"time,x,who anna@example.org\n2026,1,north\n2027,2,\n",
    "jsonl": b'{"time": "noon", "x": 1, "ok": true, "tags": [], "at": {}}\n{"x": 2}\n',
}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("csv", "a.csv: columns left out: 'who [email]' (text)"),
        (
            "jsonl",
            "a.jsonl: columns left out: 'time' (text), 'ok' (boolean), 'tags' (list), 'at' (object)",
        ),
        ("parquet", "a.parquet: columns left out: 'name' (string), 'ok' (bool)"),
    ],
)
def test_columns_that_are_left_out_are_told_once(kind: str, expected: str, tmp_path: Path) -> None:
    data = LEFT_OUT.get(kind) or parquet_bytes({"name": ["a", "b"], "x": [1, 2], "ok": [True, False]})
    paths = [tmp_path / f"{name}.{kind}" for name in "abc"]
    for path in paths:
        path.write_bytes(data)
    told: list[str] = []
    read(*map(str, paths), warn=told.append)
    assert [message.rpartition("/")[2] for message in told] == [expected]
    told.clear()
    read(str(paths[0]), columns=("x",), warn=told.append)
    assert told == []


def test_of_many_columns_left_out_some_are_named(tmp_path: Path) -> None:
    told: list[str] = []
    header = ",".join(f"c{index}" for index in range(LEFT_OUT_NAMED_MAX + 5))
    cells = ",".join(["1", *["text"] * (LEFT_OUT_NAMED_MAX + 4)])
    read("-", stdin=f"{header}\n{cells}\n".encode(), warn=told.append)
    assert told[0].endswith(f"'c{LEFT_OUT_NAMED_MAX}' (text) and 4 more")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("window", [1, 2])
def test_a_bad_row_does_not_keep_the_windows_before_it(kind: str, window: int) -> None:
    rows = ["1"] * window + ["bad"]
    lines = ["x", *rows] if kind == "csv" else [f'{{"x": {row}}}' for row in rows]
    with contextlib.ExitStack() as files:
        sources, _ = open_sources(
            ["-"],
            stdin=lambda: io.BytesIO("\n".join(lines).encode()),
            files=files,
            format_name=kind,
        )
        found = iter_windows(sources, window)
        assert next(found).events.tolist() == [[1.0]] * window
        with pytest.raises(InputError, match=rf"row {window + (2 if kind == 'csv' else 1)}"):
            next(found)


def test_a_format_overrides_endings_unless_it_is_meant_for_other_inputs(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_csv(path, EVENTS)
    with pytest.raises(InputError, match=r"a\.csv: found no Parquet document"):
        read(str(path), format_name="parquet")
    assert len(read(str(path), format_name="csv")[0]) == 3
    found = read(str(path), "-", stdin=b"[1, 2]\n", format_name="jsonl")
    assert len(np.concatenate(found)) == 4
    (tmp_path / "b.txt").write_bytes(b"[1, 2]\n")
    assert read(str(tmp_path / "b.txt"), format_name="jsonl")[0].tolist() == [[1.0, 2.0]]


def windows_of(lengths: Sequence[int], window: int | None, tmp_path: Path) -> list[list[float]]:
    first, paths = 0, []
    for index, length in enumerate(lengths):
        path = tmp_path / f"{index}.npy"
        np.save(path, np.arange(first, first + length, dtype=np.float64))
        paths.append(str(path))
        first += length
    return [found[:, 0].tolist() for found in read(*paths, window=window)]


@pytest.mark.parametrize("lengths", [[10], [3, 0, 7], [1] * 10])
@pytest.mark.parametrize("window", [1, 3, 5, 10, 11, None])
@pytest.mark.parametrize("batch", [1, 2, 4, 1000])
def test_windows_do_not_depend_on_files_or_batches(
    lengths: list[int], window: int | None, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several inputs are one stream; the short last window is kept."""
    monkeypatch.setattr(source_module, "BATCH_VALUES_MAX", batch)
    size = window or 10
    expected = [
        [float(value) for value in range(first, min(first + size, 10))] for first in range(0, 10, size)
    ]
    assert windows_of(lengths, window, tmp_path) == expected


def test_rows_are_numbered_across_batches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(source_module, "BATCH_VALUES_MAX", 4)
    with pytest.raises(InputError, match=r"row 7, column 'x'"):
        read("-", stdin=b"x\n1\n2\n3\n4\n5\nbad\n")
    np.save(tmp_path / "a.npy", np.array([1.0] * 9 + [np.inf]))
    with pytest.raises(InputError, match=r"row 10, column '0'"):
        read(str(tmp_path / "a.npy"))


def test_inputs_of_different_width_are_not_one_stream(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 2)))
    np.save(tmp_path / "b.npy", np.zeros((3, 3)))
    with pytest.raises(InputError, match=r"b\.npy: found 3 numeric columns; allowed: 2"):
        read(str(tmp_path / "a.npy"), str(tmp_path / "b.npy"))


def test_a_stream_too_long_for_one_window_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("pcs_agent.events.windows.WINDOW_EVENTS_MAX", 5)
    np.save(tmp_path / "a.npy", np.zeros(6))
    with pytest.raises(InputError, match=r"over 5 events.*use --window ROWS"):
        read(str(tmp_path / "a.npy"))
    assert len(read(str(tmp_path / "a.npy"), window=3)) == 2
