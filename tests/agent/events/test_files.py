"""Which files are streams, and what they are called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pcs_agent.errors import InputError
from pcs_agent.events import find_files, has_known_ending, names_many


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "data/b.csv", "data/a.csv", "data/sub/c.npy", "data/sub/deep/d.jsonl", "data/notes.dat",
        "data/.hidden.csv", "data/.cache/e.csv", "other/a.csv", "odd[1].csv",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x\n1\n", encoding="utf-8")
    os.mkfifo(tmp_path / "data" / "pipe.csv")
    (tmp_path / "data" / "linked.csv").symlink_to(tmp_path / "other" / "a.csv")
    (tmp_path / "data" / "round").symlink_to(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*inputs: str) -> list[str]:
    return [found.name for found in find_files(inputs, has_known_ending)[0]]


def test_a_folder_is_all_files_of_events_below_it_by_their_paths_in_it(tree: Path) -> None:
    found, left_out = find_files(["data"], has_known_ending)
    assert [each.name for each in found] == ["a.csv", "b.csv", "linked.csv", "sub/c.npy", "sub/deep/d.jsonl"]
    assert [each.path for each in found] == [f"data/{each.name}" for each in found]
    assert left_out == 1
    assert names(str(tree / "data")) == names("data") == names("data/") == names("./data")


def test_folder_pattern_and_the_list_a_shell_makes_give_the_same_names(tree: Path) -> None:
    top = ["a.csv", "b.csv", "linked.csv"]
    assert names("data/*.csv") == top
    assert names(*(f"data/{name}" for name in top)) == top
    assert names("data/sub/**/*") == ["c.npy", "deep/d.jsonl"]
    assert names("*/a.csv") == ["data/a.csv", "other/a.csv"]


@pytest.mark.parametrize(
    ("path", "many"),
    [
        ("data", True),
        ("data/*.csv", True),
        ("data/a.csv", False),
        ("odd[1].csv", False),
        ("-", False),
        ("no", False),
    ],
)
def test_a_name_that_exists_is_no_pattern(tree: Path, path: str, many: bool) -> None:
    assert names_many(path) is many


@pytest.mark.parametrize(("path", "kind"), [("data/*.parquet", "pattern"), ("empty", "folder")])
def test_what_stands_for_no_file_is_an_error(tree: Path, path: str, kind: str) -> None:
    (tree / "empty").mkdir()
    with pytest.raises(InputError, match=f"found a {kind} without any file of events"):
        find_files([path], has_known_ending)


def test_too_many_files_are_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pcs_agent.events.files.FILES_MAX", 2)
    with pytest.raises(InputError, match="found over 2 files"):
        find_files(["data"], has_known_ending)
