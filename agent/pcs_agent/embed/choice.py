"""Which embedder the settings ask for."""

from __future__ import annotations

import msgspec

from pcs_agent.embed.embedder import Embedder
from pcs_agent.embed.hashing import CONTEXT_DEFAULT, DIMENSION_DEFAULT, TextHashing, TokenHashing
from pcs_agent.embed.minilm import DIMENSION as MINILM_DIMENSION
from pcs_agent.embed.minilm import MiniLm
from pcs_agent.errors import InputError

EMBEDDERS = ("hash", "minilm")
EMBEDDER_DEFAULT = "hash"
UNIT_DEFAULT = "token"


class TextSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How text and tokens become rows.

    Attributes:
        unit: What an event of text is: `token`, `sentence` or `line`.
        embedder: `hash` or `minilm`, of text; token ids are always hashed.
        dimension: Numbers of a vector; `None` for the embedder's own.
        context: Events a vector is the mean of; `None` for the event alone.
    """

    unit: str = UNIT_DEFAULT
    embedder: str = EMBEDDER_DEFAULT
    dimension: int | None = None
    context: int | None = None


def make_text_embedder(settings: TextSettings) -> Embedder:
    """Return the embedder of text.

    Raises:
        InputError: It is not installed, or has no such setting.
    """
    if settings.embedder == "hash":
        return TextHashing(settings.unit, *_numbers(settings))
    if settings.dimension not in {None, MINILM_DIMENSION}:
        raise InputError(
            f"--embedding-dimensions: found {settings.dimension} with --embedder minilm; allowed: {MINILM_DIMENSION}"
        )
    if settings.context not in {None, 1}:
        raise InputError(f"--context: found {settings.context} with --embedder minilm; allowed: 1")
    return MiniLm(settings.unit)


def make_token_embedder(settings: TextSettings) -> Embedder:
    """Return the embedder of token ids."""
    return TokenHashing(*_numbers(settings))


def _numbers(settings: TextSettings) -> tuple[int, int]:
    return settings.dimension or DIMENSION_DEFAULT, settings.context or CONTEXT_DEFAULT
