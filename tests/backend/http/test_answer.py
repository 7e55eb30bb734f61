"""Answers as bytes, read back by an HTTP parser that is not the project's."""

from __future__ import annotations

import http.client
import io
from email.utils import parsedate_to_datetime

from pcs_backend.exchange import Reply
from pcs_backend.http.answer import Answers
from pcs_backend.problems import Problem


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_795_000_000.25

    def __call__(self) -> float:
        return self.now_s


class _Socket:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def parsed(data: bytes) -> tuple[int, str, dict[str, str], bytes]:
    response = http.client.HTTPResponse(_Socket(data))  # type: ignore[arg-type]  # it asks a socket for a file and nothing else
    response.begin()
    return response.status, response.reason, dict(response.getheaders()), response.read()


def test_an_answer_has_all_its_headers_once() -> None:
    reply = Problem.RATE_LIMITED.reply("…", headers={"Retry-After": "3"})
    status, reason, headers, body = parsed(Answers(Clock()).encode(reply, {"X-Request-ID": "a1"}))
    assert (status, reason, body) == (429, "Too Many Requests", reply.body)
    assert headers == {
        "Server": "pcs-backend",
        "Date": "Wed, 18 Nov 2026 11:06:40 GMT",
        "Content-Type": "application/problem+json",
        "Retry-After": "3",
        "X-Request-ID": "a1",
        "Content-Length": str(len(reply.body)),
    }


def test_the_last_answer_of_a_connection_says_so() -> None:
    _, _, headers, _ = parsed(Answers(Clock()).encode(Reply(200, b"{}"), {}, close=True))
    assert headers["Connection"] == "close"


def test_the_date_moves_on_with_the_clock() -> None:
    clock = Clock()
    answers = Answers(clock)
    for elapsed_s in (0.0, 0.5, 0.7, 5.0, 3_600.0):
        clock.now_s += elapsed_s
        _, _, headers, _ = parsed(answers.encode(Reply(202, b"{}"), {}))
        assert parsedate_to_datetime(headers["Date"]).timestamp() == int(clock.now_s)


def test_answers_of_other_kinds_keep_their_own_lines() -> None:
    answers = Answers(Clock())
    found = [
        parsed(answers.encode(reply, {}))
        for reply in (Reply(200, b"1"), Reply(202, b"2"), Reply(200, b"3", "a/b"))
    ]
    assert [(status, headers["Content-Type"], body) for status, _, headers, body in found] == [
        (200, "application/json", b"1"),
        (202, "application/json", b"2"),
        (200, "a/b", b"3"),
    ]
