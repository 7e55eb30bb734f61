"""A file that is still written to: appended to, renamed, cut, gone and back; and the end of it."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from pcs_agent.embed import TextSettings
from pcs_agent.errors import InputError
from pcs_agent.events import Window, followed, iter_windows, open_sources

WAIT_S = 30.0


class Follower:
    """Follows a file in a thread; `wait_until_idle` returns when it has looked at the end of the file and waits."""

    def __init__(self, *paths: Path, window: int, **changes: Any) -> None:
        self.ended = _Ended()
        self.told: list[str] = []
        self.windows: list[Window] = []
        self.failure: InputError | None = None
        self._found = threading.Semaphore(0)
        self._paths = list(map(str, paths))
        self._window = window
        self._changes = {"text": TextSettings(unit="line")} | changes
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _read(self) -> None:
        with contextlib.ExitStack() as files:
            try:
                sources, _ = open_sources(
                    self._paths,
                    stdin=io.BytesIO,
                    files=files,
                    follow=self.ended,
                    warn=self.told.append,
                    **self._changes,
                )
                for window in iter_windows(sources, self._window):
                    self.windows.append(window)
                    self._found.release()
            except InputError as error:
                self.failure = error
                self.ended.idle.release()

    def take(self) -> bytes:
        assert self._found.acquire(timeout=WAIT_S)
        symbols = self.windows[-1].symbols
        assert symbols is not None
        return symbols

    def wait_until_idle(self) -> None:
        """Wait until the end was looked at twice from now on: what was written before has been seen."""
        for _ in range(2):
            while self.ended.idle.acquire(blocking=False):
                pass
            assert self.ended.idle.acquire(timeout=WAIT_S)

    def end(self) -> list[bytes | None]:
        self.ended.set()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
        return [window.symbols for window in self.windows]


class _Ended(threading.Event):
    """The event the follower waits for; it tells of each wait."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = threading.Semaphore(0)

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        assert timeout <= followed.POLL_INTERVAL_S
        self.idle.release()
        return super().wait(timeout)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followed, "POLL_INTERVAL_S", 0.01)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "app.log"
    path.write_bytes(b"one\n")
    return path


@pytest.fixture
def append(path: Path) -> Callable[[bytes], None]:
    def append(data: bytes) -> None:
        with path.open("ab") as file:
            file.write(data)

    return append


def test_what_is_appended_is_read_when_its_line_is_complete(path: Path, append: Any) -> None:
    with Follower(path, window=2) as follower:
        follower.wait_until_idle()
        append(b"tw")
        follower.wait_until_idle()
        assert follower.windows == []
        append(b"o\nthree\n")
        assert follower.take() == b"one\ntwo\n"
        assert follower.end() == [b"one\ntwo\n", b"three\n"]
    assert follower.told == []


def test_the_end_keeps_the_short_window_and_leaves_out_a_line_without_end(path: Path, append: Any) -> None:
    with Follower(path, window=2) as follower:
        append(b"two\nthree\nfo")
        follower.wait_until_idle()
        assert follower.end() == [b"one\ntwo\n", b"three\n"]
    assert follower.told == [f"{path}: the last line has no end yet and is left out"]


def test_what_was_written_before_the_end_is_read_before_it(path: Path) -> None:
    follower = Follower(path, window=5)
    path.write_bytes(b"one\n" * 7)
    follower.ended.set()
    with follower:
        assert follower.end() == [b"one\n" * 5, b"one\n" * 2]


def test_a_file_that_takes_the_name_is_read_after_the_rest_of_the_old_one(path: Path, append: Any) -> None:
    with Follower(path, window=1) as follower:
        assert follower.take() == b"one\n"
        old = path.rename(path.with_suffix(".1"))
        follower.wait_until_idle()  # its name is gone: it is read on
        with old.open("ab") as file:
            file.write(b"two\nlast of it")
        path.write_bytes(b"new\n")
        for _ in range(3):
            assert follower._found.acquire(timeout=WAIT_S)
        append(b"newer\n")
        follower.wait_until_idle()
        assert follower.end() == [b"one\n", b"two\n", b"last of it", b"new\n", b"newer\n"]
    assert follower.told == []


def test_a_file_that_was_cut_is_read_from_its_start(path: Path, append: Any) -> None:
    with Follower(path, window=1) as follower:
        append(b"two\nthr")
        follower.wait_until_idle()
        path.write_bytes(b"new\n")
        follower.wait_until_idle()
        assert follower.end() == [b"one\n", b"two\n", b"new\n"]
    assert follower.told == [f"{path}: it was cut in the middle of a line, which is left out"]


def test_a_header_that_comes_again_is_no_event(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"x,y\n1,2\n")
    with Follower(path, window=1) as follower:
        assert follower._found.acquire(timeout=WAIT_S)
        path.rename(tmp_path / "a.csv.1")
        path.write_bytes(b"x,y\n3,4\n")
        assert follower._found.acquire(timeout=WAIT_S)
        follower.end()
    assert [window.events.tolist() for window in follower.windows] == [[[1.0, 2.0]], [[3.0, 4.0]]]


@pytest.mark.parametrize(
    ("format_name", "first", "second"),
    [
        ("csv", b"1,2\n", b"3,4\n"),
        ("jsonl", b"[1, 2]\n", b"[3, 4]\n"),
        ("tokens", b"1\n", b"[2]\n"),
        ("chat", b'{"role": "user", "content": "a"}\n', b'{"role": "user", "content": "b"}\n'),
    ],
)
def test_every_format_of_lines_is_followed(
    format_name: str, first: bytes, second: bytes, path: Path, append: Any
) -> None:
    path.write_bytes(first)
    with Follower(path, window=1, format_name=format_name) as follower:
        assert follower._found.acquire(timeout=WAIT_S)
        append(second)
        assert follower._found.acquire(timeout=WAIT_S)
        follower.end()
    assert [window.number for window in follower.windows] == [0, 1]


def test_inputs_before_the_last_are_read_to_their_end(path: Path, append: Any, tmp_path: Path) -> None:
    first = tmp_path / "first.log"
    first.write_bytes(b"zero\nhalf")
    with Follower(first, path, window=3) as follower:
        assert follower.take() == b"zero\nhalfone\n"
        assert follower.end() == [b"zero\nhalfone\n"]


def test_a_line_beyond_the_bound_ends_it_with_its_number(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(b"one\n" + b"x" * (1 << 20) + b"y")
    with Follower(path, window=1) as follower:
        follower._thread.join(WAIT_S)
        assert str(follower.failure).startswith(f"{path}: row 2: found a line of over 1048576 bytes")


@pytest.mark.parametrize(
    ("name", "format_name", "fault"),
    [
        ("-", "csv", r"--follow: found standard input as the last input"),
        (
            "a.npy",
            None,
            r"--follow: found format npy for the last input; allowed: csv, jsonl, text, chat, tokens",
        ),
        ("a.npy", "tokens", r"--follow: found format tokens"),
        ("a.parquet", None, r"--follow: found format parquet"),
    ],
)
def test_what_cannot_be_followed_is_refused(name: str, format_name: str | None, fault: str) -> None:
    with contextlib.ExitStack() as files, pytest.raises(InputError, match=fault):
        open_sources([name], stdin=io.BytesIO, files=files, format_name=format_name, follow=threading.Event())
