"""Chat logs as JSON Lines, of the shapes that OpenAI's and Anthropic's interfaces have. The text of the messages goes in.

A line is one of

    {"messages": [message, …]}                    a request, a training example; also its `system`, a text or parts
    {"choices": [{"message": message}, …]}        an answer of OpenAI's
    message                                       also an answer of Anthropic's

and a message has `role`, a string, and `content`: a string, or a list of parts, or null or nothing where the message has
`tool_calls`, `function_call`, `refusal` or `audio`. Read are: a string; `text` of parts of type `text`, `input_text`
and `output_text`; `content` of parts of type `tool_result`, a string or parts again. Parts of other known types have no
text and are left out, which is told once for each type. Anything else is an error that names line and field. The order
is that of the file; roles and all other fields are not read, so they are in no leaf. A message ends a sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

import orjson

from pcs_agent.embed import Embedder
from pcs_agent.errors import InputError
from pcs_agent.events.source import Pieces
from pcs_agent.events.text_lines import iter_lines
from pcs_agent.events.texts import batch_pieces
from pcs_agent.events.units import Split
from pcs_core.typed import describe

CHAT_LINE_BYTES_MAX = 1 << 24
"""Longest line of a chat log: it may hold a whole conversation."""

TEXT_PARTS = ("text", "input_text", "output_text")
RESULT_PART = "tool_result"
OTHER_PARTS = frozenset(
    {
        "audio",
        "code_execution_tool_result",
        "container_upload",
        "document",
        "file",
        "image",
        "image_url",
        "input_audio",
        "input_file",
        "input_image",
        "mcp_tool_result",
        "mcp_tool_use",
        "redacted_thinking",
        "refusal",
        "search_result",
        "server_tool_use",
        "thinking",
        "tool_use",
        "web_search_tool_result",
    }
)
"""Types of parts that hold no text of the conversation."""

_INSTEAD_OF_CONTENT = ("tool_calls", "function_call", "refusal", "audio")
_Place = tuple[int, str]


class ChatSource:
    """Events of a chat log."""

    def __init__(
        self,
        name: str,
        file: BinaryIO,
        split: Split,
        embedder: Embedder,
        warn: Callable[[str], None],
    ) -> None:
        """Take the open file.

        Args:
            name: Redacted name for messages.
            file: Binary, read to its end; the caller closes it.
            split: Cuts the text of a message into events.
            embedder: Makes rows of them.
            warn: Told of parts that are left out.
        """
        self.name = name
        self._file = file
        self._split = split
        self._embedder = embedder
        self._warn = warn
        self._left_out: set[str] = set()

    def count(self) -> int | None:
        """Not known before reading."""
        return None

    def batches(self, rows_max: int) -> Iterator[Pieces]:
        """As `EventSource.batches`."""
        pieces = (piece for text in self._iter_texts() for piece in self._split([text]))
        yield from batch_pieces(pieces, self._embedder, rows_max)

    def _iter_texts(self) -> Iterator[str]:
        for row, line in enumerate(iter_lines(self.name, self._file, CHAT_LINE_BYTES_MAX), start=1):
            if line.isspace():
                continue
            try:
                document = orjson.loads(line)
            except orjson.JSONDecodeError:
                document = None
            if not isinstance(document, dict):
                found = f"{len(line)} bytes that are not JSON" if document is None else describe(document)
                raise InputError(f"{self.name}: row {row}: found {found}; allowed: an object")
            yield from self._read_document(row, document)

    def _read_document(self, row: int, document: dict[str, object]) -> Iterator[str]:
        if "messages" in document:
            yield from self._read_content((row, "system"), document.get("system"))
            for index, message in enumerate(self._list((row, "messages"), document["messages"])):
                yield from self._read_message((row, f"messages[{index}]"), message)
        elif "choices" in document:
            for index, choice in enumerate(self._list((row, "choices"), document["choices"])):
                place = f"choices[{index}]"
                message = self._object((row, place), choice).get("message")
                yield from self._read_message((row, f"{place}.message"), message)
        elif "role" in document:
            yield from self._read_message((row, ""), document)
        else:
            raise self._refuse((row, ""), describe(document), "an object with messages, choices or role")

    def _read_message(self, place: _Place, value: object) -> Iterator[str]:
        message = self._object(place, value)
        if not isinstance(message.get("role"), str):
            raise self._refuse(_in(place, "role"), _describe(message, "role"), "a string")
        content = message.get("content")
        if content is None and not any(message.get(name) for name in _INSTEAD_OF_CONTENT):
            found = _describe(message, "content")
            raise self._refuse(
                _in(place, "content"), found, "a string, or a list of parts; null beside tool_calls"
            )
        yield from self._read_content(_in(place, "content"), content)

    def _read_content(self, place: _Place, content: object, *, nested: bool = False) -> Iterator[str]:
        if content is None:
            return
        if isinstance(content, str):
            yield content
            return
        if not isinstance(content, list):
            raise self._refuse(place, describe(content), "a string, or a list of parts")
        for index, value in enumerate(content):
            part_place = (place[0], f"{place[1]}[{index}]")
            part = self._object(part_place, value)
            kind = part.get("type")
            if kind in TEXT_PARTS:
                text = part.get("text")
                if not isinstance(text, str):
                    raise self._refuse(_in(part_place, "text"), _describe(part, "text"), "a string")
                yield text
            elif kind == RESULT_PART and not nested:
                yield from self._read_content(_in(part_place, "content"), part.get("content"), nested=True)
            elif isinstance(kind, str) and kind in OTHER_PARTS:
                self._leave_out(kind)
            else:
                known = ", ".join((*TEXT_PARTS, RESULT_PART, *sorted(OTHER_PARTS)))
                raise self._refuse(_in(part_place, "type"), _describe(part, "type"), known)

    def _leave_out(self, kind: str) -> None:
        if kind not in self._left_out:
            self._left_out.add(kind)
            self._warn(f"{self.name}: parts left out: type {kind}")

    def _object(self, place: _Place, value: object) -> dict[str, object]:
        if not isinstance(value, dict):
            raise self._refuse(place, describe(value), "an object")
        return value

    def _list(self, place: _Place, value: object) -> list[object]:
        if not isinstance(value, list):
            raise self._refuse(place, describe(value), "a list")
        return value

    def _refuse(self, place: _Place, found: str, allowed: str) -> InputError:
        row, field = place
        where = f"row {row}, field {field}" if field else f"row {row}"
        return InputError(f"{self.name}: {where}: found {found}; allowed: {allowed}")


def _in(place: _Place, name: str) -> _Place:
    row, field = place
    return row, f"{field}.{name}" if field else name


def _describe(document: dict[str, object], name: str) -> str:
    return describe(document[name]) if name in document else "nothing"
