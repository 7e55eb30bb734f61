"""The texts that streams are built from, and which of them tuning may see.

Each text is in a Debian package of its own, pinned by version and SHA-256. Tuning and test share no package. What was
chosen by looking at figures (directions, settings) was chosen on `TUNING` alone, and `make evaluate` runs on `TEST`.
"""

from __future__ import annotations

import gzip
import html
import re
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tools import debian_folder

_TAG = re.compile(r"<[^>]+>")
_PARAGRAPH = re.compile(r"<p[^>]*>(.*?)</p>", re.DOTALL)
_SIGN = re.compile(r"\w")
_VERSE_NUMBER = re.compile(r"(?:\[?\w+ ?\d+:\d+\]?|\d+:\d+)\s?")

_BLOCKS_AT = 0x58
"""Place of the number of blocks in the Bible's file; the offsets follow, each 32 bits, most significant byte first."""

_LZW_MAGIC = b"\x1f\x9d\x90"
"""What the blocks have in common is left out of all but the first: the first three bytes of a `compress` file."""


@dataclass(frozen=True)
class Text:
    """One source.

    Attributes:
        name: As the tables have it.
        package: Debian's name of the package.
        version: Its one version.
        sha256: Of the package's file.
        read: Makes the running text of the unpacked package.
    """

    name: str
    package: str
    version: str
    sha256: str
    read: Callable[[Path], str]


def words_of(text: str) -> list[str]:
    """Return the tokens: what white space separates, without those that have no letter or digit."""
    return [word for word in text.split() if _SIGN.search(word)]


def load(texts: Sequence[Text]) -> dict[str, list[str]]:
    """Fetch the packages that are not there yet, and return each text's words.

    Raises:
        tools.ToolError: A package cannot be had, or is not the pinned one.
    """
    return {
        text.name: words_of(text.read(debian_folder(text.package, text.version, text.sha256)))
        for text in texts
    }


def _read_gzip(place: str, after: str = "") -> Callable[[Path], str]:
    """Read a text; with `after`, what stands behind its first occurrence, so that a list of headings is left out."""

    def read(folder: Path) -> str:
        text = gzip.decompress((folder / place).read_bytes()).decode("utf-8")
        return text[text.index(after) :]

    return read


def _read_paragraphs(pattern: str) -> Callable[[Path], str]:
    def read(folder: Path) -> str:
        found = []
        for path in sorted(folder.glob(pattern)):
            page = path.read_text(encoding="utf-8", errors="replace")
            found += [html.unescape(_TAG.sub(" ", each)) for each in _PARAGRAPH.findall(page)]
        return " ".join(found)

    return read


def _read_fortunes(folder: Path) -> str:
    paths = sorted(path for path in (folder / "usr/share/games/fortunes").iterdir() if not path.suffix)
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in paths if path.name != "ascii-art"]
    return " ".join(texts)


def _read_bible(folder: Path) -> str:
    """Decode the blocks of `bible.data`: each is the rest of a `compress` file, which gzip reads."""
    data = (folder / "usr/lib/bible.data").read_bytes()
    (blocks,) = struct.unpack_from(">I", data, _BLOCKS_AT)
    starts = [*struct.unpack_from(f">{blocks}I", data, _BLOCKS_AT + 4), len(data)]
    parts = []
    for first, last in pairwise(starts):
        done = subprocess.run(
            ["gzip", "-dc"],  # noqa: S607 - the one on PATH
            input=_LZW_MAGIC + data[first:last],
            capture_output=True,
            check=True,
        )
        parts.append(done.stdout)
    return _VERSE_NUMBER.sub(" ", b"".join(parts).decode("latin-1"))


TUNING = (
    Text(
        "anarchism",
        "anarchism",
        "15.3-3",
        "cf21c10948b00e923c62eb31c39a3390413fa26c5ee0e3b925feb0ec7fe42948",
        _read_paragraphs("usr/share/doc/anarchism/html/sec*.html"),
    ),
    Text(
        "jargon",
        "jargon-text",
        "4.4.7-4.1",
        "17d05997e30eb3d5d6713929b8e2f81b63a5f50073858ad2a06701c71f54dcdb",
        _read_gzip("usr/share/doc/jargon-text/jargon.txt.gz", after=":abbrev:"),
    ),
    Text(
        "policy",
        "debian-policy",
        "4.6.2.0",
        "ef9d01b625c3b87c3a845c2cd1b66f1a16e9240b2b9e5bee53472a00e8457a39",
        _read_gzip("usr/share/doc/debian-policy/policy.txt.gz"),
    ),
)
"""Seen while tuning."""

TEST = (
    Text(
        "bible",
        "bible-kjv-text",
        "4.38",
        "d61b6aad4c51ba9e2800b825325fa6a09e99a0d02a9bb6dc4724fcc4995a1b7a",
        _read_bible,
    ),
    Text(
        "fortunes",
        "fortunes",
        "1:1.99.1-7.3",
        "41d0551dc0ff52f875a2ecef7c39da2f672ab468c37e170119f7e0245a9d63c5",
        _read_fortunes,
    ),
    Text(
        "reference",
        "debian-reference-en",
        "2.100",
        "9f31d3a17df505de09689ca255512ea58c1fc47c59bb1b0c7bf1c23362e9743f",
        _read_gzip("usr/share/debian-reference/debian-reference.en.txt.gz"),
    ),
)
"""Not looked at before the tuning was committed."""
