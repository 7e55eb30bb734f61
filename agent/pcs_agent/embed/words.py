"""What a word is: the least piece of text that gets a vector."""

from __future__ import annotations

import re

WORD_CHARACTERS_MAX = 64
"""Longer runs of letters are cut: no word, and so no leaf of a token, grows without bound."""

_SINGLE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_LETTERS = rf"[^\W{_SINGLE}]{{1,{WORD_CHARACTERS_MAX}}}"

WORD_PATTERN = rf"(?:[{_SINGLE}]|{_LETTERS}(?:['’]{_LETTERS})?|[^\w\s])"
"""A run of letters, digits and underscores, perhaps with one apostrophe inside; a sign of Chinese or Japanese, which are
written without spaces; or any other sign that is no space."""

_WORD = re.compile(WORD_PATTERN)


def find_words(text: str) -> list[str]:
    """Return the words of a text, in order, without the spaces around them.

    >>> find_words("Don't loop, 東京!")
    ["Don't", 'loop', ',', '東', '京', '!']
    """
    return _WORD.findall(text)
