"""Codebooks in files: JSON with the arrays in base64, and a digest that is checked when the file is read."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from pcs_agent.errors import ConfigError
from pcs_agent.signals.codebook import (
    CODES_MAX,
    COORDINATE_MAX,
    SUBSPACES_MAX,
    Codebook,
    cut_columns,
)
from pcs_agent.wording import display_name
from pcs_core.record import DIMENSIONS_MAX, SEED_MAX

CODEBOOK_BYTES_MAX = 2**23
"""Of a file: 4096 columns with 256 centroids take 5.7 MB."""

_ROWS_MAX = 2**53


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: Literal["pcs-codebook"] = "pcs-codebook"
    version: Literal[1] = 1
    sha256: str
    codes: Annotated[int, Meta(ge=2, le=CODES_MAX)]
    seed: Annotated[int, Meta(ge=0, le=SEED_MAX)]
    training_rows: Annotated[int, Meta(ge=1, le=_ROWS_MAX)]
    origins: bytes
    steps: bytes
    centroids: Annotated[list[bytes], Meta(min_length=1, max_length=SUBSPACES_MAX)]


def encode_codebook(codebook: Codebook) -> bytes:
    """Return the bytes of a codebook's file."""
    stored = _File(
        sha256=codebook.digest,
        codes=codebook.codes,
        seed=codebook.seed,
        training_rows=codebook.training_rows,
        origins=codebook.origins.astype("<f8").tobytes(),
        steps=codebook.steps.astype("<f8").tobytes(),
        centroids=[centroids.astype("<i4").tobytes() for centroids in codebook.centroids],
    )
    return msgspec.json.format(msgspec.json.encode(stored)) + b"\n"


def decode_codebook(data: bytes) -> Codebook:
    """Return the codebook of a file's bytes.

    Raises:
        ConfigError: They are not a codebook of this version, a number is out of bounds, or the digest is another.
    """
    try:
        stored = msgspec.json.decode(data, type=_File)
    except (msgspec.DecodeError, RecursionError):  # their messages quote what they found
        stored = None
    if stored is None:
        raise ConfigError(
            "found something else than a codebook; allowed: a file of codebook train, version 1"
        )
    dimensions, subspaces = len(stored.origins) // 8, len(stored.steps) // 8
    if (
        len(stored.origins) % 8
        or len(stored.steps) != 8 * len(stored.centroids)
        or not subspaces <= dimensions <= DIMENSIONS_MAX
    ):
        raise ConfigError(
            "found arrays that do not fit each other; allowed: one origin a column, one step a subspace"
        )
    origins = np.frombuffer(stored.origins, dtype="<f8").astype(np.float64)
    steps = np.frombuffer(stored.steps, dtype="<f8").astype(np.float64)
    if not (np.isfinite(origins).all() and np.isfinite(steps).all() and (steps > 0).all()):
        raise ConfigError(
            "found an origin or step that is no finite number; allowed: finite ones, steps above 0"
        )
    centroids = []
    for columns, packed in zip(cut_columns(dimensions, subspaces), stored.centroids, strict=True):
        width = columns.stop - columns.start
        rows, rest = divmod(len(packed), 4 * width)
        if rest or not 1 <= rows <= stored.codes:
            raise ConfigError(f"found centroids of another number; allowed: 1 to {stored.codes} a subspace")
        places = np.frombuffer(packed, dtype="<i4").astype(np.int32).reshape(rows, width)
        if (abs(places.astype(np.int64)) > COORDINATE_MAX).any():
            raise ConfigError(f"found a centroid off the grid; allowed: coordinates up to {COORDINATE_MAX}")
        if not np.array_equal(np.unique(places, axis=0), places):
            raise ConfigError(
                "found centroids twice or out of order; allowed: distinct ones in lexical order"
            )
        centroids.append(places)
    codebook = Codebook(stored.codes, stored.seed, stored.training_rows, origins, steps, tuple(centroids))
    if codebook.digest != stored.sha256:
        raise ConfigError(
            "found a digest that is not the content's; allowed: a file as codebook train wrote it"
        )
    return codebook


def read_codebook(path: str) -> Codebook:
    """Read a codebook.

    Args:
        path: Its file.

    Raises:
        ConfigError: The file cannot be read or is not a codebook; names it, redacted.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(CODEBOOK_BYTES_MAX + 1)
        if len(data) <= CODEBOOK_BYTES_MAX:
            return decode_codebook(data)
        problem = f"found over {CODEBOOK_BYTES_MAX} bytes; allowed: up to that"
    except ConfigError as error:
        problem = str(error)
    except (OSError, ValueError) as error:
        problem = f"cannot be read: {getattr(error, 'strerror', None) or 'not a file name'}"
    raise ConfigError(f"--codebook: {display_name(path)}: {problem}")
