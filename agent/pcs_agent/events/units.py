"""What an event of text is: a token, a sentence or a line. The pieces in order are the text, but for blank lines.

token     a word as `pcs_agent.embed.words` has it, with the white space after it (the first of a line also with that
          before it)
sentence  up to `.`, `!` or `?` (closing quotes and brackets included) with white space after it, up to one of `。！？`,
          or up to a blank line; over several lines if need be. A simple rule: an abbreviation ends a sentence too
line      a line with its end
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from pcs_agent.embed.words import WORD_PATTERN

SENTENCE_CHARACTERS_MAX = 4096
"""A text without an end of a sentence is cut here."""

Split = Callable[[Iterable[str]], Iterator[str]]
"""Takes consecutive parts of one text, each a line or more, and yields its pieces, none of them blank."""

_TOKEN = re.compile(rf"\s*{WORD_PATTERN}\s*")
# Possessive, and one start for each run of marks: no text makes the search take more than one pass.
_SENTENCE_END = re.compile(r"""(?<![.!?…])[.!?…]++["'”’»)\]]*+\s++|[。！？]++["'”’»)\]」』]*+\s*+""")


def split_tokens(parts: Iterable[str]) -> Iterator[str]:
    """Yield the tokens.

    >>> list(split_tokens(["  It loops. ", "Twice!"]))
    ['  It ', 'loops', '. ', 'Twice', '!']
    """
    for part in parts:
        if not part.isspace():
            yield from _TOKEN.findall(part)


def split_sentences(parts: Iterable[str]) -> Iterator[str]:
    """Yield the sentences.

    >>> list(split_sentences(["It loops. It ", "loops again? ", "Yes"]))
    ['It loops. ', 'It loops again? ', 'Yes']
    """
    held = ""
    for part in parts:
        if part.isspace():
            yield from _cut(held)
            held = ""
            continue
        held += part
        first = 0
        for end in _SENTENCE_END.finditer(held):
            yield from _cut(held[first : end.end()])
            first = end.end()
        held = held[first:]
        if len(held) > SENTENCE_CHARACTERS_MAX:
            whole = len(held) - len(held) % SENTENCE_CHARACTERS_MAX
            yield from _cut(held[:whole])
            held = held[whole:]
    yield from _cut(held)


def split_lines(parts: Iterable[str]) -> Iterator[str]:
    """Yield the lines that are not blank.

    >>> list(split_lines(["one", " ", "two"]))
    ['one', 'two']
    """
    for part in parts:
        for line in re.findall(r"[^\n]*\n|[^\n]+", part):
            if not line.isspace():
                yield line


SPLITS: dict[str, Split] = {"token": split_tokens, "sentence": split_sentences, "line": split_lines}


def _cut(sentence: str) -> Iterator[str]:
    for first in range(0, len(sentence), SENTENCE_CHARACTERS_MAX):
        piece = sentence[first : first + SENTENCE_CHARACTERS_MAX]
        if not piece.isspace():
            yield piece
